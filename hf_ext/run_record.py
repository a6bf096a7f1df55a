"""What a run leaves besides the model: its folder, its log, and `run.json`."""

import json
import logging
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_ext.checkpoints import PARTIAL
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.predictions import open_atomically
from hf_ext.run_lock import check_free, lock_folder
from hf_ext.secret_patterns import without_password

PACKAGES = (
    "hf_ext",
    "torch",
    "transformers",
    "peft",
    "datasets",
    "evaluate",
    "accelerate",
    "tokenizers",
    "scikit-learn",
    "numpy",
)
LOGGERS = ("hf_ext", "transformers")
LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
SECRETS = ("token", "hub_token", "push_to_hub_token")
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
# Folders of models that belong to a run.
PARTS = ("teacher", "control")
# Folders that hold one such folder a task.
GROUPS = ("tasks", "baselines")


def check_output_dir(output_dir: str, overwrite: bool, checkpoint: str | None = None, model: str | None = None) -> Path:
    """
    See that a run may write to `output_dir`, without writing anything that stays.

    Args:
        output_dir (`str`): Where the run will write.
        overwrite (`bool`): Whether another run in it may be replaced.
        checkpoint (`str`, *optional*): The checkpoint that the run continues from; one inside `output_dir` makes it
            the same run.
        model (`str`, *optional*): The model that the run loads, which it must not replace.

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
        _refuse_held(path)
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
        _refuse_held(path)
    held.callback(_end_log, start_training_log(path))


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


def start_training_log(path: Path) -> logging.Handler:
    """Write what the loggers say to `path/training.log` too, and warnings to the screen; the handler of the file."""
    path.mkdir(parents=True, exist_ok=True)
    handler = _add_log(path / "training.log")
    # With the file's, the logger has a handler, and Python shows no warnings by itself any more.
    own = logging.getLogger("hf_ext")
    if not any(isinstance(handler, _Screen) for handler in own.handlers):
        own.addHandler(_Screen())
    return handler


@contextmanager
def training_log(path: Path, wanted: bool = True) -> Iterator[None]:
    """
    Write what the loggers say inside a `with` block to `path/training.log` too.

    Args:
        path (`Path`): A folder that is there.
        wanted (`bool`, *optional*, defaults to `True`): Whether this process is the one to write.
    """
    if not wanted:
        yield
        return
    handler = _add_log(path / "training.log")
    try:
        yield
    finally:
        _end_log(handler)


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


class RunRecord:
    """
    The facts of a run, from its start; [`RunRecord.as_dict`] gives them with the times so far.

    Args:
        argv (`list[str]`): The command line.
        arguments (`dict[str, Any]`):
            Section -> dataclass with the resolved arguments. Tokens, and passwords in URLs, are left out.
    """

    def __init__(self, argv: list[str], arguments: dict[str, Any]):
        self.started = time.time()
        self.facts = {
            "command": [Path(sys.argv[0]).name, *shown_command(argv)],
            "arguments": plain_arguments(arguments),
            "versions": {"python": platform.python_version(), **_versions()},
            "code": _git_state(),
            "hardware": _hardware(),
        }

    def add(self, **facts: Any) -> None:
        """Add facts such as the data's fingerprint."""
        self.facts.update(facts)

    def as_dict(self) -> dict[str, Any]:
        """All facts, JSON-able."""
        now = time.time()
        times = {
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "finished": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "seconds": round(now - self.started, 1),
        }
        return {**self.facts, "times": times, "memory": peak_memory()}

    def write(self, path: Path) -> None:
        """Write `run.json`."""
        write_json(path / "run.json", self.as_dict())


def peak_memory() -> dict[str, int]:
    """The most memory held so far, in MiB: `peak_cpu_memory_mib` of the process, `peak_gpu_memory_mib` on a GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    memory = {"peak_cpu_memory_mib": round(peak / 2**20)}
    if torch.cuda.is_available():
        memory["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return memory


def plain_arguments(arguments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Resolved arguments as JSON-able dictionaries, without tokens and passwords: section -> field -> value."""
    return {section: _plain(value) for section, value in arguments.items()}


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that the file is either whole or not there."""
    with open_atomically(path) as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Turn nested dictionaries into `{"outer.inner": text}`."""
    if isinstance(value, dict) and value:
        parts = (flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}


# ---- Inside ----


class _Screen(logging.StreamHandler):
    """Warnings, wherever the standard error stream leads at the time."""

    def __init__(self):
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def emit(self, record):
        self.stream = sys.stderr
        super().emit(record)


def _add_log(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("hf_ext").setLevel(logging.INFO)
    return handler


def _end_log(handler: logging.Handler) -> None:
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


def _refuse_held(path: Path) -> None:
    held = _held_run(path)
    if held:
        raise ConfigurationError(
            f"output_dir {path} holds another run ({held[0].name}). Choose another directory, continue that run with "
            "--resume_from_checkpoint true, or replace it with --overwrite."
        )


def _held_run(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    checkpoints = [item for item in path.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", item.name)]
    files = [path / name for name in RUN_FILES if (path / name).exists()]
    # A log or a README alone is no run: an attempt that failed early, or a note of the user's.
    return files + sorted(checkpoints) if checkpoints or {item.name for item in files} - SIDE_FILES else []


def _plain(value: Any) -> dict[str, Any]:
    content = value.to_dict() if hasattr(value, "to_dict") else asdict(value) if is_dataclass(value) else dict(value)
    return {key: _shown(item) for key, item in content.items() if key not in SECRETS}


def _shown(value: Any) -> Any:
    return without_password(str(value)) if isinstance(value, str | Path) else value


def shown_command(argv: list[str]) -> list[str]:
    """A command line without tokens and passwords."""
    shown, hide = [], False
    for argument in argv:
        name = argument.split("=")[0].lstrip("-").replace("-", "_")
        given = f"--{name}=<hidden>" if name in SECRETS and "=" in argument else without_password(argument)
        shown.append("<hidden>" if hide else given)
        hide = argument.startswith("--") and name in SECRETS and "=" not in argument
    return shown


def _versions() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether it was changed since; empty outside a checkout."""
    folder = Path(sys.argv[0]).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _hardware() -> dict[str, Any]:
    capabilities = torch.cpu.get_capabilities()
    facts = {
        "cpu": capabilities.get("cpu_name") or platform.processor(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts
