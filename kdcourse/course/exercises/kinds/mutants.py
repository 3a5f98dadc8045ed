"""Kill the mutants: write a test that passes what is right and fails each of many implementations that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdcourse.course.exercises.calling import Result
from kdcourse.course.exercises.comparing import plain
from kdcourse.course.exercises.diagnosis import Diagnosis
from kdcourse.course.exercises.exercise import Function
from kdcourse.course.exercises.kinds.judged import Judged, Observation, StoppedError, Suspect, counted, listed


@dataclass(frozen=True, kw_only=True, eq=False)
class KillTheMutants(Judged):
    """The answer is `test(implementation) -> bool`: True for what is right. `assert` in the place of bool will do.

    It is asked twice about each implementation, the second time in another order: what it says must hang on nothing
    else.
    """

    right: Sequence[Suspect]
    """Equal rewrites: a test that refuses one of these asks for too much."""
    mutants: Sequence[Suspect]

    def observe(self, answer: Function) -> Observation:
        suspects = [*self.right, *self.mutants]
        first = [self.approves(answer, suspect) for suspect in suspects]
        second = [self.approves(answer, suspect) for suspect in reversed(suspects)][::-1]
        if first != second:
            name = next(each.name for each, one, two in zip(suspects, first, second, strict=True) if one != two)
            said = f"Asked twice, your test says two things of one function ({name})."
            raise StoppedError(Diagnosis("error", said))
        approved = dict(zip([suspect.name for suspect in suspects], first, strict=True))
        refused = [each.name for each in self.right if not approved[each.name]]
        survivors = [each.name for each in self.mutants if approved[each.name]]
        killed = counted(len(self.mutants) - len(survivors), self.mutants)
        passes = counted(len(self.right) - len(refused), self.right)
        rows = (
            ("killed", killed), *((("survive", listed(survivors)),) if survivors else ()),
            ("right ones passed", passes), *((("refused though right", listed(refused)),) if refused else ()),
        )  # fmt: skip
        said = f"your test kills {killed} mutants and passes {passes} right implementations."
        return Observation(not survivors and not refused, said, tuple(first), rows)

    def approves(self, answer: Function, suspect: Suspect) -> bool:
        """Whether a test says that an implementation is right.

        Raises:
            StoppedError: it says nothing.
        """
        try:
            return _verdict(self.call(answer, anonymous(suspect.function), allowed=(AssertionError,)))
        except StoppedError as stopped:
            if stopped.diagnosis.kind == "not attempted":
                raise
            about = ("asked about", suspect.name)
            raise StoppedError(replace(stopped.diagnosis, beside=(*stopped.diagnosis.beside, about))) from stopped


def _verdict(result: Result) -> bool:
    """No error and no result is what a test of `assert`s gives for what it passes.

    Raises:
        StoppedError: it is neither true nor false.
    """
    if result.error is not None:
        return False
    value = plain(result.values[0])
    if value is None:
        return True
    try:
        return bool(value)
    except Exception as error:
        raise StoppedError(
            Diagnosis("error", f"Your test gives back {type(value).__name__}, which is neither true nor false.")
        ) from error


def anonymous(function: Function) -> Function:
    """The same function without its name, which would give it away."""

    def implementation(*inputs: object, **named: object) -> object:
        return function(*inputs, **named)

    return implementation
