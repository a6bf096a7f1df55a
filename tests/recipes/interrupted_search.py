"""The recipe as a process of its own that ends, as by a power cut, in one of its trials; for `runpy.run_path`."""

import os
import runpy
import signal
import sys
from pathlib import Path

from hf_ext import ExtendedTrainer, readable_errors

RECIPE = Path(__file__).parents[2] / "recipes" / "run_search.py"


def kill_in_training(trial: str, step: int) -> None:
    """End before the step after `step` of a trial."""
    plain = ExtendedTrainer.training_step

    def training_step(self, *args, **kwargs):
        if Path(self.args.output_dir).name == trial and self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *args, **kwargs)

    ExtendedTrainer.training_step = training_step


def main(argv: list[str], trial: str | None, step: int) -> None:
    if trial is not None:
        kill_in_training(trial, step)
    recipe = runpy.run_path(str(RECIPE))
    with open(os.devnull, "w") as nothing:
        sys.stdout = nothing
        with readable_errors("run_search.py"):
            recipe["main"](argv)


if __name__ == "interrupted":
    main(ARGV, TRIAL, STEP)  # noqa: F821 (given by `runpy.run_path`)
