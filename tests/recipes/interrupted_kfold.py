"""The recipe as a process of its own that ends, as by a power cut, in the training of a fold; for `runpy.run_path`."""

import os
import runpy
import signal
import sys
from pathlib import Path

from hf_ext import ExtendedTrainer, readable_errors

RECIPE = Path(__file__).parents[2] / "recipes" / "run_kfold.py"


def kill_in_training(fold: str, step: int) -> None:
    """End before the step after `step` of the training of a fold."""
    plain = ExtendedTrainer.training_step

    def training_step(self, *args, **kwargs):
        if Path(self.args.output_dir).name.startswith(f"{fold}.") and self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *args, **kwargs)

    ExtendedTrainer.training_step = training_step


def main(argv: list[str], fold: str | None, step: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    if fold is not None:
        kill_in_training(fold, step)
    recipe = runpy.run_path(str(RECIPE))
    with open(os.devnull, "w") as nothing:
        sys.stdout = nothing
        with readable_errors("run_kfold.py"):
            recipe["main"](argv)


if __name__ == "interrupted":
    main(ARGV, FOLD, STEP, ENVIRONMENT)  # noqa: F821 (given by `runpy.run_path`)
