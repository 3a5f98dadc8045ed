"""What a learner has tried and solved, kept on this machine alone, for `kdcourse progress`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import platformdirs
from filelock import FileLock

from kdcourse.files import written_whole

FILE_VARIABLE = "KDCOURSE_PROGRESS"

Record = dict[str, dict[str, int]]
"""For each exercise, how often each kind of diagnosis was given."""


def progress_file() -> Path:
    """`$KDCOURSE_PROGRESS`, or a file in the platform's folder for user data."""
    chosen = os.environ.get(FILE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_data_path("kdcourse") / "progress.json"


def load() -> Record:
    """The record so far; empty if there is none."""
    path = progress_file()
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(exercise: str, kind: str) -> None:
    """Count one diagnosis; an exercise that was not attempted leaves no trace."""
    if kind == "not attempted":
        return
    path = progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            counts = load()
            of_exercise = counts.setdefault(exercise, {})
            of_exercise[kind] = of_exercise.get(kind, 0) + 1
            with written_whole(path) as unfinished:
                unfinished.write_text(json.dumps(counts, indent=1, sort_keys=True), encoding="utf-8")
    except OSError:
        return  # a diagnosis is worth more than a record of it
