"""The learning-rate range test as pure functions: the range, when to stop, what the curve suggests, its figure."""

import io
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hf_ext.errors import UsageError

METHODS = ("valley", "steepest", "minimum/10")
MODES = ("exponential", "linear")
MIN_ITERATIONS = 10
SMOOTHING = 0.03
# Of the running average that stops a test: some five steps.
DECAY = 0.8
# A fall counts when it is so many standard errors deep: of the flat beginning's noise, and of the noise up to the
# bottom, which grows as soon as the model learns. Flat noise of 100 steps passes in none of 2,000 trials.
DEPTH, DEPTH_IN_ALL_NOISE = 6.0, 4.0
# The valley begins where the loss has left the flat part by so many standard errors and by this share of its fall,
# and ends where only this share is left. Without the share both ends would move with the noise, so with the batch size.
LEAVING, END_SHARE = 3.0, 0.05
# A rise that undoes this share of the fall ends the valley. What a model does after it has diverged is no valley.
UNDOING = 0.5
# A valley whose beginning is hidden by noise is narrow; its middle would be at the edge of divergence.
BELOW_LOWEST = 3.0


class NoUsableSlopeError(UsageError):
    """The loss of a range test never falls by more than its noise."""


def learning_rates(start_lr: float, end_lr: float, num_iter: int, mode: str = "exponential") -> list[float]:
    """
    The learning rates of a range test.

    Args:
        start_lr (`float`): The first; above 0.
        end_lr (`float`): The last; above the first.
        num_iter (`int`): How many; at least 10.
        mode (`str`, *optional*, defaults to `"exponential"`): Equal ratios, or `"linear"`: equal differences.

    Returns:
        `list[float]`

    Raises:
        UsageError: If the range is reversed or empty or too short, or the mode is unknown.
    """
    if not 0 < start_lr < math.inf:
        raise UsageError(f"start_lr is {start_lr}; it must be above 0.")
    if not start_lr < end_lr < math.inf:
        raise UsageError(
            f"start_lr is {start_lr} and end_lr is {end_lr}: the range is reversed or empty; end_lr must be above "
            "start_lr."
        )
    if num_iter < MIN_ITERATIONS:
        raise UsageError(f"num_iter is {num_iter}; it must be at least {MIN_ITERATIONS}.")
    if mode not in MODES:
        raise UsageError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}.")
    return (np.geomspace if mode == "exponential" else np.linspace)(start_lr, end_lr, num_iter).tolist()


def base_rates(groups: Sequence[dict[str, Any]]) -> list[float]:
    """
    The learning rates that an optimizer's groups have apart from their schedule.

    Args:
        groups (`Sequence[dict]`): `optimizer.param_groups`.

    Raises:
        UsageError: If all are 0: they have no ratios to keep.
    """
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if max(rates) <= 0:
        raise UsageError(
            "The learning rates of all groups of the optimizer are 0, so there is no ratio between them to keep. Give "
            "the group that is to get the tested rate any rate above 0."
        )
    return rates


class RangeCurve:
    """
    The losses of a range test, and whether it has to end.

    It ends when the loss is not finite, or when its running average has climbed above `divergence_factor` times the
    best one so far (measured from the best one, so that losses near or below 0 work) and above where it began.

    Args:
        rates (`list[float]`): The learning rates to test.
        divergence_factor (`float`, *optional*, defaults to `4.0`): See above.

    Attributes:
        losses (`list[float]`): The finite losses so far.
        reason (`str`): Why it ended, or `None`.
    """

    def __init__(self, rates: list[float], divergence_factor: float = 4.0):
        self.rates, self.divergence_factor = rates, divergence_factor
        self.clear()

    def clear(self) -> None:
        """Forget the losses: the test begins again."""
        self.losses: list[float] = []
        self.reason: str | None = None
        self._average, self._first, self._best = 0.0, math.nan, math.inf

    def add(self, loss: float) -> bool:
        """Note the loss at the next learning rate; whether the test ends here."""
        rate = self.rates[len(self.losses)]
        if not math.isfinite(loss):
            self.reason = f"loss not finite at lr {rate:.3g}"
            return True
        self.losses.append(loss)
        self._average = DECAY * self._average + (1 - DECAY) * loss
        average = self._average / (1 - DECAY ** len(self.losses))
        if len(self.losses) == 1:
            self._first = average
        self._best = min(self._best, average)
        if average - self._best > max((self.divergence_factor - 1) * abs(self._best), self._first - self._best):
            self.reason = f"diverged at lr {rate:.3g}"
        elif len(self.losses) == len(self.rates):
            self.reason = "finished"
        return self.reason is not None


def smooth(losses: Sequence[float], smoothing: float = SMOOTHING) -> np.ndarray:
    """
    A centred Gaussian mean: it follows the curve without lag, unlike a running average.

    Args:
        losses (`Sequence[float]`): Losses, one a step.
        smoothing (`float`, *optional*, defaults to `0.03`):
            Standard deviation of the Gaussian as a share of the number of points; at least one point, unless 0.

    Returns:
        `np.ndarray` of shape (points,)
    """
    from scipy.ndimage import gaussian_filter1d

    losses = np.asarray(losses, dtype=np.float64)
    return gaussian_filter1d(losses, _width(len(losses), smoothing)) if smoothing > 0 and len(losses) else losses


def longest_decreasing(values: Sequence[float]) -> list[int]:
    """
    Indices of the longest strictly decreasing subsequence; of several, one that begins late.

    Args:
        values (`Sequence[float]`): Any numbers.

    Returns:
        `list[int]`, ascending.
    """
    # The smallest possible negated end of a subsequence of each length, and where it is.
    ends: list[float] = []
    where: list[int] = []
    previous = []
    for index, value in enumerate(values):
        length = bisect_left(ends, -value)
        ends[length : length + 1], where[length : length + 1] = [-value], [index]
        previous.append(where[length - 1] if length else None)
    chain = []
    index = where[-1] if where else None
    while index is not None:
        chain.append(index)
        index = previous[index]
    return chain[::-1]


@dataclass(frozen=True)
class Valley:
    """Where the smoothed loss leaves its flat beginning, where it has fallen, where it is lowest; and the curve."""

    start: int
    end: int
    lowest: int
    smoothed: np.ndarray


def find_valley(lrs: Sequence[float], losses: Sequence[float], smoothing: float = SMOOTHING) -> Valley:
    """
    The longest valley: the longest decreasing subsequence of the smoothed losses that is no noise.

    Args:
        lrs (`Sequence[float]`): Learning rates, ascending.
        losses (`Sequence[float]`): The raw loss at each.
        smoothing (`float`, *optional*, defaults to `0.03`): See [`smooth`].

    Raises:
        NoUsableSlopeError: If the loss never falls by more than its noise, or there are fewer than 10 points.
    """
    losses, points = np.asarray(losses, dtype=np.float64), len(losses)
    if points < MIN_ITERATIONS:
        raise NoUsableSlopeError(_no_slope(f"only {points} steps were made before the test ended", lrs))
    smoothed = smooth(losses, smoothing)
    flat = max(MIN_ITERATIONS // 2, points // 5)
    # The beginning of the beginning too: a loss that rises at once has no flat part.
    level = min(losses[:flat].mean(), losses[: flat // 2 + 1].mean())
    noise = _noise(losses[: max(20, points // 3)])
    # Standard errors, in units of the noise: of a smoothed value, and of its difference from the flat level.
    error = 1 / math.sqrt(2 * math.sqrt(math.pi) * _width(points, smoothing)) if smoothing > 0 else 1.0
    error = min(error, 1.0)
    difference_error = math.sqrt(error**2 + 1 / flat)

    best = np.minimum.accumulate(smoothed)
    fallen, risen = level - best, smoothed - best
    undone = (fallen > LEAVING * noise * difference_error) & (
        risen > np.maximum(2 * LEAVING * noise * error, UNDOING * fallen)
    )
    end = int(undone.argmax()) if undone.any() else points
    lowest = int(smoothed[:end].argmin())
    fall = level - smoothed[lowest]
    # The noise up to every point: somewhere on its way down the loss has to be clear of it.
    so_far = np.sqrt(np.cumsum(np.diff(losses, 2) ** 2) / np.arange(1, points - 1) / 6)
    so_far = np.maximum(np.concatenate([so_far[:1], so_far, so_far[-1:]]), noise)[: lowest + 1]
    clear = level - smoothed[: lowest + 1] > difference_error * np.maximum(DEPTH * noise, DEPTH_IN_ALL_NOISE * so_far)
    if fall <= 0 or not clear.any():
        seen = f"the smoothed loss falls by {max(fall, 0):.3g} at most, and the losses scatter by {so_far[-1]:.3g}"
        raise NoUsableSlopeError(_no_slope(seen, lrs))
    top = level - max(LEAVING * noise * difference_error, END_SHARE * fall)
    slope = np.clip(smoothed[:end], smoothed[lowest] + END_SHARE * fall, top)
    chain = longest_decreasing(slope)
    # Of the points at the bottom, which are all alike now, the first.
    bottom = chain[0] + int((slope[chain[0] :] <= slope[chain[-1]]).argmax())
    return Valley(chain[0], bottom, lowest, smoothed)


def suggest(
    lrs: Sequence[float],
    losses: Sequence[float],
    method: Literal["valley", "steepest", "minimum/10"] = "valley",
    smoothing: float = SMOOTHING,
) -> float:
    """
    The learning rate that a range test's curve suggests.

    - `"valley"`: the middle, on the logarithmic axis, of the longest valley (as fastai; see [`find_valley`]), and at
      most a third of the rate where the loss is lowest.
    - `"steepest"`: where the smoothed loss falls fastest by the logarithm of the learning rate.
    - `"minimum/10"`: a tenth of the rate where the smoothed loss is lowest.

    Args:
        lrs (`Sequence[float]`): Learning rates, ascending.
        losses (`Sequence[float]`): The raw loss at each.
        method (`str`, *optional*, defaults to `"valley"`): See above.
        smoothing (`float`, *optional*, defaults to `0.03`): See [`smooth`].

    Returns:
        `float`

    Raises:
        NoUsableSlopeError: If the loss never falls by more than its noise.
        UsageError: If the method is unknown.
    """
    if method not in METHODS:
        raise UsageError(f"method is {method!r}; it must be one of {', '.join(METHODS)}.")
    valley = find_valley(lrs, losses, smoothing)
    start, end, lowest = (float(lrs[index]) for index in (valley.start, valley.end, valley.lowest))
    if method == "minimum/10":
        return lowest / 10
    if method == "valley":
        return min(math.sqrt(start * end), lowest / BELOW_LOWEST)
    slopes = np.gradient(valley.smoothed, np.log(lrs))
    return float(lrs[valley.start + int(slopes[valley.start : valley.lowest + 1].argmin())])


def draw_range_test(
    history: dict[str, list[float]], rate: float | None, method: str, stopped: str, path: str | Path | None = None
):
    """
    Loss by learning rate.

    Args:
        history (`dict[str, list[float]]`): `lr`, `loss` and `smoothed_loss`.
        rate (`float`, *optional*): The suggestion to mark; `None` says that there is no usable slope.
        method (`str`): Whose suggestion it is.
        stopped (`str`): Why the test ended.
        path (`str` or `Path`, *optional*): Where to write it, as its ending says (png, svg, pdf).

    Returns:
        `matplotlib.figure.Figure`, bound to no window.
    """
    import matplotlib
    from matplotlib.figure import Figure

    lrs, raw, smoothed = (np.asarray(history[key], dtype=np.float64) for key in ("lr", "loss", "smoothed_loss"))
    settings = {"svg.hashsalt": "learning rate range test", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(lrs, raw, color="#2f7fd1", linestyle="none", marker="o", markersize=3, alpha=0.3, label="loss")
        axes.plot(lrs, smoothed, color="#2f7fd1", label="smoothed")
        if rate is not None:
            loss = float(np.interp(math.log(rate), np.log(lrs), smoothed))
            label = f"{method}: {rate:.2g}"
            axes.axvline(rate, color="#c8641b", linestyle="--", linewidth=1)
            axes.plot(rate, loss, color="#c8641b", linestyle="none", marker="o", label=label)
        title = "Learning rate range test" + (": no usable slope" if rate is None else "")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title=f"{title}\n({stopped})")
        before = raw[: max(len(raw) // 3, int(smoothed.argmin())) + 1]
        if np.ptp(before) > 0:
            # The losses after divergence would press the rest into a line.
            axes.set_ylim(before.min() - 0.1 * np.ptp(before), before.min() + 1.5 * np.ptp(before))
        axes.grid(alpha=0.2)
        axes.legend(frameon=False)
        if path is not None:
            ending = Path(path).suffix[1:].lower()
            valid = sorted(figure.canvas.get_supported_filetypes())
            if ending not in valid:
                raise UsageError(
                    f"The figure cannot be written to {path}; its ending must be one of {', '.join(valid)}."
                )
            figure.savefig(path, metadata={"Date": None} if ending == "svg" else None)

    def png() -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()

    # What a notebook asks an object for; without pyplot nobody else teaches it to show a Figure.
    figure._repr_png_ = png
    return figure


def _width(points: int, smoothing: float) -> float:
    return max(smoothing * points, 1.0)


def _noise(losses: np.ndarray) -> float:
    """Standard deviation of independent noise on a smooth curve: second differences do not see its slope."""
    return math.sqrt(np.mean(np.diff(losses, 2) ** 2) / 6)


def _no_slope(seen: str, lrs: Sequence[float]) -> str:
    tested = f" from lr {lrs[0]:.3g} to {lrs[-1]:.3g}" if len(lrs) else ""
    return (
        f"The range test has no usable slope{tested}: {seen}. Test a wider range (start_lr, end_lr), make more "
        "iterations (num_iter) or use larger batches; or choose the learning rate by hand."
    )
