"""The figures of lesson 00."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import Scores, in_percent, spread
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Measured:
    """A model on the accuracy-cost plane; one accuracy (0 to 1) per seed."""

    name: str
    accuracies: Scores
    parameters: int
    milliseconds: float

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for a model that there is only one of."""
        return spread(self.accuracies)

    def __str__(self) -> str:
        """Accuracy in percent, with its spread if there is one to speak of."""
        return in_percent(self.accuracies)


def accuracy_against_cost(models: Sequence[Measured]) -> Picture:
    """Accuracy with its spread over seeds against parameters and against latency, both on logarithmic axes."""
    with plt.rc_context(STYLE):
        figure, (by_size, by_time) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        _scatter(by_size, models, [model.parameters / 1e6 for model in models])
        _scatter(by_time, models, [model.milliseconds for model in models])
        by_size.set(xlabel="parameters (millions)", ylabel="test accuracy (%)")
        by_time.set(xlabel="one sentence (milliseconds)")
        for axes in (by_size, by_time):
            axes.set_xscale("log")
            axes.margins(x=0.35, y=0.15)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", labelsize=9)
    return Picture(figure, _describe_accuracy_against_cost(models))


def _describe_accuracy_against_cost(models: Sequence[Measured]) -> str:
    points = "; ".join(f"{model.name}, {model}%" for model in models)
    return (
        f"Test accuracy of {len(models)} models against their size and against their time for one sentence: {points}."
    )


def _scatter(axes: Axes, models: Sequence[Measured], costs: Sequence[float]) -> None:
    for model, cost, colour, marker in zip(models, costs, (GREY, ORANGE, BLUE, GREEN), "sovD", strict=False):
        axes.errorbar(
            cost, 100 * model.mean, yerr=100 * model.spread, color=colour, marker=marker, markersize=8, capsize=4
        )
        axes.annotate(
            model.name, (cost, 100 * model.mean), (9, 4), textcoords="offset points", color=colour, fontsize=10
        )
