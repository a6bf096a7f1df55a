"""Charts, read back: what the axes' numbers say of the places of marks is what was drawn."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hf_ext.evaluation.charts import COLOURS, DASHES, MARKERS, Bars, Line, Panel, draw_chart


def read(svg):
    return ElementTree.fromstring(svg)


def numbers_of(svg):
    """Of the horizontal and of the vertical axis: places and the numbers that stand there."""
    across, up = [], []
    for text in read(svg).iter("text"):
        value = re.fullmatch(r"(-?[\d.]+(?:e[+-]?\d+)?)(k?)", text.text or "")
        if value:
            number = float(value[1]) * (1000 if value[2] else 1)
            axis = up if text.get("text-anchor") == "end" else across
            axis.append((float(text.get("x" if axis is across else "y")), number))
    return across, up


def path_of(svg, colour, kind="stroke"):
    (path,) = (path for path in read(svg).iter("path") if path.get(kind) == colour)
    return path.get("d")


def points_of(svg, colour=COLOURS[0]):
    """The points of a line in the numbers of the axes."""
    found = np.array(
        [[float(part) for part in re.split(" ", pair)] for pair in re.findall(r"[ML]([^ML]+)", path_of(svg, colour))]
    )
    for column, axis in enumerate(numbers_of(svg)):
        places, values = np.array(axis).T
        # Numbers of a vertical axis stand a little below their places.
        slope, start = np.polyfit(places - (3.5 if column else 0), values, 1)
        found[:, column] = slope * found[:, column] + start
    return found


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 0.3, 1.0, 7.0, 123.0, 2e4, 3e6, 4e9])
@pytest.mark.parametrize("start", [0.0, -0.7, 3.1])
def test_points_are_where_the_numbers_say(scale, start):
    x, y = np.linspace(1, 40, 9), scale * (start + np.sin(np.arange(9)))
    svg = draw_chart("Sine.", [Panel([Line(x, y, COLOURS[0])], "step")])
    found = points_of(svg)
    assert found[:, 0] == pytest.approx(x, abs=0.1)
    assert found[:, 1] == pytest.approx(y, abs=0.01 * scale)
    for axis, values in zip(numbers_of(svg), (x, y), strict=True):
        numbers = [number for _, number in axis]
        steps = {float(f"{b - a:.6g}") for a, b in itertools.pairwise(numbers)}
        assert 3 <= len(numbers) <= 6 and max(steps) == pytest.approx(min(steps), rel=1e-4)
        assert f"{min(steps):e}"[:3] in ("1.0", "2.0", "2.5", "5.0")
        assert numbers[-1] - numbers[0] >= 0.5 * np.ptp(values)


def test_a_logarithmic_axis():
    ticks = [(10.0, "10"), (100.0, "100"), (1000.0, "1000"), (5.0, "5")]
    line = Line([10, 31.6227766, 1000], [1, 2, 3], COLOURS[0])
    svg = draw_chart("Speed.", [Panel([line], "x", xlim=(8, 2000), xticks=ticks, logarithmic=True)])
    across, _ = numbers_of(svg)
    places = {number: place for place, number in across}
    # What lies outside is left out.
    assert set(places) == {10, 100, 1000}
    assert places[100] - places[10] == pytest.approx(places[1000] - places[100], abs=0.02)
    found = [float(pair.split()[0]) for pair in re.findall(r"[ML]([^ML]+)", path_of(svg, COLOURS[0]))]
    assert found == pytest.approx([places[10], (places[10] + places[100]) / 2, places[1000]], abs=0.02)


@pytest.mark.parametrize(
    "values",
    [[0, 0], [0.75], [5e-324, 5e-324], [-3.0, -3.0], [1e300, -1e300], [1e308, -1e308], [np.nan, 1.0, np.inf], [np.nan]],
    ids=str,
)
def test_any_numbers_can_be_drawn(values):
    svg = draw_chart(
        "Any.", [Panel([Line(range(len(values)), values, COLOURS[0], marker="o")], "step", "value", "Title")]
    )
    assert "nan" not in svg and "inf" not in svg.replace("information", "")
    finite = int(np.isfinite(values).sum())
    assert len(re.findall("[ML]", path_of(svg, COLOURS[0]))) == finite
    assert len(re.findall("scale", svg)) == finite
    assert len(numbers_of(svg)[1]) >= 2


def test_what_is_not_finite_leaves_a_gap():
    svg = draw_chart("Gap.", [Panel([Line(range(5), [1, 2, np.nan, 4, 5], COLOURS[0])])])
    assert re.sub(r"[^ML]", "", path_of(svg, COLOURS[0])) == "MLML"


def test_steps_hold_from_the_point_before():
    svg = draw_chart("Steps.", [Panel([Line([0, 1, 2], [5, 7, 6], COLOURS[0], steps=True)])])
    assert points_of(svg) == pytest.approx(np.array([(0, 5), (0, 7), (1, 7), (1, 6), (2, 6)]), abs=0.02)


def test_bars_stand_on_nothing_and_end_at_the_edge():
    svg = draw_chart("Bars.", [Panel([Bars([0, 1, 2, 3], [4, 0, 20], COLOURS[1])], xlim=(0, 3), ylim=(0, 10))])
    bars = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)", path_of(svg, COLOURS[1], "fill"))
    _, up = numbers_of(svg)
    places = {number: place - 3.5 for place, number in up}
    assert [(float(low), float(high)) for _, low, high, _ in bars] == [
        (pytest.approx(places[0], abs=0.02), pytest.approx(places[4], abs=0.02)),
        (pytest.approx(places[0], abs=0.02), pytest.approx(places[10], abs=0.02)),
    ]
    auto = draw_chart("Bars.", [Panel([Bars([0, 1, 2], [4, 8], COLOURS[1])])])
    assert numbers_of(auto)[1][0][1] == 0


def test_a_legend_lies_below_and_makes_room():
    def chart(*labels):
        lines = [
            Line([0, 1], [i, 1], colour, dashes, label=label)
            for i, (label, colour, dashes) in enumerate(zip(labels, COLOURS, DASHES, strict=False))
        ]
        return draw_chart("Legend.", [Panel(lines, "x")])

    def height(svg):
        return float(read(svg).get("viewBox").split()[3])

    one, two, long = chart("", ""), chart("a", "b"), chart("a" * 34, "b" * 34)
    assert height(one) < height(two) < height(long)
    for svg, names in ((two, "ab"), (long, ["a" * 34, "b" * 34])):
        (group,) = (group for group in read(svg).iter("g") if "translate(0 " in group.get("transform", ""))
        assert [text.text for text in group.iter("text")] == list(names)
        assert [path.get("stroke") for path in group.iter("path")] == list(COLOURS[:2])
        assert [path.get("stroke-dasharray") for path in group.iter("path")] == [None, DASHES[1]]
        top = float(re.search(r"translate\(0 ([\d.]+)", group.get("transform"))[1])
        assert top >= height(one) and all(top + float(text.get("y")) <= height(svg) for text in group.iter("text"))
    assert len(set(DASHES)) == len(COLOURS) <= len(MARKERS)


def test_panels_share_the_height_and_their_left_edge():
    panels = [
        Panel([Line([0, 1], [0, 1], COLOURS[i])], ylim=ylim, share=3 - i) for i, ylim in enumerate([(0, 1), (0, 5e6)])
    ]
    svg = draw_chart("Two.", panels, (300, 300))
    starts = [re.match(r"M([\d.]+) ([\d.]+)", path_of(svg, colour)).groups() for colour in COLOURS[:2]]
    assert starts[0][0] == starts[1][0]
    assert float(starts[0][1]) < 180 < float(starts[1][1])


def test_all_text_is_escaped_and_printable():
    name = '<script>"x"&\x00\ud800\n'
    svg = draw_chart(name, [Panel([Line([0, 1], [0, 1], label=name)], name, name, name, yticks=[(0.5, name)])])
    svg.encode()
    texts = [text.text for text in read(svg).iter("text")]
    assert texts.count('<script>"x"&   ') == 5
    assert read(svg).get("aria-label") == read(svg).find("title").text == '<script>"x"&   '


def test_equal_charts_are_equal_bytes():
    def chart():
        return draw_chart(
            "Same.", [Panel([Line(np.arange(50), np.sin(np.arange(50)), marker=marker) for marker in MARKERS])]
        )

    assert chart() == chart()
