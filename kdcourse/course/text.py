"""Text is text: whatever stands in a name or a message, showing it does nothing else, and works on every console."""

from __future__ import annotations

import codecs
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

_UNSHOWN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters: a terminal obeys them, and XML forbids them
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # other ends of lines, and what turns the direction of all that follows
    "\ud800-\udfff\ufffe\uffff"  # the bytes of a file name that is no UTF-8, and what is no character
)
UNSHOWN, UNSHOWN_IN_A_LINE = re.compile(f"[{_UNSHOWN}]"), re.compile(f"[\n\t{_UNSHOWN}]")

LOOK_ALIKES = str.maketrans(
    {"✓": "+", "✗": "x", "→": "->", "…": "...", "·": "-", "–": "-", "★": "*", "☆": ".", "±": "+-", "≥": ">=", "≤": "<="}
)
LOOK_ALIKE = "kdcourse.look_alike"
"""How streams handle a character that their encoding does not have."""


def visible(text: str) -> str:
    """The text, with an escape such as `\\x1b` for each character that does something instead of being shown."""
    return UNSHOWN.sub(_escaped, text)


def in_one_line(text: str) -> str:
    """`visible` text with its line breaks and tabs escaped, too."""
    return UNSHOWN_IN_A_LINE.sub(_escaped, text)


def writable(part: Any) -> Any:
    """Nested dictionaries, lists and texts, with escapes for what UTF-8 has no bytes for."""
    if isinstance(part, dict):
        return {writable(name): writable(value) for name, value in part.items()}
    if isinstance(part, list):
        return [writable(value) for value in part]
    return part.encode(errors="backslashreplace").decode() if isinstance(part, str) and not part.isascii() else part


def show_on_any_console() -> None:
    """From now on, a console in cp1252 or ASCII gets `->` for an arrow; a closed one, nothing. Python would raise."""
    if sys.stdout is None:
        silence_output()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LOOK_ALIKE)


def silence_output() -> None:
    """From now on, nothing is written to standard output, which is closed or full."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (until the end)


def command_for(command: str, folder: Path) -> str:
    """The command with the folder as a shell has to be given it."""
    word = f"./{folder}" if str(folder).startswith("-") else str(folder)
    return f"{command} {subprocess.list2cmdline([word]) if sys.platform == 'win32' else shlex.quote(word)}"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end].translate(LOOK_ALIKES)
    return missing.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(LOOK_ALIKE, _look_alike)
