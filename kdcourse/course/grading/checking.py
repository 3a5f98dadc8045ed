"""The process that checks what learners' functions give; it runs none of them.

The main process starts one for each core, and asks it for one notebook after the other, a line of JSON each. A
learner's function is here a function like any other, which asks a process of the learner's for each of its values: see
`peer`. So the checks are those of the notebooks, and nothing that a learner has written comes near them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import psutil

from kdcourse.course.exercises import calling
from kdcourse.course.exercises.calling import run_all
from kdcourse.course.exercises.catalogue import find_exercise
from kdcourse.course.exercises.diagnosis import Diagnosis, diagnose, thanks_but
from kdcourse.course.exercises.exercise import Exercise, Task
from kdcourse.course.exercises.kinds.repairs import RepairARun
from kdcourse.course.grading import repairs
from kdcourse.course.grading.alike import fingerprint
from kdcourse.course.grading.anew import asked_anew
from kdcourse.course.grading.answers import Answer, NotebookError, answers_in
from kdcourse.course.grading.confine import Limits, end, end_at_once, has_namespaces, scratch_folder, started
from kdcourse.course.grading.peer import ANSWER, GoneError, Peer, proxy
from kdcourse.course.text import visible

TICK = 0.05
"""Seconds between two looks at the clock."""
LONG = 2_000
"""Characters of a message."""
GRACE = 30.0
"""Seconds after which nobody waits for this process any more, when a notebook's are over."""
OWN_MEMORY = 6 * 2**30
"""Bytes for this process: an implementation that a learner's test calls with enormous arguments fails here, too."""


@dataclass(frozen=True)
class Terms:
    """What every notebook is granted."""

    seconds: float = 600.0
    """For all of a notebook."""
    call_seconds: float = 5.0
    """For one call of a function: those that it computes, or sleeps, and not those that it waits for a core."""
    memory_bytes: int = 2 * 2**30
    """For one process, beyond what torch takes."""
    hidden: tuple[str, ...] = ()
    """Folders that it must not read."""


@dataclass(frozen=True)
class Verdict:
    """What became of one answer."""

    verdict: str
    """passed, not attempted, misconception, different, error, timed out or refused."""
    message: str
    misconception: str = ""


@dataclass
class Graded:
    """What became of one notebook."""

    status: str
    """graded or refused."""
    message: str = ""
    exercises: dict[str, dict[str, str]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    """For each answer that is no stub, what `alike` compares."""


def grade(data: bytes, terms: Terms) -> Graded:
    """Check all answers of a notebook."""
    try:
        answers = answers_in(data)
    except NotebookError as error:
        return Graded("refused", f"It is no notebook that can be graded: {error}.")
    if not answers:
        return Graded("refused", "It holds none of the course's exercises.")
    found = Graded("graded")
    deadline = time.monotonic() + terms.seconds
    with contextlib.ExitStack() as stack:
        sessions = Sessions(stack, terms, deadline)
        for answer in answers:
            found.exercises[answer.exercise] = asdict(_verdict(answer, sessions))
            if answer.code:
                with contextlib.suppress(RecursionError):  # nobody has copied what is nested so deeply
                    found.answers[answer.exercise] = fingerprint(answer.code)
    return found


def _verdict(answer: Answer, sessions: Sessions) -> Verdict:
    task = find_exercise(answer.exercise)
    if answer.problem:
        return Verdict("error", f"{task.title}: {answer.problem}.")
    if not answer.code:
        return Verdict("not attempted", f"{task.title}: not attempted yet.")
    if sessions.seconds_left <= 0:
        return Verdict("timed out", f"The {sessions.terms.seconds:g} seconds of this notebook were over before.")
    return _repair(task, answer, sessions) if isinstance(task, RepairARun) else _function(task, answer, sessions)


def _said(diagnosis: Diagnosis) -> Verdict:
    beside = "; ".join(f"{name}: {text}" for name, text in diagnosis.beside)
    words = visible(f"{diagnosis.message} ({beside})" if beside else diagnosis.message)[:LONG]
    kind = "different" if diagnosis.kind == "borrowed" else diagnosis.kind
    if diagnosis.kind == "error" and diagnosis.message.startswith("Your function stopped with OutOfTimeError"):
        kind = "timed out"
    return Verdict(kind, words, diagnosis.misconception)


# ---------------------------------------------------------------------------------------------------------------------
# Functions, in a process of their own


class Session:
    """A learner's process, and a clock that ends it."""

    def __init__(self, process: subprocess.Popen[bytes], terms: Terms, deadline: float) -> None:
        assert process.stdin is not None  # noqa: S101  (for mypy)
        assert process.stdout is not None  # noqa: S101
        self.process = process
        self.peer = Peer(process.stdout, process.stdin, gives_functions=True)
        self.timed_out = self.gone = False
        self._terms, self._deadline = terms, deadline
        self._clock: Clock | None = None
        self._is_over = False
        self._processes: list[psutil.Process] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._is_over:
            clock = self._clock
            if time.monotonic() > self._deadline or (clock and clock.tick(self.peer) > self._terms.call_seconds):
                self.timed_out = self.gone = True
                end_at_once(self.process)
                return
            time.sleep(TICK)

    def close(self) -> None:
        self._is_over = True
        end(self.process)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time for one question; after it nothing is asked, and the clock stands still."""
        if self.gone:
            raise GoneError("its process has ended")
        self._processes = self._processes or _with_children(self.process.pid)
        self._clock = Clock(self._processes)
        try:
            yield
        except GoneError:
            self.gone = True
            raise
        finally:
            self._clock = None


class Clock:
    """The seconds that a process and its children have computed or slept; not those that they waited for a core.

    A room's notebooks are graded on a laptop that does other things, too: by the clock on the wall, a right answer
    would be out of time there.
    """

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._before = self._computed()
        self._slept = 0.0

    def tick(self, peer: Peer) -> float:
        """To be called every `TICK`; a process that waits for an answer of ours does not sleep."""
        asleep = (psutil.STATUS_SLEEPING, psutil.STATUS_DISK_SLEEP, psutil.STATUS_STOPPED)
        with contextlib.suppress(psutil.Error):
            if not peer.is_serving and self._processes and self._processes[-1].status() in asleep:
                self._slept += TICK
        return self._computed() - self._before + self._slept

    def _computed(self) -> float:
        seconds = 0.0
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds


def _with_children(pid: int) -> list[psutil.Process]:
    """What `started` has started: the process itself, or that in namespaces and, last, the one inside."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


class TimedPeer:
    """A peer whose calls are timed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def call(self, number: int, given: Any, named: dict[str, Any]) -> Any:
        with self._session.timed():
            return self._session.peer.call(number, given, named)


class Sessions:
    """One process for a notebook, and another one after that has ended."""

    def __init__(self, stack: contextlib.ExitStack, terms: Terms, deadline: float) -> None:
        self.terms = terms
        self._stack, self._deadline = stack, deadline
        self._session: Session | None = None

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def limits(self, scratch: Path, hidden: tuple[str, ...] = ()) -> Limits:
        return Limits(
            str(scratch), self.terms.memory_bytes, max(1, int(self.terms.seconds)), (*self.terms.hidden, *hidden),
            has_namespaces(),
        )  # fmt: skip

    def one(self) -> Session:
        """A process that is ready.

        Raises:
            GoneError: it did not start.
        """
        if self._session is None or self._session.gone:
            if self._session is not None:
                self._session.close()
            scratch = self._stack.enter_context(scratch_folder())
            process = self._stack.enter_context(started("kdcourse.course.grading.learner", scratch))
            self._session = Session(process, self.terms, self._deadline)
            self._stack.callback(self._session.close)
            limits = self.limits(scratch, (str(Path(calling.__file__).parent),))
            self._session.peer.ask("enter", limits=limits.told())
        return self._session


def _function(task: Task, answer: Answer, sessions: Sessions) -> Verdict:
    try:
        session = sessions.one()
    except Exception as error:
        return Verdict("error", f"The process for its functions did not start: {error}.")
    try:
        with session.timed():
            signature = session.peer.ask("define", code=answer.code)
    except Exception as error:
        return _ended(session) or _said(_stopped(error))
    function = proxy(TimedPeer(session), ANSWER, signature)
    found = diagnose(task, function)
    if found.passed:
        found = asked_anew(task, function, answer.code) or found
    if found.passed and isinstance(task, Exercise):
        found = _unless_borrowed(task, function, session, found)
    return _ended(session) or _said(found)


def _stopped(error: Exception) -> Diagnosis:
    line = getattr(error, "line_of_answer", "")
    where = (("line", line),) if line else ()
    return Diagnosis("error", f"What it needs stopped with {type(error).__name__}: {error}.", beside=where)


def _ended(session: Session) -> Verdict | None:
    """Of an answer whose process ended, that alone is said: nothing that it gave before counts."""
    if session.timed_out:
        return Verdict("timed out", "It was still running when its time was over, and was stopped.")
    if session.gone or session.process.poll() is not None:
        session.gone = True
        return Verdict("error", "Its process ended in the middle: it left, crashed, or was stopped by a limit.")
    return None


def _unless_borrowed(task: Exercise, function: Any, session: Session, found: Diagnosis) -> Diagnosis:
    """A right answer that calls what it is to write, or what the text excludes, is not solved."""
    not_own = [each for each in (task.reference, *task.excludes) if isinstance(each, FunctionType)]
    names = {f"{each.__module__}.{each.__qualname__}" for each in not_own}
    session.peer.watch = True
    try:
        run_all(task, function, task.examples)
    finally:
        session.peer.watch = False
    met = sorted(names & session.peer.met)
    session.peer.met.clear()
    return Diagnosis("borrowed", thanks_but(met[0], task)) if met else found


# ---------------------------------------------------------------------------------------------------------------------
# Repairs, read first


def _repair(task: Task, answer: Answer, sessions: Sessions) -> Verdict:
    if said := repairs.objection(answer.code):
        return Verdict(
            "refused",
            f"{task.title} is checked in the process of its answer, so its code may use torch, mathematics and its own "
            f"functions alone; {said}. Please look at it yourself.",
        )
    with scratch_folder() as scratch, started("kdcourse.course.grading.repairs", scratch) as process:
        told = {"exercise": task.id, "code": answer.code, "limits": sessions.limits(scratch).told(),
                "call_seconds": 4 * sessions.terms.call_seconds}  # fmt: skip
        try:
            said_of_it, _ = process.communicate(json.dumps(told).encode(), timeout=max(1.0, sessions.seconds_left))
            return _said(Diagnosis(**json.loads(said_of_it)))
        except subprocess.TimeoutExpired:
            return Verdict("timed out", "It was still running when its time was over, and was stopped.")
        except (ValueError, TypeError, OSError):
            return Verdict("error", "Its process ended in the middle: it left, crashed, or was stopped by a limit.")


# ---------------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Read a line for each notebook, `{"path", "terms"}`, and write one with what became of it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.dup2(2, 1)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (OWN_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in sys.stdin:
        told = json.loads(line)
        terms = Terms(**told["terms"] | {"hidden": tuple(told["terms"]["hidden"])})
        calling.SECONDS = terms.seconds + GRACE  # the clock of the session comes first
        try:
            found = grade(Path(told["path"]).read_bytes(), terms)
        except Exception as error:
            found = Graded("refused", f"It could not be graded ({type(error).__name__}: {visible(str(error))[:LONG]}).")
        answers.write(json.dumps(asdict(found)) + "\n")
        answers.flush()


def _end_with(parent: int) -> None:
    """Nobody is there any more to tell: a main process that was killed leaves nothing running."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
