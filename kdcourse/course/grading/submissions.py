"""What was handed in: notebooks of any name, in folders and in archives, read into memory and never unpacked."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from kdcourse.course.lessons import LARGEST
from kdcourse.course.misuse import MisuseError
from kdcourse.hashing import hash_bytes

DEEPEST = 3
"""Archives in archives."""
MOST_MEMBERS = 10_000
MOST_BYTES = 2_000_000_000
"""Of one archive, unpacked."""
LEFT_OUT = {"__MACOSX", "__pycache__", "node_modules", "Thumbs.db", "desktop.ini"}
"""What systems put beside what people hand in; what begins with a dot is left out, too."""
NOT_OPENED = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
"""Archives of other kinds."""
NAME_ENDS = re.compile(r"\.(zip|ipynb)$", re.IGNORECASE)


class FolderError(MisuseError):
    """There is nothing to grade; the message says where."""


@dataclass(frozen=True)
class Submission:
    """A file that was handed in: its path below the folder, through archives, and what it holds."""

    file: str
    data: bytes = b""
    refused: str = ""
    """Why it is not even read, in a sentence."""
    learner: str = ""
    """The first folder or archive on its path; or, of a file that lies in none, its name. Without its ending, unless
    two would be one then."""
    is_something_else: bool = False
    """Whether it stands for something without a notebook in it."""

    @property
    def digest(self) -> str:
        return hash_bytes(self.data)


def collect(folder: Path, apart: Path) -> Iterator[Submission]:
    """Every notebook below a folder, in the order of names, and every file that cannot be taken for one.

    Of a folder, an archive or a file at the top that brings none of these there is one entry, so that whoever hands in
    something else is not forgotten.

    Args:
        apart: a folder inside it that is not looked at: where the results go.

    Raises:
        FolderError: it is no folder.
    """
    if folder.is_file():
        raise FolderError(f"{folder} is a file; unpack it into a folder with an entry for each learner, and name that.")
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder; name the one that holds what was handed in.")
    _, folders, files = next(os.walk(folder), (folder, [], []))
    found: dict[str, list[Path]] = {name: [] for name in folders if _is_looked_into(folder / name, apart)}
    for path in _files_in(folder, apart):
        found.setdefault(path.relative_to(folder).parts[0], []).append(path)
    learners = _learners(found)
    for first in sorted(found):
        taken = False
        for each in _handed_in(folder, sorted(found[first])):
            taken = True
            yield replace(each, learner=learners[first])
        if not taken:
            words = _without_a_notebook(first, found[first], is_file=first in files)
            yield Submission(first, refused=words, learner=learners[first], is_something_else=True)


def _learners(firsts: Iterable[str]) -> dict[str, str]:
    """Whose each entry at the top is: its name without the ending, unless two would be one learner then."""
    short = {first: NAME_ENDS.sub("", first) for first in firsts}
    times = Counter(short.values())
    return {first: name if times[name] == 1 else first for first, name in short.items()}


def _without_a_notebook(first: str, paths: list[Path], *, is_file: bool) -> str:
    if is_file:
        kind = "an archive without one" if first.lower().endswith(".zip") else "something else"
        return f"It is no notebook, but {kind}; ask for the .ipynb file."
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    held = f"but {min(path.name for path in paths)}{more}" if paths else "nor anything else"
    return f"There is no notebook in it, {held}; ask for the .ipynb file."


def _handed_in(folder: Path, paths: Iterable[Path]) -> Iterator[Submission]:
    for path in paths:
        file = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Submission(file, refused="It is a link to another place, and links are not followed.")
            continue
        try:
            data = _read(path)
        except OSError as error:
            yield Submission(file, refused=f"It cannot be read: {error.strerror}.")
            continue
        if data is None:
            yield Submission(file, refused=f"It is larger than {LARGEST / 1e6:,.0f} MB, or no file at all.")
        else:
            yield from _taken(file, data, DEEPEST)


def _files_in(folder: Path, apart: Path) -> Iterator[Path]:
    """Links to folders count as files."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if _is_looked_into(here / name, apart)]
        yield from (here / name for name in (*files, *links) if not _is_left_out(name))


def _is_looked_into(folder: Path, apart: Path) -> bool:
    return not folder.is_symlink() and not _is_left_out(folder.name) and folder.resolve() != apart.resolve()


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in LEFT_OUT


def _read(path: Path) -> bytes | None:
    """What a file holds; nothing of a pipe, on which one would wait for ever, or of one that is too large."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return None
        data = file.read(LARGEST + 1)
        return data if len(data) <= LARGEST else None


_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


def _taken(file: str, data: bytes, depth: int) -> Iterator[Submission]:
    """A notebook, whatever its name; what is in an archive; nothing of other files."""
    is_archive = data.startswith(b"PK\x03\x04") or file.lower().endswith(".zip")
    if is_archive and depth == 0:
        yield Submission(file, refused=f"It is an archive inside {DEEPEST} others.")
    elif is_archive:
        yield from _in_archive(file, data, depth)
    elif file.lower().endswith(".ipynb") and not data.strip():
        yield Submission(file, refused="It is empty: saving or copying it broke off. Ask for it again.")
    elif file.lower().endswith(".ipynb") or (data.lstrip()[:1] == b"{" and b'"nbformat"' in data):
        yield Submission(file, data)
    elif file.lower().endswith(NOT_OPENED):
        yield Submission(
            file, refused="It is an archive of a kind that is not opened; unpack it, or ask for a zip file."
        )


def _in_archive(file: str, data: bytes, depth: int) -> Iterator[Submission]:
    """Each member is a path of its own that leads nowhere else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
            if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > MOST_BYTES:
                yield Submission(file, refused="It unpacks to more than anybody hands in.")
                return
            for member in members:
                yield from _member(file, archive, member, depth)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        yield Submission(file, refused=f"It is no archive that can be read ({error}).")


def _member(file: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, depth: int) -> Iterator[Submission]:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    name = f"{file}/{member.filename}"
    if path.is_absolute() or ".." in path.parts or ":" in member.filename.partition("/")[0]:
        yield Submission(name, refused="Its path leads out of its archive.")
    elif stat.S_ISLNK(member.external_attr >> 16):
        yield Submission(name, refused="It is a link to another place, and links are not followed.")
    elif member.is_dir() or any(map(_is_left_out, path.parts)):
        return
    elif member.flag_bits & 1:
        yield Submission(name, refused="It is locked with a password.")
    else:
        try:
            with archive.open(member) as opened:
                data = opened.read(LARGEST + 1)
        except Exception as error:  # zlib, lzma and bz2 have errors of their own
            yield Submission(name, refused=f"It is damaged ({type(error).__name__}).")
            return
        if len(data) > LARGEST:
            yield Submission(name, refused=f"It is larger than {LARGEST / 1e6:,.0f} MB.")
        else:
            yield from _taken(name, data, depth - 1)
