"""What a search can be told."""

import math
from dataclasses import dataclass, field
from typing import Literal

from hf_ext.data.folds import MAX_SEED
from hf_ext.errors import ConfigurationError

# Trials of a random or TPE search, unless a number is given.
TRIALS = 20


@dataclass
class SearchArguments:
    """
    What is searched, how, and where the study is kept.

    In a file, the section `search` may hold the space itself beside these fields: every key that is none of them is a
    part of the space.

    Raises:
        ConfigurationError: If a value is out of range or could have no effect.
    """

    _argument_group_name = "search"
    _gathers = "search_space"

    search_space: dict | str | None = field(
        default=None,
        metadata={
            "help": "A JSON or YAML file (or JSON text) of fields: a list of choices, {low, high, log: true} or "
            "{low, high, step}."
        },
    )
    search_method: Literal["grid", "random", "tpe"] = field(
        default="grid", metadata={"help": "All combinations, random ones, or Optuna's TPE, which learns from trials."}
    )
    num_trials: int | None = field(
        default=None, metadata={"help": f"By default the whole grid; {TRIALS} of a random or TPE search."}
    )
    timeout_hours: float | None = field(
        default=None, metadata={"help": "Begin no further trial after this time; the same command goes on later."}
    )
    search_metric: str | None = field(
        default=None,
        metadata={
            "help": "Metric on validation to choose by; by default accuracy, f1_micro (multi-label) or spearman."
        },
    )
    pruner: Literal["none", "median", "hyperband"] = field(
        default="none", metadata={"help": "End trials early whose evaluation loss is worse than that of others."}
    )
    search_seeds: list[int] | None = field(
        default=None, metadata={"help": "Train each trial with each of these seeds, and take the mean."}
    )
    search_folds: int | None = field(
        default=None, metadata={"help": "Train each trial on all but each of so many folds, and take the mean."}
    )
    sampler_seed: int = field(default=42, metadata={"help": "Of the order of the grid and of what is drawn."})
    storage: str | None = field(
        default=None,
        metadata={
            "help": "Where the study is kept: a path (ending in .log: a journal file, else SQLite) or a URL such as "
            "postgresql://...; by default study.db in output_dir."
        },
    )
    study_name: str = field(default="search", metadata={"help": "Name of the study; a storage may hold several."})
    evaluate_best: bool = field(
        default=False,
        metadata={"help": "In the end, train the best configuration once more and test it (into output_dir/best)."},
    )

    def __post_init__(self):
        if self.num_trials is not None and self.num_trials < 1:
            raise ConfigurationError(f"num_trials is {self.num_trials}; it must be at least 1.")
        if self.timeout_hours is not None and not 0 < self.timeout_hours < math.inf:
            raise ConfigurationError(f"timeout_hours is {self.timeout_hours}; it must be above 0.")
        if self.search_folds is not None and self.search_folds < 2:
            raise ConfigurationError(f"search_folds is {self.search_folds}; it must be at least 2.")
        for name, seeds in (("sampler_seed", [self.sampler_seed]), ("search_seeds", self.search_seeds)):
            for seed in seeds or []:
                if not 0 <= seed <= MAX_SEED:
                    raise ConfigurationError(f"{name}: {seed} is no seed; it must be from 0 to {MAX_SEED}.")
        if self.search_seeds is not None and len(set(self.search_seeds)) != len(self.search_seeds or [0]):
            raise ConfigurationError(
                f"search_seeds is {self.search_seeds}; it must name different seeds, at least one."
            )
        if not self.study_name:
            raise ConfigurationError("study_name is empty; leave it out.")
