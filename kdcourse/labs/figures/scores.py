"""Accuracies over seeds, as figures and their descriptions show them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

Scores = Sequence[float]
"""Accuracies, 0 to 1, one per seed."""


def spread(scores: Scores) -> float:
    """Standard deviation over seeds; 0 for a model that there is only one of."""
    return stdev(scores) if len(scores) > 1 else 0.0


def in_percent(scores: Scores) -> str:
    """The mean in percent, with its spread if there is one to speak of."""
    percent = f"{100 * mean(scores):.1f}"
    return f"{percent} ± {100 * spread(scores):.1f}" if len(scores) > 1 else percent
