"""The process in which a learner's functions run: it takes code and calls, and gives back values.

It knows no exercise: the modules that hold the references are not loaded, and cannot be, since their folder is empty
here (where there are namespaces), or refuses to be imported.
"""

from __future__ import annotations

import importlib.abc
import linecache
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
import torch.nn.functional as F  # noqa: F401, N812  (loaded before the door closes)

from kdcourse.course.grading.confine import Limits, enter
from kdcourse.course.grading.peer import NAME, SOURCE, Peer, signature_of

SOLVED = "kdcourse.course.exercises"


class Refusing(importlib.abc.MetaPathFinder):
    """Finds no module of the exercises."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name.startswith(SOLVED):
            raise ImportError(f"{name} is not at hand where answers are graded; an answer has to stand alone.")


def taken_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for messages alone: what is printed from now on goes nowhere."""
    reads, writes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    return reads, writes


def main() -> None:
    peer = Peer(*taken_streams(), takes_functions=True)
    torch.zeros(2, requires_grad=True).sum().backward()  # what torch loads late
    peer.serve_all({"enter": _enter, "define": lambda words: _define(peer, words["code"])})


def _enter(words: dict[str, Any]) -> bool:
    for name in [name for name in sys.modules if name.startswith(f"{SOLVED}.lesson")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Refusing())
    enter(Limits.read(words["limits"]))
    return True


def _define(peer: Peer, code: str) -> Any:
    """Run the code that defines an answer; what comes back is the signature of that."""
    linecache.cache[SOURCE] = (len(code), None, code.splitlines(keepends=True), SOURCE)
    names: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    exec(compile(code, SOURCE, "exec"), names)  # noqa: S102  (that is what this process is for)
    peer.define(names[NAME])
    return signature_of(names[NAME])


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]
    main()
