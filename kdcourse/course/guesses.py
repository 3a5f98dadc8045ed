"""What a learner has predicted, kept on this machine alone, beside the record of exercises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdcourse.course.exercises.progress import DAMAGES, LOCK_SECONDS, progress_file
from kdcourse.course.misuse import MisuseError
from kdcourse.files import set_aside, write_whole

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
    from filelock import FileLock, Timeout

    try:
        path = guesses_file().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return _write(path, name, {"guess": guess, "right": is_right})
    except Timeout:
        return f"This guess is not recorded: another program has been using {path} for {LOCK_SECONDS} s."
    except OSError as error:
        return f"This guess is not recorded: {path} cannot be written ({error.strerror})."
    except MisuseError as error:
        return f"This guess is not recorded: {error}"


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
    said = ""
    try:
        kept = _read(path)
    except DAMAGES:
        kept, said = {}, f"The record of your guesses was damaged, and is begun anew; the old one is {set_aside(path)}."
    write_whole(path, json.dumps({**kept, name: guess}, indent=1, sort_keys=True, ensure_ascii=False))
    return said


def _read(path: Path) -> dict[str, Guess]:
    """What a file holds; nothing if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict) or not all(map(_is_guess, content.values())):
        raise ValueError("it is no table of guesses")
    return content


def _is_guess(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("guess"), str):
        return False
    return entry.get("right", 0) in (True, False, None)
