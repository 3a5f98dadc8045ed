"""What was handed in: notebooks of any name, in folders and in archives, read into memory and never unpacked."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from kdcourse.course.lessons import LARGEST
from kdcourse.course.misuse import MisuseError
from kdcourse.hashing import hash_bytes

DEEPEST = 3
"""Archives in archives."""
MOST_MEMBERS = 10_000
MOST_BYTES = 500_000_000
"""Of one archive, unpacked, with all archives in it: its notebooks are held in memory."""
NOT_OPENED = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst")
"""Archives of other kinds."""
DRIVE = re.compile("[A-Za-z]:")
LEFT_OUT = {"__MACOSX", "__pycache__", "node_modules", "Thumbs.db", "desktop.ini"}
"""What systems put beside what people hand in; what begins with a dot is left out, too."""
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
        FolderError: it is no folder that can be read.
    """
    if folder.is_file():
        raise FolderError(f"{folder} is a file; unpack it into a folder with an entry for each learner, and name that.")
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder; name the one that holds what was handed in.")
    top = next(os.walk(folder), None)
    if top is None:
        raise FolderError(f"{folder} cannot be read; take the rights to do so, or name another folder.")
    _, folders, files = top
    found: dict[str, list[Path]] = {name: [] for name in folders if _is_looked_into(folder / name, apart)}
    errors: list[OSError] = []
    for path in _files_in(folder, apart, errors):
        found.setdefault(path.relative_to(folder).parts[0], []).append(path)
    closed: dict[str, list[OSError]] = {}
    for error in errors:
        closed.setdefault(Path(error.filename).relative_to(folder).parts[0], []).append(error)
    learners = _learners(found)
    for first in sorted(found):
        taken = False
        for each in _entries(folder, found[first], closed.get(first, ())):
            taken = True
            yield replace(each, learner=learners[first])
        if not taken:
            words = _without_a_notebook(found[first], is_file=first in files)
            yield Submission(first, refused=words, learner=learners[first], is_something_else=True)


def _learners(firsts: Iterable[str]) -> dict[str, str]:
    """Whose each entry at the top is: its name without the ending, unless two would be one learner then."""
    short = {first: NAME_ENDS.sub("", first) for first in firsts}
    times = Counter(short.values())
    return {first: name if times[name] == 1 else first for first, name in short.items()}


def _without_a_notebook(paths: list[Path], *, is_file: bool) -> str:
    if is_file:
        return "It is no notebook, but something else; ask for the .ipynb file."
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    held = f"but {min(path.name for path in paths)}{more}" if paths else "nor anything else"
    return f"There is no notebook in it, {held}; ask for the .ipynb file."


def _entries(folder: Path, paths: Iterable[Path], closed: Iterable[OSError]) -> Iterator[Submission]:
    """What is in the files of one learner, and the folders that nobody may look into."""
    names: set[str] = set()
    for path in sorted(paths):
        for each in _handed_in(path, path.relative_to(folder).as_posix()):
            twice = f"{each.file} is in its archive more than once; only the first counts."
            yield Submission(each.file, refused=twice) if each.file in names else each
            names.add(each.file)
    for error in closed:
        place = Path(error.filename).relative_to(folder).as_posix()
        yield Submission(place, refused=f"This folder cannot be read: {error.strerror}.")


def _handed_in(path: Path, file: str) -> Iterator[Submission]:
    """A file, or what is in it."""
    if path.is_symlink():
        yield Submission(file, refused="It is a link to another place, and links are not followed.")
        return
    try:
        data = _read(path)
    except OSError as error:
        yield Submission(file, refused=f"It cannot be read: {error.strerror}.")
        return
    if data is None:
        yield Submission(file, refused=f"It is larger than {LARGEST / 1e6:,.0f} MB, or no file at all.")
    else:
        yield from _taken(file, data, DEEPEST, Allowance())


def _files_in(folder: Path, apart: Path, closed: list[OSError]) -> Iterator[Path]:
    """Links to folders count as files; folders that nobody may look into are noted as `closed`."""
    for place, folders, files in os.walk(folder, onerror=closed.append):
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


@dataclass
class Allowance:
    """What an archive, with all archives in it, may still unpack to."""

    members: int = MOST_MEMBERS
    size: int = MOST_BYTES

    def takes(self, members: Sequence[zipfile.ZipInfo]) -> bool:
        self.members -= len(members)
        self.size -= sum(member.file_size for member in members)
        return self.members >= 0 and self.size >= 0


def _taken(file: str, data: bytes, depth: int, allowance: Allowance) -> Iterator[Submission]:
    """A notebook, whatever its name; what is in an archive; nothing of other files."""
    name = file.lower()
    is_archive = data.startswith(b"PK\x03\x04") or name.endswith(".zip")
    if is_archive and depth == 0:
        yield Submission(file, refused=f"It is an archive inside {DEEPEST} others.")
    elif is_archive:
        found = list(_in_archive(file, data, depth, allowance))
        if not found and name.endswith(".zip"):
            words = "It is no notebook, but an archive without one; ask for the .ipynb file."
            yield Submission(file, refused=words, is_something_else=True)
        yield from found
    elif name.endswith(".ipynb") and not data.strip():
        yield Submission(file, refused="It is empty: saving or copying it broke off. Ask for it again.")
    elif name.endswith(".ipynb") or (data.lstrip()[:1] == b"{" and b'"nbformat"' in data):
        yield Submission(file, data)
    elif name.endswith(NOT_OPENED):
        words = "It is an archive of a kind that is not opened; unpack it, or ask for a zip file."
        yield Submission(file, refused=words)


def _in_archive(file: str, data: bytes, depth: int, allowance: Allowance) -> Iterator[Submission]:
    """Each member is a path of its own that leads nowhere else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
            if not allowance.takes(members):
                yield Submission(file, refused="It unpacks to more than anybody hands in.")
                return
            for member in members:
                yield from _member(file, archive, member, depth, allowance)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        yield Submission(file, refused=f"It is no archive that can be read ({error}).")


def _member(
    file: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, depth: int, allowance: Allowance
) -> Iterator[Submission]:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    name = f"{file}/{member.filename}"
    if path.is_absolute() or ".." in path.parts or DRIVE.match(member.filename):
        yield Submission(name, refused="Its path leads out of its archive.")
    elif stat.S_ISLNK(member.external_attr >> 16):
        yield Submission(name, refused="It is a link to another place, and links are not followed.")
    elif not path.parts or member.is_dir() or any(map(_is_left_out, path.parts)):  # a name may be empty
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
            yield from _taken(name, data, depth - 1, allowance)
