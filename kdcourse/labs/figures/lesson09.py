"""The figures of lesson 09: how far a student is from its teacher, by position, by cost, and by way to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import draw_verdict
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panels_width

if TYPE_CHECKING:
    from kdcourse.labs.verdict import Verdict

LINES: Any = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."), (GREY, "D", ":"))
"""Colour, marker and dashes of the lines of a panel."""

ByPosition = Sequence[Sequence[float]]
"""Of each seed, a value at each position."""


def divergence_by_position(panels: Mapping[str, Mapping[str, ByPosition]]) -> Picture:
    """A panel for each way to learn, a line for whose text stands before: the mean over seeds, within their range."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(
            1, len(panels), figsize=(panels_width(len(panels), 4.6), 3.7), squeeze=False, sharey=True
        )
        for axes, (name, lines) in zip(row[0], panels.items(), strict=True):
            for (whose, seeds), (colour, marker, dashes) in zip(lines.items(), LINES, strict=False):
                places = range(1, len(seeds[0]) + 1)
                axes.plot(
                    places, _means(seeds), color=colour, marker=marker, ms=3.5, linestyle=dashes, label=whose
                )  # fmt: skip
                low, high = zip(*((min(values), max(values)) for values in zip(*seeds, strict=True)), strict=True)
                axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.set(xlabel="token after the prompt")
            axes.set_title(name, loc="left", fontsize=11)
            axes.legend(frameon=False, fontsize=9)
        row[0][0].set(ylabel="nats per token")
    return Picture(figure, _describe_positions(panels))


def _means(seeds: ByPosition) -> list[float]:
    return [mean(values) for values in zip(*seeds, strict=True)]


def _describe_positions(panels: Mapping[str, Mapping[str, ByPosition]]) -> str:
    described = "; ".join(f"{name}: " + ", ".join(map(_describe_line, *zip(*lines.items(), strict=True)))
                          for name, lines in panels.items())  # fmt: skip
    return f"Divergence between student and teacher by position, mean and range over seeds, in nats. {described}."


def _describe_line(whose: str, seeds: ByPosition) -> str:
    means = _means(seeds)
    ends = [mean(means[:5]), mean(means[-5:])]
    return f"{whose} {ends[0]:.2f} over the first five tokens and {ends[1]:.2f} over the last five"


def score_against_cost(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Picture:
    """A panel for each judge, a line for each way to learn: costs and mean scores, in nats per token."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(panels_width(len(panels), 4.6), 4.2), squeeze=False)
        for axes, (judge, lines) in zip(row[0], panels.items(), strict=True):
            for (name, (costs, scores)), (colour, marker, dashes) in zip(lines.items(), LINES, strict=False):
                axes.plot(costs, scores, color=colour, marker=marker, linestyle=dashes, ms=5, label=name)
            axes.set(xlabel="CPU seconds")
            axes.set_title(judge, loc="left", fontsize=11)
        row[0][0].set(ylabel="nats per token")
        figure.legend(*row[0][-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    said = "; ".join(
        f"{judge}: "
        + ", ".join(f"{name} from {scores[0]:.2f} to {scores[-1]:.2f}" for name, (_, scores) in lines.items())
        for judge, lines in panels.items()
    )
    return Picture(figure, f"Scores against CPU seconds, means over seeds, in nats per token; less is better. {said}.")


def differences_in_nats(groups: Mapping[str, Mapping[str, Verdict]]) -> Picture:
    """A panel for each judge, a row for each comparison: what is saved, with its 95% interval."""
    names = list(next(iter(groups.values())))
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(
            1,
            len(groups),
            figsize=(panels_width(len(groups), 3.8), 0.42 * len(names) + 1.6),
            squeeze=False,
            sharey=True,
        )
        for axes, (judge, comparisons) in zip(row[0], groups.items(), strict=True):
            axes.axvline(0, color="black", linewidth=1)
            for place, verdict in enumerate(comparisons.values()):
                draw_verdict(axes, place, verdict, size=7)
            axes.set_title(judge, loc="left", fontsize=10)
            axes.set(xlabel="nats per token saved", ylim=(len(names) - 0.4, -0.6))
            axes.grid(axis="y", visible=False)
        row[0][0].set_yticks(range(len(names)), names)
    said = "; ".join(
        f"{judge}: "
        + ", ".join(f"{name} {each.difference:+.3f} ({each.low:+.3f} to {each.high:+.3f})" for name, each in of.items())
        for judge, of in groups.items()
    )
    return Picture(
        figure,
        "What each way to learn saves, in nats per token, with 95% intervals; filled where the interval leaves out 0. "
        f"{said}.",
    )
