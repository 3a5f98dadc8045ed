"""The figures of lab 07."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import Scores, in_percent, spread
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def seeds_of_arms(arms: Mapping[str, Scores], teacher: float) -> Picture:
    """Every seed of every arm as a dot, the mean of each as a line, and the teacher that they learn from."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 0.5 * len(arms) + 1.4))
        for row, scores in enumerate(arms.values()):
            axes.scatter([100 * score for score in scores], [row] * len(scores), color=BLUE, s=28, alpha=0.7, zorder=3)
            axes.plot([100 * mean(scores)] * 2, [row - 0.3, row + 0.3], color=ORANGE, linewidth=2.5, zorder=4)
        axes.axvline(100 * teacher, color=GREY, linestyle="--")
        axes.annotate("teacher", (100 * teacher, -0.45), (-4, 0), textcoords="offset points", ha="right", color=GREY)
        axes.set_yticks(range(len(arms)), list(arms))
        axes.set(xlabel="test accuracy (%): a dot is a seed, a line the mean", ylim=(len(arms) - 0.4, -0.8))
        axes.grid(axis="y", visible=False)
    return Picture(figure, _describe_seeds_of_arms(arms, teacher))


def _describe_seeds_of_arms(arms: Mapping[str, Scores], teacher: float) -> str:
    said = "; ".join(f"{name}: {in_percent(scores)}" for name, scores in arms.items())
    return f"Test accuracy in % of {len(arms)} arms over seeds. {said}. The teacher has {100 * teacher:.1f}."


def accuracy_by_steps(arms: Mapping[str, Mapping[int, Scores]]) -> Picture:
    """Validation accuracy of each arm (at most three) against its training steps, the best number of them ringed."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        for (name, by_steps), colour, marker in zip(arms.items(), (ORANGE, GREEN, BLUE), "oDv", strict=False):
            _draw_scores(axes, by_steps, color=colour, marker=marker, label=name)
            best = max(by_steps, key=lambda steps: mean(by_steps[steps]))
            axes.plot([best], [100 * mean(by_steps[best])], marker="o", markersize=17, fillstyle="none", color="black")
            axes.set_xticks(list(by_steps), [f"{steps:,}" for steps in by_steps])
        axes.set(xlabel="training steps (ringed: the best number)", ylabel="validation accuracy (%)")
        axes.legend(frameon=False, loc="lower right")
    alt = f"Validation accuracy in % against training steps. {_series_in_words(arms, 'after {:,}')}."
    return Picture(figure, alt)


def transfer_curve(by_size: Mapping[int, Scores], elsewhere: tuple[int, Scores], labels: Scores) -> Picture:
    """Accuracy against the number of unlabelled sentences; beside it, as many from another domain, and labels only."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        axes.axhline(100 * mean(labels), color=GREY, linestyle="--")
        axes.annotate(
            "labels only",
            (max(by_size), 100 * mean(labels)),
            (0, 4),
            textcoords="offset points",
            ha="right",
            color=GREY,
        )
        _draw_scores(axes, by_size, color=BLUE, marker="o", label="from film reviews")
        _draw_scores(
            axes, dict([elsewhere]), color=ORANGE, marker="D", linestyle="none", label="from newspaper editorials"
        )
        axes.set(xlabel="unlabelled sentences that the teacher answers", ylabel="test accuracy (%)")
        axes.set_xticks(list(by_size), [f"{size:,}" for size in by_size])
        axes.legend(frameon=False, loc="upper left")
    return Picture(figure, _describe_transfer_curve(by_size, elsewhere, labels))


def _describe_transfer_curve(by_size: Mapping[int, Scores], elsewhere: tuple[int, Scores], labels: Scores) -> str:
    said = "; ".join(f"{in_percent(scores)} with {size:,}" for size, scores in by_size.items())
    return (
        f"Test accuracy in % against unlabelled sentences from film reviews: {said}; {in_percent(elsewhere[1])} with "
        f"{elsewhere[0]:,} from newspaper editorials; labels only {in_percent(labels)}."
    )


def inside_and_outside(models: Mapping[str, Mapping[str, Scores]]) -> Picture:
    """Accuracy of each model (at most four) on each set of sentences, with its spread over seeds."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        for (name, by_set), colour, marker in zip(models.items(), (GREY, ORANGE, BLUE, GREEN), "sovD", strict=False):
            in_order = dict(enumerate(by_set.values()))
            _draw_scores(axes, in_order, color=colour, marker=marker, linewidth=1, label=name)
        axes.set_xticks(range(len(by_set)), list(by_set))
        axes.axhline(50, color="black", linewidth=0.8, linestyle=":")
        axes.set(ylabel="accuracy (%); dotted: a coin")
        axes.margins(x=0.15)
        axes.legend(frameon=False)
    alt = f"Accuracy in % inside and outside the domain. {_series_in_words(models, 'on {}')}."
    return Picture(figure, alt)


def _draw_scores(axes: Axes, by_place: Mapping[int, Scores], **style: Any) -> None:
    """The mean over seeds in percent at each place on the x axis, with its spread."""
    means = [100 * mean(scores) for scores in by_place.values()]
    spreads = [100 * spread(scores) for scores in by_place.values()]
    axes.errorbar(list(by_place), means, yerr=spreads, markersize=8, capsize=4, **style)


def _series_in_words(series: Mapping[str, Mapping[Any, Scores]], place: str) -> str:
    """Each series with its scores; `place` says where each was measured, such as `on {}`."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{in_percent(scores)} {place.format(where)}" for where, scores in by_place.items())
        for name, by_place in series.items()
    )
