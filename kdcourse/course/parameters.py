"""What `--parameter NAME=VALUE` may be: read, and held against what the lessons' own parameters cell has there."""

from __future__ import annotations

import ast
import math
import reprlib
from collections.abc import Iterable
from typing import Any

from kdcourse.course.misuse import MisuseError
from kdcourse.course.settings import Settings

LARGEST = 2**63 - 1
"""Of whole numbers, beyond which torch and NumPy raise in the middle of a lesson."""


class ParameterError(MisuseError):
    """A parameter that no lesson can be run with; the message says which, and why."""


def parameters_of(pairs: Iterable[str]) -> dict[str, Any]:
    """Each NAME=VALUE: a value that is a Python literal as what it is, and any other as a text.

    Raises:
        ParameterError: a pair is none, is given twice, is an option of its own, or a notebook cannot hold its value.
    """
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        asked = f"--parameter is {reprlib.repr(pair)}; "
        if not equals or not name.isidentifier():
            raise ParameterError(f"{asked}it is NAME=VALUE, such as STEPS=100.")
        if name in Settings().all_parameters:
            raise ParameterError(f"{asked}{name} has an option of its own, --{name.lower()}.")
        if name in parameters:
            raise ParameterError(f"{asked}{name} is given twice.")
        parameters[name] = _value(text)
        if problem := _problem(parameters[name]):
            raise ParameterError(f"{asked}{problem}.")
    return parameters


def require_fitting(name: str, value: Any, default: str, lesson: str) -> None:
    """Refuse a value of another kind than the default, which is source code of the lesson.

    Raises:
        ParameterError: it is of another kind.
    """
    try:
        kind = type(ast.literal_eval(default))
    except (ValueError, SyntaxError):  # it is computed
        return
    may_be = {float: (int, float), tuple: (tuple, list), list: (tuple, list), type(None): (object,)}.get(kind, (kind,))
    if not isinstance(value, may_be) or (isinstance(value, bool) and kind not in (bool, type(None))):
        raise ParameterError(
            f"{name} is {reprlib.repr(value)}, of type {type(value).__name__}; in {lesson} it is {default}, of type "
            f"{kind.__name__}."
        )


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: a thousand brackets
        return text


def _problem(value: Any) -> str:
    """Why a notebook cannot hold this value; empty if it can."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(_problem, value)), "")
    if isinstance(value, dict):
        return next(filter(None, map(_problem, [*value, *value.values()])), "")
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{reprlib.repr(value)} is beyond 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no finite number"
    if isinstance(value, str):
        return "" if value.isascii() or value.encode(errors="replace").decode() == value else "it is no text in UTF-8"
    return "" if isinstance(value, int | float | None) else f"a lesson's parameter cannot be a {type(value).__name__}"
