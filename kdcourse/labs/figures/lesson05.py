"""The figures of lesson 05."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREY, ORANGE, STYLE

GAP = 0.35
"""Between two micro-batches, in rows."""
WIDTH = 0.95
"""Of a box, in rows."""
ROOM = 0.22
"""Above the highest box, for its number."""


def columns_at_stops(stops: Mapping[str, Collection[str]]) -> Picture:
    """Which columns a batch has at each stop of its way, one row per column; a name's first stop decides its place."""
    names = _in_order_of_appearance(stops)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.6, 0.42 * len(names) + 1.1))
        for row, name in enumerate(names):
            present = [stop for stop, columns in enumerate(stops.values()) if name in columns]
            absent = [stop for stop in range(len(stops)) if stop not in present]
            is_label = name.startswith("label")
            axes.plot(present, [row] * len(present), color=ORANGE if is_label else BLUE, linewidth=2)
            axes.scatter(
                present, [row] * len(present), s=110, zorder=3,
                color=ORANGE if is_label else BLUE, marker="D" if is_label else "o",
            )  # fmt: skip
            axes.scatter(absent, [row] * len(absent), s=40, color=GREY, marker="x", linewidth=1)
        axes.set_xticks(range(len(stops)), list(stops), fontsize=10)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.invert_yaxis()
        axes.margins(x=0.06, y=0.08)
        axes.spines[["left", "bottom"]].set_visible(False)
    return Picture(figure, _describe_columns_at_stops(stops))


def _describe_columns_at_stops(stops: Mapping[str, Collection[str]]) -> str:
    listed = "; ".join(
        f"{' '.join(stop.split())}: {', '.join(name for name in _in_order_of_appearance(stops) if name in columns)}"
        for stop, columns in stops.items()
    )
    return f"The columns of a batch at {len(stops)} stops on its way to the model. {listed}."


def _in_order_of_appearance(stops: Mapping[str, Collection[str]]) -> list[str]:
    """Every name once, by the stop where it comes up first."""
    return list(dict.fromkeys(name for columns in stops.values() for name in columns))


def accumulation(pieces: Sequence[int], weights: Mapping[str, Sequence[float]]) -> Picture:
    """One optimizer step as boxes: a box is a row, as high as its weight in the loss; micro-batches stand apart.

    Args:
        pieces: how many rows each micro-batch has.
        weights: for each way to make one loss of the step, the weight of each row; where all are equal, the rows stand
            together.
    """
    ends = np.cumsum([0, *pieces])
    apart = np.concatenate([np.arange(start, end) + GAP * piece for piece, (start, end) in enumerate(pairwise(ends))])
    together = np.arange(ends[-1]) + GAP * (len(pieces) - 1) / 2
    tops = [max(heights) + ROOM for heights in weights.values()]  # panels of one scale, as high as each needs
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(weights), 1, squeeze=False, figsize=(7.6, 2.2 * sum(tops) + 0.6), gridspec_kw={"height_ratios": tops}
        )
        for axes, top, (way, heights) in zip(panels.flat, tops, weights.items(), strict=True):
            is_even = max(heights) - min(heights) < 1e-6  # noqa: PLR2004  (rounding)
            left = together if is_even else apart
            colours = [BLUE if is_even or height < max(heights) else ORANGE for height in heights]
            axes.bar(left, heights, width=WIDTH, align="edge", color=colours)
            for x, height in zip(left, heights, strict=True):
                axes.text(x + WIDTH / 2, height + 0.03, _fraction(height), ha="center", va="bottom")
            axes.set_xticks(
                [] if is_even else [(left[start] + left[end - 1] + WIDTH) / 2 for start, end in pairwise(ends)]
            )
            axes.set_xticklabels([] if is_even else [f"micro-batch {piece + 1}" for piece in range(len(pieces))])
            axes.set_title(f"{way}: {_fraction(sum(heights))} in all", loc="left", fontsize=11)
            axes.set(xlim=(-0.2, apart[-1] + 1.2), ylim=(0, top), yticks=[])
            axes.tick_params(length=0)
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
    return Picture(figure, _describe_accumulation(pieces, weights))


def _describe_accumulation(pieces: Sequence[int], weights: Mapping[str, Sequence[float]]) -> str:
    listed = "; ".join(
        f"{way}: {', '.join(map(_fraction, heights))}, {_fraction(sum(heights))} in all"
        for way, heights in weights.items()
    )
    return f"The weight of each row in the loss of a step of micro-batches of {', '.join(map(str, pieces))}. {listed}."


def _fraction(number: float) -> str:
    """As people write it: 1/7, not 0.142857."""
    return str(Fraction(number).limit_denominator(1000))
