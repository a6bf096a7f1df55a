"""What a cross-validation can be told."""

from dataclasses import dataclass, field

from hf_ext.data.duplicates import check_threshold
from hf_ext.data.folds import MAX_SEED
from hf_ext.errors import ConfigurationError

# A process that is told less often than this that it is alive may only have been slow.
LEAST_TIMEOUT_S = 2.0


@dataclass
class KFoldArguments:
    """
    Which folds there are, and who trains them.

    Raises:
        ConfigurationError: If a value is out of range or could have no effect.
    """

    _argument_group_name = "kfold"

    num_folds: int = field(
        default=5, metadata={"help": "Parts of the rows, each of which a model is tested on that never saw it."}
    )
    num_repeats: int = field(default=1, metadata={"help": "Deal the rows anew this many times with each seed."})
    fold_seeds: list[int] | None = field(
        default=None, metadata={"help": "Seeds of the dealing and of the trainings; by default the one of --seed."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Rows with the same value of this column are in one fold."}
    )
    group_similarity: float | None = field(
        default=None,
        metadata={
            "help": "Texts at least this similar (Jaccard, character 5-grams; 0.8 is a good start) are in one fold. "
            "Equal texts and copies of one source_idx always are."
        },
    )
    save_fold_models: bool = field(
        default=False, metadata={"help": "Keep the model of each fold, in fold_runs/<fold>; by default none is kept."}
    )
    num_workers: int = field(
        default=1, metadata={"help": "Processes on this machine that train folds side by side; they share its cores."}
    )
    storage: str | None = field(
        default=None,
        metadata={
            "help": "List of folds that several machines share: a path on a shared directory (ending in .log: a "
            "journal file, else SQLite) or a URL such as postgresql://...; output_dir is shared too."
        },
    )
    worker_timeout: float = field(
        default=120.0, metadata={"help": "Seconds without a sign of life after which a machine's folds are taken over."}
    )

    def __post_init__(self):
        for name, least in (("num_folds", 2), ("num_repeats", 1), ("num_workers", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        seeds = self.fold_seeds
        if seeds is not None and (
            not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed <= MAX_SEED for seed in seeds)
        ):
            raise ConfigurationError(
                f"fold_seeds is {seeds}; it must be one or more different seeds from 0 to {MAX_SEED}."
            )
        if self.group_similarity is not None:
            check_threshold(self.group_similarity, "group_similarity")
        if self.worker_timeout < LEAST_TIMEOUT_S:
            raise ConfigurationError(
                f"worker_timeout is {self.worker_timeout:g}; it must be at least {LEAST_TIMEOUT_S:g} seconds."
            )
