"""The figures of the course: one style, safe for colour-blind readers, each with its alt text.

Colours are those of Okabe and Ito (2008); marker and label say the same as the colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"

STYLE: Any = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Measured:
    """A model on the accuracy-cost plane; one accuracy (0 to 1) per seed."""

    name: str
    accuracies: Sequence[float]
    parameters: int
    milliseconds: float

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for a model that there is only one of."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def accuracy_against_cost(models: Sequence[Measured]) -> Figure:
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
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="x", which="minor", labelsize=8)
    return figure


def describe_accuracy_against_cost(models: Sequence[Measured]) -> str:
    """What `accuracy_against_cost` shows, in words."""
    points = "; ".join(f"{model.name}, {100 * model.mean:.1f} ± {100 * model.spread:.1f}%" for model in models)
    return (
        f"Test accuracy of {len(models)} models against their size and against their time for one sentence: {points}."
    )


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its alt text, which screen readers, `nbval` and a terminal get in the picture's place."""
    from IPython.display import display

    buffer = BytesIO()
    # Without software and date a picture that has not changed is the same file, byte for byte.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    display(
        {"image/png": buffer.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True
    )  # fmt: skip


def _scatter(axes: Axes, models: Sequence[Measured], costs: Sequence[float]) -> None:
    for model, cost, colour, marker in zip(models, costs, (GREY, ORANGE, BLUE, GREEN), "sovD", strict=False):
        axes.errorbar(
            cost, 100 * model.mean, yerr=100 * model.spread, color=colour, marker=marker, markersize=8, capsize=4
        )
        axes.annotate(
            model.name, (cost, 100 * model.mean), (9, 4), textcoords="offset points", color=colour, fontsize=10
        )


def losses_in_training(
    losses: Mapping[str, Sequence[float]], divergences: Mapping[str, Sequence[float]], floor: float = 1e-5
) -> Figure:
    """The loss that each run reports, and beside it how far its student is from the teacher; steps along both."""
    colours, dashes = (BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":")
    with plt.rc_context(STYLE):
        figure, (reported, true) = plt.subplots(1, 2, figsize=(9.6, 3.9))
        for axes, series in ((reported, losses), (true, divergences)):
            for (name, values), colour, dash, marker in zip(series.items(), colours, dashes, "osD^", strict=False):
                shown = values if axes is reported else [max(value, floor) for value in values]
                axes.plot(shown, dash, color=colour, marker=marker, markevery=(10, 40), markersize=6, lw=2, label=name)
        reported.set(xlabel="step", ylabel="loss that is reported", ylim=(-6, 2))
        true.set(xlabel="step", ylabel="KL(teacher ‖ student), nats", yscale="log", ylim=(floor, 60))
        figure.legend(*reported.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=10)
    return figure


def describe_losses_in_training(
    losses: Mapping[str, Sequence[float]], divergences: Mapping[str, Sequence[float]]
) -> str:
    """What `losses_in_training` shows, in words."""
    curves = "; ".join(
        f"{name}, loss from {losses[name][0]:.1f} to {losses[name][-1]:.1f}, divergence from {values[0]:.2f} to its "
        f"lowest {abs(min(values)):.2f} and then {abs(values[-1]):.2f}"
        for name, values in divergences.items()
    )
    return (
        f"Loss and true divergence over {len(next(iter(losses.values()))) - 1} steps of {len(losses)} runs: {curves}."
    )


def log_softmax_cliff(gaps: Sequence[float], computed: Mapping[str, Sequence[float]]) -> Figure:
    """log(softmax) of the smaller of two logits against their gap, one line per number format, until it is -inf."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 3.8))
        axes.plot(gaps, [-gap for gap in gaps], color=GREY, lw=1.5, label="log_softmax")
        for (name, values), colour, marker, size in zip(
            computed.items(), (ORANGE, GREEN, BLUE), "sDo", (11, 8, 5), strict=True
        ):
            alive = [(gap, value) for gap, value in zip(gaps, values, strict=True) if math.isfinite(value)]
            axes.plot(*zip(*alive[::6], strict=True), ls="", marker=marker, ms=size, mfc="none", color=colour, mew=1.8)
            axes.plot(*alive[-1], marker=marker, ms=size, color=colour, ls="", label=f"log(softmax), {name}")
            axes.annotate(
                "", (alive[-1][0], -128), alive[-1], arrowprops={"arrowstyle": "->", "color": colour, "lw": 2}
            )
        axes.set(xlabel="gap between the two logits", ylabel="log-probability, nats", ylim=(-130, 5))
        axes.legend(loc="upper right", fontsize=10)
    return figure


def describe_log_softmax_cliff(gaps: Sequence[float], computed: Mapping[str, Sequence[float]]) -> str:
    """What `log_softmax_cliff` shows, in words."""
    ends = ", ".join(
        f"in {name} from a gap of {next(gap for gap, value in zip(gaps, values, strict=True) if math.isinf(value)):.0f}"
        for name, values in computed.items()
    )
    return (
        "Log-probability of the smaller of two logits against their gap: log_softmax falls as a straight line, "
        f"log(softmax) follows it and then drops to minus infinity, {ends}."
    )
