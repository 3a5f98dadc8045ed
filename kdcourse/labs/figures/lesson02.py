"""The figures of lesson 02."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

SYMLOG_TICKS = (-100, -10, -1, 0, 1)
"""Of an axis that is linear between −1 and 1, and logarithmic beyond."""


def losses_in_training(
    losses: Mapping[str, Sequence[float]], divergences: Mapping[str, Sequence[float]], floor: float = 1e-5
) -> Picture:
    """The loss that each run reports, and beside it how far its student is from the teacher; steps along both."""
    colours, dashes = (BLUE, ORANGE, GREEN, GREY), ("-", "--", "-.", ":")
    with plt.rc_context(STYLE):
        figure, (reported, true) = plt.subplots(1, 2, figsize=(9.6, 3.9))
        for axes, series in ((reported, losses), (true, divergences)):
            for (name, values), colour, dash, marker in zip(series.items(), colours, dashes, "osD^", strict=False):
                shown = values if axes is reported else [max(value, floor) for value in values]
                axes.plot(shown, dash, color=colour, marker=marker, markevery=(10, 40), markersize=6, lw=2, label=name)
        reported.set(xlabel="step", ylabel="loss that is reported", yscale="symlog", yticks=SYMLOG_TICKS)
        reported.set(yticklabels=[f"{tick:g}".replace("-", "−") for tick in SYMLOG_TICKS], ylim=(-130, 3))
        true.set(xlabel="step", ylabel="KL(teacher ‖ student), nats", yscale="log", ylim=(floor, 60))
        figure.legend(*reported.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=10)
    return Picture(figure, _describe_losses_in_training(losses, divergences))


def _describe_losses_in_training(
    losses: Mapping[str, Sequence[float]], divergences: Mapping[str, Sequence[float]]
) -> str:
    curves = "; ".join(
        f"{name}, loss from {losses[name][0]:.1f} to {losses[name][-1]:.1f}, divergence from {values[0]:.2f} to its "
        f"lowest {abs(min(values)):.2f} and then {abs(values[-1]):.2f}"
        for name, values in divergences.items()
    )
    return (
        f"Loss and true divergence over {len(next(iter(losses.values()))) - 1} steps of {len(losses)} runs: {curves}."
    )


def divergences_in_training(divergences: Mapping[str, Sequence[float]]) -> Picture:
    """How far each student is from its teacher, step by step, with the lowest point of each marked."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 3.8))
        for (name, values), colour, dash, marker in zip(
            divergences.items(), (BLUE, ORANGE, GREEN), ("-", "--", "-."), "osD", strict=False
        ):
            lowest = values.index(min(values))
            axes.plot(values, dash, color=colour, lw=2.2, label=name)
            axes.plot(lowest, values[lowest], marker=marker, ms=8, color=colour, ls="")
            axes.annotate(
                f"{values[lowest]:.2g}, step {lowest}",
                (lowest, values[lowest]),
                xytext=(9, -2),
                textcoords="offset points",
                va="top",
            )
        axes.set(xlabel="step", ylabel="KL(teacher ‖ student), nats", yscale="log")
        axes.margins(y=0.12)
        axes.legend(frameon=False, loc="lower right")
    return Picture(figure, _describe_divergences_in_training(divergences))


def _describe_divergences_in_training(divergences: Mapping[str, Sequence[float]]) -> str:
    curves = "; ".join(
        f"{name}, from {values[0]:.2g} to its lowest {min(values):.2g} at step {values.index(min(values))} and then "
        f"{values[-1]:.1f}"
        for name, values in divergences.items()
    )
    return f"Divergence from the teacher in nats, on a logarithmic axis, against the step: {curves}."


def log_softmax_cliff(gaps: Sequence[float], computed: Mapping[str, Sequence[float]]) -> Picture:
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
    return Picture(figure, _describe_log_softmax_cliff(gaps, computed))


def _describe_log_softmax_cliff(gaps: Sequence[float], computed: Mapping[str, Sequence[float]]) -> str:
    ends = ", ".join(
        f"in {name} from a gap of {next(gap for gap, value in zip(gaps, values, strict=True) if math.isinf(value)):.0f}"
        for name, values in computed.items()
    )
    return (
        "Log-probability of the smaller of two logits against their gap: log_softmax falls as a straight line, "
        f"log(softmax) follows it and then drops to minus infinity, {ends}."
    )
