"""Cells whose stored output is not compared with a new run, each with its reason.

A cell is left out by the tag `nbval-ignore-output`, or by `nbval-skip` if a run passes it over, and says why in its
metadata: `"not_compared": "trained"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdcourse.course.lessons import Lesson

if TYPE_CHECKING:
    from nbformat import NotebookNode

TAG, SKIP_TAG = "nbval-ignore-output", "nbval-skip"
METADATA_KEY = "not_compared"

REASONS = {
    "trained": "comes from a training, which other processors round differently",
    "timed": "a time, which no two runs share",
    "interactive": "waits for somebody to move it, so a run passes it over",
    "rounded": "shows digits that other processors round differently",
}


@dataclass(frozen=True)
class NotCompared:
    lesson: str
    cell: str
    reason: str


def cells_not_compared(lessons: Iterable[Lesson]) -> Iterator[NotCompared]:
    """Every cell of these lessons that is not compared."""
    for lesson in lessons:
        for cell in lesson.cells:
            if is_not_compared(cell):
                yield NotCompared(lesson.name, cell["id"], reason_of(cell))


def is_not_compared(cell: Mapping[str, Any]) -> bool:
    return not {TAG, SKIP_TAG}.isdisjoint(cell["metadata"].get("tags", []))


def reason_of(cell: Mapping[str, Any]) -> str:
    """A key of `REASONS`; empty if the cell gives none."""
    return str(cell["metadata"].get(METADATA_KEY, ""))


def compared_share(notebook: NotebookNode) -> float:
    """How many of the code cells that have an output are compared, from 0 to 1."""
    with_output = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    return sum(not is_not_compared(cell) for cell in with_output) / len(with_output)
