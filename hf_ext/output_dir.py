"""The folder that a run writes to: whose it is, what it may hold, and when the run begins to write."""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from hf_ext.checkpoints import PARTIAL
from hf_ext.errors import ConfigurationError
from hf_ext.run_lock import check_free, lock_folder
from hf_ext.training_log import end_training_log, start_training_log

SIDE_FILES = {"training.log", "README.md"}
# What a run leaves, so what `--overwrite` may remove and what makes a folder one that holds a run.
RUN_FILES = (
    "run.json", "report.html", "README.md", "training.log", "config.json", "model.safetensors", "trainer_state.json",
    "adapter_config.json", "adapter_model.safetensors", "classifier_config.json",
    "train_results.json", "eval_results.json", "test_results.json", "all_results.json",
    "predictions_validation.jsonl", "predictions_test.jsonl", "predictions_out_of_scope.jsonl", "training_args.bin",
    "distillation.json", "multitask.json", "processing_classes", "begun.json", "finished.json",
    "comparison.json", "comparison.png",
    "study.db", "study.db.claim", "search_results.json", "best_config.json", "search_trials",
    "search_history.png", "search_parallel.png", "search_importance.png",
    "preflight.json", "unfreezing.png", "curriculum.png", "cartography.png", "lr_finder.json", "lr_finder.png",
    "calibration.json",
    "export.json", "onnx", "onnx_int8", "torch_export",
    "fold_runs", "kfold_results.json", "kfold.png", "predictions_out_of_fold.jsonl",
)  # fmt: skip
# The batch of a step that was not finite.
NONFINITE = "nonfinite_step_*.json"
# Folders of models that belong to a run.
PARTS = ("teacher", "control")
# Folders that hold one such folder a task.
GROUPS = ("tasks", "baselines")


def check_output_dir(
    output_dir: str,
    overwrite: bool,
    checkpoint: str | None = None,
    model: str | None = None,
    can_resume: bool = True,
) -> Path:
    """
    See that a run may write to `output_dir`, without writing anything that stays.

    Args:
        output_dir (`str`): Where the run will write.
        overwrite (`bool`): Whether another run in it may be replaced.
        checkpoint (`str`, *optional*): The checkpoint that the run continues from; one inside `output_dir` makes it
            the same run.
        model (`str`, *optional*): The model that the run loads, which it must not replace.
        can_resume (`bool`, *optional*, defaults to `True`): Whether the recipe goes on with runs, which its refusal of
            one that is there then proposes.

    Raises:
        ConfigurationError: If another run is writing to it, if it holds another run that is neither resumed nor to be
            replaced, or is not writable.
    """
    path = Path(output_dir)
    if model is not None and Path(model).is_dir() and Path(model).resolve().is_relative_to(path.resolve()):
        raise ConfigurationError(
            f"output_dir {path} holds the model {model} that is to be loaded; name another directory."
        )
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"output_dir {path} is a file; name a directory.")
    check_free(path)
    continued = checkpoint is not None and Path(checkpoint).resolve().is_relative_to(path.resolve())
    if not overwrite and not continued:
        _refuse_held(path, can_resume)
    check_writable(path, "output_dir")
    return path


def check_writable(path: Path, name: str) -> None:
    """
    See that files can be written into a folder that may not exist yet, without writing anything that stays.

    Args:
        path (`Path`): The folder.
        name (`str`): The setting that names it.

    Raises:
        ConfigurationError: If they cannot.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigurationError(f"{name} {path} cannot be written: {existing}: {error.strerror}.") from None


def open_output_dir(path: Path, overwrite: bool, resume: bool = False) -> None:
    """
    Begin to write to a folder: keep other runs out of it, and write what the loggers say to `path/training.log` too.

    Args:
        path (`Path`): From [`check_output_dir`].
        overwrite (`bool`): Whether what an earlier run left there is removed.
        resume (`bool`, *optional*, defaults to `False`): Whether the run goes on with it.

    Raises:
        ConfigurationError: If another run is writing to it, or has since it was checked.
    """
    held = lock_folder(path)
    if overwrite and not resume:
        clear_output_dir(path)
    elif not resume:
        _refuse_held(path, can_resume=True)
    held.callback(end_training_log, start_training_log(path))


def clear_output_dir(path: Path) -> None:
    """Remove what an earlier run left in `path` and in the folders of its parts, and nothing else."""
    found = [item for folder in (path, *parts_of(path)) for item in _held_run(folder)]
    shutil.rmtree(path / PARTIAL, ignore_errors=True)
    # `run.json` last: it says whose checkpoints there are.
    for item in reversed(found):
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def parts_of(path: Path) -> list[Path]:
    """The folders in `path`, there or not, that hold models of the run's parts; those of tasks if they are there."""
    tasks = [folder for group in GROUPS for folder in sorted((path / group).glob("*")) if folder.is_dir()]
    return [*(path / part for part in PARTS), *tasks]


class StartOfRun(TrainerCallback):
    """
    Begins to write when training begins: after all that may be wrong with the input has been found. Has to be the last
    callback, because the others look at their settings when training begins.

    Args:
        begin (`Callable[[], None]`): What to do once, on the main process.
    """

    def __init__(self, begin: Callable[[], None]):
        self.begin: Callable[[], None] | None = begin

    def on_train_begin(self, args, state, control, **kwargs):
        # A training that is rolled back to a checkpoint begins again.
        begin, self.begin = self.begin, None
        if begin is not None and args.should_save:
            begin()


# ---- Inside ----


def _refuse_held(path: Path, can_resume: bool) -> None:
    held = _held_run(path)
    if held:
        resuming = ", continue that run with --resume_from_checkpoint true," if can_resume else ""
        raise ConfigurationError(
            f"output_dir {path} holds another run ({held[0].name}). Choose another directory{resuming} or replace it "
            "with --overwrite."
        )


def _held_run(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    checkpoints = [item for item in path.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", item.name)]
    files = [path / name for name in RUN_FILES if (path / name).exists()] + sorted(path.glob(NONFINITE))
    # A log or a README alone is no run: an attempt that failed early, or a note of the user's.
    return files + sorted(checkpoints) if checkpoints or {item.name for item in files} - SIDE_FILES else []
