"""A folder of results in which some files may be somebody else's: only what this program wrote is replaced or deleted.

<folder>/.kdcourse/written.json    SHA-256 of what was written, by its path below the folder
<folder>/.kdcourse/unfinished/     what is being written, at the same paths
<folder>/.kdcourse/lock            so that one process at a time does
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from kdcourse.files import replace_file, set_aside, write_whole
from kdcourse.hashing import hash_file

PRIVATE = ".kdcourse"
RECORD = f"{PRIVATE}/written.json"

Written = dict[str, list[str]]
"""For each file what it may hold: when somebody kills this program, the move of a new version is done or not yet."""


@contextmanager
def own_files(folder: Path) -> Iterator[OwnFiles]:
    """What this program has in `folder`, which is made if it is not there.

    Raises:
        filelock.Timeout: another process is writing there.
        OSError: nobody can.
    """
    private = folder / PRIVATE
    if private.is_symlink():  # whatever is at its other end would be emptied
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(private))
    private.mkdir(parents=True, exist_ok=True)
    own = OwnFiles(folder)
    with filelock.FileLock(private / "lock", timeout=0):
        if own.unfinished.exists():  # of a process that was killed
            shutil.rmtree(own.unfinished)
        own.unfinished.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own.unfinished, ignore_errors=True)


@dataclass(frozen=True)
class OwnFiles:
    """The files in `folder` that are this program's own. Only within `own_files` may they be changed."""

    folder: Path

    @property
    def unfinished(self) -> Path:
        """Where a file is written; `publish` then moves it."""
        return self.folder / PRIVATE / "unfinished"

    def written(self) -> Written:
        """What is on record; nothing if the record is not readable."""
        try:
            content = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) and all(map(_is_list_of_texts, content.values())) else {}

    def publish(self, name: str) -> Path | None:
        """Move a file from `unfinished` to the same path below the folder.

        Returns:
            The new name of what stood there, if somebody else wrote or changed it.
        """
        finished, path, written = self.unfinished / name, self.folder / name, self.written()
        new, now = hash_file(finished), _digest(path)
        ours = [now] if now is not None and now in [*written.get(name, []), new] else []
        self._note(written | {name: [*ours, new]})
        path.parent.mkdir(parents=True, exist_ok=True)
        is_there = path.is_symlink() or (path.exists() and not path.is_dir())
        kept = set_aside(path) if is_there and not ours else None
        replace_file(path, finished)
        return kept

    def publish_all(self) -> list[Path]:
        """Move all that is in `unfinished`; the new names of what stood there."""
        names = sorted(path.name for path in self.unfinished.iterdir())
        return [kept for name in names if (kept := self.publish(name))]

    def delete(self, name: str) -> None:
        """Delete a file, unless somebody has changed it; it is no longer on record."""
        written = self.written()
        digests = written.pop(name)
        if _digest(self.folder / name) in digests:
            (self.folder / name).unlink()
        self._note(written)

    def _note(self, written: Written) -> None:
        write_whole(self.folder / RECORD, json.dumps(written, indent=1, sort_keys=True))


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; nothing if it is none, or a link, which this program never writes."""
    return hash_file(path) if path.is_file() and not path.is_symlink() else None


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
