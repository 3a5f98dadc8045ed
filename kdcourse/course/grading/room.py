"""Many notebooks at once, each in processes of its own; what is finished is kept, and not done again.

<out>/.kdcourse/graded/    what became of each notebook, by what it holds and what it was checked with
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import filelock

import kdcourse
from kdcourse.course.grading import alike
from kdcourse.course.grading.confine import may_be_hidden
from kdcourse.course.grading.gradebook import Person
from kdcourse.course.grading.submissions import FolderError, Submission, collect
from kdcourse.course.grading.tables import write_tables
from kdcourse.course.lessons import course_notebooks
from kdcourse.course.misuse import MisuseError
from kdcourse.course.own_files import PRIVATE, OwnFiles, own_files
from kdcourse.course.text import writable
from kdcourse.files import write_whole
from kdcourse.hashing import hash_json, hash_tree

GRADED = "graded"
ENDED = "Checking it ended the process that does; please look at it yourself."
"""Said of a notebook, and not kept: it may have been the machine, so the same command tries once more."""
START = 300.0
"""Seconds for a process to begin, on a machine that is busy, beyond those of a notebook."""

OnGraded = Callable[[str, dict[str, Any], int, int], None]
"""Told of each file that is done: its name, what became of it and in how many seconds, its place, how many in all."""


class GradingError(MisuseError):
    """A room cannot be graded as asked; the message says what to do."""


@dataclass(frozen=True)
class Granted:
    """What every notebook is granted."""

    seconds: float = 600.0
    call_seconds: float = 5.0
    memory_bytes: int = 2 * 2**30

    def told(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "call_seconds": self.call_seconds, "memory_bytes": self.memory_bytes}


@dataclass
class Row:
    """A file that was handed in, and what became of it."""

    file: str
    learner: str
    status: str
    message: str = ""
    exercises: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def grade_room(
    folder: Path,
    out: Path,
    granted: Granted,
    workers: int,
    on_graded: OnGraded = lambda *_: None,
    *,
    people: Sequence[Person] | None = None,
    on_kept: Callable[[Path], object] = lambda _: None,
) -> list[Row]:
    """Grade all that is below a folder, and write the tables into `out`.

    Args:
        people: who is to hand in something, if that is known.
        on_kept: told the new name of each table that somebody has changed since, and that is not written over.

    Raises:
        FolderError, GradingError: there is nothing to grade, or no place for the results.
    """
    if folder.is_dir() and out.exists() and folder.samefile(out):
        raise GradingError(f"{out} is what was handed in; choose another --out.")
    try:
        submissions = list(collect(folder, out))
        if all(each.is_something_else for each in submissions):
            raise FolderError(f"There is no notebook in {folder}; name the folder that holds what was handed in.")
        with own_files(out) as own:
            found = _graded(submissions, folder, own, granted, workers, on_graded)
            rows = _rows(submissions, found)
            write_tables(rows, own.unfinished, people)
            for kept in own.publish_all():
                on_kept(kept)
        return rows
    except filelock.Timeout:
        raise GradingError(f"Another process is writing to {out}; wait for it, or choose another --out.") from None


def _rows(submissions: Sequence[Submission], found: dict[str, dict[str, Any]]) -> list[Row]:
    read = [each for each in submissions if not each.refused]
    digests = {each.file: each.digest for each in read}
    notes = alike.notes(digests, {each.file: found[each.digest]["answers"] for each in read})
    rows = []
    for each in submissions:
        row = Row(each.file, each.learner, "refused", each.refused, notes=notes.get(each.file, []))
        if not each.refused:
            of_it = found[each.digest]
            row.status, row.message, row.exercises = of_it["status"], of_it["message"], of_it["exercises"]
        rows.append(row)
    return rows


def _graded(
    submissions: Sequence[Submission], folder: Path, own: OwnFiles, granted: Granted, workers: int, on_graded: OnGraded
) -> dict[str, dict[str, Any]]:
    """What became of each notebook, by the SHA-256 of what it holds."""
    kept = own.folder / PRIVATE / GRADED
    kept.mkdir(exist_ok=True)
    checked_with = hash_json([installation(), granted.told()])
    to_grade = {each.digest: each for each in submissions if not each.refused}
    found: dict[str, dict[str, Any]] = {}
    for digest in to_grade:
        with contextlib.suppress(OSError, ValueError, TypeError):
            known = json.loads((kept / f"{digest}.json").read_text(encoding="utf-8"))
            if known["checked_with"] == checked_with:
                found[digest] = known["graded"]
    done = 0
    for digest, graded in found.items():
        done += 1
        on_graded(to_grade[digest].file, graded, done, len(to_grade))
    left = [each for digest, each in to_grade.items() if digest not in found]
    hidden = hidden_folders(folder, own.folder)
    for submission, graded in _in_parallel(left, own.unfinished, granted.told() | {"hidden": hidden}, workers):
        found[submission.digest] = graded
        if graded["message"] != ENDED:
            told = json.dumps({"checked_with": checked_with, "graded": graded}, indent=1)
            write_whole(kept / f"{submission.digest}.json", told)
        done += 1
        on_graded(submission.file, graded, done, len(to_grade))
    return found


def installation() -> str:
    """What checks: all modules of this package and the lessons, as they are, by this Python and its libraries."""
    root, lessons = Path(kdcourse.__file__).parent, course_notebooks()
    versions = [sys.version, *(metadata.version(name) for name in ("torch", "numpy", "scipy"))]
    hashes = [hash_tree(root, root.rglob("*.py")), hash_tree(lessons, lessons.glob("*.ipynb"))]
    return hash_json([*hashes, *versions])


def hidden_folders(*folders: Path) -> list[str]:
    """What a learner's process must not read, as far as it can do without."""
    wanted = [*folders, course_notebooks(), *_beside_the_package(), *_own_folders(Path.home())]
    return [str(each.resolve()) for each in wanted if each.is_dir() and may_be_hidden(each)]


def _beside_the_package() -> list[Path]:
    """In a clone, whose tests and history hold solutions, all but the package."""
    package = Path(kdcourse.__file__).parent
    if not (package.parent / "pyproject.toml").is_file():
        return []
    return [each for each in sorted(package.parent.iterdir()) if each != package and not each.is_symlink()]


def _own_folders(home: Path) -> list[Path]:
    """The home folder of whoever grades; or, where Python lies there, those in it that hold keys and settings."""
    return [home] if may_be_hidden(home) else [each for each in sorted(home.glob(".*")) if not each.is_symlink()]


def _in_parallel(
    submissions: Sequence[Submission], place: Path, terms: dict[str, Any], workers: int
) -> Iterator[tuple[Submission, dict[str, Any]]]:
    """Each with what became of it, as they are done."""
    if not submissions:
        return
    (place / "handed").mkdir()
    with contextlib.ExitStack() as stack:
        idle: SimpleQueue[Checker] = SimpleQueue()
        for _ in range(min(workers, len(submissions))):
            checker = Checker(terms)
            stack.callback(checker.close)
            idle.put(checker)

        def grade(submission: Submission) -> dict[str, Any]:
            path = place / "handed" / submission.digest
            path.write_bytes(submission.data)
            checker, begun = idle.get(), time.monotonic()
            try:
                return checker.grade(path) | {"seconds": round(time.monotonic() - begun, 2)}
            finally:
                idle.put(checker)
                path.unlink(missing_ok=True)

        pool = ThreadPoolExecutor(min(workers, len(submissions)))
        try:
            running: dict[Future[dict[str, Any]], Submission] = {pool.submit(grade, each): each for each in submissions}
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    (place / "handed").rmdir()


class Checker:
    """A process that checks one notebook after the other; a new one takes its place when it ends."""

    def __init__(self, terms: dict[str, Any]) -> None:
        self._terms = terms
        self._process: subprocess.Popen[bytes] | None = None

    def grade(self, path: Path) -> dict[str, Any]:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = _start_checker()
        clock = threading.Timer(self._terms["seconds"] + START, process.kill)
        clock.start()
        try:
            assert process.stdin is not None  # noqa: S101  (for mypy)
            assert process.stdout is not None  # noqa: S101
            process.stdin.write(json.dumps({"path": str(path), "terms": self._terms}).encode() + b"\n")
            process.stdin.flush()
            answered = json.loads(process.stdout.readline())
            return writable(answered)
        except (OSError, ValueError):
            self.close()
            return {"status": "refused", "message": ENDED, "exercises": {}, "answers": {}}
        finally:
            clock.cancel()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _start_checker() -> subprocess.Popen[bytes]:
    root = str(Path(kdcourse.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "kdcourse.course.grading.checking"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
    )  # fmt: skip
