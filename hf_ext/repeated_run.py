"""What `run.json` says of a run, as settings that repeat it, and how a run differs from what it says."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_ext.errors import ConfigurationError

KEYS = {"command", "arguments", "versions"}
PRECISION = ("mixed_precision", "fp16", "bf16")
# Where a run was written to, what it replaced, continued and published: none of it is repeated unless it is asked for.
NOT_REPEATED = {
    "training": ("output_dir", "resume_from_checkpoint", "push_to_hub"),
    "run": ("overwrite", "dry_run"),
    "kfold": ("storage", "worker_timeout"),
    "search": ("storage",),
}
# Of a run of which no part can be left out.
WHOLE = ("kfold", "search", "multitask", "distillation")
RUN_PARTS = ("do_train", "do_eval", "do_predict")
PARTS = ("data", "model", "settings", "versions", "code", "hardware")


def is_run_record(content: dict[str, Any]) -> bool:
    """Whether a file's content is what [`RunRecord`] writes."""
    return content.keys() >= KEYS


def repeated_settings(record: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """
    The settings that repeat a run, as of a configuration file.

    Values that the run found itself (a learning rate, the number format) are given as they were found. It is written
    beside the recorded run, into a folder of the same name with `_repeat` behind it.

    Args:
        record (`dict[str, Any]`): The content of `run.json`.
        path (`Path`): The file.

    Returns:
        `dict[str, dict[str, Any]]`: Section -> field -> value.

    Raises:
        ConfigurationError: If the record is not of a training.
    """
    arguments = record["arguments"]
    if "training" not in arguments or "model" not in arguments:
        raise ConfigurationError(
            f"{path} records {' '.join(record['command'][:1])}, which trains nothing; only a training can be repeated."
        )
    settings = {
        section: {name: value for name, value in values.items() if name not in _not_repeated(section, arguments)}
        for section, values in arguments.items()
    }
    training = settings["training"]
    used = next((name for name in ("fp16", "bf16") if training.pop(name, False)), "no")
    training.pop("bf16", None)
    settings["run"] = {**settings.get("run", {}), "mixed_precision": used}
    training["output_dir"] = str(_beside(path, arguments["training"].get("output_dir")))
    if "lr_finder" in settings and not {"kfold", "search"} & set(settings):
        # `learning_rate` is what was found; where each training finds its own, it is found again.
        settings["lr_finder"] = {**settings["lr_finder"], "find_learning_rate": False}
    if arguments["model"].get("model_type") is None:
        # They are recorded, and have no effect on a pretrained model.
        settings.pop("textcnn", None)
    return settings


def differences(record: dict[str, Any], facts: dict[str, Any], path: Path) -> dict[str, list[str]]:
    """
    How a run differs from the one that it repeats.

    Args:
        record (`dict[str, Any]`): Of the run that is repeated.
        facts (`dict[str, Any]`): Of the run that repeats it.
        path (`Path`): The record's file.

    Returns:
        `dict[str, list[str]]`: `data`, `model`, `settings`, `versions`, `code`, `hardware` -> what differs, if
        anything does.
    """
    now = json.loads(json.dumps(facts, default=str))
    found = {part: _changed(record.get(part), now.get(part)) for part in ("versions", "code", "hardware")}
    found["data"] = [_rows_changed(name) for name in _unequal(record.get("data", {}), now.get("data", {}))]
    if record.get("initial_weights") != now.get("initial_weights"):
        found["model"] = ["the weights that the training begins with are others"]
    before = repeated_settings(record, path)
    found["settings"] = [
        change
        for section, values in now["arguments"].items()
        if section in before
        for change in _changed(before[section], values, f"{section}.", _of_this_run(section, now["arguments"]))
    ]
    if not found["code"] and now.get("code", {}).get("git_dirty"):
        found["code"] = ["the code has changes that are not committed, then and now; they may be others"]
    return {part: found[part] for part in PARTS if found.get(part)}


# ---- Inside ----


def _beside(path: Path, recorded: str | None) -> Path:
    """Next to the run's folder: where the record is, or, if it was copied elsewhere, the one that it names."""
    folder = path.parent
    if recorded is not None and folder.resolve().name != Path(recorded).resolve().name:
        folder = Path(recorded)
    name = folder.resolve().name
    return folder.parent / f"{name}_repeat" if folder.name else folder.resolve().parent / f"{name}_repeat"


def _not_repeated(section: str, sections: Iterable[str]) -> tuple[str, ...]:
    implied = RUN_PARTS if section == "training" and set(WHOLE) & set(sections) else ()
    return (*NOT_REPEATED.get(section, ()), *implied)


def _of_this_run(section: str, sections: Iterable[str]) -> tuple[str, ...]:
    # The number format is compared as `mixed_precision`.
    return (*_not_repeated(section, sections), *(("bf16", "fp16") if section == "training" else ()))


def _unequal(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def _rows_changed(name: str) -> str:
    what = {"train": "training", "validation": "validation", "test": "test"}.get(name)
    return f"the {what} rows are others" if what else f"{name}: others"


def _changed(before: Any, now: Any, prefix: str = "", without: tuple[str, ...] = ()) -> list[str]:
    before, now = before or {}, now or {}
    return [
        f"{prefix}{name}: {_shown(before, name)} then, {_shown(now, name)} now"
        for name in _unequal(before, now)
        if name not in without
    ]


def _shown(values: dict[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "nothing"
