"""One model beside another on the same rows, and what that comes to in words."""

import math
from dataclasses import dataclass, field
from typing import Any

from hf_ext.evaluation.equivalence import SIGNIFICANCE, Equivalence
from hf_ext.evaluation.permutation import Permutation
from hf_ext.evaluation.significance import Difference
from hf_ext.evaluation.tables import METRIC_TITLES, format_p


@dataclass(frozen=True)
class Flips:
    """
    Rows that one of two models has right and the other wrong.

    Args:
        count (`int`): How many there are.
        examples (`list[dict]`): Up to ten of them, evenly spread: `row` (from 0), `text`, `label`, and the answers of
            the `model` and the `baseline`.
    """

    count: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """
    A model beside its baseline.

    Args:
        model, baseline (`str`): Names.
        rows (`int`): Rows that both answered.
        metric (`str`): The main metric: accuracy, subset accuracy, or Pearson's correlation.
        differences (`dict[str, Difference]`): Of every metric, model minus baseline, as [`paired_bootstrap`].
        p (`float`): Two-sided, of the main metric's difference; not corrected for the number of pairs.
        test (`str`): Where `p` comes from.
        agreement (`float`, *optional*): Share of rows with equal answers; `None` for regression.
        only_model, only_baseline ([`Flips`], *optional*): Rows that only one has right; `None` for regression.
        permutations (`dict[str, Permutation]`): Of the metrics, as [`paired_permutation`].
        equivalence ([`Equivalence`], *optional*): As [`paired_equivalence`]; `None` for regression.
        detectable (`float`, *optional*): The smallest difference of the main metric that so many rows would show, as
            [`detectable_difference`]; `None` if none would.
        p_holm (`float`, *optional*): `p` corrected for all pairs, as [`holm`]; `None` if this is the only one.
        family (`int`, *optional*, defaults to `1`): Pairs that it was corrected for.
    """

    model: str
    baseline: str
    rows: int
    metric: str
    differences: dict[str, Difference]
    p: float
    test: str
    agreement: float | None = None
    only_model: Flips | None = None
    only_baseline: Flips | None = None
    permutations: dict[str, Permutation] = field(default_factory=dict)
    equivalence: Equivalence | None = None
    detectable: float | None = None
    p_holm: float | None = None
    family: int = 1

    @property
    def sentence(self) -> str:
        """What the rows say about the two, in words."""
        rows = f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        title = METRIC_TITLES[self.metric]
        title = title if self.metric == "pearson" else title.lower()
        value, low, high, _ = self.differences[self.metric]
        if not math.isfinite(value):
            return f"{self.model} and {self.baseline} have no comparable {title} on {rows}: it is undefined for one."
        if self.agreement == 1 or all(item[:3] == (0, 0, 0) for item in self.differences.values()):
            return f"{self.model} and {self.baseline} give the same answers on {rows}."
        p = self.p if self.p_holm is None else self.p_holm
        found = f"{format_p(p)} by {self.test}"
        if self.p_holm is not None:
            found += f", corrected for {self.family} comparisons"
        if p < SIGNIFICANCE:
            word, sign = ("better", 1) if value > 0 else ("worse", -1)
            low, high = sorted((sign * low, sign * high))
            size = f"{self.amount(sign * value, unit=True)} ({self.amount(low)} to {self.amount(high)})"
            text = f"{self.model} is {size} {word} than {self.baseline} in {title} on {rows}; {found}."
            return text + self._equally_good(only_if_shown=True)
        size = f"{self.amount(value, unit=True)} ({self.amount(low)} to {self.amount(high)})"
        text = f"{rows} cannot tell {self.model} and {self.baseline} apart: {title} differs by {size}; {found}."
        return text + self._would_not_show() + self._equally_good(only_if_shown=False)

    def amount(self, value: float, unit: bool = False) -> str:
        """Shares in percentage points, correlations as they are. Adding 0.0 turns -0.0 into 0.0."""
        if self.metric == "pearson":
            return f"{round(value, 3) + 0.0:.3f}"
        return f"{round(100 * value, 1) + 0.0:.1f}" + (" points" if unit else "")

    def _would_not_show(self) -> str:
        if self.detectable is None:
            return " No difference would show on so few rows."
        return f" A difference under {self.amount(self.detectable, unit=True)} would not show."

    def _equally_good(self, only_if_shown: bool) -> str:
        if self.equivalence is None:
            return ""
        margin = f"{100 * self.equivalence.margin:g} {'point' if self.equivalence.margin == 0.01 else 'points'}"
        if self.equivalence.p < SIGNIFICANCE:
            return f" They are equally good to within {margin} ({format_p(self.equivalence.p)})."
        if only_if_shown:
            return ""
        for word, p in (("worse", self.equivalence.p_not_worse), ("better", self.equivalence.p_not_better)):
            if p < SIGNIFICANCE:
                return f" {self.model} is not {word} by {margin} or more ({format_p(p)})."
        return f" Nor is it shown that they are equally good to within {margin} ({format_p(self.equivalence.p)})."
