"""What a learner has predicted, kept on this machine alone, beside the record of exercises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdcourse.course.exercises.progress import progress_file
from kdcourse.course.misuse import MisuseError
from kdcourse.course.own_record import DAMAGES, read_or_begin_anew, read_table, recorded
from kdcourse.files import write_whole

Guess = dict[str, Any]
"""What was said, and whether it was right; nothing for a sentence, which nobody judges."""


def guesses_file() -> Path:
    """Beside `progress_file`, and named after it.

    Raises:
        ProgressError: there is no folder for it.
    """
    path = progress_file()
    return path.with_name(f"{path.stem}-guesses.json")


def guess_of(name: str) -> str:
    """What was said before; empty if nothing was, or nobody can read it."""
    try:
        return str(_read(guesses_file()).get(name, {}).get("guess", ""))
    except (MisuseError, OSError, *DAMAGES):
        return ""


def keep(name: str, guess: str, is_right: bool | None) -> str:
    """Record one guess; the last one counts. A lesson goes on whatever is wrong with the record.

    Returns:
        What a learner should know of it, in a sentence; mostly nothing.
    """
    return recorded(guesses_file, lambda path: _write(path, name, {"guess": guess, "right": is_right}), "guess")


def summary() -> str:
    """How many predictions were made, and how many were right; empty if none was, or none can be read."""
    try:
        made = list(_read(guesses_file()).values())
    except (MisuseError, OSError, *DAMAGES):
        return ""
    judged = [guess for guess in made if guess["right"] is not None]
    right = sum(guess["right"] for guess in judged)
    count = "1 prediction" if len(made) == 1 else f"{len(made)} predictions"
    return f"{count} made; of those that can be judged, {right} of {len(judged)} right." if made else ""


def _write(path: Path, name: str, guess: Guess) -> str:
    kept, said = read_or_begin_anew(lambda: _read(path), path, "guesses")
    write_whole(path, json.dumps({**kept, name: guess}, indent=1, sort_keys=True, ensure_ascii=False))
    return said


def _read(path: Path) -> dict[str, Guess]:
    return read_table(path, _is_guess, "guesses")


def _is_guess(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("guess"), str):
        return False
    return entry.get("right", 0) in (True, False, None)
