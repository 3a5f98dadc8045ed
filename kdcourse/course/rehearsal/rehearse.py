"""Play a class from end to end: editions are made, filled in by people who are not there, graded, and compared.

<out>/editions/        what is handed out
<out>/handed-in/       what comes back
<out>/grades/          what `kdcourse grade` makes of it; it goes on where it was killed
<out>/run/             the lessons, run once; `kdcourse run --resume` would believe it
<out>/seconds.json     of each stage, those before a crash included
<out>/rehearsal.json   all that was measured
<out>/rehearsal.md     the same for reading
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import torch

from kdcourse.course.doctor import cores
from kdcourse.course.editions import write_editions
from kdcourse.course.exercises.progress import progress_file
from kdcourse.course.grading.confine import enforced
from kdcourse.course.grading.room import Granted, OnGraded, Row, grade_room, installation
from kdcourse.course.lessons import Lesson, require_apart
from kdcourse.course.outcome import Outcome
from kdcourse.course.rehearsal.people import Class, ClassError, Expected, HandedIn, differences, make_class
from kdcourse.course.rehearsal.record import LessonTimes, Rehearsal, Submitted, to_text
from kdcourse.course.rehearsal.report import to_markdown
from kdcourse.course.run import Watcher, run_lessons
from kdcourse.files import write_whole
from kdcourse.hashing import hash_file, hash_json
from kdcourse.labs import assets

CANARY = "alive\n"
SECONDS = "seconds.json"
"""Is in a folder that a rehearsal has begun to write to."""
SHORTEST_CELL = 0.1
"""Seconds; shorter ones are not worth a line of the record."""


def rehearse(
    people: int, seed: int, lessons: Sequence[Lesson], out: Path, granted: Granted, workers: int,
    *, timed: Sequence[Lesson] = (), on_graded: OnGraded = lambda *_: None, watcher: Watcher | None = None,
) -> Rehearsal:  # fmt: skip
    """Play a class of so many people with these lessons, and write what was measured into `out`.

    Called again after a crash, it goes on: what is graded is not graded again, what has run is not run again, and
    seconds add up.

    Args:
        timed: lessons that are also run, for the seconds of their cells.

    Raises:
        ClassError, LessonError, GradingError, AssetError: it cannot be played as asked.
    """
    require_apart(out, lessons, "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / SECONDS).is_file():
        raise ClassError(f"{out} holds files that are no rehearsal's, which it would replace; choose another --out.")
    watch = Stopwatch(out / SECONDS, hash_json([installation(), people, seed, [each.name for each in lessons]]))
    canary = (out / "canary.txt").resolve()
    canary.write_text(CANARY, encoding="utf-8")
    machine, before = _machine(), _outside(canary)
    with watch.timing("editions"):
        write_editions(lessons, out / "editions")
    with watch.timing("answers"):
        played = make_class(people, seed, lessons, out / "editions" / "learner", canary, enforced())
        _hand_in(played, out / "handed-in")
    found: dict[str, float] = {}

    def note(file: str, graded: dict[str, Any], place: int, count: int) -> None:
        found[file] = graded.get("seconds", 0.0)
        watch.keep()
        on_graded(file, graded, place, count)

    with watch.timing("grading", goes_on=True):
        rows = {row.file: row for row in grade_room(out / "handed-in", out / "grades", granted, workers, note)}
    after = _outside(canary)
    rehearsal = Rehearsal(
        people, seed, machine, watch.seconds,
        [_submitted(each, rows.get(each.graded_as), found.get(each.graded_as, 0.0)) for each in played.handed_in],
        played.left_out, [name for name in before if before[name] != after[name]],
        dict(_times(timed, out / "run", watcher or Watcher())),
    )  # fmt: skip
    write_whole(out / "rehearsal.json", to_text(rehearsal))
    write_whole(out / "rehearsal.md", to_markdown(rehearsal))
    return rehearsal


class Stopwatch:
    """Seconds of each stage, kept in a file, so that those before a crash count."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._begun: tuple[str, float, float] | None = None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.seconds: dict[str, float] = kept["seconds"] if kept["what"] == what else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.seconds = {}
        self.keep()

    @contextmanager
    def timing(self, stage: str, *, goes_on: bool = False) -> Iterator[None]:
        """Time a stage; one that goes on where it stopped adds to what it took before."""
        self._begun = (stage, time.monotonic(), self.seconds.get(stage, 0.0) if goes_on else 0.0)
        try:
            yield
        finally:
            self.keep()
            self._begun = None

    def keep(self) -> None:
        if self._begun is not None:
            stage, begun, earlier = self._begun
            self.seconds[stage] = round(earlier + time.monotonic() - begun, 2)
        write_whole(self._path, json.dumps({"what": self._what, "seconds": self.seconds}))


def _hand_in(played: Class, folder: Path) -> None:
    """All files, in a folder that holds nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for each in played.handed_in:
        path = folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each.data)


def _outside(canary: Path) -> dict[str, str]:
    """What no learner's code may change, each with what it holds."""
    progress = progress_file()
    return {
        "The canary file": hash_file(canary) if canary.is_file() else "",
        "The installation": installation(),
        "The progress file": hash_file(progress) if progress.is_file() else "",
    }


def _machine() -> dict[str, str]:
    load = {"load": f"{os.getloadavg()[0]:.1f}"} if hasattr(os, "getloadavg") else {}
    return load | {
        "cores": str(cores()), "system": platform.system(), "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
    }  # fmt: skip


FILE = "file"


def _submitted(each: HandedIn, row: Row | None, seconds: float) -> Submitted:
    expected = _words(each.expected)
    if row is None:
        problems = ["it is missing from the table"]
        return Submitted(each.graded_as, each.kind, each.lesson, seconds, expected, {}, problems)
    given = {
        name: f"misconception: {found['misconception']}" if found["misconception"] else found["verdict"]
        for name, found in row.exercises.items()
    } or {FILE: row.status}
    problems = differences(each.expected, row.status, row.exercises, row.notes)
    return Submitted(each.graded_as, each.kind, each.lesson, seconds, expected, given, problems)


def _words(expected: Expected) -> dict[str, str]:
    return {
        name: f"misconception: {expected.mistakes[name]}" if name in expected.mistakes else " or ".join(verdicts)
        for name, verdicts in expected.verdicts.items()
    } or {FILE: expected.status}


def _times(lessons: Sequence[Lesson], out: Path, watcher: Watcher) -> Iterator[tuple[str, LessonTimes]]:
    """Run these lessons in the quick profile, and read how long their cells took; what has run is not run again."""
    if not lessons:
        return
    for name in assets.begun_with():
        assets.fetch(name, announce=watcher.says)
    for outcome in run_lessons(lessons, out, resume=True, watcher=watcher):
        watcher.lesson_ends(outcome)
        yield outcome.lesson.number, times_of(outcome)


def times_of(outcome: Outcome) -> LessonTimes:
    """What a run says of a lesson's time."""
    cells = nbformat.read(outcome.executed, as_version=4).cells if outcome.executed.is_file() else []
    took = {cell.id: cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in cells}
    long = {name: round(seconds, 1) for name, seconds in took.items() if seconds >= SHORTEST_CELL}
    return LessonTimes(round(outcome.seconds, 1), long, outcome.problem)
