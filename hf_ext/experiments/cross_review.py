"""Cross review: how hard each training row is for models that were not trained on it."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import Trainer, set_seed

from hf_ext.data.difficulty import column, column_names, label_groups, select_rows, source_rows, spread_to_copies
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.experiments.restoring import undisturbed
from hf_ext.trainers.nonfinite import NonFiniteError

MakeTrainer = Callable[[Any], Trainer]
# Part of the cache's key: to be raised when the same arguments give other scores.
VERSION = 1


def row_losses(logits: Any, labels: Any) -> np.ndarray:
    """
    The loss of each row, in float32.

    Args:
        logits (`np.ndarray` of shape (rows, classes)): A model's output.
        labels (`Sequence`): Class ids: cross-entropy. 0/1 vectors: the mean binary cross-entropy over the classes.
            Floats: the squared error.

    Returns:
        `np.ndarray` of shape (rows,), float64.

    Raises:
        DataError: If the labels do not fit the logits.
    """
    outputs, targets = torch.as_tensor(np.asarray(logits)).float(), torch.as_tensor(np.asarray(labels))
    if targets.ndim == 2 and outputs.shape == targets.shape:
        losses = F.binary_cross_entropy_with_logits(outputs, targets.float(), reduction="none").mean(dim=1)
    elif targets.ndim == 1 and targets.is_floating_point() and outputs.numel() == len(targets):
        losses = (outputs.reshape(-1) - targets.float()) ** 2
    elif targets.ndim == 1 and not targets.is_floating_point() and outputs.ndim == 2 and len(outputs) == len(targets):
        inside = (targets >= 0) & (targets < outputs.shape[1])
        if not inside.all():
            row = int((~inside).nonzero()[0])
            raise DataError(
                f"Row {row + 1} has the class {int(targets[row])}, but there are {outputs.shape[1]} logits."
            )
        losses = F.cross_entropy(outputs, targets.long(), reduction="none")
    else:
        raise DataError(
            f"Logits of the shape {tuple(outputs.shape)} do not fit labels of the shape {tuple(targets.shape)} and the "
            f"type {targets.dtype}. Labels are class ids, 0/1 vectors as wide as the logits, or floats for one logit."
        )
    return losses.double().numpy()


def assign_folds(labels: Any, sources: np.ndarray, identities: list | None, folds: int, seed: int) -> np.ndarray:
    """
    Deal rows to folds, with each label's rows spread evenly over them.

    Args:
        labels (`Sequence`): One a row; see [`label_groups`].
        sources (`np.ndarray`): From [`source_rows`]; augmented copies go where their source goes.
        identities (`list`, *optional*): Rows with an equal entry (the column `source_idx`) go together.
        folds (`int`): How many.
        seed (`int`): Of the shuffling.

    Returns:
        `np.ndarray` of shape (rows,): a fold number for each row.

    Raises:
        ConfigurationError: If there are fewer rows to deal than folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    leaders = sources
    if identities is not None:
        _, first, members = np.unique(identities, return_index=True, return_inverse=True)
        leaders = first[members]
    dealt = np.unique(leaders)
    if len(dealt) < folds:
        raise ConfigurationError(f"folds is {folds}, but there are only {len(dealt)} rows to deal. Take fewer folds.")
    strata = label_groups(labels, len(sources))[dealt]
    splitter = StratifiedKFold if np.bincount(strata).max() >= folds else KFold
    numbers = np.empty(len(sources), dtype=np.int64)
    with warnings.catch_warnings():
        # That a label has fewer rows than there are folds; its rows are then scored by models that know it less.
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(splitter(folds, shuffle=True, random_state=seed).split(dealt, strata)):
            numbers[dealt[held]] = number
    return numbers[leaders]


def cross_review_scores(
    make_trainer: MakeTrainer,
    dataset: Any,
    labels: Any,
    folds: int = 5,
    seed: int = 42,
    cache_dir: str | Path | None = None,
    fingerprint: str | None = None,
) -> np.ndarray:
    """
    The loss of each row under a model that was trained on the other folds (Xu et al. 2020, "Curriculum Learning for
    Natural Language Understanding", with the loss in place of a metric, and one model for each row).

    The loss under a model trained on the row itself says little: a model learns wrong labels by heart.

    The random states are as before afterwards, so that what follows is the same with scores that were computed and
    with scores from the cache. A computation that was interrupted goes on with the fold it was at. On several processes
    all of them have to call this, and all get the same scores.

    Args:
        make_trainer (`Callable`):
            From training rows to a [`~transformers.Trainer`] with a fresh model, whose evaluation keeps the order of
            the rows ([`ExtendedTrainer`] always does). It is called once a fold, with the random seed set to `seed`.
            It should neither save nor report (`save_strategy="no"`, `report_to="none"`).
        dataset ([`~datasets.Dataset`] or a sequence of `dict`):
            The training rows as the trainer takes them. Augmented copies (`is_augmented`, `source_idx`) are trained on
            and have the score of their source; rows with the same `source_idx` are in the same fold.
        labels (`Sequence`):
            Class ids, 0/1 vectors or floats; see [`row_losses`].
        folds (`int`, *optional*, defaults to 5):
            How many models are trained; at least 2.
        seed (`int`, *optional*, defaults to 42):
            Of the folds and the models.
        cache_dir (`str` or `Path`, *optional*):
            Where scores are kept. Defaults to `hf_ext/difficulty` in the cache folder of Hugging Face.
        fingerprint (`str`, *optional*):
            What identifies the model and how it is trained (such as their arguments as JSON); the rows are looked at
            here. Without it nothing is cached.

    Returns:
        `np.ndarray` of shape (rows,), float64.

    Raises:
        ConfigurationError: For fewer than two folds or rows, a training that diverged, or predictions in another order.
        DataError: If labels do not fit rows or model.
    """
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise ConfigurationError(f"folds is {folds!r}; it must be a whole number of at least 2.")
    if len(dataset) != len(labels):
        raise DataError(f"There are {len(labels)} labels for {len(dataset)} rows; each row needs one.")
    check_processes()
    sources = source_rows(dataset)
    identities = column(dataset, "source_idx") if "source_idx" in column_names(dataset) else None
    fold_of = assign_folds(labels, sources, identities, folds, seed)
    original = sources == np.arange(len(sources))
    values = np.asarray(labels)
    cache = ScoreCache(dataset, cache_dir, fingerprint, folds=folds, seed=seed)
    scores = np.full(len(sources), np.nan)
    with undisturbed(), tqdm(total=folds, desc="cross review", disable=not PartialState().is_main_process) as bar:
        for fold in range(folds):
            held = np.flatnonzero((fold_of == fold) & original)
            losses = cache.read(f"fold-{fold}", len(held))
            if losses is None:
                set_seed(seed)
                trainer = make_trainer(select_rows(dataset, np.flatnonzero(fold_of != fold)))
                try:
                    trainer.train()
                except NonFiniteError as error:
                    raise ConfigurationError(
                        f"Cross review: the model of fold {fold + 1} of {folds} has diverged. {error}"
                    ) from error
                logits = predict_in_order(trainer, select_rows(dataset, held), values[held])
                losses = row_losses(logits, values[held])
                if not np.isfinite(losses).all():
                    raise ConfigurationError(
                        f"Cross review: the model of fold {fold + 1} of {folds} has diverged (the loss of row "
                        f"{held[~np.isfinite(losses)][0] + 1} is not finite). Lower the learning rate."
                    )
                cache.write(f"fold-{fold}", losses)
                trainer.accelerator.free_memory()
            scores[held] = losses
            bar.update()
    return spread_to_copies(scores[original], sources)


def predict_in_order(trainer: Trainer, dataset: Any, labels: np.ndarray) -> np.ndarray:
    """
    A trainer's logits, in the order of the rows.

    Raises:
        ConfigurationError: If the trainer gives them in another order, or without labels.
    """
    output = trainer.predict(dataset)
    logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
    seen = None if output.label_ids is None else np.asarray(output.label_ids, dtype=np.float32)
    if seen is None or not np.array_equal(seen.reshape(labels.shape), labels.astype(np.float32)):
        raise ConfigurationError(
            "The trainer's predictions are not in the order of the rows, or the rows have other labels than were "
            "passed. A plain Trainer with train_sampling_strategy='group_by_length' sorts them by length: use "
            "hf_ext.ExtendedTrainer."
        )
    return np.asarray(logits)


class ScoreCache:
    """
    Arrays of numbers that training runs have cost, a file each.

    The first process reads and writes and tells the others, so that all know the same, also on several machines.

    Args:
        dataset ([`~datasets.Dataset`] or a sequence of `dict`): The rows, all of whose columns count.
        cache_dir (`str` or `Path`, *optional*): Defaults to `hf_ext/difficulty` in the cache folder of Hugging Face.
        fingerprint (`str`, *optional*): Of the model and its training; without it nothing is kept.
        settings: What else the numbers depend on.
    """

    def __init__(self, dataset: Any, cache_dir: str | Path | None, fingerprint: str | None, **settings):
        self.main, self.folder = PartialState().is_main_process, None
        if fingerprint is None or not self.main:
            return
        digest, rows = hashlib.sha256(), range(len(dataset))
        stored = dataset.with_format(None) if isinstance(dataset, datasets.Dataset) else map(dataset.__getitem__, rows)
        for row in stored:
            digest.update(json.dumps(row, sort_keys=True, default=_plain).encode() + b"\n")
        key = {"version": VERSION, "rows": digest.hexdigest(), "model": fingerprint, **settings}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        parent = Path(datasets.config.HF_CACHE_HOME) / "hf_ext" / "difficulty" if cache_dir is None else Path(cache_dir)
        self.folder = parent / name

    def read(self, name: str, rows: int) -> np.ndarray | None:
        """An array whose last dimension is `rows`; `None` if there is none, or a damaged one."""
        values = None
        if self.folder is not None and (self.folder / f"{name}.npy").is_file():
            try:
                values = np.load(self.folder / f"{name}.npy", allow_pickle=False)
            except (ValueError, EOFError, OSError):
                values = None
            if values is not None and (values.shape[-1:] != (rows,) or not np.isfinite(values).all()):
                values = None
        return broadcast_object_list([values])[0]

    def write(self, name: str, values: np.ndarray) -> None:
        """Keep an array; the file is either whole or not there."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
            np.save(file, values, allow_pickle=False)
        os.replace(file.name, self.folder / f"{name}.npy")


def check_processes() -> None:
    """See that all processes that were launched are joined; a cache would otherwise be read by each for itself."""
    launched, known = int(os.environ.get("WORLD_SIZE", "1")), PartialState().num_processes
    if known != launched:
        raise ConfigurationError(
            f"{launched} processes were launched, but this one knows of {known}. Make the TrainingArguments (with "
            "use_cpu=True on machines without an accelerator), which join them, before the scores are computed."
        )


# ---- Inside ----


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
