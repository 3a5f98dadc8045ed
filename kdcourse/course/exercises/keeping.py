"""Somebody's function leaves the process as it found it: what it changes in Python, torch or this course is put back.

What it prints is cut short, and nobody answers it: a check that waits for `input()` would wait for ever.
"""

from __future__ import annotations

import builtins
import copy
import functools
import gc
import io
import logging
import math
import operator
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TextIO

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

CHARACTERS = 2_000
"""What one call may print."""
MODULES: tuple[ModuleType, ...] = (
    builtins, copy, functools, logging, math, os, random, sys, threading, time, warnings, np, torch, torch.autograd,
    torch.linalg, torch.nn, torch.nn.init, torch.special, F,
)  # fmt: skip
CLASSES: tuple[type, ...] = (torch.Tensor, torch.nn.Module, threading.Thread)
PACKAGE = __name__.partition(".")[0]
Readers = tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...]
"""How each is read, and put back."""
SWITCHES: Readers = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (os.getcwd, os.chdir),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (lambda: logging.root.manager.disable, logging.disable),
)
GENERATORS: Readers = (
    (torch.get_rng_state, torch.set_rng_state),
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
)


@contextmanager
def world_as_it_was() -> Iterator[Callable[[], None]]:
    """Whatever happens inside, the process is afterwards what it was, as far as it can be put back.

    Switches that torch and Python keep for each thread (gradients, inference mode, the default device) are no part of
    this: they go with the thread that a function is called in.

    Yields:
        What puts back functions and classes at once, for who wants to use them before the end.
    """
    switches = [(read, write, read()) for read, write in SWITCHES]
    generators = [(write, read()) for read, write in GENERATORS]
    environment = dict(os.environ)
    with warnings.catch_warnings():
        put_back = _remembered()
        try:
            yield put_back
        finally:
            put_back()
            for read, write, value in switches:
                if read() != value:
                    write(value)
            for write, value in generators:
                write(value)
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)


@contextmanager
def cut_short(characters: int = CHARACTERS) -> Iterator[list[_Excerpt]]:
    """What is printed inside is passed on up to so many characters, and nobody answers what is asked.

    Yields:
        The two streams; `left_out` is how many more characters there were.
    """
    before, ask = (sys.stdin, sys.stdout, sys.stderr), builtins.input
    printed = [_Excerpt(stream, characters) for stream in before[1:]]
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), *printed
    builtins.input = _nobody_answers
    try:
        yield printed
    finally:
        (sys.stdin, sys.stdout, sys.stderr), builtins.input = before, ask
        for stream in printed:
            if characters and stream.left_out:
                stream.target.write(f" … and {stream.left_out:,} more characters\n")


def _remembered() -> Callable[[], None]:
    """What gives all modules and classes the attributes that they have now."""
    before = [(holder, dict(vars(holder))) for holder in _holders(len(sys.modules))]
    built_in, names_of_python, put_back = vars(builtins), dict(vars(builtins)), _put_back

    def put_back_all() -> None:
        built_in.update(names_of_python)  # first, and without any of them
        for holder, names in before:
            put_back(holder, names)

    return put_back_all


@functools.lru_cache(maxsize=1)
def _holders(loaded: int) -> list[Any]:
    """Modules and classes whose attributes are put back; the same ones as long as no module was loaded."""
    ours = [module for name, module in list(sys.modules.items()) if name.startswith(PACKAGE)]
    return [*MODULES, *CLASSES, *ours]


def _put_back(holder: Any, names: dict[str, Any], same: Callable[[Any, Any], bool] = operator.is_) -> None:
    """Give a module or a class the attributes that it had; a class loses those that it did not have."""
    now = vars(holder)
    if now.keys() == names.keys() and all(map(same, now.values(), names.values())):
        return
    for name, value in names.items():
        if now.get(name, _put_back) is not value and not name.startswith("last_"):  # of the last error, which is new
            setattr(holder, name, value)
    if isinstance(holder, type):
        for name in now.keys() - names.keys():
            delattr(holder, name)


def _nobody_answers(prompt: object = "", /) -> str:
    raise EOFError("input() has nobody to ask while a function is tried; take what you need from the arguments")


class _Excerpt(io.TextIOBase):
    """A stream that passes on the first characters, and counts the others."""

    def __init__(self, target: TextIO, room: int) -> None:
        super().__init__()
        self.target = target
        self.room = room
        self.left_out = 0

    def write(self, text: str) -> int:
        shown = text[: self.room]
        self.room -= len(shown)
        self.left_out += len(text) - len(shown)
        if shown:
            self.target.write(shown)
        return len(text)

    def flush(self) -> None:
        self.target.flush()

    def writable(self) -> bool:
        return True
