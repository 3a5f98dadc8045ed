"""A record of a learner: a table in JSON, on this machine alone; whatever is wrong with it, the lesson goes on.

Answers to exercises and predictions are such records (`exercises.progress`, `guesses`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdcourse.course.misuse import MisuseError
from kdcourse.files import set_aside

LOCK_SECONDS = 5
DAMAGES = (ValueError, RecursionError)
"""What is raised for a file that is no record."""

Table = dict[str, Any]


def read_table(path: Path, is_entry: Callable[[object], bool], holds: str) -> Table:
    """What a file holds; nothing if there is none.

    Raises:
        ValueError, RecursionError: it is no table of such entries.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or not all(map(is_entry, content.values())):
        raise ValueError(f"it is no table of {holds}")
    return content


def read_or_begin_anew(read: Callable[[], Table], path: Path, whose: str) -> tuple[Table, str]:
    """The table, and what should be known of it: a damaged one is set aside, and an empty one begun."""
    try:
        return read(), ""
    except DAMAGES:
        return {}, f"The record of your {whose} was damaged, and is begun anew; the old one is {set_aside(path)}."


def recorded(find: Callable[[], Path], change: Callable[[Path], str], what: str) -> str:
    """Change a record while nobody else does, without waiting for long; `change` says what should be known of it.

    Returns:
        That, or why "this answer", whichever `what` it is, is not recorded; mostly nothing.
    """
    from filelock import FileLock, Timeout  # `kdcourse progress` only reads

    try:
        path = find().resolve()  # what a link leads to is brought up to date, and stays where it is
    except MisuseError as error:
        return f"This {what} is not recorded: {error}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return change(path)
    except Timeout:
        return f"This {what} is not recorded: another program has been using {path} for {LOCK_SECONDS} s."
    except OSError as error:
        return f"This {what} is not recorded: {path} cannot be written ({error.strerror})."
