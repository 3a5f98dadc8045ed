"""Files that are written whole or not at all, and files of others that are kept."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


def says_full(error: str) -> bool:
    """Whether an error's text is about a full disk, whichever library has raised it."""
    return any(os.strerror(number) in error for number in OUT_OF_SPACE)


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; what UTF-8 has no bytes for (half a character) as its escape."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` at the end, and disappears after an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        replace_file(path, unfinished)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_file(path: Path, finished: Path) -> None:
    """Put a file in the place of another, whose permissions it takes over: what was private stays private."""
    if path.exists():
        shutil.copymode(path, finished)
    finished.replace(path)


def set_aside(path: Path) -> Path:
    """Rename somebody's file, or the link that it is, so that another can take its place; its new name."""
    return path.rename(free_name(path))


def free_name(path: Path) -> Path:
    """`01_kl_derivation.yours-1.ipynb`, or the next number that is free."""
    names = (path.with_name(f"{path.stem}.yours-{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not (name.exists() or name.is_symlink()))
