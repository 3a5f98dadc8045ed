"""What an exercise is: declared once, with its reference, its inputs, and the mistakes that people really make.

A function to be written is the plainest kind; the others are in `kinds/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Inputs = tuple[Any, ...]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Edge:
    """A corner of the domain of an exercise, made of a random input."""

    words: str
    """Ends the sentence "Right on ordinary inputs, but not …": "where all logits are equal"."""
    change: Callable[..., Inputs]
    """From the arguments of an ordinary input to those of one on the edge."""


@dataclass(frozen=True)
class Misconception:
    """One way to be wrong, as code, so that an answer that does the same can be recognised."""

    name: str
    """Short and unique in its exercise: "t-squared-missing"."""
    wrong: Function
    """What somebody writes who believes it; same arguments as the reference. It may raise."""
    signature: str
    """What gives it away, with a number where there is one: "a quarter of ours at T = 2, a sixteenth at T = 4"."""
    read: str
    """Where the lesson explains it: "section 4, Break it"."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What every kind of exercise has.

    Its id begins with the number of its lesson: "03.objective" belongs to lesson 03. Hints and solution are cells of
    the notebook.
    """

    id: str
    title: str
    difficulty: int
    """1 (a line) to 3 (think first)."""
    minutes: int
    reference: Function
    """An answer that passes."""
    misconceptions: Sequence[Misconception]

    @property
    def lesson(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Exercise(Task):
    """A function to be written: its results are compared with those of the reference."""

    examples: Sequence[Inputs]
    """Fixed inputs that tell the misconceptions apart, smallest first: a learner is shown the first that fails."""
    random_inputs: Callable[[torch.Generator], Inputs]
    """One more input, drawn anew for each of a few seeds."""
    gradient: bool = False
    """Compare the gradient with respect to the first argument, too."""
    from_logits: Function | None = None
    """What makes the first argument of logits, by which the gradient is then compared: `log_softmax`, where it is
    log-probabilities, so that an answer may renormalise them."""
    tolerance: float = 1e-4
    """Relative, and absolute in the unit of the result."""
    edges: Sequence[Edge] = ()
    """Corners of the domain, beyond the inputs above: an answer has to be right there, too."""
    excludes: Sequence[Function] = ()
    """What the text forbids to call; the reference is forbidden anyway."""
