"""Two runs held against each other, for a maintainer: which claims moved, how far for what they allow, which broke."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdcourse.course.claims import Claim, claim_from
from kdcourse.course.misuse import MisuseError

Verdict = Literal["held", "broke", "mended", "still broken", "gone", "new"]
BREAKS: tuple[Verdict, ...] = ("broke", "gone")


class ReportError(MisuseError):
    """A file that should be a report of claims is none, or two of them have nothing to compare."""


@dataclass(frozen=True)
class Move:
    """One claim before and after; one of the two is missing if only one run made it."""

    lesson: str
    name: str
    before: Claim | None
    after: Claim | None

    @property
    def verdict(self) -> Verdict:
        if self.after is None:
            return "gone"
        if self.before is None:
            return "new" if self.after.holds else "broke"
        if self.after.holds:
            return "held" if self.before.holds else "mended"
        return "broke" if self.before.holds else "still broken"

    @property
    def level(self) -> str:
        """How loud to say it: as a problem, as a note, or not at all."""
        return "problem" if self.verdict in BREAKS else "" if self.verdict == "held" else "note"

    @property
    def words(self) -> tuple[str, ...]:
        """The claim, before, after, and the difference in shares of what is allowed and of the spread over seeds."""
        verdict = "" if self.verdict == "held" else f" ({self.verdict})"
        return (
            f"{self.lesson[:2]} {self.name}{verdict}",
            f"{self.before.value:.6g}" if self.before else "–",
            f"{self.after.value:.6g}" if self.after else "–",
            f"{self.share_of_room:.0%}",
            "–" if self.share_of_spread is None else f"{self.share_of_spread:.1f}",
        )

    @property
    def difference(self) -> float:
        """After minus before, in the claim's unit; 0 if one is missing, NaN if one of them is."""
        return self.after.value - self.before.value if self.before and self.after else 0.0

    @property
    def share_of_room(self) -> float:
        """The difference against what the claim allowed before: its tolerance, or the distance from its bound."""
        if self.difference == 0 or self.before is None:
            return 0.0
        return abs(self.difference) / self.before.room if self.before.room else float("inf")

    @property
    def share_of_spread(self) -> float | None:
        """The difference against the standard deviation over seeds; nothing where no spread was measured."""
        spread = self.before.spread if self.before else None
        return abs(self.difference) / spread if spread else None


@dataclass(frozen=True)
class Report:
    """A `claims.json`: what it was measured with, and the claims by lesson and name."""

    circumstances: Mapping[str, str]
    lessons: Mapping[str, Mapping[str, Claim]]
    earlier_runs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Lessons that were run before the others, with something else."""


@dataclass(frozen=True)
class Comparison:
    """All that `compare` found."""

    moves: Sequence[Move]
    """Of the lessons that both runs hold: those that broke first, then by how far they moved."""
    missing: Sequence[str]
    """Lessons of the first run only; each counts as broken."""
    notes: Sequence[str]
    """What else differs between the runs, in words: versions, device, lessons."""

    @property
    def broken(self) -> int:
        """How many claims and lessons broke or are gone."""
        return sum(move.verdict in BREAKS for move in self.moves) + len(self.missing)

    def worth_showing(self, threshold: float) -> list[Move]:
        """The moves above this share of what a claim allows, and all whose verdict changed."""
        return [move for move in self.moves if move.share_of_room >= threshold or move.verdict != "held"]

    def summary(self, threshold: float) -> str:
        """The comparison in a sentence."""
        claims = "1 claim" if len(self.moves) == 1 else f"{len(self.moves)} claims"
        lessons = {0: "", 1: ", 1 lesson is missing"}.get(
            len(self.missing), f", {len(self.missing)} lessons are missing"
        )
        broke = sum(move.verdict in BREAKS for move in self.moves)
        return f"{claims} compared, {len(self.worth_showing(threshold))} moved, {broke} broke{lessons}."


def read_report(path: Path) -> Report:
    """Read a `claims.json` of `kdcourse run`.

    Raises:
        ReportError: it is not there, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Report(
            circumstances=_words({"python": content["python"], "device": content["device"], **content["versions"]}),
            lessons={name: _claims(entries) for name, entries in content["lessons"].items()},
            earlier_runs={name: _words(differs) for name, differs in content.get("earlier_runs", {}).items()},
        )
    except FileNotFoundError:
        raise ReportError(f"{path} is not there; `kdcourse run` writes a claims.json.") from None
    except IsADirectoryError:
        raise ReportError(f"{path} is a folder; name the claims.json in it, such as {path / 'claims.json'}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is not a claims.json of `kdcourse run` ({type(error).__name__}: {error}).") from None


def _words(entries: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in entries.items()}


def _claims(entries: Iterable[Mapping[str, Any]]) -> dict[str, Claim]:
    """The claims of a lesson by name.

    Raises:
        TypeError: a field does not hold what it should.
    """
    claims = {entry["name"]: claim_from(entry) for entry in entries}
    for claim in claims.values():
        limits = (claim.tolerance, claim.at_least, claim.at_most)
        numbers = (claim.expected, claim.spread, *limits)
        if not isinstance(claim.name, str) or not all(isinstance(each, int | float | None) for each in numbers):
            raise TypeError(f"the claim {claim.name!r} has a field that is no number")
        if all(limit is None for limit in limits):
            raise TypeError(f"the claim {claim.name!r} is held against nothing")
    return claims


def compare(before: Report, after: Report) -> Comparison:
    """Hold two runs against each other.

    Raises:
        ReportError: they have no claim of the same lesson.
    """
    moves = sorted(_moves(before, after), key=lambda move: (move.verdict in BREAKS, move.share_of_room), reverse=True)
    if not moves:
        raise ReportError(
            f"There is nothing to compare: the first run has claims of {_listed(before)}, "
            f"the second of {_listed(after)}."
        )
    missing = [lesson for lesson in before.lessons if lesson not in after.lessons]
    return Comparison(moves, missing, list(_notes(before, after)))


def _notes(before: Report, after: Report) -> Iterator[str]:
    for name, (was, now) in changed_circumstances(before, after).items():
        yield f"{name}: {was} → {now}"
    for which, report, other in (("first", before, after), ("second", after, before)):
        for lesson, differs in report.earlier_runs.items():
            yield f"{lesson} is older than the rest of the {which} run: {_listed_pairs(differs)}"
        for lesson in report.lessons:
            if lesson not in other.lessons:
                yield f"{lesson} is in the {which} run only"


def _listed_pairs(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs.items())


def _listed(report: Report) -> str:
    return ", ".join(name for name, claims in report.lessons.items() if claims) or "no lesson"


def changed_circumstances(before: Report, after: Report) -> dict[str, tuple[str, str]]:
    """Versions and device that differ between the two runs."""
    names = [*before.circumstances, *(after.circumstances.keys() - before.circumstances.keys())]
    pairs = {name: (before.circumstances.get(name, "–"), after.circumstances.get(name, "–")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _moves(before: Report, after: Report) -> Iterator[Move]:
    for lesson in before.lessons:
        if lesson not in after.lessons:
            continue
        old, new = before.lessons[lesson], after.lessons[lesson]
        for name in [*old, *(name for name in new if name not in old)]:
            yield Move(lesson, name, old.get(name), new.get(name))
