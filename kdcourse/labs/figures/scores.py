"""Scores over seeds and their differences, as figures and their descriptions show them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

from kdcourse.labs.figures.style import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdcourse.labs.verdict import Verdict

Scores = Sequence[float]
"""Accuracies, 0 to 1, one per seed."""


def spread(scores: Scores) -> float:
    """Standard deviation over seeds; 0 for a model that there is only one of."""
    return stdev(scores) if len(scores) > 1 else 0.0


def draw_verdict(axes: Axes, row: float, verdict: Verdict, *, factor: float = 1, size: float = 8) -> None:
    """A difference with its interval in a row of its own; filled where the interval leaves out 0."""
    shown = verdict.word != "no difference shown"
    center, low, high = (factor * each for each in (verdict.difference, verdict.low, verdict.high))
    axes.errorbar(
        center, row, xerr=[[center - low], [high - center]], color=BLUE if shown else GREY, capsize=4, marker="o",
        markersize=size, fillstyle="full" if shown else "none",
    )  # fmt: skip


def in_percent(scores: Scores) -> str:
    """The mean in percent, with its spread if there is one to speak of."""
    percent = f"{100 * mean(scores):.1f}"
    return f"{percent} ± {100 * spread(scores):.1f}" if len(scores) > 1 else percent
