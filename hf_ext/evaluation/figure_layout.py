"""Where the axes of a small figure stand."""

from typing import Any

# Inches, of text of 10 points.
DIGIT, LINE, GAP = 0.09, 0.2, 0.08
NUMBER = frozenset("0123456789.-\N{MINUS SIGN}+ek")


def place_axes(figure: Any) -> None:
    """
    Leaves axes that stand below one another the room for their labels, titles and a legend below.

    The room is reckoned from the letters of the numbers beside the axes: a layout engine measures all of the figure,
    which takes nearly as long as drawing it. It does so where something else than numbers stands there.

    Args:
        figure (`matplotlib.figure.Figure`): Painted, without a layout engine.
    """
    numbers = [
        label
        for axes in figure.axes
        for label in axes.yaxis.get_major_formatter().format_ticks(axes.yaxis.get_majorticklocs())
    ]
    if not NUMBER.issuperset("".join(numbers)):
        figure.set_layout_engine("constrained")
        return
    width, height = figure.get_size_inches()
    named = any(axes.get_ylabel() for axes in figure.axes)
    scaled = any(axes.yaxis.get_major_formatter().get_offset() for axes in figure.axes)
    legend = sum(legend.get_window_extent().height / figure.dpi for legend in figure.legends)
    left = GAP + LINE * named + DIGIT * max(map(len, numbers), default=0) + GAP
    below = GAP + legend + LINE * bool(figure.axes[-1].get_xlabel()) + LINE + GAP
    above = GAP + LINE * scaled + 1.5 * LINE * bool(figure.axes[0].get_title())
    figure.subplots_adjust(
        left=left / width, right=1 - 2 * GAP / width, bottom=below / height, top=1 - above / height, hspace=0.12
    )
