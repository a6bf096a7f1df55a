"""Models on the rows of each group: of a genre, a source, an author."""

from typing import Any

from tqdm.auto import tqdm

from hf_ext.data.reading import read_table
from hf_ext.errors import ConfigurationError, DataError, nearest
from hf_ext.evaluation.comparison import Comparison, compare_models
from hf_ext.evaluation.prediction_files import PredictionFile
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.same_rows import take_rows
from hf_ext.evaluation.tables import aligned, format_interval, format_number, signed

MAX_GROUPS = 50
# What rows without a group are called.
NO_GROUP = "(none)"


def group_rows(files: dict[str, PredictionFile], column: str, groups_file: str | None) -> dict[str, list[int]]:
    """
    The rows of each group, by its name.

    Args:
        files (`dict[str, PredictionFile]`): From [`align_rows`].
        column (`str`): Of the first of them that has it, or of `groups_file`.
        groups_file (`str`, *optional*):
            A file of data whose rows are those that were predicted, in their order. If it has a column `text`, its
            texts are compared.

    Raises:
        ConfigurationError: If there is no such column, or it has more than 50 values.
        DataError: If the file's rows are others.
    """
    if groups_file is None:
        held = dict.fromkeys(name for file in files.values() for name in file.columns)
        found = next((file.columns[column] for file in files.values() if column in file.columns), None)
        if found is None:
            has = f"they have {', '.join(held)} besides the usual keys" if held else "they have the usual keys only"
            raise ConfigurationError(
                f"No file of predictions has the column {column!r}; {has}.{nearest(column, held)} A column of the data "
                "itself is read with --groups_file DATA."
            )
    else:
        found = _column_of_data(groups_file, column, next(iter(files.values())))
    groups: dict[str, list[int]] = {}
    for row, value in enumerate(found):
        groups.setdefault(NO_GROUP if value is None or value == "" else str(value), []).append(row)
    if len(groups) > MAX_GROUPS:
        raise ConfigurationError(
            f"The column {column!r} has {len(groups):,} values, such as {', '.join(list(groups)[:3])}; at most "
            f"{MAX_GROUPS} groups are compared. Name a column with fewer."
        )
    return dict(sorted(groups.items()))


def compare_groups(
    predictions: dict[str, Predictions], groups: dict[str, list[int]], pairs: list[tuple[str, str]], margin: float
) -> dict[str, Comparison]:
    """
    [`compare_models`] on the rows of each group.

    Args:
        predictions (`dict[str, Predictions]`): By the model's name.
        groups (`dict[str, list[int]]`): Group -> its rows.
        pairs, margin: As [`compare_models`].
    """
    return {
        group: compare_models(
            {name: take_rows(given, rows) for name, given in predictions.items()}, pairs, margin=margin
        )
        for group, rows in tqdm(groups.items(), desc="groups", delay=2)
    }


def group_table(comparison: Comparison) -> str:
    """A row a group for the console: rows, each model's main metric with its interval, each pair's difference."""
    metric = comparison.metric
    several = len(comparison.pairs) > 1
    titles = [comparison.group_column, "rows"]
    for name in comparison.models:
        titles += [name, "95 % interval"]
    for pair in comparison.pairs:
        titles += [f"{pair.model} +/-" if several else "+/-", "95 % interval"]
    rows = [titles]
    for group, found in comparison.groups.items():
        cells = [group, f"{found.rows:,}"]
        for name, result in found.models.items():
            cells += [format_number(result.metrics[metric]), format_interval({name: result.intervals}, name, metric)]
        for pair in found.pairs:
            value, low, high, _ = pair.differences[metric]
            cells += [signed(value), f"[{signed(low)}, {signed(high)}]"]
        rows.append(cells)
    return aligned(rows)


# ---- Inside ----


def _column_of_data(path: str, column: str, file: PredictionFile) -> list[Any]:
    table = read_table(path)
    values = table.column(column, "groups")
    if len(values) != len(file.index):
        raise DataError(
            f"{path} holds {len(values):,} rows, the predictions {len(file.index):,}. Name the file that was predicted."
        )
    if max(file.index) >= len(values):
        raise DataError(
            f"The predictions have a row of index {max(file.index)}; {path} ends at {len(values) - 1}. Name the file "
            "that was predicted."
        )
    for row, (index, text) in enumerate(zip(file.index, file.predictions.texts, strict=True)):
        theirs = table.rows[index].get("text", text)
        if theirs != text:
            raise DataError(
                f"{table.where(index)} has the text {str(theirs)[:60]!r}, row {row} (from 0) of the predictions "
                f"{str(text)[:60]!r}. Name the file that was predicted."
            )
    return [values[index] for index in file.index]
