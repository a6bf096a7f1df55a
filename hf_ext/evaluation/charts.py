"""Charts as SVG to paste into a page: lines, bars, axes, a legend. Milliseconds each; equal charts give equal bytes."""

import html
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Legible on white and on near-black; the dashes tell them apart without colour.
COLOURS = ("#2f7fd1", "#c8641b", "#2a8f5a", "#a35bc4", "#8a7a1f", "#c44569")
DASHES = ("", "6 3", "1.5 2.5", "8 3 1.5 3", "9 1.5", "1.5 1.5")
DOTTED = DASHES[2]
SIZE = (317.0, 223.0)
# More numbers than a small chart has room for.
MAX_TICK_INTERVALS = 5
# Of the axis, on both sides of what is drawn.
MARGIN = 0.05
TEXT, SMALL, TITLE, LINE_HEIGHT = 10.0, 9.0, 12.0, 14.0
# The average letter of wide fonts, in units of the font size.
LETTER = 0.62
TICK, PAD, HANDLE = 3.5, 3.0, 22.0
# Around (0, 0), of radius 1: round, square, diamond, up, down, plus.
MARKERS = {
    "o": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "s": "M-1-1h2v2h-2z",
    "D": "M0-1.3L1.3 0L0 1.3L-1.3 0z",
    "^": "M0-1.2L1.2 1L-1.2 1z",
    "v": "M0 1.2L1.2-1L-1.2-1z",
    "P": "M-.4-1.2h.8v.8h.8v.8h-.8v.8h-.8v-.8h-.8v-.8h.8z",
}


@dataclass(frozen=True)
class Line:
    """
    Points, joined or not. What is not finite leaves a gap.

    Args:
        x (`Sequence[float]`): Where they are.
        y (`Sequence[float]`): As many.
        colour (`str`, *optional*, defaults to `"currentColor"`): The text's, so that it follows the page.
        dashes (`str`, *optional*, defaults to `""`): Lengths of strokes and gaps of the line; `None` draws none.
        marker (`str`, *optional*, defaults to `""`): A key of [`MARKERS`].
        size (`float`, *optional*, defaults to `2.0`): Radius of the markers.
        label (`str`, *optional*, defaults to `""`): Its entry of the legend, if it has one.
        width (`float`, *optional*, defaults to `1.5`): Of the line.
        opacity (`float`, *optional*, defaults to `1.0`): Of all of it.
        steps (`bool`, *optional*, defaults to `False`): A value holds from the point before on.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str = "currentColor"
    dashes: str | None = ""
    marker: str = ""
    size: float = 2.0
    label: str = ""
    width: float = 1.5
    opacity: float = 1.0
    steps: bool = False


@dataclass(frozen=True)
class Bars:
    """Bars that stand on 0: `(n + 1,)` edges and `(n,)` heights."""

    edges: Sequence[float]
    heights: Sequence[float]
    colour: str
    opacity: float = 1.0


@dataclass(frozen=True)
class Panel:
    """
    Two axes and what is drawn between them.

    Args:
        marks (`list[Line | Bars]`): From the back to the front.
        xlabel (`str`, *optional*, defaults to `""`): What the horizontal axis shows.
        ylabel (`str`, *optional*, defaults to `""`): What the vertical one shows.
        title (`str`, *optional*, defaults to `""`): Above them.
        xlim (`tuple[float, float]`, *optional*): Ends of the axis; those of what is drawn, and a little more.
        ylim (`tuple[float, float]`, *optional*): Likewise.
        xticks (`Sequence[tuple[float, str]]`, *optional*): Places and their texts; round numbers.
        yticks (`Sequence[tuple[float, str]]`, *optional*): Likewise; such an axis of names has no line.
        logarithmic (`bool`, *optional*, defaults to `False`): The horizontal axis; `xlim` and `xticks` are needed.
        grid (`bool`, *optional*, defaults to `True`): Lines at the ticks.
        share (`float`, *optional*, defaults to `1.0`): Of the height, beside the other panels of a chart.
    """

    marks: list[Line | Bars] = field(default_factory=list)
    xlabel: str = ""
    ylabel: str = ""
    title: str = ""
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    xticks: Sequence[tuple[float, str]] | None = None
    yticks: Sequence[tuple[float, str]] | None = None
    logarithmic: bool = False
    grid: bool = True
    share: float = 1.0


def draw_chart(label: str, panels: Sequence[Panel], size: tuple[float, float] = SIZE) -> str:
    """
    Draws an SVG to paste into a page.

    Args:
        label (`str`): What the chart shows, for readers who cannot see it.
        panels (`Sequence[Panel]`): From top to bottom.
        size (`tuple[float, float]`, *optional*, defaults to `(317.0, 223.0)`): Width and height in points; a legend
            below comes on top.

    Returns:
        `str`: One element.
    """
    width, height = size
    axes = [(_axis(panel, 0), _axis(panel, 1)) for panel in panels]
    left = max(_left(panel, vertical) for panel, (_, vertical) in zip(panels, axes, strict=True))
    right = width - max(_beyond(horizontal) for horizontal, _ in axes)
    parts, top, total = [], 0.0, sum(panel.share for panel in panels)
    for panel, (horizontal, vertical) in zip(panels, axes, strict=True):
        bottom = top + height * panel.share / total
        ends = (left, right), (bottom - _below(panel, horizontal), top + (TITLE + 2 * PAD if panel.title else 8.0))
        parts += _panel(panel, horizontal.between(*ends[0]), vertical.between(*ends[1]))
        top = bottom
    named = [mark for panel in panels for mark in panel.marks if isinstance(mark, Line) and mark.label]
    legend, rows = _legend(named, width)
    parts += [f'<g transform="translate(0 {_number(height + PAD)})">', *legend, "</g>"] if legend else []
    height += rows * LINE_HEIGHT + 2 * PAD if legend else 0
    quoted = html.escape(printable(label))
    return (
        f'<svg role="img" aria-label="{quoted}" viewBox="0 0 {_number(width)} {_number(height)}" '
        f'font-size="{_number(TEXT)}"><title>{quoted}</title>{"".join(parts)}</svg>'
    )


def printable(text: str) -> str:
    """Neither line breaks nor control characters nor half a surrogate pair: no font and no encoding has them."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)


# ---- Inside: axes ----


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: list[tuple[float, str]]
    logarithmic: bool = False
    start: float = 0.0
    end: float = 1.0

    def between(self, start: float, end: float) -> "_Axis":
        return self._replace(start=start, end=end)

    def at(self, values: Iterable[float]) -> np.ndarray:
        values, low, high = np.asarray(values, dtype=np.float64), self.low, self.high
        if self.logarithmic:
            values, low, high = np.log(values), np.log(low), np.log(high)
        return self.start + (values - low) / (high - low) * (self.end - self.start)


def _axis(panel: Panel, direction: int) -> _Axis:
    """The horizontal (0) or the vertical (1) axis of a panel."""
    given = (panel.xlim, panel.ylim)[direction]
    low, high = _range(panel.marks, direction) if given is None else given
    ticks = (panel.xticks, panel.yticks)[direction]
    ticks = _round_ticks(low, high) if ticks is None else [tick for tick in ticks if low <= tick[0] <= high]
    return _Axis(low, high, ticks, panel.logarithmic and direction == 0)


def _range(marks: Sequence[Line | Bars], direction: int) -> tuple[float, float]:
    parts = []
    for mark in marks:
        if isinstance(mark, Line):
            parts.append((mark.x, mark.y)[direction])
        else:
            parts.append(mark.edges if direction == 0 else [0.0, *mark.heights])
    values = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts] or [np.zeros(0)])
    # Far beyond any loss; differences of larger numbers are no numbers.
    values = np.clip(values[np.isfinite(values)], -1e300, 1e300)
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, 1e-290):
        around = 0.1 * largest if largest > 1e-280 else 0.5
        return low - around, high + around
    margin = MARGIN * (high - low)
    stands = direction == 1 and low == 0 and any(isinstance(mark, Bars) for mark in marks)
    return low if stands else low - margin, high + margin


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    least = (high - low) / MAX_TICK_INTERVALS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= least * (1 - 1e-9))
    places = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    largest = max(map(abs, places), default=0.0)
    if not 1e-3 <= largest < 1e7:
        return [(place, f"{place:.6g}") for place in places]
    if largest >= 10_000 and step % 1000 == 0:
        return [(place, f"{place / 1000:g}k" if place else "0") for place in places]
    decimals = next(digits for digits in range(12) if abs(round(step, digits) - step) <= 1e-6 * step)
    return [(place, f"{place + 0.0:.{decimals}f}") for place in places]


# ---- Inside: layout ----


def _width(text: str, size: float = TEXT) -> float:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (LETTER * (len(text) - wide) + wide)


def _left(panel: Panel, axis: _Axis) -> float:
    numbers = max((_width(text) for _, text in axis.ticks), default=0.0)
    return PAD + (LINE_HEIGHT if panel.ylabel else 0) + numbers + PAD + TICK


def _beyond(axis: _Axis) -> float:
    """Half of the last number stands out to the right."""
    return max(8.0, _width(axis.ticks[-1][1]) / 2 + PAD if axis.ticks else 0)


def _below(panel: Panel, axis: _Axis) -> float:
    return (TICK + LINE_HEIGHT if axis.ticks else 0) + (LINE_HEIGHT if panel.xlabel else 0) + PAD


def _legend(lines: list[Line], width: float) -> tuple[list[str], int]:
    """Two columns where they fit; also how many rows there are."""
    widest = max((HANDLE + 4 * PAD + _width(line.label, SMALL) for line in lines), default=0.0)
    columns = 2 if 2 * widest <= width else 1
    parts = []
    for index, line in enumerate(lines):
        x = PAD + index % columns * width / 2
        y = (index // columns + 0.5) * LINE_HEIGHT
        shown = np.array([x, x + HANDLE] if line.dashes is not None else [x + HANDLE / 2])
        parts += _line(line, shown, np.full(len(shown), y))
        parts.append(_text(x + HANDLE + 2 * PAD, y + 0.35 * SMALL, line.label, "start", SMALL))
    return parts, math.ceil(len(lines) / columns)


# ---- Inside: elements ----


def _number(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text(x: float, y: float, content: str, anchor: str = "middle", size: float = TEXT, turned: bool = False) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}"'
    turn = f' transform="rotate(-90 {_number(x)} {_number(y)})"' if turned else ""
    large = "" if size == TEXT else f' font-size="{_number(size)}"'
    return f'<text {place} text-anchor="{anchor}"{large}{turn}>{html.escape(printable(content), quote=False)}</text>'


def _panel(panel: Panel, horizontal: _Axis, vertical: _Axis) -> list[str]:
    (left, right), (bottom, top) = (horizontal.start, horizontal.end), (vertical.start, vertical.end)
    across = list(zip(horizontal.at([place for place, _ in horizontal.ticks]), horizontal.ticks, strict=True))
    up = list(zip(vertical.at([place for place, _ in vertical.ticks]), vertical.ticks, strict=True))
    parts = []
    if panel.grid:
        lines = [f"M{_number(x)} {_number(bottom)}V{_number(top)}" for x, _ in across]
        lines += [f"M{_number(left)} {_number(y)}H{_number(right)}" for y, _ in up]
        parts.append(_path("".join(lines), 'stroke="currentColor" stroke-opacity=".15" stroke-width=".8"'))
    for mark in panel.marks:
        draw = _bars if isinstance(mark, Bars) else _line
        parts += draw(mark, *_places(mark, horizontal, vertical))
    frame = [f"M{_number(left)} {_number(bottom)}H{_number(right)}"]
    frame += [f"M{_number(x)} {_number(bottom)}v{TICK}" for x, _ in across]
    if panel.yticks is None:
        frame += [f"M{_number(left)} {_number(bottom)}V{_number(top)}"]
        frame += [f"M{_number(left)} {_number(y)}h-{TICK}" for y, _ in up]
    parts.append(_path("".join(frame), 'stroke="currentColor" stroke-width=".8"'))
    parts += [_text(x, bottom + TICK + TEXT, text) for x, (_, text) in across]
    parts += [_text(left - TICK - PAD, y + 0.35 * TEXT, text, "end") for y, (_, text) in up]
    middle = (left + right) / 2, (top + bottom) / 2
    if panel.xlabel:
        below = bottom + _below(panel, horizontal) - 2 * PAD
        parts.append(_text(middle[0], below, panel.xlabel))
    if panel.ylabel:
        parts.append(_text(TEXT, middle[1], panel.ylabel, turned=True))
    if panel.title:
        parts.append(_text(middle[0], top - 2 * PAD, panel.title, size=TITLE))
    return parts


def _places(mark: Line | Bars, horizontal: _Axis, vertical: _Axis) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(mark, Line):
        return horizontal.at(mark.x), vertical.at(mark.y)
    # Bars may be larger than what is shown.
    edges = np.clip(np.asarray(mark.edges, dtype=np.float64), horizontal.low, horizontal.high)
    return horizontal.at(edges), vertical.at(np.clip([0.0, *mark.heights], vertical.low, vertical.high))


def _path(data: str, style: str) -> str:
    return f'<path d="{data}" fill="none" {style}/>'


def _bars(bars: Bars, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    data = [
        f"M{_number(x[i])} {_number(y[0])}V{_number(end)}H{_number(x[i + 1])}V{_number(y[0])}z"
        for i, end in enumerate(y[1:])
        if end != y[0]
    ]
    yield f'<path d="{"".join(data)}" fill="{bars.colour}" fill-opacity="{bars.opacity:g}"/>'


def _line(line: Line, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    if line.dashes is not None:
        along, up = x, y
        if line.steps:
            along, up = np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]
        data, move = [], True
        for a, b in zip(along.tolist(), up.tolist(), strict=True):
            gap = not (math.isfinite(a) and math.isfinite(b))
            if not gap:
                data.append(f"{'M' if move else 'L'}{_number(a)} {_number(b)}")
            move = gap
        style = f'stroke="{line.colour}" stroke-width="{line.width:g}"'
        style += f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
        style += f' stroke-opacity="{line.opacity:g}"' if line.opacity < 1 else ""
        yield _path("".join(data), style)
    if line.marker:
        yield from _markers(line, x, y)


def _markers(line: Line, x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    shape, opacity = MARKERS[line.marker], f' fill-opacity="{line.opacity:g}"' if line.opacity < 1 else ""
    yield f'<g fill="{line.colour}"{opacity}>'
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if math.isfinite(a) and math.isfinite(b):
            yield f'<path d="{shape}" transform="translate({_number(a)} {_number(b)}) scale({line.size:g})"/>'
    yield "</g>"
