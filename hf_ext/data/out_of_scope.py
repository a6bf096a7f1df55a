"""Files of texts that belong to no class."""

from datasets import Dataset, DatasetDict

from hf_ext.arguments import DataArguments
from hf_ext.data.loading import TextData
from hf_ext.data.transfer_set import read_unlabelled
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.evaluation.calibrating import SavedCalibrationArguments

SETTINGS = {"validation": "out_of_scope_files", "test": "out_of_scope_test_files"}


def load_out_of_scope(wanted: SavedCalibrationArguments, data: TextData, data_args: DataArguments) -> TextData:
    """
    Read the texts of no class: those that a threshold is tuned on together with the validation rows, and those that it
    is told on beside the test rows. Their labels, if they have any, are not looked at.

    Args:
        wanted ([`SavedCalibrationArguments`]): Names the files.
        data ([`TextData`]): The rows that have a class.
        data_args ([`DataArguments`]): Which columns hold the texts, as in those rows.

    Returns:
        [`TextData`]: Unlabelled, with the splits `validation` and `test`, those for which there are files.

    Raises:
        ConfigurationError: If there are no rows with a class for a split.
        DataError: As [`read_unlabelled`]; if one holds pairs of texts and the other does not.
    """
    splits, notes, files = {}, [], {}
    for split, name in SETTINGS.items():
        paths = getattr(wanted, name, None)
        if not paths:
            continue
        if split not in data.splits:
            raise ConfigurationError(
                f"{name}={', '.join(paths)}: there are no {split} rows to go with them. Pass --{split}_file, or leave "
                f"{name} out."
            )
        texts, said = read_unlabelled(paths, data_args)
        pairs = not isinstance(texts[0], str)
        if pairs != ("text_pair" in data.splits[split].column_names):
            kinds = ("single texts", "pairs of texts")
            raise DataError(f"{name}: {paths[0]} holds {kinds[pairs]}, but the {split} rows are {kinds[not pairs]}.")
        columns = dict(zip(("text", "text_pair"), zip(*texts, strict=True), strict=True)) if pairs else {"text": texts}
        splits[split] = Dataset.from_dict({column: list(values) for column, values in columns.items()})
        notes += said
        files[split] = ", ".join(paths)
    return TextData(DatasetDict(splits), data.task, notes, files)
