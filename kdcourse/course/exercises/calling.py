"""Call somebody's function: in bounded time, on copies, and whatever it raises is part of the result."""

from __future__ import annotations

import _thread
import copy
import ctypes
import inspect
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.exercises.comparing import same_values
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs
from kdcourse.course.exercises.keeping import cut_short, world_as_it_was
from kdcourse.course.exercises.settling import settled, settled_error

HERE = Path(__file__).parent
"""No line of these modules is one of an answer."""

SECONDS = 5.0
"""For one call of a learner's function."""
LISTEN = 0.02
"""Seconds after which a waiting kernel hears its stop button."""
LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
ROUNDS = (1, 2, 3, 4, 5)
"""So often a function is asked to stop, with as many seconds in between: it may catch what asks it."""


class OutOfTimeError(BaseException):
    """The function was still running when its time was over; no `except Exception` of its own keeps it alive."""


class ParkedError(OutOfTimeError):
    """The last word to a function that catches everything: whoever catches this waits for ever.

    Python makes the instance where the error is caught, in the thread that catches it, and making it never ends. So an
    endless loop around `except BaseException` takes no more time from anybody.
    """

    def __init__(self) -> None:
        super().__init__()
        if sys._getframe(1).f_code.co_filename != __file__:
            never = _thread.allocate_lock()
            never.acquire()
            never.acquire()


@dataclass(frozen=True)
class Result:
    """What a function gave for one input: its value, with gradients if they were asked for, or the error it raised."""

    values: tuple[Any, ...] = ()
    error: BaseException | None = None
    changed_inputs: bool = False

    @property
    def is_out_of_time(self) -> bool:
        return isinstance(self.error, OutOfTimeError)

    @property
    def is_the_stub(self) -> bool:
        """What the notebook hands out: `raise NotImplementedError`, or `...`; PyTorch's own error has a message."""
        if self.error is not None:
            return type(self.error) is NotImplementedError and not self.error.args
        return self.values[0] is ...

    @property
    def is_nothing(self) -> bool:
        return self.error is None and self.values[0] is None

    @property
    def line(self) -> str:
        """The line of the answer that raised its error, as it is written; empty if nobody can see it.

        An error that comes from another process brings its line along.
        """
        if (told := getattr(self.error, "line_of_answer", None)) is not None:
            return str(told)
        frames = traceback.extract_tb(self.error.__traceback__) if self.error else []
        own = [frame for frame in frames if HERE not in Path(frame.filename).parents]
        return (own[0].line or "") if own else ""


def same(answer: Result, expected: Result, tolerance: float) -> bool:
    """Equal values, or an error of the type that is expected."""
    if answer.error is not None or expected.error is not None:
        return expected.error is not None and isinstance(answer.error, type(expected.error))
    return answer.changed_inputs == expected.changed_inputs and same_values(answer.values, expected.values, tolerance)


def all_same(answers: Sequence[Result], expected: Sequence[Result], tolerance: float) -> bool:
    return all(same(ours, theirs, tolerance) for ours, theirs in zip(answers, expected, strict=True))


def run_all(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> list[Result]:
    """The results in the order of the inputs; after one that took too long, the others are not waited for."""
    answer = by_position(function, names_of(exercise.reference))
    results: list[Result] = []
    for each in inputs:
        out_of_time = bool(results) and results[-1].is_out_of_time
        results.append(results[-1] if out_of_time else run(answer, each, exercise.gradient, exercise.from_logits))
    return results


def names_of(function: Function) -> list[str]:
    """What the arguments of a function are called."""
    return list(inspect.signature(function).parameters)


def by_position(function: Function, names: Sequence[str]) -> Function:
    """The function, or one that passes the last arguments by keyword where it takes them in no other way.

    Args:
        names: what the arguments are called elsewhere; keywords of other names are taken in their order, and those that
            have a default only where there is no other place.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function
    places = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
    by_keyword = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    asked = [each.name for each in by_keyword if each.default is each.empty or each.name in names]
    settings = [each.name for each in by_keyword if each.name not in asked]
    taken = {*asked, *settings[: max(len(names) - places - len(asked), 0)]}
    keywords = [each.name for each in by_keyword if each.name in taken]
    by_name = keywords if not set(keywords) <= set(names) else [name for name in names if name in keywords]
    first = len(names) - len(keywords)
    if not keywords or first < 0 or any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return function
    return lambda *inputs: function(*inputs[:first], **dict(zip(by_name, inputs[first:], strict=True)))


def run(function: Function, inputs: Inputs, gradient: bool, from_logits: Function | None = None) -> Result:
    """Call a function on copies of its inputs.

    Args:
        gradient: of the sum of its value, with respect to the first input.
        from_logits: what makes the first input of logits; the gradient is then taken with respect to those. What
            differs only along a direction that such a function levels out is the same.

    Raises:
        KeyboardInterrupt: somebody has pressed the stop button; nothing of the function runs on.
    """
    given = copy.deepcopy(inputs)
    leaves = [given[0].requires_grad_()] if gradient else []
    if from_logits:
        given = (from_logits(given[0]), *given[1:])
    before = copy.deepcopy(tuple(map(_detached, given)))
    value, error = call_in_time(function, given)
    if error is not None:
        return Result(error=error)
    gradients, error = call_in_time(_gradients, (value, leaves))  # a backward of its own runs there, too
    if error is not None:
        return Result(error=error)
    now, error = (given, None) if all(map(_is_plain, given)) else call_in_time(lambda: given, ())
    changed = error is not None or not same_values(tuple(map(_detached, now)), settled(before), 0.0)
    return Result((_detached(value), *gradients), changed_inputs=changed)


def _gradients(value: Any, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """Zeros for what has no say in the value."""
    if leaves and isinstance(value, Tensor) and value.requires_grad and not value.is_complex():
        return torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
    return [torch.zeros_like(leaf) for leaf in leaves]


def _is_plain(part: Any) -> bool:
    """Whether nothing of somebody's can be in it."""
    return type(part) in (Tensor, int, float, str, bool, type(None))


def call_in_time(function: Function, inputs: Inputs) -> tuple[Any, BaseException | None]:
    """The value of a call as plain data (see `settled`), or what it raised, `OutOfTimeError` included.

    What the function changes in the process is put back, and threads that it leaves behind are ended.
    """
    others = threading.enumerate()
    with world_as_it_was() as put_back, cut_short():
        found = call_in_thread(function, inputs, SECONDS, put_back)
    _stop_what_was_left(others)
    return found


def call_in_thread(
    function: Function, inputs: Inputs, seconds: float, afterwards: Callable[[], None] = lambda: None
) -> tuple[Any, BaseException | None]:
    """The same, but for what is put back.

    The call is made in a thread, because only a thread can be left alone on every platform; the kernel's own thread
    listens for the stop button meanwhile. What the function does in C without letting go of Python's lock cannot be
    stopped, nor `os._exit`.

    Args:
        afterwards: what is called first when the function is done.
    """
    box: dict[str, Any] = {}
    left_alone: list[bool] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            try:
                try:
                    value = function(*inputs)
                finally:
                    if not left_alone:  # who wakes up late finds a world that is not its own
                        afterwards()
                box["value"] = settled(value)
            except BaseException as error:
                box["error"] = settled_error(error)
        except BaseException as error:  # the message of an error that never ends
            box["error"] = OutOfTimeError() if isinstance(error, OutOfTimeError) else RuntimeError(type(error).__name__)
        finally:
            done.release()

    thread = _thread.start_new_thread(work, ())
    try:
        finished = _wait(done, seconds)
    except KeyboardInterrupt:
        left_alone.append(True)
        _stop(thread, done)
        raise
    if not finished:
        left_alone.append(True)
        _stop(thread, done)
        return None, OutOfTimeError(f"it was still running after {seconds:g} seconds")
    return box.get("value"), box.get("error")


def _wait(done: _thread.LockType, seconds: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Whether it was done in time; a signal can interrupt this on every platform.

    The clock is that of the start: the function may put something else in its place.
    """
    end = clock() + seconds
    while not done.acquire(timeout=LISTEN):
        if clock() > end:
            return False
    return True


def _stop(thread: int, done: _thread.LockType) -> None:
    """Raise in the thread, at the next line of Python that it runs: an endless loop ends there, or waits for ever."""
    for _ in ROUNDS:
        _raise_in(thread, OutOfTimeError)
        if done.acquire(timeout=LISTEN):
            return
    _raise_in(thread, ParkedError)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _stop_what_was_left(others: Sequence[threading.Thread]) -> None:
    """End the threads that a function has started; those of libraries stay."""
    left = [thread for thread in threading.enumerate() if thread not in others]  # their numbers are used again
    if left:
        time.sleep(LISTEN)  # until each of them runs what it was started for
    frames = sys._current_frames() if left else {}
    for thread in left:
        frame = frames.get(thread.ident or 0)
        files = [each.f_code.co_filename for each, _ in traceback.walk_stack(frame)] if frame else []
        if all(file.startswith(LIBRARIES) for file in files):
            continue
        _raise_in(thread.ident or 0, SystemExit)  # not parked: `threading` may hold a lock there that all need
        time.sleep(LISTEN)


def _detached(part: Any) -> Any:
    return part.detach() if isinstance(part, Tensor) else part
