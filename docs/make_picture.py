"""Draw the picture at the top of the README from what lab 07 measured: `python docs/make_picture.py`.

It writes `docs/accuracy.svg` and prints the words that belong beneath it, its alt text. `make results` measures anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from kdcourse.labs.figures import BLUE, GREY, ORANGE, STYLE
from kdcourse.labs.lab07 import Results
from kdcourse.labs.verdict import compare_paired

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = Path(__file__).with_name("accuracy.svg")

PARAMETERS = {"teacher": 22.7, "student": 2.0}
"""Millions. A test compares them with what lesson 00 measures."""

# The same picture is the same file: matplotlib would add the time, and random ids. Text is text, for search and tests.
SVG = {"svg.fonttype": "none", "svg.hashsalt": "kdcourse"}


@dataclass(frozen=True)
class Point:
    """A model: its size in millions of parameters, and which sentences each seed gets right, (seeds, sentences)."""

    name: str
    parameters: float
    right: np.ndarray

    @property
    def accuracies(self) -> list[float]:
        """In percent, one per seed."""
        return (100 * self.right.mean(axis=1)).tolist()

    @property
    def mean(self) -> float:
        return 100 * float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95%, over other test sentences and, where there are several, other seeds."""
        above_none = compare_paired(np.zeros_like(self.right), self.right)
        return 100 * above_none.low, 100 * above_none.high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.1f}% ({low:.1f} to {high:.1f})"


def points(results: Results) -> list[Point]:
    """The teacher, and the student both ways, each with the number of steps that suits it."""
    students = {"student, from labels": "labels", "student, from the teacher": "soft-20000"}
    return [
        Point("teacher", PARAMETERS["teacher"], results.right("teacher")),
        *(Point(name, PARAMETERS["student"], results.right_after(None, arm)) for name, arm in students.items()),
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
                bbox={"color": "white", "pad": 1},  # grid lines end at the words
            )
        axes.set(
            xlabel="parameters (millions)", ylabel="test accuracy (%)", xscale="log", xlim=(1.5, 30), ylim=(74, 90)
        )
        axes.set_xticks([2, 5, 10, 20], labels=["2", "5", "10", "20"])
        axes.minorticks_off()
    return figure


def describe(models: list[Point]) -> str:
    """The alt text."""
    shown = "; ".join(f"{model.name}, {model.parameters:g} million, {model}" for model in models)
    return f"Test accuracy against parameters, with 95% intervals over seeds and test sentences: {shown}."


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
