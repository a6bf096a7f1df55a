"""Trainings that follow each other in one process: no bars of each, and a tracked run for each."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import datasets
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled


@contextmanager
def without_bars() -> Iterator[None]:
    """Without a progress bar for each mapping of rows and each checkpoint."""
    of_rows, of_models = not datasets.are_progress_bars_disabled(), is_progress_bar_enabled()
    datasets.disable_progress_bars()
    disable_progress_bar()
    try:
        yield
    finally:
        if of_rows:
            datasets.enable_progress_bars()
        if of_models:
            enable_progress_bar()


@contextmanager
def one_tracked_run(trackers: Sequence[str], group: str) -> Iterator[None]:
    """
    A run of Weights & Biases that ends with the training; its callback would go on with it in the next one.

    Args:
        trackers (`Sequence[str]`): `report_to`.
        group (`str`): The group of runs that all are in, unless the environment names one (`WANDB_RUN_GROUP`).
    """
    if "wandb" not in trackers:
        yield
        return
    import wandb

    given = os.environ.get("WANDB_RUN_GROUP")
    os.environ["WANDB_RUN_GROUP"] = given or group
    try:
        yield
    finally:
        wandb.finish()
        if given is None:
            del os.environ["WANDB_RUN_GROUP"]
