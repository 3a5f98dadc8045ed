"""The figures of lesson 04."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE


@dataclass(frozen=True)
class Voices:
    """What is said of one sentence: each a probability of the positive class; the label is 0 or 1."""

    text: str
    label: int
    teacher: float
    people: float

    def target(self, alpha: float) -> float:
        """Where label and teacher together pull the student at temperature 1."""
        return alpha * self.label + (1 - alpha) * self.teacher


def two_voices(sentences: Sequence[Voices], alpha: float = 0.5) -> Picture:
    """Label, teacher and people on one line, and the target that alpha makes of the first two."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 0.75 * len(sentences) + 1.3))
        for row, voices in enumerate(sentences):
            axes.plot([voices.label, voices.teacher], [row, row], color=GREY, linewidth=1.5, zorder=1)
            axes.text(0.5, row - 0.28, voices.text, ha="center", fontsize=9.5, backgroundcolor="white")
        rows = range(len(sentences))
        for name, values, colour, marker in (
            ("label", [voices.label for voices in sentences], GREY, "s"),
            ("teacher", [voices.teacher for voices in sentences], ORANGE, "o"),
            (f"target at alpha = {alpha:g}", [voices.target(alpha) for voices in sentences], BLUE, "D"),
            ("people", [voices.people for voices in sentences], GREEN, "x"),
        ):
            axes.scatter(values, rows, color=colour, marker=marker, s=70, label=name, zorder=2)
        axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="probability of positive", xlim=(-0.04, 1.04), ylim=(len(sentences) - 0.5, -0.65), yticks=[])
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return Picture(figure, _describe_two_voices(sentences, alpha))


def _describe_two_voices(sentences: Sequence[Voices], alpha: float) -> str:
    rows = "; ".join(
        f"“{voices.text}” label {voices.label}, teacher {voices.teacher:.2f}, people {voices.people:.2f}, "
        f"target {voices.target(alpha):.2f}"
        for voices in sentences
    )
    return f"Probability of positive for {len(sentences)} sentences, with the target at alpha = {alpha:g}: {rows}."


def alpha_by_temperature(accuracies: Mapping[tuple[float, float], Sequence[float]]) -> Picture:
    """Mean accuracy and spread over seeds for each (alpha, temperature): a heat map with its numbers."""
    alphas, temperatures = _sorted_axes(accuracies)
    means = [[100 * mean(accuracies[alpha, T]) for alpha in alphas] for T in temperatures]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(7, 0.75 * len(temperatures) + 1.6))
        picture = axes.imshow(means, cmap="cividis", aspect="auto")
        middle = (min(map(min, means)) + max(map(max, means))) / 2
        for row, temperature in enumerate(temperatures):
            for column, alpha in enumerate(alphas):
                value, spread = means[row][column], 100 * stdev(accuracies[alpha, temperature])
                colour = "black" if value > middle else "white"
                axes.text(column, row, f"{value:.1f} ± {spread:.1f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.set_yticks(range(len(temperatures)), [f"{temperature:g}" for temperature in temperatures])
        axes.set(xlabel="alpha: weight of the labels", ylabel="temperature")
        figure.colorbar(picture, label="test accuracy (%)")
    return Picture(figure, _describe_alpha_by_temperature(accuracies))


def _describe_alpha_by_temperature(accuracies: Mapping[tuple[float, float], Sequence[float]]) -> str:
    alphas, temperatures = _sorted_axes(accuracies)
    rows = (
        f"T = {T:g}: " + ", ".join(f"{100 * mean(accuracies[alpha, T]):.1f} at alpha {alpha:g}" for alpha in alphas)
        for T in temperatures
    )
    return "Heat map of test accuracy in % against alpha and temperature. " + "; ".join(rows) + "."


def alpha_sweep(lines: Mapping[str, Mapping[float, Sequence[float]]]) -> Picture:
    """Accuracy with its spread over seeds against alpha, one line for each name (at most four)."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        for (name, line), colour, marker in zip(lines.items(), (GREY, ORANGE, BLUE, GREEN), "sovD", strict=False):
            means = [100 * mean(accuracies) for accuracies in line.values()]
            spreads = [100 * stdev(accuracies) for accuracies in line.values()]
            axes.errorbar(
                list(line), means, yerr=spreads, color=colour, marker=marker, markersize=7, capsize=4, label=name
            )
        axes.set(xlabel="alpha: 0 is the teacher alone, 1 the labels alone", ylabel="test accuracy (%)")
        axes.set_xticks(list(next(iter(lines.values()))))
        axes.legend(frameon=False)
    return Picture(figure, _describe_alpha_sweep(lines))


def _describe_alpha_sweep(lines: Mapping[str, Mapping[float, Sequence[float]]]) -> str:
    said = (
        f"{name}: " + ", ".join(f"{100 * mean(values):.1f} at {alpha:g}" for alpha, values in line.items())
        for name, line in lines.items()
    )
    return "Test accuracy in % against alpha. " + "; ".join(said) + "."


def _sorted_axes(cells: Mapping[tuple[float, float], Any]) -> tuple[list[float], list[float]]:
    return sorted({alpha for alpha, _ in cells}), sorted({temperature for _, temperature in cells})
