"""How far probabilities can be believed, and what mends them: a temperature, and decisions made from them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.evaluation.predictions import Predictions, reliability_bins, sigmoid, softmax
from hf_ext.evaluation.thresholds import decide
from hf_ext.files import write_json
from hf_ext.problem_types import MULTI_LABEL, SINGLE_LABEL

CALIBRATION_FILE = "calibration.json"
MIN_ROWS = 20
# How far apart, in root mean square, the logits of a row may come to lie: from almost no to almost absolute certainty.
SPREADS = (0.01, 100.0)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """
    Mean distance between confidence and accuracy over bins of confidence (Guo et al. 2017, equation 3).

    Of several labels, each yes or no of a row and class counts as a decision of its own, whose confidence is the larger
    of $p$ and $1 - p$.

    Args:
        probabilities (`np.ndarray` of shape `(rows, classes)`): Rows that add up to 1, unless for multi-label.
        labels (`np.ndarray`): True class ids of shape `(rows,)`, or 0 and 1 of shape `(rows, classes)` (multi-label).
        num_bins (`int`, *optional*, defaults to `15`): Equal-width bins `(low, high]`.

    Returns:
        `float` in [0, 1]; 0 is perfect.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if labels.ndim == 2:
        yes = probabilities.reshape(-1)
        probabilities, labels = np.stack([1 - yes, yes], axis=1), labels.reshape(-1)
    correct = probabilities.argmax(axis=1) == labels
    rows, confidence, accuracy = reliability_bins(probabilities.max(axis=1), correct, num_bins)
    return float((rows * np.abs(accuracy - confidence)).sum() / rows.sum())


def proper_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """
    Proper scores of probabilities; lower is better.

    Args:
        probabilities (`np.ndarray` of shape `(rows, classes)`): Of each class.
        labels (`np.ndarray`): Class ids of shape `(rows,)`, or 0 and 1 of shape `(rows, classes)` (multi-label).

    Returns:
        `dict[str, float]`: `nll`, the mean negative log-probability, in nats, of the true class, or of the right yes or
        no of each row and class (multi-label); and `brier` (Brier 1950), the squared distance to the truth, added up
        over the classes of a row (0 to 2), or the mean over rows and classes (multi-label, 0 to 1). A probability that
        is 0 in float64 counts as the smallest normal number.
    """
    if labels.ndim == 2:
        of_truth, brier = np.where(labels == 1, probabilities, 1 - probabilities), (probabilities - labels) ** 2
    else:
        of_truth = probabilities[np.arange(len(labels)), labels]
        brier = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    nll = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))
    return {"nll": float(nll.mean()), "brier": float(brier.mean())}


def calibration_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`ece`, `nll` and `brier`; see [`expected_calibration_error`] and [`proper_scores`]."""
    return {"ece": expected_calibration_error(probabilities, labels), **proper_scores(probabilities, labels)}


class Temperature(NamedTuple):
    """A temperature, the negative log-likelihood with 1 and with it, and what there is to say about it (or `""`)."""

    value: float
    nll_before: float
    nll_after: float
    note: str


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    r"""
    The number by which logits have to be divided for the labels to be likeliest (Guo et al. 2017, section 4.2).

    $T = \arg\min_T -\frac{1}{n} \sum_i \log softmax(z_i / T)_{y_i}$, for several labels with the logistic function and
    over all classes. The mean is convex in $1 / T$, so that one bounded search on $\log T$ finds it. The order of a
    row's classes, and so the accuracy, stays as it is.

    Where all rows are right, the likelihood grows as $T$ goes to 0, and where all logits of each row are equal, no $T$
    changes anything: $T$ is 1 then. Where the logits mislead, it grows with $T$, which stops where nothing is left of
    their differences. The note says so.

    Args:
        logits (`np.ndarray` of shape `(rows, classes)`): Raw outputs on rows that the model was not trained on.
        labels (`np.ndarray`): Class ids of shape `(rows,)`, or 0 and 1 of shape `(rows, classes)` for multi-label.

    Returns:
        [`Temperature`]: `(value, nll_before, nll_after, note)`.

    Raises:
        DataError: For fewer than 20 rows, shapes or labels that do not fit, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    _check_fit(logits, labels)
    before = _nll(logits, labels)
    centre = logits.mean(axis=1, keepdims=True) if labels.ndim == 1 else 0.0
    spread = float(np.sqrt(((logits - centre) ** 2).mean()))
    if spread < np.finfo(np.float64).tiny:
        return Temperature(1.0, before, before, "All logits of a row are equal: the temperature is left at 1.")
    low, high = np.log(spread / SPREADS[1]), np.log(spread / SPREADS[0])
    found = minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t), labels),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-9},
    )
    right = _right_rows(logits, labels)
    if right.all() or found.x - low < 1e-3:
        note = (
            f"The model is right on {right.sum():,} of {len(labels):,} rows, so that no temperature fits them best: it "
            "is left at 1. More rows, or harder ones, would tell."
        )
        return Temperature(1.0, before, before, note)
    value, note = float(np.exp(found.x)), ""
    if high - found.x < 1e-3:
        note = "The labels contradict the model's confidence: the temperature leaves nothing of it."
    return Temperature(value, before, _nll(logits / value, labels), note)


@dataclass(frozen=True, eq=False)
class Calibration:
    """
    What turns a model's logits into probabilities that can be believed, and into decisions.

    Args:
        problem_type (`str`): `"single_label_classification"` or `"multi_label_classification"`.
        label_names (`list[str]`): The model's classes in the order of their ids.
        temperature (`float`, *optional*, defaults to `1.0`): Divides the logits.
        thresholds (`np.ndarray` of shape `(classes,)`, *optional*): See [`decide`].
        cost_matrix (`np.ndarray` of shape `(classes, classes)`, *optional*): `[true, predicted]`; see [`decide`].
        out_of_scope_threshold (`float`, *optional*):
            Of a single label: a row whose largest probability is below it belongs to no class; see
            [`tune_out_of_scope`].
        objective (`dict[str, Any]`): What the decisions are made for, as settings.
        fitted_on (`dict[str, Any]`): `split`, `rows` and what else tells which rows these were.
        scores (`dict[str, dict[str, dict[str, float]]]`):
            Split -> `"before"` and `"after"` -> metric -> value. Those of the rows that it was fitted on flatter it.
        notes (`list[str]`): What a reader has to know.
    """

    problem_type: str
    label_names: list[str]
    temperature: float = 1.0
    thresholds: np.ndarray | None = None
    cost_matrix: np.ndarray | None = None
    objective: dict[str, Any] = field(default_factory=dict)
    fitted_on: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    out_of_scope_threshold: float | None = None

    def apply(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Probabilities and decisions.

        Args:
            logits (`np.ndarray` of shape `(rows, classes)`): Raw outputs of any float type.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Probabilities of shape `(rows, classes)`, and what [`decide`] makes of
            them.
        """
        scaled = np.asarray(logits, dtype=np.float64) / self.temperature
        probabilities = sigmoid(scaled) if self.problem_type == MULTI_LABEL else softmax(scaled)
        return probabilities, decide(probabilities, self.problem_type, self.thresholds, self.cost_matrix)

    def predict(self, logits: np.ndarray, labels: np.ndarray | None, texts: Sequence) -> Predictions:
        """[`Predictions`] with calibrated probabilities and these decisions; `labels` and `texts` as there."""
        probabilities, decisions = self.apply(logits)
        return Predictions(
            self.problem_type,
            self.label_names,
            probabilities,
            None if labels is None else np.asarray(labels),
            list(texts),
            decisions=decisions,
            out_of_scope=self.out_of_scope(probabilities),
        )

    def out_of_scope(self, probabilities: np.ndarray) -> np.ndarray | None:
        """
        Which rows belong to no class.

        Args:
            probabilities (`np.ndarray` of shape `(rows, classes)`): From [`Calibration.apply`].

        Returns:
            `np.ndarray` of shape `(rows,)`, `bool`; `None` where there is no threshold.
        """
        if self.out_of_scope_threshold is None:
            return None
        return probabilities.max(axis=1) < self.out_of_scope_threshold

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        thresholds = None
        if self.thresholds is not None:
            thresholds = dict(zip(self.label_names, self.thresholds.tolist(), strict=True))
        costs = None if self.cost_matrix is None else self.cost_matrix.tolist()
        return {**vars(self), "thresholds": thresholds, "cost_matrix": costs}

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `calibration.json` beside a model."""
        path = Path(folder) / CALIBRATION_FILE
        write_json(path, self.as_dict())
        return path

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        label_names: Sequence[str] | None = None,
        problem_type: str | None = None,
    ) -> "Calibration":
        """
        Read what [`Calibration.save`] wrote.

        Args:
            path (`str` or `os.PathLike`): The file, or the folder that holds it.
            label_names (`Sequence[str]`, *optional*): The model's classes; a file of others, or of another order, is
                refused.
            problem_type (`str`, *optional*): The model's; a file of another is refused.

        Raises:
            ConfigurationError: If there is no such file, or it belongs to another model.
            DataError: If it is damaged.
        """
        path = Path(path) / CALIBRATION_FILE if Path(path).is_dir() else Path(path)
        if not path.is_file():
            raise ConfigurationError(
                f"There is no {path}. A run of run_classification.py with --calibrate true makes it."
            )
        calibration = _read(path)
        names = list(calibration.label_names if label_names is None else label_names)
        expected = (calibration.problem_type if problem_type is None else problem_type, names)
        if (calibration.problem_type, calibration.label_names) != expected:
            raise ConfigurationError(
                f"{path} was fitted to {calibration.problem_type} with the classes "
                f"{', '.join(calibration.label_names)}; the model is of {expected[0]} with {', '.join(names)}. It "
                "belongs to another model: fit it anew (run_classification.py --calibrate true), or remove it."
            )
        return calibration


# ---- Inside ----


def _check_fit(logits: np.ndarray, labels: np.ndarray) -> None:
    if len(labels) < MIN_ROWS:
        raise DataError(
            f"There {'is 1 row' if len(labels) == 1 else f'are {len(labels)} rows'} to calibrate on; at least "
            f"{MIN_ROWS} labelled ones are needed."
        )
    fits = labels.shape == (logits.shape if labels.ndim == 2 else logits.shape[:1])
    if logits.ndim != 2 or not fits:
        raise DataError(
            f"Logits of shape {logits.shape} and labels of shape {labels.shape} do not fit: pass (rows, classes) and "
            "class ids (rows,), or 0 and 1 (rows, classes)."
        )
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise DataError(f"The logits of row {bad[0]} are {logits[bad[0]].tolist()}; they must be finite numbers.")
    valid = np.isin(labels, (0, 1) if labels.ndim == 2 else range(logits.shape[1]))
    if not valid.all():
        wanted = "0 or 1" if labels.ndim == 2 else f"class ids from 0 to {logits.shape[1] - 1}"
        raise DataError(f"The label {labels[~valid][0]} occurs; labels must be {wanted}.")


def _right_rows(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows whose likelihood never falls as the temperature does."""
    if labels.ndim == 2:
        return (np.where(labels == 1, logits, -logits) >= 0).all(axis=1)
    return logits[np.arange(len(labels)), labels] >= logits.max(axis=1)


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """In logits, which do not round to 0 and 1 as probabilities do."""
    if labels.ndim == 2:
        return float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean())
    largest = logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return float((normaliser - logits[np.arange(len(labels)), labels]).mean())


def _read(path: Path) -> Calibration:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [str(name) for name in content["label_names"]]
        thresholds, costs = content["thresholds"], content["cost_matrix"]
        outside = content.get("out_of_scope_threshold")
        values = {
            **content,
            "label_names": names,
            "temperature": float(content["temperature"]),
            "thresholds": None if thresholds is None else np.array([float(thresholds[name]) for name in names]),
            "cost_matrix": None if costs is None else np.array(costs, dtype=np.float64),
            "out_of_scope_threshold": None if outside is None else float(outside),
        }
        calibration = Calibration(**values)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no calibration ({type(error).__name__}: {error}); fit it anew.") from None
    sound = {
        "problem_type": calibration.problem_type in (SINGLE_LABEL, MULTI_LABEL),
        "temperature": np.isfinite(calibration.temperature) and calibration.temperature > 0,
        "thresholds": calibration.thresholds is None
        or bool(((calibration.thresholds >= 0) & (calibration.thresholds <= 1)).all()),
        "cost_matrix": calibration.cost_matrix is None
        or (calibration.cost_matrix.shape == (len(names),) * 2 and bool(np.isfinite(calibration.cost_matrix).all())),
        "out_of_scope_threshold": calibration.out_of_scope_threshold is None
        or (calibration.problem_type == SINGLE_LABEL and 0 <= calibration.out_of_scope_threshold <= 2),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise DataError(f"{path}: {name} is {content[name]!r}, which no calibration has; fit it anew.")
    return calibration
