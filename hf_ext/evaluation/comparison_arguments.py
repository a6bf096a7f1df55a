"""What a comparison of files can be told."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.prediction_files import PREDICTIONS_FILE
from hf_ext.evaluation.score_files import SCORES_FILE


@dataclass
class ComparisonArguments:
    """
    What is compared, and how.

    Raises:
        ConfigurationError: If there is nothing to compare, or the numbers of files and names do not fit.
    """

    _argument_group_name = "comparison"

    predictions: list[str] | None = field(
        default=None,
        metadata={"help": f"Files of predictions, one a model, or folders that hold {PREDICTIONS_FILE}."},
    )
    scores: list[str] | None = field(
        default=None,
        metadata={"help": f"{SCORES_FILE} of each, or folders that hold it: the t test over folds or seeds."},
    )
    names: list[str] | None = field(
        default=None, metadata={"help": "What the models are called; by default from the paths."}
    )
    baseline: str | None = field(
        default=None, metadata={"help": "Name of the model that the others are compared with; by default the first."}
    )
    margin: float = field(
        default=1.0, metadata={"help": "Points of accuracy by which models may differ and still be equally good."}
    )
    groups: str | None = field(
        default=None, metadata={"help": "Column to also compare by: of the files of predictions, or of groups_file."}
    )
    groups_file: str | None = field(
        default=None, metadata={"help": "Data file with that column: the test rows in the order that was predicted."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder for comparison.json and report.html."})
    overwrite: bool = field(default=False, metadata={"help": "Replace the run that output_dir holds."})

    def __post_init__(self):
        given = {name: paths for name in ("predictions", "scores") if (paths := getattr(self, name)) is not None}
        if not given:
            raise ConfigurationError("Pass --predictions A.jsonl B.jsonl (or folders), or --scores A.json B.json.")
        if self.output_dir is None:
            raise ConfigurationError("Pass --output_dir FOLDER.")
        for name, paths in given.items():
            if len(paths) < 2:
                raise ConfigurationError(f"--{name} names {len(paths)} file; a comparison needs at least two.")
        if len(given) == 2 and len(self.predictions) != len(self.scores):
            raise ConfigurationError(
                f"--predictions names {len(self.predictions)} files and --scores {len(self.scores)}; name one of each "
                "for every model, in one order."
            )
        if not 0 < self.margin < 100:
            raise ConfigurationError(f"margin is {self.margin:g}; it must be points between 0 and 100.")
        if self.groups is None and self.groups_file is not None:
            raise ConfigurationError(f"groups_file is {self.groups_file}; name the column with --groups COLUMN.")
        if self.groups is not None and self.predictions is None:
            raise ConfigurationError(f"groups is {self.groups!r}; groups need --predictions.")


def model_names(args: ComparisonArguments) -> list[str]:
    """
    The names given, or [`names_from_paths`].

    Raises:
        ConfigurationError: If their number is not that of the models, or one is given twice.
    """
    paths = args.predictions or args.scores
    if args.names is None:
        return names_from_paths(paths)
    if len(args.names) != len(paths):
        raise ConfigurationError(f"--names gives {len(args.names)} names to {len(paths)} models; give each its own.")
    repeated = [name for name, count in Counter(args.names).items() if count > 1]
    if repeated:
        raise ConfigurationError(f"--names gives {repeated[0]!r} to two models; give each its own name.")
    return args.names


def names_from_paths(paths: list[str]) -> list[str]:
    """
    The shortest ends of paths that tell them apart: folders for files of the usual names, else the file without its
    ending.

    Raises:
        ConfigurationError: If two paths are the same.
    """
    parts = []
    for path in map(Path, paths):
        whole = path.resolve()
        whole = whole / PREDICTIONS_FILE if whole.is_dir() else whole
        usual = whole.name in (PREDICTIONS_FILE, SCORES_FILE)
        parts.append(whole.parent.parts if usual else (*whole.parent.parts, whole.stem))
    repeated = [place for place, part in enumerate(parts) if part in parts[:place]]
    if repeated:
        raise ConfigurationError(
            f"{paths[repeated[0]]} is named twice; compare two models, or tell them apart with --names."
        )
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
