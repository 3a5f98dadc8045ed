"""The figures of lesson 12: a family of comparisons, a gain that shrinks, and what a number of seeds can show."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.lesson07 import POINTS
from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import Scores, in_percent, spread
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panels_width

if TYPE_CHECKING:
    from kdcourse.labs.verdict import Verdict

LINES: Any = ((ORANGE, "o", "--"), (BLUE, "s", "-"), (GREEN, "^", "-."), (GREY, "D", ":"))
"""Colour, marker and dashes of the lines of a panel."""
CHANCE = 0.05

Family = Mapping[str, Mapping[str, "tuple[Verdict, float]"]]
"""By heading and comparison: the verdict, and its p-value after Holm."""


def family_of_comparisons(family: Family) -> Picture:
    """All comparisons under their headings: the difference in points, with its 95% interval.

    Filled where the p-value after Holm is below 5%; half filled where only the interval leaves out 0.
    """
    rows: list[tuple[str, tuple[Verdict, float] | None]] = []
    for heading, comparisons in family.items():
        rows += [(heading, None), *comparisons.items()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 0.27 * len(rows) + 1.3))
        axes.axvline(0, color="black", linewidth=1)
        for row, (_, found) in enumerate(rows):
            if found is not None:
                _draw(row, *found, axes)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
        for label, (_, found) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if found is None else "normal")
        key = "filled: shown, p (Holm) below 5%\nhalf: the interval alone leaves out 0"
        axes.set(xlabel=f"difference in points, 95% interval\n{key}", ylim=(len(rows) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    return Picture(figure, _describe_family(family))


def fill_of(verdict: Verdict, p: float) -> str:
    """`full`, `left` (half) or `none`: how much is shown."""
    if p < CHANCE:
        return "full"
    return "none" if verdict.word == "no difference shown" else "left"


def _draw(row: int, verdict: Verdict, p: float, axes: Any) -> None:
    center, low, high = (100 * each for each in (verdict.difference, verdict.low, verdict.high))
    fill = fill_of(verdict, p)
    axes.errorbar(
        center, row, xerr=[[center - low], [high - center]], color=GREY if fill == "none" else BLUE, capsize=3,
        marker="o", markersize=7, fillstyle=fill,
    )  # fmt: skip


def _describe_family(family: Family) -> str:
    said = ". ".join(
        f"{heading}: "
        + "; ".join(
            f"{name} {POINTS.show(each.difference)} ({POINTS.show(each.low)} to {POINTS.show(each.high)}), "
            f"{FILLS[fill_of(each, p)]}"
            for name, (each, p) in comparisons.items()
        )
        for heading, comparisons in family.items()
    )
    return f"Differences in points of test accuracy, with 95% intervals. {said}."


FILLS = {"full": "shown", "left": "not shown after Holm", "none": "no difference shown"}


def accuracy_by_labels(panels: Mapping[str, Mapping[str, Mapping[int, Scores]]]) -> Picture:
    """A panel for each task, a line for each way to learn: accuracy against the number of rows, with its spread."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(panels_width(len(panels), 4.4), 3.6), squeeze=False)
        for axes, (task, lines) in zip(row[0], panels.items(), strict=True):
            for (name, by_rows), (colour, marker, dashes) in zip(lines.items(), LINES, strict=False):
                axes.errorbar(
                    list(by_rows), [100 * mean(scores) for scores in by_rows.values()],
                    yerr=[100 * spread(scores) for scores in by_rows.values()],
                    color=colour, marker=marker, linestyle=dashes, capsize=3, label=name,
                )  # fmt: skip
            counts = sorted({count for by_rows in lines.values() for count in by_rows})
            axes.set_xscale("log")
            axes.set_xticks(counts, [f"{count:,}" for count in counts])
            axes.minorticks_off()
            axes.set(xlabel="rows that it learns from")
            axes.set_title(task, loc="left", fontsize=11)
        row[0][0].set(ylabel="test accuracy (%)")
        row[0][0].legend(frameon=False, loc="lower right")
    said = ". ".join(
        f"{task}: "
        + "; ".join(
            f"{name} " + ", ".join(f"{in_percent(scores)} with {count:,}" for count, scores in by_rows.items())
            for name, by_rows in lines.items()
        )
        for task, lines in panels.items()
    )
    return Picture(figure, f"Test accuracy in % against the number of rows, mean and spread over seeds. {said}.")


def detectable_by_seeds(
    curves: Mapping[str, Mapping[int, float]], *, lowest: float, wanted: float, afforded: int
) -> Picture:
    """The smallest difference that is found four times in five, in points, against the number of seeds.

    Args:
        curves: by what is assumed; differences as shares, by number of seeds.
        lowest: what no number of seeds goes below; `wanted`: what one would like to see; `afforded`: seeds.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.8))
        for (name, by_seeds), (colour, marker, dashes) in zip(curves.items(), LINES, strict=False):
            axes.plot(
                list(by_seeds), [100 * value for value in by_seeds.values()], color=colour, marker=marker, ms=5,
                linestyle=dashes, label=name,
            )  # fmt: skip
        axes.axhline(100 * lowest, color="black", linestyle=":", label="floor of the test examples")
        axes.axhline(100 * wanted, color="black", linewidth=1, label="wanted")
        axes.axvline(afforded, color="black", linestyle="-.", linewidth=1, label="afforded")
        axes.set(xlabel="seeds of each arm", ylabel="detectable difference (points)", xscale="log", ylim=(0, None))
        ticks = sorted({count for by_seeds in curves.values() for count in by_seeds})
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{100 * value:.1f} with {count}" for count, value in by_seeds.items())
        for name, by_seeds in curves.items()
    )
    return Picture(
        figure,
        f"The smallest difference in points that is found with 80% power, by seeds of each arm. {said}. The test "
        f"examples leave {100 * lowest:.1f} open with any number of seeds; {100 * wanted:.1f} is wanted, and "
        f"{afforded} seeds are afforded.",
    )
