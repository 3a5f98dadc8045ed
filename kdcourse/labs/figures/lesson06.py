"""The figures of lesson 06: one sentence cut twice, the positions of a batch that teach, and how a student learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, panels_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS_THAT_FIT = 8
"""In a cell of a grid of tokens, at the usual size."""

LINES = ((GREY, "o", "--"), (BLUE, "s", "-"), (ORANGE, "^", "-."), (GREEN, "D", ":"))
"""Colour, marker and dashes of the first curves of a panel."""


@dataclass(frozen=True)
class Cut:
    """A token of a sentence: from which character to which, and its id."""

    start: int
    end: int
    token_id: int


def cuts_of_a_sentence(sentence: str, cuts: Mapping[str, Sequence[Cut]]) -> Picture:
    """Where each tokenizer cuts one sentence, character by character, with the id that it gives to each token."""
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(0.21 * len(sentence) + 1.2, 1.35 * len(cuts)))
        for row, (name, tokens) in enumerate(cuts.items()):
            axes.text(-0.8, row, f"{name}\n{len(tokens)} tokens", ha="right", va="center", fontsize=10)
            for place, cut in enumerate(tokens):
                _draw_cut(axes, row, cut, sentence[cut.start : cut.end], filled=place % 2 == 0)
        axes.set(xlim=(0, len(sentence)), ylim=(len(cuts) - 0.2, -0.4), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return Picture(figure, _describe_cuts(sentence, cuts))


def _draw_cut(axes: Axes, row: int, cut: Cut, text: str, *, filled: bool) -> None:
    """A box as wide as its characters, each in a column of its own, and the id below it."""
    axes.add_patch(
        Rectangle(
            (cut.start + 0.05, row - 0.25),
            cut.end - cut.start - 0.1,
            0.5,
            facecolor="#CFE3F1" if filled else "white",
            edgecolor=BLUE,
        )
    )
    for place, character in enumerate(text):
        axes.text(cut.start + place + 0.5, row, character, ha="center", va="center", family="monospace", fontsize=11)
    middle = (cut.start + cut.end) / 2
    axes.text(middle, row + 0.3, str(cut.token_id), ha="center", va="top", rotation=90, fontsize=8, color=GREY)


def _describe_cuts(sentence: str, cuts: Mapping[str, Sequence[Cut]]) -> str:
    rows = "; ".join(
        f"{name} makes {len(tokens)} tokens: "
        + ", ".join(f"{sentence[cut.start : cut.end]!r} is {cut.token_id}" for cut in tokens)
        for name, tokens in cuts.items()
    )
    return f"The sentence {sentence!r}, cut by {len(cuts)} tokenizers. {rows}."


@dataclass(frozen=True)
class Curve:
    """A measurement that was repeated during training, for each of some seeds."""

    name: str
    steps: Sequence[int]
    runs: Sequence[Sequence[float]]
    """Of each seed, a value for each step."""

    @property
    def means(self) -> list[float]:
        return [mean(values) for values in zip(*self.runs, strict=True)]


def learning_curves(panels: Mapping[str, Sequence[Curve]]) -> Picture:
    """A panel for each loss: the mean over seeds against the training step, within the range of the seeds."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(panels_width(len(panels), 4.6), 3.7), squeeze=False)
        for axes, (loss, curves) in zip(row[0], panels.items(), strict=True):
            for curve, (colour, marker, dashes) in zip(curves, LINES, strict=False):
                axes.plot(
                    curve.steps, curve.means, color=colour, marker=marker, linestyle=dashes, ms=5, label=curve.name
                )
                low, high = zip(*((min(values), max(values)) for values in zip(*curve.runs, strict=True)), strict=True)
                axes.fill_between(curve.steps, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.set(xlabel="training step", ylabel="nats per token")
            axes.set_title(loss, loc="left", fontsize=11)
            axes.legend(frameon=False, fontsize=9)
    return Picture(figure, _describe_learning_curves(panels))


def _describe_learning_curves(panels: Mapping[str, Sequence[Curve]]) -> str:
    described = "; ".join(
        f"{loss}: " + ", ".join(_describe_curve(curve) for curve in curves) for loss, curves in panels.items()
    )
    return f"Losses during training, mean and range over seeds, in nats per token. {described}."


def _describe_curve(curve: Curve) -> str:
    lowest = min(range(len(curve.steps)), key=lambda place: curve.means[place])
    return (
        f"{curve.name} {curve.means[0]:.2f} at step {curve.steps[0]}, lowest {curve.means[lowest]:.2f} at step "
        f"{curve.steps[lowest]}, {curve.means[-1]:.2f} at step {curve.steps[-1]}"
    )


@dataclass(frozen=True)
class TokenGrid:
    """A padded batch of a causal language model: what is at each position, and what is its label."""

    tokens: Sequence[Sequence[str]]
    """Text of each token, padding included."""
    has_label: Sequence[Sequence[bool]]
    """Aligned with the tokens."""
    is_padding: Sequence[Sequence[bool]]
    is_end: Sequence[Sequence[bool]]
    """The true end of each text."""

    def teaches(self, row: int, position: int) -> bool:
        """Are the logits at this position compared? They are about the token after it."""
        return any(self.has_label[row][position + 1 : position + 2])

    @property
    def _positions(self) -> range:
        return range(len(self.tokens[0]))


def supervised_positions(grid: TokenGrid) -> Picture:
    """Two grids of one batch: which tokens have a label, and at which positions the logits are compared."""
    rows, columns = len(grid.tokens), len(grid.tokens[0])
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, (above, below) = plt.subplots(2, 1, figsize=(9.5, 1.3 + 0.9 * rows))
        for row, tokens in enumerate(grid.tokens):
            for place, token in enumerate(tokens):
                is_end, predicts_end = (any(grid.is_end[row][at : at + 1]) for at in (place, place + 1))
                _draw_token(above, grid, row, place, grid.has_label[row][place], is_end, token)
                text = f"{token} → end" if predicts_end else token
                _draw_token(below, grid, row, place, grid.teaches(row, place), is_end or predicts_end, text)
        above.set_title("labels, aligned with the tokens", loc="left", fontsize=11)
        below.set_title("logits that are compared: each about the token after it", loc="left", fontsize=11)
        for axes in (above, below):
            axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), yticks=[], xticks=range(columns))
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, labelsize=9)
        below.set_xlabel("position")
    return Picture(figure, _describe_supervised_positions(grid))


def _describe_supervised_positions(grid: TokenGrid) -> str:
    texts = []
    for row, tokens in enumerate(grid.tokens):
        labelled = [place for place in grid._positions if grid.has_label[row][place]]
        teaching = [place for place in grid._positions if grid.teaches(row, place)]
        padding = sum(grid.is_padding[row])
        texts.append(
            f"text {row + 1} has labels at positions {labelled[0]} to {labelled[-1]} of {len(tokens)}, {padding} of "
            f"them padding, and its logits are compared at {teaching[0]} to {teaching[-1]}"
        )
    return (
        f"Two grids of a batch of {len(grid.tokens)} texts. Above, the tokens that have a label; below, the positions "
        f"whose logits are compared, each one place to the left of its label: {'; '.join(texts)}."
    )


def _draw_token(axes: Axes, grid: TokenGrid, row: int, place: int, counts: bool, is_end: bool, text: str) -> None:
    """One cell: filled if it counts, hatched if it is padding, orange with a thick edge if it is about a text's end."""
    padding = grid.is_padding[row][place]
    axes.add_patch(
        Rectangle(
            (place - 0.46, row - 0.4),
            0.92,
            0.8,
            facecolor=(ORANGE if is_end else BLUE) if counts else "white",
            edgecolor=ORANGE if is_end else GREY,
            linewidth=2 if is_end else 0.8,
            hatch="///" if padding else None,
            alpha=0.6 if padding else 1,
        )
    )
    if not padding:
        style: dict[str, Any] = (
            {"color": "white", "weight": "bold"} if counts else {"color": "black", "weight": "normal"}
        )
        size = 10 if len(text) <= LETTERS_THAT_FIT else 8
        axes.text(place, row, text, ha="center", va="center", fontsize=size, **style)
