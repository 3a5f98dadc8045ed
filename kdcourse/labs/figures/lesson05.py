"""The figures of lesson 05."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREY, ORANGE, STYLE


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
