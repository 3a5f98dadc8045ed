"""A figure and its alt text, which are shown together."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """Shows itself in Jupyter; screen readers, `nbval` and a terminal get the alt text in the figure's place."""

    figure: Figure
    alt: str

    def __post_init__(self) -> None:
        # A figure that pyplot holds open is shown once more, without alt text, at the end of its cell.
        plt.close(self.figure)

    def show(self) -> None:
        """Display it here: Jupyter shows what is named on the last line of a cell by itself, and nothing above it."""
        from IPython.display import display

        display(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Data and metadata of the output, as IPython asks for them."""
        return {"image/png": self._png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def _png(self) -> bytes:
        buffer = BytesIO()
        # Without software and date a picture that has not changed is the same file, byte for byte.
        self.figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()
