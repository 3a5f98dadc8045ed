"""Repair a run: broken code is given, and judged by properties that the right code has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdcourse.course.exercises.calling import Result
from kdcourse.course.exercises.diagnosis import Diagnosis, thanks_but
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.kinds.judged import Judged, Observation, StoppedError, counted
from kdcourse.course.exercises.origins import first_called

NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?%?")

Call = Callable[..., Result]
"""Calls the answer, in bounded time."""


@dataclass(frozen=True)
class Property:
    """Something that holds for the right code, and can be seen from outside."""

    name: str
    """In words: "4 micro-batches make the step of one"."""
    broken: Callable[[Function], str]
    """What is seen instead, with its number; "" where the property holds. An error of the answer may pass through."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RepairARun(Judged):
    """The answer takes the place of `broken`, and all properties must hold."""

    broken: Function
    """What the notebook hands out; the stub, where the code is to be written anew."""
    properties: Sequence[Property]
    excludes: Sequence[Function] = ()
    """What the text forbids to call; the reference is forbidden anyway."""
    by_words: bool = False
    """Whether two answers that break a property in the same words are alike, whatever the numbers: those of a training
    differ between two ways to make one mistake."""
    prepare: Callable[[], Any] = lambda: None
    """Makes and keeps what the properties need, so that none of the time for a call goes into it."""

    def observe(self, answer: Function) -> Observation:
        self.prepare()
        seen = self._broken_in(answer)
        rows = tuple((each.name, said) for each, said in zip(self.properties, seen, strict=True) if said)
        holding = counted(len(seen) - len(rows), seen)
        behaviour = tuple(NUMBER.sub("", said) if self.by_words else said for said in seen)
        if not rows and (name := first_called((self.reference, *self.excludes), answer, self._broken_in)):
            raise StoppedError(Diagnosis("borrowed", thanks_but(name, self)))
        if not rows:
            return Observation(True, f"all {len(seen)} properties hold.", behaviour)
        untouched = answer is not self.broken and self._is_as_handed_out(seen)
        said = f"{'not attempted yet; ' if untouched else ''}{holding} properties hold."
        return Observation(False, said, behaviour, rows, attempted=not untouched)

    def _is_as_handed_out(self, seen: Sequence[str]) -> bool:
        """Whether the same properties are broken as before; a stub that raises breaks none, as nobody sees them."""
        try:
            before = self._broken_in(self.broken)
        except StoppedError:
            return False
        return list(map(bool, seen)) == list(map(bool, before))

    def _broken_in(self, answer: Function) -> list[str]:
        return [str(self.call(each.broken, answer).values[0]) for each in self.properties]
