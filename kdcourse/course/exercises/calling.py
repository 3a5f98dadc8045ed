"""Call somebody's function: in bounded time, on copies, and whatever it raises is part of the result."""

from __future__ import annotations

import copy
import ctypes
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdcourse.course.exercises.comparing import same_values
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs

SECONDS = 5.0
"""For one call of a learner's function."""
LISTEN = 0.05
"""Seconds after which a waiting kernel hears its stop button."""
INSIST = 1.0
"""Seconds in which a function is asked to stop, again and again: it may catch what asks it."""


class OutOfTimeError(BaseException):
    """The function was still running when its time was over; no `except Exception` of its own keeps it alive."""


@dataclass(frozen=True)
class Result:
    """What a function gave for one input: its value, with a gradient if one was asked for, or the error it raised."""

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
        """The line of the answer that raised its error, as it is written; empty if nobody can see it."""
        frames = traceback.extract_tb(self.error.__traceback__) if self.error else []
        own = [frame for frame in frames if frame.filename != __file__]
        return (own[0].line or "") if own else ""


def run_all(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> list[Result]:
    """The results in the order of the inputs; after one that took too long, the others are not waited for."""
    results: list[Result] = []
    for each in inputs:
        out_of_time = bool(results) and results[-1].is_out_of_time
        results.append(results[-1] if out_of_time else run(function, each, exercise.gradient))
    return results


def run(function: Function, inputs: Inputs, gradient: bool) -> Result:
    """Call a function on copies of its inputs.

    Raises:
        KeyboardInterrupt: somebody has pressed the stop button; nothing of the function runs on.
    """
    given = copy.deepcopy(inputs)
    if gradient:
        given[0].requires_grad_()
    value, error = call_in_time(function, given)
    if error is not None:
        return Result(error=error)
    values: tuple[Any, ...] = (value,)
    if gradient and isinstance(value, Tensor) and value.requires_grad and not value.is_complex():
        try:
            values = (value.detach(), *torch.autograd.grad(value.sum(), given[0], allow_unused=True))
        except Exception as raised:
            return Result(error=raised)
    changed = not same_values(tuple(map(_detached, given)), inputs, 0.0)
    return Result(values, changed_inputs=changed)


def call_in_time(function: Function, inputs: Inputs) -> tuple[Any, BaseException | None]:
    """The value of a call, or what it raised, `OutOfTimeError` included.

    The call is made in a thread, because only a thread can be left alone on every platform; the kernel's own thread
    listens for the stop button meanwhile.
    """
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = function(*inputs)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        _wait(thread, SECONDS)
    except KeyboardInterrupt:
        _stop(thread)
        raise
    if thread.is_alive():
        _stop(thread)
        return None, OutOfTimeError(f"it was still running after {SECONDS:g} seconds")
    return box.get("value"), box.get("error")


def _wait(thread: threading.Thread, seconds: float) -> None:
    """`join` that a signal can interrupt on every platform."""
    for _ in range(round(seconds / LISTEN)):
        thread.join(LISTEN)
        if not thread.is_alive():
            return


def _stop(thread: threading.Thread) -> None:
    """Raise in the thread, at the next line of Python that it runs: an endless loop ends there."""
    for _ in range(round(INSIST / LISTEN)):
        if not thread.is_alive():
            return
        identity = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(OutOfTimeError))
        thread.join(LISTEN)


def _detached(part: Any) -> Any:
    return part.detach() if isinstance(part, Tensor) else part
