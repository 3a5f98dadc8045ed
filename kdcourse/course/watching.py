"""Show whoever started a run how far it is: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from kdcourse.course.lessons import Lesson
from kdcourse.course.outcome import Outcome
from kdcourse.course.run import Watcher
from kdcourse.course.terminal import MARKS, is_live
from kdcourse.course.text import in_one_line, visible


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """Something that shows a run on this console."""
    if not is_live(console):
        yield PlainLines(console)
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=console, transient=True) as progress:
        yield LiveLine(progress)


class PlainLines(Watcher):
    """A line when a lesson begins, and one when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def says(self, text: str) -> None:
        self._console.print(visible(text), soft_wrap=True)

    def lesson_begins(self, lesson: Lesson, place: int, count: int) -> None:
        self._console.print(f"  {in_one_line(lesson.name)} · lesson {place} of {count} begins", soft_wrap=True)

    def lesson_ends(self, outcome: Outcome) -> None:
        self._console.print(summary(outcome), soft_wrap=True)


class LiveLine(PlainLines):
    """One line that is always up to date, and above it those of the lessons that are done."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self._progress, self._lesson = progress, ""
        self._task = progress.add_task("Getting ready …", total=None)

    def lesson_begins(self, lesson: Lesson, place: int, count: int) -> None:
        self._lesson = f"{in_one_line(lesson.name)} · lesson {place} of {count}"
        self._progress.reset(self._task, description=f"{self._lesson} · kernel starts", total=None)

    def cell_begins(self, cell: str, place: int, count: int) -> None:
        self._progress.update(self._task, description=f"{self._lesson} · cell {place} of {count} · {cell}")


def summary(outcome: Outcome) -> Text:
    """How a lesson went, in a line."""
    time = "earlier run" if outcome.reused else f"{outcome.seconds:.0f} s"
    problem = f"  {outcome.problem}" if outcome.problem else ""
    cell = f" [cell {outcome.record.cell}]" if outcome.record.cell else ""
    mark = MARKS["ok" if outcome.passed else "problem"]
    return Text.assemble(mark, in_one_line(f" {outcome.lesson.name}  {time}{problem}{cell}"))
