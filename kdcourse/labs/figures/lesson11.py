"""The figures of lesson 11: pictures and what is said of them, and errors by temperature and by bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panels_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES: Any = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."))
"""Colour, marker and dashes of the lines of a panel."""

NAMED = 3
"""Classes of an answer that an alt text names."""


def misread_pictures(images: Sequence[Any], meant: Sequence[int], taken_for: Sequence[int]) -> Picture:
    """Pictures (S, S), each with the digit that it was meant as and the one that it was taken for."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(images), figsize=(panels_width(len(images), 1.5), 2.3), squeeze=False)
        for axes, image, own, other in zip(row[0], images, meant, taken_for, strict=True):
            _draw(axes, image, f"{own},\ntaken for {other}")
    said = "; ".join(f"{own} taken for {other}" for own, other in zip(meant, taken_for, strict=True))
    return Picture(figure, f"{len(images)} pictures of digits that a teacher got wrong: {said}.")


def answers_by_temperature(
    images: Sequence[Any], meant: Sequence[int], answers: Mapping[str, Sequence[Sequence[float]]]
) -> Picture:
    """A row for each picture: the picture, and beside it an answer (probabilities of the classes) for each T."""
    with plt.rc_context(STYLE):
        figure, table = plt.subplots(
            len(images), 1 + len(answers), figsize=(2 + 3.2 * len(answers), 1.55 * len(images)), squeeze=False,
            width_ratios=[1] + [2.4] * len(answers),
        )  # fmt: skip
        for number, (row, image, own) in enumerate(zip(table, images, meant, strict=True)):
            _draw(row[0], image, str(own))
            for axes, (name, rows) in zip(row[1:], answers.items(), strict=True):
                bars = axes.bar(range(len(rows[number])), rows[number], color=GREY)
                bars[own].set(color=BLUE, hatch="//")
                axes.set_xticks(range(len(rows[number])))
                axes.set(ylim=(0, 1.05))
                axes.tick_params(labelsize=9)
                axes.grid(axis="x", visible=False)
                if number == 0:
                    axes.set_title(name, loc="left", fontsize=11)
    said = "; ".join(
        f"{own}: " + ", ".join(f"at {name} {_likeliest(rows[number])}" for name, rows in answers.items())
        for number, own in enumerate(meant)
    )
    return Picture(figure, f"What a teacher says of {len(images)} digits; the hatched bar is what was meant. {said}.")


def errors_by_temperature(panels: Mapping[str, tuple[Sequence[int], Mapping[float, Sequence[int]]]]) -> Picture:
    """A panel for each size of student: test errors on labels alone, a band, and against T, each seed a point."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(panels_width(len(panels), 4.6), 3.6), squeeze=False)
        for axes, (name, (plain, by_temperature)) in zip(row[0], panels.items(), strict=True):
            places = list(by_temperature)
            axes.axhspan(min(plain), max(plain), color=GREY, alpha=0.25, label="labels alone, range over seeds")
            for place, errors in by_temperature.items():
                axes.plot([place] * len(errors), errors, color=BLUE, marker="o", fillstyle="none", linestyle="none")
            means = [mean(by_temperature[place]) for place in places]
            axes.plot(places, means, color=BLUE, marker="D", label="distilled: seeds, and their mean")
            axes.set(xscale="log", xlabel="temperature", ylim=(0, None))
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
            axes.set_title(name, loc="left", fontsize=11)
        row[0][0].set(ylabel="test errors")
        row[0][-1].legend(frameon=False, fontsize=9)
    said = "; ".join(
        f"{name}: labels alone {_range(plain)}, "
        + ", ".join(f"{mean(errors):.0f} at T = {place:g}" for place, errors in by_temperature.items())
        for name, (plain, by_temperature) in panels.items()
    )
    return Picture(figure, f"Mean test errors of distilled students by temperature. {said}.")


def errors_by_shift(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[int]]]]) -> Picture:
    """A panel for each student, a line for each group of pictures: errors against what is added to one bias."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(
            1, len(panels), figsize=(panels_width(len(panels), 4.6), 3.6), squeeze=False, sharey=True
        )
        for axes, (name, lines) in zip(row[0], panels.items(), strict=True):
            for (whose, (shifts, errors)), (colour, marker, dashes) in zip(lines.items(), LINES, strict=False):
                axes.plot(
                    shifts, errors, color=colour, marker=marker, markevery=10, ms=4, linestyle=dashes, label=whose
                )  # fmt: skip
            axes.axvline(0, color="black", linewidth=1)
            axes.set(xlabel="added to the bias of the missing class", ylim=(0, None))
            axes.set_title(name, loc="left", fontsize=11)
        row[0][0].set(ylabel="test errors")
        row[0][-1].legend(frameon=False, fontsize=9)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{whose} {_course(*line)}" for whose, line in lines.items())
        for name, lines in panels.items()
    )
    return Picture(figure, f"Test errors against what is added to the bias of a class that was never seen. {said}.")


def _draw(axes: Axes, image: Any, title: str) -> None:
    axes.imshow(np.asarray(image), cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def _likeliest(answer: Sequence[float]) -> str:
    """The likeliest classes, in percent."""
    order = sorted(range(len(answer)), key=lambda each: -answer[each])[:NAMED]
    return ", ".join(f"{each} {100 * answer[each]:.0f}%" for each in order)


def _range(errors: Sequence[int]) -> str:
    return f"{min(errors)} to {max(errors)}"


def _course(shifts: Sequence[float], errors: Sequence[int]) -> str:
    at_0 = min(range(len(shifts)), key=lambda place: abs(shifts[place]))
    best = min(range(len(errors)), key=lambda place: errors[place])
    return f"{errors[at_0]} at 0 and at best {errors[best]}, at {shifts[best]:+.1f}"
