"""Dataset cartography: which rows a model finds easy, hard or ambiguous while it trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, set_seed

from hf_ext.data.difficulty import select_rows, source_rows, spread_to_copies
from hf_ext.errors import ConfigurationError, DataError
from hf_ext.experiments.cross_review import MakeTrainer, ScoreCache, check_processes, predict_in_order
from hf_ext.experiments.restoring import keep_random, undisturbed
from hf_ext.trainers.nonfinite import NonFiniteError

# Of a figure; as many as the paper's.
MAX_POINTS = 25_000


@dataclass(frozen=True)
class DataMap:
    """
    What a model said of each row's label at the ends of its epochs (Swayamdipta et al. 2020, section 2).

    Args:
        confidence (`np.ndarray` of shape (rows,)): Mean probability of the true label over the epochs.
        variability (`np.ndarray` of shape (rows,)): Its standard deviation over the epochs (divided by their number).
        correctness (`np.ndarray` of shape (rows,)): Share of the epochs in which the row was predicted right.
        epochs (`int`): How many epochs there were.
    """

    confidence: np.ndarray
    variability: np.ndarray
    correctness: np.ndarray
    epochs: int

    @property
    def difficulty(self) -> np.ndarray:
        """1 - confidence, for a curriculum."""
        return 1 - self.confidence

    def plot(self, path: str | Path | None = None):
        """
        The data map: confidence by variability, coloured by correctness; of more than 25,000 rows a random part.

        Args:
            path (`str` or `Path`, *optional*): Where to write it; the ending chooses the format (png, svg, pdf).

        Returns:
            `matplotlib.figure.Figure`, bound to no window.
        """
        from matplotlib.figure import Figure

        rows = np.random.default_rng(0).permutation(len(self.confidence))[:MAX_POINTS]
        figure = Figure(figsize=(6.4, 4.8), layout="constrained")
        axes = figure.subplots()
        points = axes.scatter(
            self.variability[rows], self.confidence[rows], c=self.correctness[rows], s=6, alpha=0.5, cmap="viridis",
            vmin=0, vmax=1, linewidths=0, rasterized=True,
        )  # fmt: skip
        shown = f"{len(rows):,} of {len(self.confidence):,}" if len(rows) < len(self.confidence) else f"{len(rows):,}"
        axes.set(
            xlabel="variability", ylabel="confidence", ylim=(-0.02, 1.02), title=f"{shown} rows, {self.epochs} epochs"
        )
        figure.colorbar(points, ax=axes, label="correctness")
        if path is not None:
            figure.savefig(path, dpi=120, metadata={"Date": None} if str(path).endswith("svg") else None)
        return figure


def data_map(probabilities: np.ndarray, right: np.ndarray) -> DataMap:
    """
    Statistics over the epochs.

    Args:
        probabilities (`np.ndarray` of shape (epochs, rows)): Of the true label.
        right (`np.ndarray` of shape (epochs, rows)): Whether the prediction was right.

    Returns:
        [`DataMap`]
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    return DataMap(
        probabilities.mean(axis=0), probabilities.std(axis=0), np.mean(right, axis=0, dtype=np.float64), len(right)
    )


def true_label_probabilities(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    The probability that a model gives each row's true label, and whether it predicts it.

    Args:
        logits (`np.ndarray` of shape (rows, classes)): A model's output.
        labels (`Sequence`): Class ids; or 0/1 vectors, for which the probability is the mean over the classes and a
            prediction is right if all of them are.

    Returns:
        `tuple[np.ndarray, np.ndarray]`, each of shape (rows,): float64 and bool.

    Raises:
        DataError: For floats (regression has no such probability), or labels that do not fit the logits.
    """
    outputs, targets = torch.as_tensor(np.asarray(logits)).float(), torch.as_tensor(np.asarray(labels))
    if targets.ndim == 1 and targets.is_floating_point():
        raise DataError("Cartography needs classes: regression has no probability of the true label. Use cross review.")
    if targets.ndim == 2 and targets.shape == outputs.shape:
        on = targets > 0.5
        probabilities = torch.where(on, outputs, -outputs).sigmoid().mean(dim=1)
        return probabilities.double().numpy(), ((outputs > 0) == on).all(dim=1).numpy()
    if targets.ndim != 1 or outputs.ndim != 2 or len(outputs) != len(targets):
        raise DataError(
            f"Logits of the shape {tuple(outputs.shape)} do not fit labels of the shape {tuple(targets.shape)}."
        )
    probabilities = outputs.softmax(dim=1).gather(1, targets.long()[:, None])[:, 0]
    return probabilities.double().numpy(), (outputs.argmax(dim=1) == targets).numpy()


def cartography_scores(
    make_trainer: MakeTrainer,
    dataset: Any,
    labels: Any,
    seed: int = 42,
    cache_dir: str | Path | None = None,
    fingerprint: str | None = None,
) -> DataMap:
    """
    Train once, and see after each epoch how sure the model is of each training row's label (Swayamdipta et al. 2020,
    "Dataset Cartography").

    Low confidence with low variability are hard rows, many of them with wrong labels; high variability are ambiguous
    ones; high confidence with low variability easy ones. `.difficulty` is for a [`CurriculumCallback`].

    The random states are as before afterwards. On several processes all of them have to call this.

    Args:
        make_trainer (`Callable`):
            As [`cross_review_scores`] takes it; the run should have at least two epochs.
        dataset ([`~datasets.Dataset`] or a sequence of `dict`):
            The training rows. Augmented copies are trained on and have what their source has.
        labels (`Sequence`):
            Class ids or 0/1 vectors.
        seed (`int`, *optional*, defaults to 42):
            Set before the model is made.
        cache_dir (`str` or `Path`, *optional*):
            Where the map is kept; see [`cross_review_scores`].
        fingerprint (`str`, *optional*):
            What identifies the model and how it is trained. Without it nothing is cached, and a run that is resumed
            trains for its map again; where that does not give the very same numbers, as on a GPU, it is refused.

    Returns:
        [`DataMap`]

    Raises:
        ConfigurationError: If the run has fewer than two epochs, or its probabilities are not finite.
        DataError: For labels of a regression, or not one label a row.
    """
    if len(dataset) != len(labels):
        raise DataError(f"There are {len(labels)} labels for {len(dataset)} rows; each row needs one.")
    check_processes()
    sources = source_rows(dataset)
    originals = np.flatnonzero(sources == np.arange(len(sources)))
    cache = ScoreCache(dataset, cache_dir, fingerprint, seed=seed, scorer="cartography")
    dynamics = cache.read("dynamics", len(originals))
    if dynamics is None:
        with undisturbed():
            set_seed(seed)
            trainer = make_trainer(dataset)
            observer = _Observer(trainer, select_rows(dataset, originals), np.asarray(labels)[originals])
            trainer.add_callback(observer)
            try:
                trainer.train()
            except NonFiniteError as error:
                raise ConfigurationError(f"Cartography: the training has diverged. {error}") from error
            trainer.accelerator.free_memory()
        dynamics = np.stack([np.stack(observer.probabilities), np.stack(observer.right)])
        if not np.isfinite(dynamics).all():
            raise ConfigurationError("Cartography: the training has diverged. Lower the learning rate.")
        cache.write("dynamics", dynamics)
    found = data_map(*dynamics)
    parts = (found.confidence, found.variability, found.correctness)
    return DataMap(*(spread_to_copies(part, sources) for part in parts), found.epochs)


class _Observer(TrainerCallback):
    """Predicts the training rows at the end of each epoch."""

    def __init__(self, trainer: Any, dataset: Any, labels: np.ndarray):
        self.trainer, self.dataset, self.labels = trainer, dataset, labels
        self.probabilities, self.right = [], []

    def on_train_begin(self, args, state, control, **kwargs):
        if state.num_train_epochs < 2:
            raise ConfigurationError(
                f"Cartography follows the rows over epochs, but the run has {state.num_train_epochs}. Train for at "
                "least two, better five."
            )

    def on_epoch_end(self, args, state, control, **kwargs):
        # A data loader draws a seed: without this, the run would go another way than when nobody looks.
        restore = keep_random()
        logits = predict_in_order(self.trainer, self.dataset, self.labels)
        restore()
        probabilities, right = true_label_probabilities(logits, self.labels)
        self.probabilities.append(probabilities)
        self.right.append(right)
