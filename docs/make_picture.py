"""Draw the picture at the top of the README from what lab 07 measured: `python docs/make_picture.py`.

It writes `docs/accuracy.svg` and prints the words that belong beneath it, its alt text. `make results` measures anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import scipy.stats

from kdcourse.labs.figures import BLUE, GREY, ORANGE, STYLE
from kdcourse.labs.lab07 import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = Path(__file__).with_name("accuracy.svg")

PARAMETERS = {"teacher": 22.7, "student": 2.0}
"""Millions. A test compares them with the table of lesson 00."""

# The same picture is the same file: matplotlib would add the time, and random ids. Text is text, for search and tests.
SVG = {"svg.fonttype": "none", "svg.hashsalt": "kdcourse"}


@dataclass(frozen=True)
class Point:
    """A model: its size in millions of parameters, and its accuracy in percent for each seed."""

    name: str
    parameters: float
    accuracies: list[float]

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """Student's t interval of the mean, 95%; a single model has none."""
        if len(self.accuracies) == 1:
            return self.mean, self.mean
        return scipy.stats.ttest_1samp(self.accuracies, 0).confidence_interval(0.95)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.1f}%" if low == high else f"{self.mean:.1f}% ({low:.1f} to {high:.1f})"


def points(results: Results) -> list[Point]:
    """The teacher, and the student both ways, each with the number of steps that suits it."""
    students = {"student, from labels": "labels", "student, from the teacher": "soft-20000"}
    teacher = Point("teacher", PARAMETERS["teacher"], [100 * results.teacher["test"]["accuracy"]])
    return [
        teacher,
        *(
            Point(name, PARAMETERS["student"], [100 * score for score in results.at_best(arm)])
            for name, arm in students.items()
        ),
    ]


def draw(models: list[Point]) -> Figure:
    """Accuracy against parameters; a student's seeds are small dots beside its mean and its interval."""
    with plt.rc_context({**STYLE, **SVG}):
        figure, axes = plt.subplots(figsize=(7, 3.4))
        for model, colour, marker in zip(models, (GREY, ORANGE, BLUE), "sov", strict=True):
            low, high = model.interval
            bars = [[model.mean - low], [high - model.mean]]
            axes.errorbar(model.parameters, model.mean, yerr=bars, color=colour, marker=marker, markersize=8, capsize=5)
            if len(model.accuracies) > 1:
                beside = [model.parameters * 0.92] * len(model.accuracies)
                axes.plot(beside, model.accuracies, ".", color=colour, alpha=0.6, markersize=5)
            side = -1 if model is models[0] else 1
            axes.annotate(
                f"{model.name}\n{model}",
                (model.parameters, model.mean),
                (side * 12, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                color=colour,
            )
        axes.set(
            xlabel="parameters (millions)", ylabel="test accuracy (%)", xscale="log", xlim=(1.5, 30), ylim=(76, 88)
        )
        axes.set_xticks([2, 5, 10, 20], labels=["2", "5", "10", "20"])
        axes.minorticks_off()
    return figure


def describe(models: list[Point]) -> str:
    """The alt text."""
    shown = "; ".join(f"{model.name}, {model.parameters:g} million, {model}" for model in models)
    return f"Test accuracy against parameters, with 95% intervals over five seeds: {shown}."


def main() -> None:
    """Write the picture, and say its alt text."""
    models = points(Results.load())
    with plt.rc_context(SVG):
        draw(models).savefig(PICTURE, metadata={"Date": None, "Creator": None})
    PICTURE.write_text(
        "\n".join(map(str.rstrip, PICTURE.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8"
    )
    print(describe(models))


if __name__ == "__main__":
    main()
