"""Rules of a lesson that only show when it runs."""

from __future__ import annotations

from nbformat import NotebookNode

WAIT_SECONDS = 30.0
"""The longest that a learner should look at one cell in the quick profile."""


def slow_cells(executed: NotebookNode, seconds: float = WAIT_SECONDS) -> list[str]:
    """Each cell that took longer than `seconds`, with its time, from the durations that papermill notes down.

    A cell that did not finish has no duration, and is not reported.
    """
    durations = {cell.id: cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in executed.cells}
    return [f"`{name}` took {taken:.0f} s" for name, taken in durations.items() if taken > seconds]
