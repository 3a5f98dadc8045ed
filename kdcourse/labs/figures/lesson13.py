"""The figures of lesson 13, the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE


def distance_by_step(runs: Mapping[str, Sequence[float]]) -> Picture:
    """KL(teacher ‖ student) before each step of each run (at most four), each line named at its end."""
    colours, markers = (GREEN, ORANGE, GREY, BLUE), "osD^"
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        for (name, distances), colour, marker in zip(runs.items(), colours, markers, strict=False):
            axes.plot(distances, color=colour, marker=marker, markevery=0.12, markersize=6, linewidth=2, label=name)
        axes.set(xlabel="step", ylabel="KL(teacher ‖ student), nats", ylim=(0, None))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(figure, _describe_distance_by_step(runs))


def _describe_distance_by_step(runs: Mapping[str, Sequence[float]]) -> str:
    ends = "; ".join(f"{name}, from {distances[0]:.2f} to {distances[-1]:.2f}" for name, distances in runs.items())
    return f"KL(teacher ‖ student) in nats over {len(next(iter(runs.values())))} steps of {len(runs)} runs: {ends}."


def between_the_ends(betas: Sequence[float], values: Sequence[float], forward: float, reverse: float) -> Picture:
    """Generalised Jensen-Shannon over beta, as it is and divided by beta and by 1 - beta, with both KLs as ends."""
    with plt.rc_context(STYLE):
        figure, (plain, divided) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        plain.plot(betas, values, color=GREEN, linewidth=2.5, label="D(beta)")
        divided.plot(
            betas, [d / b for b, d in zip(betas, values, strict=True)], color=BLUE, linewidth=2.5, label="D / beta"
        )
        divided.plot(
            betas,
            [d / (1 - b) for b, d in zip(betas, values, strict=True)],
            color=ORANGE,
            linewidth=2.5,
            linestyle="--",
            label="D / (1 − beta)",
        )
        for axes in (plain, divided):
            axes.plot(0, forward, color=BLUE, marker="o", markersize=9, linestyle="none", label="forward KL")
            axes.plot(1, reverse, color=ORANGE, marker="s", markersize=9, linestyle="none", label="reverse KL")
            axes.set(xlabel="beta")
        plain.legend(frameon=False, loc="center")
        divided.legend(handles=divided.lines[:2], frameon=False, loc="upper center")
        plain.set(ylabel="nats", title="as it is: both ends fall to 0", ylim=(0, None))
        divided.set(title="divided: each end meets its KL")
    return Picture(figure, _describe_between_the_ends(betas, values, forward, reverse))


def _describe_between_the_ends(betas: Sequence[float], values: Sequence[float], forward: float, reverse: float) -> str:
    highest = max(range(len(values)), key=lambda place: values[place])
    return (
        f"Jensen-Shannon divergence D against beta. D is {values[highest]:.2f} at its highest, near beta "
        f"{betas[highest]:.1f}, and falls to 0 at both ends, far below forward KL, {forward:.2f}, and reverse KL, "
        f"{reverse:.2f}. D / beta meets forward KL at 0, D / (1 − beta) meets reverse KL at 1."
    )


def memory_over_a_step(timeline: Sequence[float]) -> Picture:
    """Memory after each operation of a training step, in tensors as large as the logits; its peak is marked."""
    peak = max(range(len(timeline)), key=lambda place: timeline[place])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.4))
        axes.step(range(len(timeline)), timeline, where="mid", color=BLUE, linewidth=2)
        axes.plot(peak, timeline[peak], "o", color=ORANGE, markersize=9)
        axes.annotate(
            f"peak: {timeline[peak]:.0f}", (peak, timeline[peak]), xytext=(12, -4), textcoords="offset points"
        )
        axes.set(xlabel="operation, forward and then backward", ylabel="tensors of the logits' size", ylim=(0, None))
    return Picture(figure, _describe_memory_over_a_step(timeline, peak))


def _describe_memory_over_a_step(timeline: Sequence[float], peak: int) -> str:
    return (
        f"Memory after each of {len(timeline)} operations of one step, counted in tensors as large as the logits: it "
        f"rises to {timeline[peak]:.1f} at operation {peak + 1}, and is {timeline[-1]:.1f} at the end."
    )
