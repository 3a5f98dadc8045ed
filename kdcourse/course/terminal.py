"""What every command prints with: text is text, never markup, and a table in a pipe has one row per line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdcourse.course.text import in_one_line, visible

MARKS = {"ok": Text("✓", "green"), "note": Text("!", "yellow"), "problem": Text("✗", "red"), "": Text()}

MANY = 1000
"""Rows that nobody reads on a screen; rich would lay out ten thousand of them in five seconds."""


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints words as they are, in colour only on a terminal."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str, mark: str = "", *, stderr: bool = False) -> None:
    """One line, which the terminal may wrap where it likes."""
    make_console(stderr=stderr).print(*([MARKS[mark]] if mark else []), visible(text), soft_wrap=True)


def busy(text: str) -> AbstractContextManager[object]:
    """Say on a terminal that something takes its time, until it is done."""
    console = make_console()
    return console.status(text) if is_live(console) else nullcontext()


def is_live(console: Console) -> bool:
    """Whether what it shows can be changed again; FORCE_COLOR does not make a terminal out of a log."""
    return console.is_interactive and console.file.isatty()


def table(rows: Iterable[Iterable[str | Text]], *headings: str) -> None:
    """Print rows under headings, or without any."""
    listed = [list(row) for row in rows]
    if not sys.stdout.isatty() or len(listed) > MANY:
        sys.stdout.writelines(f"{line}\n" for line in _plain_lines([list(headings), *listed] if headings else listed))
        return
    shown = Table(*headings, box=None, padding=(0, 1), pad_edge=False, show_header=bool(headings))
    for row in listed:
        shown.add_row(*(visible(cell) if isinstance(cell, str) else cell for cell in row))
    make_console().print(shown)


def _plain_lines(rows: Sequence[Sequence[str | Text]]) -> Iterator[str]:
    words = [[in_one_line(str(cell).replace("\n", " ")) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*words, strict=True)]
    for row in words:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(padded).rstrip()
