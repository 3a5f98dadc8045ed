"""Whose work is an answer? What it calls is watched, and what stands in the kernel must be what its package put there.

Nobody is accused: whoever imports our function has not seen yet what an exercise is for, and is told.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FrameType, FunctionType, MethodDescriptorType
from typing import Any

import torch

import kdcourse
from kdcourse.course.exercises.calling import run_all
from kdcourse.course.exercises.exercise import Exercise, Function, Inputs

MADE_OF = ("cross_entropy", "exp", "isclose", "kl_div", "log", "log_softmax", "masked_fill", "mean", "nll_loss",
           "one_hot", "softmax", "stack", "sum", "tensor", "where")  # fmt: skip
"""What answers and references are made of. Libraries replace other functions of PyTorch, with good reason."""
OURS = ("distillation_loss", "forward_kl", "reverse_kl")
PLACES = {
    "torch.nn.functional": MADE_OF, "torch": MADE_OF, "torch.Tensor": MADE_OF,
    "kdcourse.divergence": OURS, "kdcourse.loss": OURS, "kdcourse": OURS,
}  # fmt: skip
FOLDERS = tuple(str(Path(package.__file__ or "").parent) for package in (torch, kdcourse))


def borrowed(exercise: Exercise, function: Function, inputs: Sequence[Inputs]) -> str:
    """What an answer calls although it is to be written, as `module.name`; empty if nothing."""
    not_own = (exercise.reference, *exercise.excludes)
    return first_called(not_own, function, lambda watched: run_all(exercise, watched, inputs))


def first_called(functions: Sequence[Function], by: Function, run: Callable[[Function], Any]) -> str:
    """Which of these a function calls while `run` runs it, as `module.name`; empty if none."""
    not_own = [each for each in functions if isinstance(each, FunctionType)]
    met: list[FunctionType] = []

    def listen(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            met.extend(each for each in not_own if each.__code__ is frame.f_code)

    @functools.wraps(by)
    def watched(*given: Any, **named: Any) -> Any:
        sys.setprofile(listen)
        try:
            return by(*given, **named)
        finally:
            sys.setprofile(None)

    run(watched)
    return f"{met[0].__module__}.{met[0].__qualname__}" if met else ""


def replaced() -> str:
    """The first function of PyTorch or of this package that somebody put another one in place of; empty if none."""
    for place, names in PLACES.items():
        holder = torch.Tensor if place == "torch.Tensor" else importlib.import_module(place)
        for name in names:
            if hasattr(holder, name) and not _is_as_imported(getattr(holder, name), name):
                return f"{place}.{name}"
    return ""


def _is_as_imported(function: Any, name: str) -> bool:
    """Built in, or of that name in the folder of its package."""
    if isinstance(function, FunctionType):
        return function.__name__ == name and function.__code__.co_filename.startswith(FOLDERS)
    return isinstance(function, BuiltinFunctionType | MethodDescriptorType) and function.__name__ == name
