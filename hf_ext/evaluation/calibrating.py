"""From what a configuration says of calibration, and a model's logits on validation rows, to a calibration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal

import numpy as np

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.evaluation.calibration import MIN_ROWS, Calibration, calibration_scores, fit_temperature
from hf_ext.evaluation.out_of_scope import OUT_OF_SCOPE, tune_out_of_scope
from hf_ext.evaluation.thresholds import COST, PRECISION_AT_RECALL, RECALL_AT_PRECISION, tune_thresholds
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

SETTINGS = (
    "threshold_objective", "threshold_min_recall", "threshold_min_precision", "threshold_positive_class", "cost_matrix",
    "false_positive_cost", "false_negative_cost",
)  # fmt: skip
# Objective -> the one setting that it cannot do without.
GOALS = {PRECISION_AT_RECALL: "threshold_min_recall", RECALL_AT_PRECISION: "threshold_min_precision"}


@dataclass
class SavedCalibrationArguments:
    """What to do with a calibration that was saved beside a model."""

    _argument_group_name = "calibration"

    calibration: Literal["auto", "off"] = field(
        default="auto", metadata={"help": "auto: apply the calibration.json beside a model that is only evaluated."}
    )
    out_of_scope_test_files: list[str] | str | None = field(
        default=None,
        metadata={"help": "Texts of no class to report on, separated by commas: how many of them are turned away."},
    )

    def __post_init__(self):
        self.out_of_scope_test_files = _listed(self.out_of_scope_test_files)


@dataclass
class CalibrationArguments(SavedCalibrationArguments):
    """
    Calibrated probabilities, and decisions for a goal, both fitted on the validation rows.

    Raises:
        ConfigurationError: If a value is out of range or could have no effect.
    """

    calibrate: bool = field(
        default=False, metadata={"help": "Fit a temperature (Guo 2017) on the validation rows; save it with the model."}
    )
    threshold_objective: Literal["f1", "precision_at_recall", "recall_at_precision", "cost"] | None = field(
        default=None, metadata={"help": "Also tune when a class is predicted; by default one half, or the likeliest."}
    )
    threshold_min_recall: float | None = field(
        default=None, metadata={"help": "For precision_at_recall: the most precision with at least this recall."}
    )
    threshold_min_precision: float | None = field(
        default=None, metadata={"help": "For recall_at_precision: the most recall with at least this precision."}
    )
    threshold_positive_class: str | None = field(
        default=None, metadata={"help": "For these two, of two classes: the class that is to be found."}
    )
    cost_matrix: dict | None = field(
        default=None,
        metadata={"help": 'For cost, single label: true -> predicted -> cost, \'{"spam": {"ham": 5}}\'; others 1.'},
    )
    false_positive_cost: float | None = field(
        default=None, metadata={"help": "For cost, multi-label: of a class that is predicted wrongly."}
    )
    false_negative_cost: float | None = field(
        default=None, metadata={"help": "For cost, multi-label: of a class that is missed."}
    )
    out_of_scope_files: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Single label: texts of no class, separated by commas; below which probability a text is turned "
            "away is tuned on them and the validation rows."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.out_of_scope_files = _listed(self.out_of_scope_files)
        if self.out_of_scope_files and not self.calibrate:
            raise ConfigurationError("out_of_scope_files: no effect without calibrate. Pass --calibrate true.")
        if self.calibrate and self.out_of_scope_test_files and not self.out_of_scope_files:
            raise ConfigurationError(
                "out_of_scope_test_files needs out_of_scope_files, other texts of no class to tune the threshold on."
            )
        given = [name for name in SETTINGS if getattr(self, name) is not None]
        if given and not self.calibrate:
            raise ConfigurationError(f"{', '.join(given)}: no effect without calibrate. Pass --calibrate true.")
        goal = GOALS.get(self.threshold_objective)
        costs = ("cost_matrix", "false_positive_cost", "false_negative_cost")
        useful = {"threshold_objective", *((goal, "threshold_positive_class") if goal else ())}
        useful |= set(costs) if self.threshold_objective == COST else set()
        useless = [name for name in given if name not in useful]
        if useless:
            raise ConfigurationError(
                f"{', '.join(useless)}: no effect with threshold_objective={self.threshold_objective}. Leave out what "
                "does not apply, or choose another objective."
            )
        if goal is not None and (getattr(self, goal) is None or not 0 < getattr(self, goal) <= 1):
            raise ConfigurationError(
                f"threshold_objective={self.threshold_objective} needs {goal}, a number in (0, 1]; it is "
                f"{getattr(self, goal)}."
            )
        if self.threshold_objective == COST and not set(given) & set(costs):
            raise ConfigurationError(
                "threshold_objective=cost needs cost_matrix (single label) or false_positive_cost and "
                "false_negative_cost (multi-label)."
            )
        for name in costs[1:]:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0.")

    def objective(self) -> dict[str, Any]:
        """What was asked of the decisions."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}


def check_calibration(
    wanted: CalibrationArguments, problem_type: str, label_names: Sequence[str], validation_rows: int
) -> None:
    """
    See, before anything is trained, that a calibration can be fitted.

    Args:
        wanted ([`CalibrationArguments`]): What was asked for.
        problem_type (`str`): Of the data.
        label_names (`Sequence[str]`): The classes in the order of their ids.
        validation_rows (`int`): Labelled rows to fit it on.

    Raises:
        ConfigurationError: If it does not fit the kind of task or the classes.
        DataError: If there are fewer than 20 rows.
    """
    if not wanted.calibrate:
        return
    if problem_type == REGRESSION:
        raise ConfigurationError("calibrate=true: a regression has no probabilities to calibrate. Leave it out.")
    if validation_rows < MIN_ROWS:
        count = "is 1 validation row" if validation_rows == 1 else f"are {validation_rows or 'no'} validation rows"
        raise DataError(
            f"calibrate=true: there {count}, and at least {MIN_ROWS} are needed to fit a temperature. Pass "
            "--validation_file or a larger --validation_size (and leave do_eval on), or leave calibrate out."
        )
    multi_label, known = problem_type == MULTI_LABEL, ", ".join(label_names)
    if wanted.out_of_scope_files:
        _check_out_of_scope(problem_type, label_names)
    if wanted.threshold_objective in GOALS and not multi_label:
        if len(label_names) != 2 or wanted.threshold_positive_class not in label_names:
            raise ConfigurationError(
                f"threshold_objective={wanted.threshold_objective} asks a yes-or-no question: it is for multi-label, "
                "or for two classes with threshold_positive_class naming the one to be found (it is "
                f"{wanted.threshold_positive_class}). The classes are {known}."
            )
    elif wanted.threshold_positive_class is not None:
        raise ConfigurationError(
            "threshold_positive_class has no effect on several labels, each of which is a question of its own. Leave "
            "it out."
        )
    if wanted.threshold_objective != COST:
        return
    if not multi_label:
        if wanted.cost_matrix is None:
            raise ConfigurationError(
                "false_positive_cost and false_negative_cost are for several labels; of a single one pass cost_matrix: "
                f"true class -> predicted class -> cost. The classes are {known}."
            )
        cost_table(wanted.cost_matrix, label_names)
    elif wanted.cost_matrix is not None or None in (wanted.false_positive_cost, wanted.false_negative_cost):
        raise ConfigurationError(
            "threshold_objective=cost of several labels needs false_positive_cost and false_negative_cost, and no "
            "cost_matrix."
        )


def check_saved_threshold(wanted: SavedCalibrationArguments, saved: Calibration | None) -> None:
    """
    See that a model that is only evaluated can turn texts away, if it is to be told on such texts.

    Args:
        wanted ([`SavedCalibrationArguments`]): What was asked for.
        saved ([`Calibration`], *optional*): The one beside the model.

    Raises:
        ConfigurationError: If there is no threshold.
    """
    if wanted.out_of_scope_test_files and (saved is None or saved.out_of_scope_threshold is None):
        raise ConfigurationError(
            "out_of_scope_test_files: the model turns no text away, because there is no threshold for it beside it. It "
            "is tuned by run_classification.py with --calibrate true and --out_of_scope_files; or leave it out."
        )


def cost_table(costs: dict[str, dict[str, float]], label_names: Sequence[str]) -> np.ndarray:
    """
    The costs of all decisions.

    Args:
        costs (`dict[str, dict[str, float]]`): True class -> predicted class -> cost. What is not named costs 1, and a
            right answer 0.
        label_names (`Sequence[str]`): The classes in the order of their ids.

    Returns:
        `np.ndarray` of shape `(classes, classes)`: `[true, predicted]`.

    Raises:
        ConfigurationError: For a class that does not exist, or a cost that is no number of at least 0.
    """
    table, ids = 1.0 - np.eye(len(label_names)), {name: index for index, name in enumerate(label_names)}
    for true, row in costs.items():
        if not isinstance(row, dict):
            raise ConfigurationError(
                f"cost_matrix: {true} has {row!r}; it must be an object of predicted classes and costs."
            )
        for predicted, cost in row.items():
            for name in (true, predicted):
                if str(name) not in ids:
                    raise ConfigurationError(f"cost_matrix names {name}; the classes are {', '.join(label_names)}.")
            if not isinstance(cost, Real) or isinstance(cost, bool) or not math.isfinite(cost) or cost < 0:
                raise ConfigurationError(
                    f"cost_matrix: the cost of {predicted} where {true} is true is {cost!r}; it must be a number of at "
                    "least 0."
                )
            table[ids[str(true)], ids[str(predicted)]] = cost
    if not table.any():
        raise ConfigurationError("cost_matrix: nothing costs anything, so every decision is as good as any other.")
    return table


def fit_calibration(
    wanted: CalibrationArguments,
    logits: np.ndarray,
    labels: np.ndarray,
    problem_type: str,
    label_names: Sequence[str],
    fitted_on: dict[str, Any] | None = None,
    out_of_scope_logits: np.ndarray | None = None,
) -> Calibration:
    """
    Fit a temperature, then the decisions, on rows that the model was not trained on.

    Args:
        wanted ([`CalibrationArguments`]): What was asked for.
        logits (`np.ndarray` of shape `(rows, classes)`): What the model says of them.
        labels (`np.ndarray`): Class ids of shape `(rows,)`, or 0 and 1 of shape `(rows, classes)` for multi-label.
        problem_type (`str`): Of the model.
        label_names (`Sequence[str]`): The classes in the order of their ids.
        fitted_on (`dict[str, Any]`, *optional*): What tells the rows; see [`Calibration`].
        out_of_scope_logits (`np.ndarray` of shape `(texts, classes)`, *optional*): What it says of texts that belong to
            no class: then the probability below which a text is turned away is tuned too.

    Returns:
        [`Calibration`]: With the scores of these rows before and after, as those of `"validation"`.

    Raises:
        ConfigurationError, DataError: As [`check_calibration`] and [`fit_temperature`].
    """
    labels = np.asarray(labels).astype(np.int64)
    check_calibration(wanted, problem_type, label_names, len(labels))
    found = fit_temperature(logits, labels)
    plain = Calibration(problem_type, list(label_names))
    scaled = Calibration(problem_type, list(label_names), found.value)
    before, after = plain.apply(logits)[0], scaled.apply(logits)[0]
    thresholds, costs, notes = None, None, [found.note] if found.note else []
    if wanted.threshold_objective == COST and problem_type == MULTI_LABEL:
        # The least expected cost of a yes or no (Elkan 2001, equation 2 with right answers for free).
        share = wanted.false_positive_cost / (wanted.false_positive_cost + wanted.false_negative_cost)
        thresholds = np.full(len(label_names), share)
    elif wanted.threshold_objective == COST:
        costs = cost_table(wanted.cost_matrix, label_names)
    elif wanted.threshold_objective is not None:
        thresholds, said = tune_thresholds(
            after,
            labels,
            label_names,
            wanted.threshold_objective,
            min_recall=wanted.threshold_min_recall,
            min_precision=wanted.threshold_min_precision,
            positive_class=wanted.threshold_positive_class,
        )
        notes += said
    fitted = Calibration(
        problem_type,
        list(label_names),
        found.value,
        thresholds,
        costs,
        wanted.objective(),
        fitted_on or {},
        {"validation": {"before": calibration_scores(before, labels), "after": calibration_scores(after, labels)}},
        notes,
    )
    if out_of_scope_logits is None:
        return fitted
    _check_out_of_scope(problem_type, label_names)
    outside, decisions = fitted.apply(out_of_scope_logits)[0], fitted.apply(logits)[1]
    threshold = tune_out_of_scope(after.max(axis=1), decisions == labels, outside.max(axis=1))
    fitted_on = {**fitted.fitted_on, "out_of_scope_rows": len(outside)}
    return replace(fitted, out_of_scope_threshold=threshold, fitted_on=fitted_on)


# ---- Inside ----


def _listed(files: list[str] | str | None) -> list[str] | None:
    return [path.strip() for path in files.split(",")] if isinstance(files, str) else files


def _check_out_of_scope(problem_type: str, label_names: Sequence[str]) -> None:
    if problem_type != SINGLE_LABEL:
        raise ConfigurationError(
            "out_of_scope_files: a text that has any number of labels may have none already. Leave it out; "
            "threshold_objective tunes when a label is given."
        )
    if OUT_OF_SCOPE in label_names:
        raise ConfigurationError(
            f"out_of_scope_files: there is a class {OUT_OF_SCOPE!r}, which is what texts of no class are called. "
            "Rename it, or train on it and leave out_of_scope_files out."
        )
