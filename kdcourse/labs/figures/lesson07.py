"""The figures of lab 07."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import Scores, draw_verdict, in_percent, spread
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdcourse.labs.verdict import Verdict


@dataclass(frozen=True)
class Unit:
    """What a difference is shown in: its name, how often it goes into 1, digits, and what it is a difference of."""

    name: str
    factor: float
    digits: int
    of: str

    def show(self, difference: float) -> str:
        """With its sign."""
        return f"{self.factor * difference:+.{self.digits}f}"


POINTS = Unit("points", 100, 1, "points of test accuracy")
NATS = Unit("nats per token", 1, 3, "nats per token")


def forest_of_comparisons(
    comparisons: Mapping[str, Verdict],
    *,
    planned: str = "",
    yours: Mapping[str, float] | None = None,
    unit: Unit = POINTS,
) -> Picture:
    """The difference of each comparison with its 95% interval, against the line of no difference.

    Args:
        unit: that of the differences as they are shown.
        planned: the comparison that was named before anything was trained; its name is marked.
        yours: a single run's difference, for the comparisons that somebody has repeated.
    """
    yours = yours or {}
    names = [f"{name} (planned)" if name == planned else name for name in comparisons]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 0.45 * len(comparisons) + 1.5))
        axes.axvline(0, color="black", linewidth=1)
        for row, (name, verdict) in enumerate(comparisons.items()):
            draw_verdict(axes, row, verdict, factor=unit.factor)
            if name in yours:
                axes.plot(
                    unit.factor * yours[name], row + 0.28, marker="D", markersize=8, color=ORANGE, linestyle="none"
                )
        axes.set_yticks(range(len(names)), names)
        key = "filled: the interval leaves out 0" + ("; diamond: your run" if yours else "")
        axes.set(xlabel=f"difference in {unit.name}, 95% interval\n({key})", ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    return Picture(figure, _describe_forest(comparisons, planned, yours, unit))


def _describe_forest(comparisons: Mapping[str, Verdict], planned: str, yours: Mapping[str, float], unit: Unit) -> str:
    said = "; ".join(
        f"{name}{' (planned)' if name == planned else ''}: {unit.show(each.difference)} ({unit.show(each.low)} to "
        f"{unit.show(each.high)}), {each.word}"
        for name, each in comparisons.items()
    )
    own = "".join(f" Your run of {name}: {unit.show(gain)}." for name, gain in yours.items())
    return f"Differences between arms in {unit.of}, with 95% intervals. {said}.{own}"


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


def inside_and_outside(models: Mapping[str, Mapping[str, Scores]], majority: Mapping[str, float]) -> Picture:
    """Accuracy of each model (at most four) on each set of sentences, with its spread over seeds.

    A bar across each set is what somebody reaches who names its larger class each time, without reading.
    """
    places = list(majority)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.8))
        for number, ((name, by_set), colour, marker) in enumerate(
            zip(models.items(), (GREY, ORANGE, BLUE, GREEN), "sovD", strict=False)
        ):
            beside = 0.14 * (number - (len(models) - 1) / 2)
            in_order = {place + beside: by_set[where] for place, where in enumerate(places)}
            _draw_scores(axes, in_order, color=colour, marker=marker, linestyle="none", label=name)
        for place, where in enumerate(places):
            label = "the larger class, without reading" if place == 0 else None
            level = [100 * majority[where]] * 2
            axes.plot([place - 0.35, place + 0.35], level, color="black", linestyle=":", label=label)
        axes.set_xticks(range(len(places)), places)
        axes.set(ylabel="accuracy (%)")
        axes.margins(x=0.1)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    without_reading = ", ".join(f"{100 * share:.1f} on {where}" for where, share in majority.items())
    alt = (
        f"Accuracy in % inside and outside the domain. {_series_in_words(models, 'on {}')}. The larger class has "
        f"{without_reading}."
    )
    return Picture(figure, alt)


def _draw_scores(axes: Axes, by_place: Mapping[Any, Scores], **style: Any) -> None:
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
