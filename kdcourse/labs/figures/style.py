"""One style for every figure, and the way to show one with its alt text.

Colours are those of Okabe and Ito (2008); marker and label say the same as the colour.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"

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


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its alt text, which screen readers, `nbval` and a terminal get in the picture's place."""
    from IPython.display import display

    buffer = BytesIO()
    # Without software and date a picture that has not changed is the same file, byte for byte.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    display(
        {"image/png": buffer.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True
    )  # fmt: skip
