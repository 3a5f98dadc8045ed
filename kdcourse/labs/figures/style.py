"""One style for every figure.

Colours are those of Okabe and Ito (2008); marker and label say the same as the colour.
"""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"

WIDEST = 10.6
"""Inches of a figure whose words can still be read from the back of a room, when it is as wide as a slide."""

STYLE: Any = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "savefig.facecolor": "white",
}


def panels_width(count: int, each: float) -> float:
    """Inches for so many panels side by side, of which none needs more than `each`."""
    return min(each * count, WIDEST)
