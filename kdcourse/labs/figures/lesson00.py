"""The figures of lesson 00: who is ahead, who doubts, who teaches whom, what an answer asks for, and pairs of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch
from numpy.typing import ArrayLike

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.scores import Scores, in_percent
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# ---------------------------------------------------------------------------------------------------------------------
# two by two


Square = Mapping[str, Sequence[Scores]]
"""For each of two ways of answering, the accuracies in each place."""


def two_by_two(squares: Mapping[str, Square], places: Sequence[str], *, seeds: bool = True) -> Picture:
    """Two ways of answering on two sets of sentences: the mean of each as a mark, every seed as a dot.

    Args:
        squares: one for each panel, by what the panel is called; all on one scale.
        places: the sets of sentences, in words.
        seeds: whether the dots are drawn.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(squares), figsize=(1.4 + 4.4 * len(squares), 3.8), sharey=True, squeeze=False
        )
        for axes, (title, square) in zip(panels[0], squares.items(), strict=True):
            for (name, series), style in zip(square.items(), WAYS, strict=True):
                _draw_way(axes, name, series, seeds, **style)
            axes.set_xticks(range(len(places)), list(places))
            axes.set(title=title, xlim=(-0.3, len(places) - 0.6))
            axes.grid(axis="x", visible=False)
        panels[0][0].set(ylabel="test accuracy (%)")
    return Picture(figure, _describe_two_by_two(squares, places))


WAYS: Sequence[Mapping[str, Any]] = (
    {"color": ORANGE, "marker": "o", "linestyle": "--"},
    {"color": BLUE, "marker": "v", "linestyle": "-"},
)


def _draw_way(axes: Axes, name: str, series: Sequence[Scores], seeds: bool, **style: Any) -> None:
    means = [100 * mean(scores) for scores in series]
    axes.plot(means, markersize=9, linewidth=2, **style)
    for place, scores in enumerate(series if seeds else []):
        beside = [place - 0.06] * len(scores)
        axes.plot(beside, [100 * score for score in scores], ".", color=style["color"], alpha=0.6)
    end = (len(means) - 1, means[-1])
    axes.annotate(name, end, (12, 0), textcoords="offset points", va="center", color=style["color"])


def _describe_two_by_two(squares: Mapping[str, Square], places: Sequence[str]) -> str:
    said = "; ".join(
        f"{title}, {name}: "
        + ", ".join(f"{in_percent(scores)} with {place}" for scores, place in zip(series, places, strict=True))
        for title, square in squares.items()
        for name, series in square.items()
    )
    return f"Test accuracy in %, mean and spread over seeds. {said}."


# ---------------------------------------------------------------------------------------------------------------------
# doubts


@dataclass(frozen=True)
class Doubts:
    """What raters and teacher say of the same sentences, as probabilities of *positive*."""

    people: np.ndarray
    teacher: np.ndarray
    contested_from: float = 0.4
    """A sentence is contested if at least this share of its raters is on either side."""
    sure_from: float = 0.9

    @property
    def of_people(self) -> np.ndarray:
        """The share on the smaller side: 0 where all agree, at most 1/2."""
        return np.minimum(self.people, 1 - self.people)

    @property
    def of_teacher(self) -> np.ndarray:
        return np.minimum(self.teacher, 1 - self.teacher)

    @property
    def contested(self) -> np.ndarray:
        return self.of_people >= self.contested_from - 1e-6

    @property
    def sure(self) -> np.ndarray:
        """Where the teacher gives one side more than `sure_from`."""
        return self.of_teacher < 1 - self.sure_from

    def by_group(self) -> dict[str, float]:
        """The mean doubt of the teacher where people agree, and where more and more of them do not."""
        group = np.searchsorted(list(GROUPS.values()), self.of_people - 1e-6)
        return {name: float(self.of_teacher[group == number].mean()) for number, name in enumerate(GROUPS)}


GROUPS = {"none": 0.0, "up to a fifth": 0.2, "up to two fifths": 0.4, "up to half": 0.5}
"""Sentences by the share of raters on the smaller side; each group goes on where the one before ends."""


def doubts_of_teacher_and_people(people: ArrayLike, teacher: ArrayLike) -> Picture:
    """Every sentence as a dot, the teacher's probability against the raters' share; beside it, mean doubts by group.

    Args:
        people: for each sentence, the share of its raters on the positive side.
        teacher: for each sentence, the teacher's probability of *positive*.
    """
    doubts = Doubts(np.asarray(people, float), np.asarray(teacher, float))
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), width_ratios=(1.3, 1))
        _draw_dots(left, doubts)
        _draw_groups(right, doubts.by_group())
    return Picture(figure, _describe_doubts(doubts))


def _draw_dots(axes: Axes, doubts: Doubts) -> None:
    apart = doubts.contested & doubts.sure
    band = 100 * doubts.contested_from
    axes.axvspan(band, 100 - band, color=GREY, alpha=0.15, linewidth=0)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1)
    x, y = 100 * doubts.people, 100 * doubts.teacher
    axes.scatter(x[~apart], y[~apart], s=9, color=BLUE, alpha=0.3)
    axes.scatter(x[apart], y[apart], s=22, color=ORANGE, marker="D", label="people are divided, the teacher is sure")
    axes.set(
        xlabel="raters on the positive side (%); grey: divided",
        ylabel="teacher's probability of positive (%)",
        xlim=(-3, 103),
        ylim=(-3, 118),
    )
    axes.set_yticks(range(0, 101, 20))
    axes.legend(frameon=False, loc="upper left", fontsize=10)


def _draw_groups(axes: Axes, groups: Mapping[str, float]) -> None:
    bars = axes.bar(range(len(groups)), [100 * doubt for doubt in groups.values()], color=BLUE, width=0.6)
    axes.bar_label(bars, fmt="%.0f%%")
    axes.set_xticks(range(len(groups)), [name.replace(" to ", " to\n") for name in groups])
    axes.set(xlabel="raters on the smaller side", ylabel="teacher's mean doubt (%)", ylim=(0, 50))
    axes.grid(axis="x", visible=False)


def _describe_doubts(doubts: Doubts) -> str:
    groups = ", ".join(f"{100 * doubt:.0f}% where it is {name}" for name, doubt in doubts.by_group().items())
    both = int((doubts.contested & doubts.sure).sum())
    return (
        f"The teacher's probability of positive against the share of raters on the positive side, for "
        f"{len(doubts.people):,} test sentences. Of {int(doubts.contested.sum())} sentences on which people are "
        f"divided, the teacher is more than {doubts.sure_from:.0%} sure on {both}. Beside it, the teacher's mean doubt "
        f"by the raters on the smaller side: {groups}."
    )


# ---------------------------------------------------------------------------------------------------------------------
# teacher and student


def teacher_and_student() -> Picture:
    """One sentence on its way through both models to the loss, and the way back, which only the student gets."""
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(figsize=(10, 3.8))
        axes.set(xlim=(0.4, 23.1), ylim=(0, 6.9))
        axes.axis("off")
        for center, text, colour, width in BOXES:
            _box(axes, center, text, colour, width=width)
        for start, end in ARROWS:
            _arrow(axes, start, end)
        axes.text(10.75, 4.85, "softmax", ha="center", va="center", fontsize=10)
        axes.plot([20.9, 20.9, 5, 5], [3.1, 0.3, 0.3, 1], color=ORANGE, linestyle="--", linewidth=1.6)
        _arrow(axes, (5, 0.9), (5, 2.85), color=ORANGE, linewidth=1.6)
        axes.text(12.5, 0.5, "gradient: to the student alone", ha="center", color=ORANGE, fontsize=10)
    return Picture(
        figure,
        "One sentence goes into two models. The teacher, which is frozen, gives logits t, and a softmax makes of them "
        "its probabilities q. The student, which learns, gives logits s and probabilities p. The soft term, KL(q ‖ p), "
        "compares the two. The hard term, −log p of y, compares p with the label y, if there is one. The loss mixes "
        "both terms. A dashed arrow leads from it back to the student: the gradient goes to the student alone.",
    )


BOXES = (
    ((1.7, 3.6), "one\nsentence", GREY, 2.2),
    ((5, 6), "teacher\n(frozen)", GREY, 2.4),
    ((5, 3.6), "student\n(learns)", BLUE, 2.4),
    ((8.9, 6), "logits t", GREY, 2.2),
    ((8.9, 3.6), "logits s", BLUE, 2.2),
    ((12.2, 6), "q", GREY, 1.2),
    ((12.2, 3.6), "p", BLUE, 1.2),
    ((10, 1.9), "label y, if there is one", ORANGE, 5.4),
    ((16.3, 5), "soft term\nKL(q ‖ p)", GREEN, 3),
    ((16.3, 2.4), "hard term\n−log p of y", GREEN, 3),
    ((20.9, 3.7), "loss: α · hard\n+ (1 − α) · T² · soft", BLUE, 3.9),
)
"""Center, text, colour and width of each box of the diagram."""

ARROWS = (
    ((2.8, 4), (3.8, 5.7)),
    ((2.8, 3.6), (3.8, 3.6)),
    ((6.2, 6), (7.8, 6)),
    ((6.2, 3.6), (7.8, 3.6)),
    ((10, 6), (11.6, 6)),
    ((10, 3.6), (11.6, 3.6)),
    ((12.8, 6), (14.8, 5.3)),
    ((12.8, 3.8), (14.8, 4.7)),
    ((12.8, 3.4), (14.8, 2.7)),
    ((12.7, 1.9), (14.8, 2.1)),
    ((17.8, 4.9), (19, 4.2)),
    ((17.8, 2.5), (19, 3.3)),
)


def _box(axes: Axes, center: tuple[float, float], text: str, colour: str, *, width: float = 2.0) -> None:
    style: Any = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": colour, "linewidth": 2}
    axes.add_patch(FancyBboxPatch((center[0] - width / 2, center[1] - 0.65), width, 1.3, **style))
    axes.text(*center, text, ha="center", va="center", fontsize=10)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    how = {"arrowstyle": "->", "color": "black", "linewidth": 1.4, "shrinkA": 2, "shrinkB": 2, **style}
    axes.annotate("", end, start, arrowprops=how)


# ---------------------------------------------------------------------------------------------------------------------
# what an answer asks for


def label_and_teacher(student: ArrayLike, hard: ArrayLike, soft: ArrayLike) -> Picture:
    """Both terms of the loss on one sentence, at each probability that the student may give, and where each is lowest.

    Args:
        student: probabilities of the label's class, ascending.
        hard, soft: the two terms at each of them.
    """
    places, terms = np.asarray(student, float), {"label": np.asarray(hard, float), "teacher": np.asarray(soft, float)}
    lowest = {name: places[term.argmin()] for name, term in terms.items()}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.6))
        for (name, term), colour, line in zip(terms.items(), (ORANGE, BLUE), ("--", "-"), strict=True):
            axes.plot(100 * places, term, color=colour, linestyle=line, linewidth=2, label=f"{name}'s term")
            axes.plot(100 * lowest[name], term.min(), color=colour, marker="v", markersize=11, clip_on=False)
        axes.set(xlabel="student's probability of the label's class (%)", ylabel="loss", ylim=(0, 3))
        axes.legend(frameon=False, title="triangle: lowest")
    words = " and ".join(f"the {name}'s term at {place:.0%}" for name, place in lowest.items())
    return Picture(
        figure,
        f"The two terms of the loss against the student's probability of the label's class, from {places[0]:.0%} to "
        f"{places[-1]:.0%}. Lowest are {words}.",
    )


# ---------------------------------------------------------------------------------------------------------------------
# pairs of seeds


def pairs_of_seeds(first: tuple[str, Scores], second: tuple[str, Scores]) -> Picture:
    """Two arms side by side; a line joins the two students that began with the same seed."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.8))
        for pair in zip(first[1], second[1], strict=True):
            axes.plot([100 * score for score in pair], color=GREY, linewidth=1.2)
        for place, (_, scores), colour, marker in zip((0, 1), (first, second), (ORANGE, BLUE), "ov", strict=True):
            axes.plot(
                [place] * len(scores),
                [100 * score for score in scores],
                linestyle="none",
                color=colour,
                marker=marker,
                markersize=9,
            )
        axes.set_xticks((0, 1), [first[0], second[0]])
        axes.set(ylabel="test accuracy (%); a line is a seed", xlim=(-0.4, 1.4))
        axes.grid(axis="x", visible=False)
    return Picture(figure, _describe_pairs(first, second))


def _describe_pairs(first: tuple[str, Scores], second: tuple[str, Scores]) -> str:
    said = "; ".join(
        f"seed {seed} from {100 * before:.1f} to {100 * after:.1f}"
        for seed, (before, after) in enumerate(zip(first[1], second[1], strict=True))
    )
    return f"Test accuracy in %, a line for each seed from “{first[0]}” to “{second[0]}”: {said}."
