"""What a cross-validation was begun with, so that it is only gone on with by the same."""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from hf_ext.arguments import RecipeTrainingArguments
from hf_ext.errors import ConfigurationError
from hf_ext.experiments.cross_validation import FOLDS, CrossValidation
from hf_ext.output_dir import check_output_dir
from hf_ext.run_record import flatten

PLAN = "plan.json"
# Sections whose values decide nothing about a fold's result.
WITHOUT_RESULT = ("preflight", "monitors", "tracking")
# Fields of that kind: where things are, how they are shown, who trains what. Rows and folds are compared themselves.
ELSEWHERE = {
    "model": ("name", "cache_dir", "token"),
    "data": (
        "train_file", "data_dir", "dataset_name", "dataset_config_name", "train_split_name",
        "preprocessing_num_workers", "overwrite_cache",
    ),
    "training": (
        "output_dir", "run_name", "resume_from_checkpoint", "report_to", "disable_tqdm", "project", "log_level",
        "log_level_replica", "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node",
        "dataloader_num_workers", "save_total_limit",
    ),
    "kfold": ("num_workers", "storage", "worker_timeout", "save_fold_models"),
    "run": ("overwrite", "dry_run", "allow_changed_unfreezing", "mixed_precision"),
}  # fmt: skip


def check_kfold_dir(settings: dict[str, Any]) -> tuple[Path, bool]:
    """
    See that a cross-validation may write to its folder, and whether it goes on there.

    Args:
        settings (`dict[str, Any]`): Section of [`KFOLD_SETTINGS`] -> dataclass.

    Returns:
        `tuple[Path, bool]`: The folder, and whether a cross-validation that was begun in it is gone on with. With a
        `storage` it is whenever there is one.

    Raises:
        ConfigurationError: If it holds another run, is not writable, or nothing is there to go on with.
    """
    args: RecipeTrainingArguments = settings["training"]
    output_dir, asked = Path(args.output_dir), str(args.resume_from_checkpoint or "false").lower()
    begun = (output_dir / FOLDS / PLAN).is_file()
    if asked not in ("true", "false"):
        raise ConfigurationError(
            f"resume_from_checkpoint is {args.resume_from_checkpoint!r}; a cross-validation goes on in its output_dir: "
            "pass --output_dir DIR --resume_from_checkpoint true."
        )
    if asked == "true" and not begun:
        raise ConfigurationError(
            f"resume_from_checkpoint=true, but {output_dir} holds no cross-validation ({FOLDS}/{PLAN})."
        )
    resume = begun and (asked == "true" or settings["kfold"].storage is not None)
    held = str(output_dir / FOLDS) if resume else None
    return check_output_dir(
        str(output_dir), settings["run"].overwrite, held, settings["model"].model_name_or_path
    ), resume


def make_fold_plan(run: CrossValidation, rows: str) -> dict[str, Any]:
    """
    What the results of a cross-validation depend on.

    Args:
        run ([`CrossValidation`]): The run.
        rows (`str`): Digest of the rows, from [`TextData.fingerprint`].

    Returns:
        `dict[str, Any]`: `settings` (`section.field` -> text), `rows` and `folds` (digests).
    """
    settings = {
        section: {name: value for name, value in values.items() if not _is_elsewhere(section, name)}
        for section, values in run.arguments.items()
        if section not in WITHOUT_RESULT
    }
    digest = hashlib.sha256()
    for fold in run.folds:
        digest.update(f"{fold.name} {fold.training_seed}\n".encode() + fold.test.astype("<i8").tobytes())
    return {"settings": flatten(settings), "rows": rows, "folds": digest.hexdigest()}


def check_same_plan(output_dir: Path, plan: dict[str, Any]) -> str:
    """
    See that a cross-validation is gone on with by what it was begun with.

    Args:
        output_dir (`Path`): Its folder.
        plan (`dict[str, Any]`): From [`make_fold_plan`].

    Returns:
        `str`: What tells the cross-validation in this folder from all others.

    Raises:
        ConfigurationError: With the settings that differ, and how.
    """
    before = json.loads((output_dir / FOLDS / PLAN).read_text(encoding="utf-8"))
    advice = "Give the same, or name another output_dir."
    names = list(dict.fromkeys([*before["settings"], *plan["settings"]]))
    changed = [
        f"{name} ({before['settings'].get(name)} then, {plan['settings'].get(name)} now)"
        for name in names
        if before["settings"].get(name) != plan["settings"].get(name)
    ]
    if changed:
        raise ConfigurationError(
            f"The cross-validation in {output_dir} was begun with other settings: {', '.join(changed)}. {advice}"
        )
    if before["rows"] != plan["rows"]:
        raise ConfigurationError(
            f"The cross-validation in {output_dir} was begun with other rows (or other labels, or another order of "
            f"them) than are given now. {advice}"
        )
    if before["folds"] != plan["folds"]:
        raise ConfigurationError(
            f"The cross-validation in {output_dir} was begun with other folds of the same rows: the version of "
            f"scikit-learn may be another. {advice}"
        )
    return before["identity"]


def begin_plan(output_dir: Path, plan: dict[str, Any]) -> str:
    """
    Write down what a cross-validation is begun with; of several machines that do, the first one counts.

    Args:
        output_dir (`Path`): Its folder.
        plan (`dict[str, Any]`): From [`make_fold_plan`].

    Returns:
        `str`: As [`check_same_plan`].

    Raises:
        ConfigurationError: If another machine has begun another one at the same time.
    """
    folder = output_dir / FOLDS
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f".{PLAN}.{uuid.uuid4().hex}"
    own.write_text(json.dumps({**plan, "identity": uuid.uuid4().hex}, indent=2) + "\n", encoding="utf-8")
    try:
        # A link, unlike a renaming, is refused if there is one already.
        os.link(own, folder / PLAN)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return check_same_plan(output_dir, plan)


# ---- Inside ----


def _is_elsewhere(section: str, name: str) -> bool:
    named = name in ELSEWHERE.get(section, ())
    return named or (section == "training" and name.startswith(("hub_", "push_to_hub", "do_", "trackio")))
