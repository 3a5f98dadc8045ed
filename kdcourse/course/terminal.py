"""What every command prints with: text is text, never markup, and a table in a pipe has one row per line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.table import Table
from rich.text import Text

MARKS = {"ok": Text("✓", "green"), "note": Text("!", "yellow"), "problem": Text("✗", "red"), "": Text()}

WIDE = 1000
"""Columns of a pipe, which wraps nothing."""


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints words as they are, in colour only on a terminal."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal else WIDE
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def say(text: str, mark: str = "", *, stderr: bool = False) -> None:
    """One line, which the terminal may wrap where it likes."""
    make_console(stderr=stderr).print(*([MARKS[mark]] if mark else []), text, soft_wrap=True)


def busy(text: str) -> AbstractContextManager[object]:
    """Say on a terminal that something takes its time, until it is done."""
    console = make_console()
    return console.status(text) if is_live(console) else nullcontext()


def is_live(console: Console) -> bool:
    """Whether what it shows can be changed again; FORCE_COLOR does not make a terminal out of a log."""
    return console.is_interactive and console.file.isatty()


def table(rows: Iterable[Iterable[str | Text]], *headings: str) -> None:
    """Print rows under headings, or without any."""
    shown = Table(*headings, box=None, padding=(0, 1), pad_edge=False, show_header=bool(headings))
    for row in rows:
        shown.add_row(*row)
    make_console().print(shown)
