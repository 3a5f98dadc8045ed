"""The figure of lesson 06: which positions of a batch teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS_THAT_FIT = 8
"""In a cell of a grid of tokens, at the usual size."""


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
