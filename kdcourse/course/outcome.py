"""How a lesson went, as its executed notebook tells it: the state of a run is the folder of executed notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from kdcourse.course.claims import claims_of
from kdcourse.course.lessons import Lesson

METADATA_KEY = "kdcourse_run"


@dataclass(frozen=True)
class Record:
    """How one lesson went; `problem` is empty if all is well."""

    fingerprint: str
    seconds: float
    problem: str = ""
    cell: str = ""
    """Id of the cell that the problem is in."""
    circumstances: Mapping[str, str] = field(default_factory=dict)
    """Versions, device and parameters."""


@dataclass(frozen=True)
class Outcome:
    """A lesson, its executed notebook, and how it went."""

    lesson: Lesson
    executed: Path
    record: Record
    reused: bool = False
    """The work of an earlier run."""
    differs: Mapping[str, str] = field(default_factory=dict)
    """Circumstances of that earlier run that are not those of this one."""

    @property
    def seconds(self) -> float:
        return self.record.seconds

    @property
    def problem(self) -> str:
        return self.record.problem

    @property
    def passed(self) -> bool:
        return not self.problem

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """What the lesson stated, as far as it got."""
        return claims_of(nbformat.read(self.executed, as_version=4)) if self.executed.exists() else []


def read_record(executed: Path) -> Record | None:
    """How the lesson went when this notebook was executed; nothing if it is not the work of a run."""
    try:
        return Record(**json.loads(executed.read_text(encoding="utf-8"))["metadata"][METADATA_KEY])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def earlier_outcomes(lessons: Iterable[Lesson], out: Path, now: Mapping[str, str]) -> Iterator[Outcome]:
    """What earlier runs left in `out` of these lessons, each with what differs from the circumstances of `now`."""
    for lesson in lessons:
        executed = out / lesson.path.name
        record = read_record(executed)
        if record is not None:
            differs = {name: value for name, value in record.circumstances.items() if now.get(name) != value}
            yield Outcome(lesson, executed, record, reused=True, differs=differs)
