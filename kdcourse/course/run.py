"""Run lessons from top to bottom with papermill, and keep what came out.

An executed notebook is written whole or not at all. Its metadata says how the lesson went, and has a fingerprint of all
that the result depends on. So a folder of executed notebooks is the state of a run: `resume` looks at nothing else.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import nbformat
import papermill
import zmq
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from kdcourse.course.claims import claims_of
from kdcourse.course.environment import COLLECT_CLAIMS, device_name, kernel_environment
from kdcourse.course.fingerprint import fingerprint
from kdcourse.course.lessons import Lesson, LessonError
from kdcourse.course.not_compared import reason_of
from kdcourse.files import written_whole

# Code and outputs go over a local port, where other users of the machine can listen. Kernels warn of that whenever they
# start, unless the connection is encrypted.
ENCRYPTION = "auto" if zmq.has("curve") else "disabled"

PROFILES = ("quick", "full")
CELL_SECONDS = 900
METADATA_KEY = "kdcourse_run"
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Settings:
    """What can be chosen for a run.

    Attributes:
        profile: `quick` (two CPU cores, no GPU) or `full` (more seeds and data); the notebooks' parameter PROFILE.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        seed: the first seed of every training; the parameter SEED of the lessons that train.
        parameters: more of the notebooks' parameters, by name; a lesson that does not know one fails.
        cell_seconds: the most that one cell may take.
    """

    profile: str = PROFILES[0]
    device: str = "auto"
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cell_seconds: int = CELL_SECONDS


@dataclass(frozen=True)
class Record:
    """How one lesson went, as its executed notebook tells it; `problem` is empty if all is well."""

    fingerprint: str
    seconds: float
    problem: str = ""
    cell: str = ""
    """Id of the cell that the problem is in."""


@dataclass(frozen=True)
class Outcome:
    """A lesson, its executed notebook, and how it went."""

    lesson: Lesson
    executed: Path
    record: Record
    reused: bool = False
    """Finished by an earlier run."""

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


class NotRunError(Exception):
    """A lesson cannot be run as asked; the message is the outcome's problem."""


def run_lessons(
    lessons: Iterable[Lesson], out: Path, settings: Settings | None = None, *, resume: bool = False
) -> Iterator[Outcome]:
    """Execute each lesson into `out`, one after the other; one that fails does not stop the others.

    Args:
        out: folder for the executed notebooks.
        resume: do not run again what went well in `out` with the same notebook, package, versions and parameters.

    Raises:
        LessonError: `out` cannot be written, another run is writing there, or the device is not there.
    """
    settings = settings or Settings()
    device = device_name(settings.device)
    os.environ.update(kernel_environment(settings.device) | COLLECT_CLAIMS)
    try:
        out.mkdir(parents=True, exist_ok=True)  # found out before a lesson runs for minutes
        with filelock.FileLock(out / ".lock", timeout=0):
            _remove_leftovers(out)
            for lesson in lessons:
                yield _outcome(lesson, out, settings, device, resume)
    except filelock.Timeout:
        raise LessonError(
            f"Another run is writing to {out}; wait for it, or choose another folder with --out."
        ) from None
    except OSError as error:
        raise LessonError(
            f"The executed notebooks cannot be written to {out} ({error.strerror}); choose another folder with --out."
        ) from None


def _remove_leftovers(out: Path) -> None:
    """What `written_whole` was writing when an earlier run was killed."""
    for path in out.glob(".*.[0-9]*"):
        path.unlink()


def _outcome(lesson: Lesson, out: Path, settings: Settings, device: str, resume: bool) -> Outcome:
    executed = out / lesson.path.name
    started = time.monotonic()
    try:
        parameters = parameters_for(lesson, settings)
    except NotRunError as error:
        executed.unlink(missing_ok=True)  # of an earlier run, which this outcome is not about
        return Outcome(lesson, executed, Record("", 0.0, str(error)))
    mark = fingerprint(lesson, parameters, device)
    earlier = read_record(executed) if resume else None
    if earlier is not None and earlier.fingerprint == mark and not earlier.problem:
        return Outcome(lesson, executed, earlier, reused=True)
    unfinished = executed.with_name(f".{executed.name}")  # papermill writes it anew after every cell
    try:
        stopped = _execute(lesson, unfinished, parameters, settings.cell_seconds)
        notebook = nbformat.read(unfinished if unfinished.exists() else lesson.path, as_version=4)
        problem, cell = (stopped, _last_cell(notebook)) if stopped else look_over(notebook)
        record = Record(mark, time.monotonic() - started, problem, cell)
        notebook.metadata[METADATA_KEY] = asdict(record)
        with written_whole(executed) as path:
            nbformat.write(notebook, path)
    except OSError as error:
        executed.unlink(missing_ok=True)
        record = Record(mark, time.monotonic() - started, _words_for(error))
    finally:
        unfinished.unlink(missing_ok=True)
    return Outcome(lesson, executed, record)


def read_record(executed: Path) -> Record | None:
    """How the lesson went when this notebook was executed; nothing if it is not the work of a run."""
    if not executed.is_file():
        return None
    stored = nbformat.read(executed, as_version=4).metadata.get(METADATA_KEY)
    return Record(**stored) if stored else None


def parameters_for(lesson: Lesson, settings: Settings) -> dict[str, Any]:
    """What is injected into the lesson's parameters.

    The notebook's own defaults are not: the cell for them would shift the numbers of all others. A lesson without SEED
    has nothing that depends on it.

    Raises:
        NotRunError: the lesson does not know a parameter; papermill would only warn.
    """
    known = papermill.inspect_notebook(str(lesson.path))
    wanted: dict[str, Any] = {**settings.parameters}
    if settings.profile != PROFILES[0]:
        wanted["PROFILE"] = settings.profile
    if settings.seed != 0 and "SEED" in known:
        wanted["SEED"] = settings.seed
    for name in wanted:
        if name not in known:
            raise NotRunError(f"It has no parameter {name}; its parameters are {', '.join(known) or 'none'}.")
    return wanted


def _execute(lesson: Lesson, executed: Path, parameters: Mapping[str, Any], cell_seconds: int) -> str:
    """Run one notebook; the answer says what stopped it, or nothing."""
    try:
        papermill.execute_notebook(
            lesson.path,
            executed,
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=lesson.path.parent,
            execution_timeout=cell_seconds,
            progress_bar={"desc": lesson.name},
            config=Config(KernelManager={"transport_encryption": ENCRYPTION}),
        )
    except PapermillExecutionError as error:
        if error.ename == "OSError" and any(f"[Errno {number}]" in error.evalue for number in OUT_OF_SPACE):
            return "The disk is full: a cell could not write."
        return f"It raised {error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"A cell took longer than {cell_seconds} s."
    except DeadKernelError:
        return "The kernel died; a process that runs out of memory looks like this."
    except RuntimeError as error:  # jupyter_client has no class of its own for a kernel that does not start
        return f"The kernel did not start ({error}); `kdcourse doctor` looks at it."
    return ""


def look_over(notebook: NotebookNode) -> tuple[str, str]:
    """What is wrong with a notebook that ran to its end without an error, and in which cell."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in code:
        if cell.execution_count is None and reason_of(cell) != "interactive":
            return "A cell was passed over: it has not run.", cell.id
    claims = claims_of(notebook)
    if not claims:
        return "It states no claims, so nothing in it was checked.", ""
    broken = [claim for claim in claims if not claim["holds"]]
    if broken:
        names = "; ".join(f"'{claim['name']}'" for claim in broken)
        return f"{'A claim does' if len(broken) == 1 else f'{len(broken)} claims do'} not hold: {names}.", broken[0][
            "cell"
        ]
    return "", ""


def _last_cell(notebook: NotebookNode) -> str:
    """The cell in which execution stopped, the last that has begun.

    The status does not tell: after a time-out, papermill calls the cells behind it completed.
    """
    begun = [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return begun[-1] if begun else ""


def _words_for(error: OSError) -> str:
    if error.errno in OUT_OF_SPACE:
        return "The disk is full: the executed notebook could not be written."
    return f"The executed notebook could not be written ({error.strerror})."
