"""Whatever numbers stand beside the axes of a small figure, they and what names them stay inside and apart."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_ext.evaluation.figure_layout import place_axes


def extents(figure):
    """The boxes of all that is written, as a renderer measures them."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for axes in figure.axes:
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label, axes.yaxis.get_offset_text()]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        yield from (
            (text, text.get_window_extent(renderer)) for text in texts if text.get_text() and text.get_visible()
        )
    for legend in figure.legends:
        yield legend, legend.get_window_extent(renderer)


@pytest.mark.parametrize("values", [(0, 1), (-250, 31_000), (1e-5, 9e-5), (-3.5, 2e7), (0.99991, 0.99999)], ids=str)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("legend", [False, True])
def test_nothing_is_cut_off_or_covered(values, rows, legend):
    figure = Figure(figsize=(4.4, 4.0))
    for axes in np.atleast_1d(figure.subplots(rows, sharex=True)):
        axes.plot(np.linspace(0, 1, 9), np.linspace(*values, 9), label="a")
        axes.set_ylabel("what is measured")
        axes.yaxis.get_major_locator().set_params(nbins=5)
    axes.set_xlabel("step")
    figure.axes[0].set_title("A title")
    if legend:
        figure.legend(loc="outside lower left")
    place_axes(figure)
    assert figure.get_layout_engine() is None
    found = list(extents(figure))
    assert len(found) > 8
    for thing, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, thing
    for (one, left), (other, right) in itertools.combinations(found, 2):
        assert not left.padded(-1).overlaps(right.padded(-1)), (one, other)


def test_names_are_measured():
    figure = Figure(figsize=(4.4, 3.1))
    figure.subplots().barh(["a model of a rather long name", "b"], [1, 2])
    place_axes(figure)
    assert figure.get_layout_engine() is not None
    assert all(box.x0 >= 0 for _, box in extents(figure))
