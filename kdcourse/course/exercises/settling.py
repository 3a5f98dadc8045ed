"""What somebody's function returned, as plain data: nothing of it runs any more when it is compared or shown.

An object of a class of one's own can hang, raise or lie wherever Python asks it something: its length, its elements,
whether it is equal, how it is written. All of that is asked once, while the function's time still runs.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEEP = 20
"""Levels of lists in lists that are followed."""
LONG = 1_000
"""Characters that are kept of how an object is written."""
ATOMS = frozenset({
    type(None), type(...), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.device, torch.Size,
    torch.layout,
})  # fmt: skip


@dataclass(frozen=True)
class Opaque:
    """An object that is nothing we know: how it is written, under the name of its class."""

    text: str

    def __repr__(self) -> str:
        return self.text


def settled(value: Any, depth: int = DEEP) -> Any:  # noqa: PLR0911  (one for each kind of value)
    """The value as torch, NumPy and Python themselves have it; subclasses of theirs lose what they add.

    Mappings become dictionaries. What is nothing of these becomes `Opaque`: two are equal if their classes and the way
    they are written are.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if issubclass(kind, Tensor):
        return value if kind is Tensor else _without_subclass(value)
    if issubclass(kind, np.ndarray):
        return np.asarray(value)
    if issubclass(kind, np.generic):
        return value if kind.__module__ == "numpy" else np.asarray(value)[()]
    for number in (int, float):
        if issubclass(kind, number):
            return number.__pos__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if depth == 0:
        return _opaque(value)
    if issubclass(kind, list | tuple):
        plain: type[list[Any]] | type[tuple[Any, ...]] = list if issubclass(kind, list) else tuple
        return plain(settled(part, depth - 1) for part in plain.__iter__(value))
    if issubclass(kind, dict):
        return {_key(name): settled(part, depth - 1) for name, part in dict.items(value)}
    if issubclass(kind, Mapping):
        return {_key(name): settled(value[name], depth - 1) for name in value}
    if kind in (set, frozenset):
        return kind(_key(part) for part in value)
    return _opaque(value)


def _without_subclass(value: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.as_subclass(value, Tensor)


def _key(name: Any) -> Any:
    """A key or an element of a set, which Python compares by itself."""
    if type(name) is tuple:
        return tuple(_key(part) for part in name)
    return name if type(name) in ATOMS else _opaque(name)


def _opaque(value: Any) -> Opaque:
    kind = type(value)
    name: str = type.__getattribute__(kind, "__name__")
    if kind is CoroutineType:
        value.close()  # nobody will await it
    try:
        text = str.__str__(repr(value))[:LONG]
    except Exception as error:
        text = f"{name} that cannot be shown ({type(error).__name__})"
    return _opaque_class(id(kind), name)(text)


@functools.lru_cache(maxsize=64)
def _opaque_class(kind: int, name: str) -> type[Opaque]:
    """One class for each class, so that objects of two are not equal."""
    return type(name, (Opaque,), {})


def settled_error(error: BaseException) -> BaseException:
    """The error itself, if its message can be read; else one of the type that Python has for it.

    What its frames hold, which may be much, is let go of; the lines stay.
    """
    kind = type(error)
    traceback.clear_frames(BaseException.__dict__["__traceback__"].__get__(error))
    try:
        if type(str(error)) is str:
            return error
    except Exception:  # noqa: S110  (what it raises is as little to be trusted as itself)
        pass
    known = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        plain = known("its message cannot be shown")
    except TypeError:  # such as UnicodeDecodeError, which wants to know more
        plain = ValueError("its message cannot be shown")
    return plain.with_traceback(BaseException.__dict__["__traceback__"].__get__(error))
