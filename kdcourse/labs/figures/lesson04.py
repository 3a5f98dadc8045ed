"""The figures of lesson 04."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE
from kdcourse.labs.verdict import Verdict, compare_paired


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


def alpha_by_temperature(
    accuracies: Mapping[tuple[float, float], Sequence[float]], coin: float, teacher: float
) -> Picture:
    """Left, the means from a coin to the teacher; right, the gain over alpha = 1, with its 95% interval."""
    alphas, temperatures = _sorted_axes(accuracies)
    looks: list[dict[str, Any]] = [
        {"color": colour, "marker": marker, "markersize": 6, "label": f"T = {temperature:g}"}
        for temperature, colour, marker in zip(temperatures, (ORANGE, BLUE, GREEN), "ovD", strict=False)
    ]
    with plt.rc_context(STYLE):
        figure, (whole, close) = plt.subplots(ncols=2, figsize=(9, 3.8))
        for temperature, look in zip(temperatures, looks, strict=True):
            whole.plot(alphas, [100 * mean(accuracies[alpha, temperature]) for alpha in alphas], **look)
        for height, name in ((100 * coin, "a coin"), (100 * teacher, "the teacher")):
            whole.axhline(height, color="black", linewidth=0.8, linestyle=":")
            whole.text(0.5, height + 0.6, name, ha="center", fontsize=10)
        whole.set(ylabel="test accuracy (%)", ylim=(100 * coin - 2, 100 * teacher + 4), title="from coin to teacher")
        whole.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.15))
        _draw_gains(close, _gains(accuracies), temperatures, looks)
        for axes in (whole, close):
            axes.set(xlabel="alpha: weight of the labels", xlim=(-0.08, 1.08))
            axes.set_xticks(alphas)
    return Picture(figure, _describe_alpha_by_temperature(accuracies, coin, teacher))


def _gains(accuracies: Mapping[tuple[float, float], Sequence[float]]) -> dict[tuple[float, float], Verdict]:
    """Each setting against labels alone, in points."""
    points = {cell: [100 * value for value in values] for cell, values in accuracies.items()}
    return {(alpha, T): compare_paired(points[1.0, T], values) for (alpha, T), values in points.items() if alpha < 1}


def _draw_gains(
    axes: Any,
    gains: Mapping[tuple[float, float], Verdict],
    temperatures: Sequence[float],
    looks: Sequence[dict[str, Any]],
) -> None:
    """A point with its interval for each setting; 0 is in the middle, and those of one alpha stand side by side."""
    for number, (temperature, look) in enumerate(zip(temperatures, looks, strict=True)):
        beside = 0.05 * (number - (len(temperatures) - 1) / 2)
        of_this = {alpha + beside: gain for (alpha, T), gain in gains.items() if temperature == T}
        middle = [gain.difference for gain in of_this.values()]
        reach = [gain.high - gain.difference for gain in of_this.values()]  # the same to either side
        axes.errorbar(list(of_this), middle, yerr=reach, capsize=3, linestyle="", **look)
    widest = 1.1 * max(max(abs(gain.low), abs(gain.high)) for gain in gains.values())
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="points over labels alone", ylim=(-widest, widest), title="95% interval of the gain")


def _describe_alpha_by_temperature(
    accuracies: Mapping[tuple[float, float], Sequence[float]], coin: float, teacher: float
) -> str:
    means = [100 * mean(values) for values in accuracies.values()]
    rows = "; ".join(
        f"T = {T:g}, alpha {alpha:g}: {gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
        for (alpha, T), gain in _gains(accuracies).items()
    )
    return (
        f"Left: on a scale from a coin, {100 * coin:.0f}%, to the teacher, {100 * teacher:.1f}%, all settings of alpha "
        f"and temperature lie between {min(means):.1f}% and {max(means):.1f}%. Right: points over labels alone, with "
        f"95% intervals: {rows}."
    )


@dataclass(frozen=True)
class Losses:
    """After a number of steps: (hard, soft) on the student's own sentences, and on new ones."""

    step: int
    own: tuple[float, float]
    new: tuple[float, float]


def losses_of_runs(runs: Mapping[str, Sequence[Losses]]) -> Picture:
    """Hard and soft loss of each run, on its own sentences and on new ones; where they start is a dotted line."""
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            (len(runs) + 1) // 2, 2, figsize=(9, 1.2 + 1.2 * len(runs)), sharex=True, sharey=True, squeeze=False
        )
        for axes, (name, curve) in zip(grid.flat, runs.items(), strict=False):
            steps = [losses.step for losses in curve]
            for term, (word, colour, marker) in enumerate((("hard", GREY, "s"), ("soft", ORANGE, "o"))):
                own, new = ([getattr(losses, which)[term] for losses in curve] for which in ("own", "new"))
                axes.plot(steps, own, color=colour, marker=marker, markersize=4, label=f"{word}, own sentences")
                axes.plot(
                    steps,
                    new,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linestyle="--",
                    markerfacecolor="white",
                    label=f"{word}, new sentences",
                )
                axes.axhline(new[0], color="black", linewidth=0.7, linestyle=":")
            axes.set(title=name)
            axes.set(xlabel="steps", ylabel="loss (nats)")
            axes.label_outer()
        grid[0, 0].set_ylim(bottom=0)  # last of all, as the scale is shared and would no longer follow the curves
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return Picture(figure, _describe_losses(runs))


def _describe_losses(runs: Mapping[str, Sequence[Losses]]) -> str:
    def course(curve: Sequence[Losses], which: str, term: int) -> str:
        return f"{getattr(curve[0], which)[term]:.2f} to {getattr(curve[-1], which)[term]:.2f}"

    rows = (
        f"{name}: hard {course(curve, 'own', 0)} on its own sentences and {course(curve, 'new', 0)} on new ones, "
        f"soft {course(curve, 'own', 1)} and {course(curve, 'new', 1)}"
        for name, curve in runs.items()
    )
    return f"Hard and soft loss in nats, from start to end. {'; '.join(rows)}."


def logs_of_runs(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Picture:
    """Total, hard and soft loss of each run (nats, left), and its accuracy on new examples (right), by step.

    A run is a list of dictionaries as a Trainer logs them: "step", "loss", "hard_loss", "soft_loss", "eval_accuracy".
    Each has a scale of its own, because what goes wrong may be a matter of powers of ten.
    """
    with plt.rc_context(STYLE):
        columns = min(len(runs), 3)
        rows = -(-len(runs) // columns)
        figure, grid = plt.subplots(rows, columns, figsize=(3.2 * columns, 0.7 + 2.6 * rows), squeeze=False)
        for empty in grid.flat[len(runs) :]:
            empty.remove()
        for axes, (name, log) in zip(grid.flat, runs.items(), strict=False):
            steps = [line["step"] for line in log]
            for key, label, colour, marker in (
                ("loss", "total", BLUE, "D"), ("hard_loss", "hard", GREY, "s"), ("soft_loss", "soft", ORANGE, "o"),
            ):  # fmt: skip
                axes.plot(steps, [line[key] for line in log], color=colour, marker=marker, markersize=4, label=label)
            axes.set(title=name, xlabel="step", ylim=(0, 1.08 * max(max(_losses_of(line)) for line in log)))
            share = axes.twinx()
            right = [100 * line["eval_accuracy"] for line in log]
            share.plot(steps, right, color=GREEN, marker="x", markersize=5, linestyle="--", label="accuracy (right, %)")
            share.set(ylim=(0, 104), yticks=range(0, 101, 25))
            share.spines["right"].set_visible(True)
            share.grid(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("loss (nats)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        more, names = share.get_legend_handles_labels()
        figure.legend(handles + more, labels + names, loc="outside upper center", ncols=4, frameon=False)
    return Picture(figure, _describe_logs(runs))


def _losses_of(line: Mapping[str, float]) -> tuple[float, float, float]:
    return line["loss"], line["hard_loss"], line["soft_loss"]


def _describe_logs(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    def at(line: Mapping[str, float]) -> str:
        total, hard, soft = _losses_of(line)
        right = 100 * line["eval_accuracy"]
        return f"{total:.2f}, {hard:.2f} and {soft:.2f} at step {line['step']:g}, accuracy {right:.0f}%"

    said = (f"{name}: " + "; ".join(at(log[row]) for row in (0, 1, -1)) for name, log in runs.items())
    return "Total, hard and soft loss in nats, and accuracy. " + ". ".join(said) + "."


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
        axes.set(
            xlabel="alpha: 0 is the teacher alone, 1 the labels alone", ylabel="test accuracy (%), spread of seeds"
        )
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
