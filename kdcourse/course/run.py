"""Run lessons from top to bottom with papermill, and keep what came out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import papermill
import zmq
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from kdcourse import assets
from kdcourse.course.lessons import Lesson, LessonError

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",  # `evaluate` does not look at the other switch
}
"""What keeps a kernel from looking for a model hub; left out when assets come from it."""

ROOMY_MALLOC = {
    # glibc hands every freed megabyte back to the kernel and asks for it again in the next training step. Keeping it
    # saves page faults: a tenth to a half of the time of small models on a CPU. Other C libraries ignore these names.
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
}

# Code and outputs go over a local port, where other users of the machine can listen. Kernels warn of that whenever they
# start, unless the connection is encrypted.
ENCRYPTION = "auto" if zmq.has("curve") else "disabled"

PROFILES = ("quick", "full")
CELL_SECONDS = 900


@dataclass(frozen=True)
class Outcome:
    """How one lesson went; `problem` is empty if it ran to its end."""

    lesson: Lesson
    executed: Path
    seconds: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem


def run_lessons(
    lessons: Iterable[Lesson], out: Path, *, profile: str = "quick", cell_seconds: int = CELL_SECONDS
) -> Iterator[Outcome]:
    """Execute each lesson into `out`, one after the other; one that fails does not stop the others.

    Args:
        out: folder for the executed notebooks.
        profile: `quick` (two CPU cores, no GPU) or `full` (more seeds and data); the notebooks' own parameter.
        cell_seconds: the most that one cell may take.

    Raises:
        LessonError: `out` cannot be written.
    """
    _make_writable_folder(out)
    for name, value in kernel_environment().items():
        os.environ.setdefault(name, value)
    for lesson in lessons:
        executed = out / lesson.path.name
        started = time.monotonic()
        problem = _execute(lesson, executed, profile, cell_seconds)
        yield Outcome(lesson, executed, time.monotonic() - started, problem)


def _make_writable_folder(out: Path) -> None:
    """Found out before a lesson runs for minutes, not when its outputs are written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise LessonError(
            f"The executed notebooks cannot be written to {out} ({error.strerror}); choose another folder with --out."
        ) from None


def kernel_environment() -> dict[str, str]:
    """Variables that every kernel of the course should start with."""
    return ROOMY_MALLOC | (OFFLINE if assets.source() == "embedded" else {})


def _execute(lesson: Lesson, executed: Path, profile: str, cell_seconds: int) -> str:
    """Run one notebook; the answer says what stopped it, or nothing."""
    try:
        papermill.execute_notebook(
            lesson.path,
            executed,
            # The notebooks' own default is not injected: the cell for it would shift the numbers of all others.
            parameters={} if profile == PROFILES[0] else {"PROFILE": profile},
            kernel_name="python3",
            cwd=lesson.path.parent,
            execution_timeout=cell_seconds,
            progress_bar={"desc": lesson.name},
            config=Config(KernelManager={"transport_encryption": ENCRYPTION}),
        )
    except PapermillExecutionError as error:
        return f"Cell {error.exec_count} raised {error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"A cell took longer than {cell_seconds} s."
    except DeadKernelError:
        return "The kernel died; a process that runs out of memory looks like this."
    except RuntimeError as error:  # jupyter_client has no class of its own for a kernel that does not start
        return f"The kernel did not start ({error}); `kdcourse doctor` looks at it."
    return ""
