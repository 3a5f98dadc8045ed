"""How a lesson went, as its executed notebook tells it: the state of a run is the folder of executed notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from kdcourse.course.claims import checked_claims
from kdcourse.course.lessons import Lesson
from kdcourse.files import write_whole
from kdcourse.hashing import hash_json

METADATA_KEY = "kdcourse_run"
DIGEST = "digest"
"""Beside the record: the SHA-256 of all that the notebook holds, the record included."""


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
        """What the lesson stated, as far as it got; nothing if its notebook could not be written."""
        if read_record(self.executed) != self.record:  # an earlier run's is still there
            return []
        return checked_claims(nbformat.read(self.executed, as_version=4))


def write_executed(notebook: NotebookNode, record: Record, path: Path) -> None:
    """Write an executed notebook, with how the lesson went."""
    notebook.metadata[METADATA_KEY] = asdict(record)
    content = json.loads(nbformat.writes(notebook))
    content["metadata"][METADATA_KEY][DIGEST] = hash_json(content)
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_record(executed: Path) -> Record | None:
    """How the lesson went when this notebook was executed; nothing if it is not the work of a run, or was changed."""
    content = _content_of(executed)
    try:
        told = content["metadata"][METADATA_KEY]
        return Record(**told) if told.pop(DIGEST) == hash_json(content) else None
    except (KeyError, TypeError, AttributeError):
        return None


def is_of_a_run(path: Path) -> bool:
    """Whether a run wrote this notebook, whatever somebody has made of it since."""
    content = _content_of(path)
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return isinstance(metadata, dict) and METADATA_KEY in metadata


def _content_of(path: Path) -> Any:
    """A file's JSON; nothing if it has none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def earlier_outcomes(lessons: Iterable[Lesson], out: Path, now: Mapping[str, str]) -> Iterator[Outcome]:
    """What earlier runs left in `out` of these lessons, each with what differs from the circumstances of `now`."""
    for lesson in lessons:
        executed = out / lesson.path.name
        record = read_record(executed)
        if record is not None:
            differs = {name: value for name, value in record.circumstances.items() if now.get(name) != value}
            yield Outcome(lesson, executed, record, reused=True, differs=differs)
