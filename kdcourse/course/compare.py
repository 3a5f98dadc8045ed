"""Two runs held against each other, for a maintainer: which claims moved, how far for what they allow, which broke."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdcourse.course.claims import Claim, claim_from
from kdcourse.course.misuse import MisuseError

Verdict = Literal["held", "broke", "mended", "still broken", "gone", "new"]
BREAKS: tuple[Verdict, ...] = ("broke", "gone")

FORMAT = 1
"""Of a `claims.json`; one that does not say has the first."""

MOST_IN_FULL = 1e4
"""A larger share of what is allowed is written with an exponent."""

Key = tuple[str, int]
"""A claim's name, and which of its namesakes in the lesson it is, from 1: none hides another."""


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
            _percent(self.share_of_room),
            "–" if self.share_of_spread is None else f"{self.share_of_spread:.1f}",
        )

    @property
    def difference(self) -> float:
        """After minus before, in the claim's unit; 0 if one is missing or nothing moved, NaN if one of them is."""
        if self.before is None or self.after is None or str(self.before.value) == str(self.after.value):
            return 0.0  # also between two NaN, or two infinities
        return self.after.value - self.before.value

    @property
    def share_of_room(self) -> float:
        """The difference against what the claim allowed before: its tolerance, or the distance from its bound."""
        if self.difference == 0 or self.before is None:
            return 0.0
        share = abs(self.difference) / self.before.room if self.before.room else math.inf
        return math.inf if math.isnan(share) else share

    @property
    def share_of_spread(self) -> float | None:
        """The difference against the standard deviation over seeds; nothing where no spread was measured."""
        spread = self.before.spread if self.before else None
        if spread is None or not spread > 0:  # over one seed it is NaN
            return None
        share = abs(self.difference) / spread
        return None if math.isnan(share) else share


@dataclass(frozen=True)
class Report:
    """A `claims.json`: what it was measured with, and the claims by lesson and key."""

    circumstances: Mapping[str, str]
    lessons: Mapping[str, Mapping[Key, Claim]]
    earlier_runs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Lessons that were run before the others, with something else."""


@dataclass(frozen=True)
class Comparison:
    """All that `compare` found."""

    moves: Sequence[Move]
    """Of the lessons that both runs hold, and what does not hold in a new one; what broke first, then by how far."""
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
        ReportError: it is not there, or is something else; the message names the file, and the field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # an editor on Windows may have put a byte order mark before it
        return _report(json.loads(text, object_pairs_hook=_with_each_key_once))
    except FileNotFoundError:
        raise ReportError(f"{path} is not there; `kdcourse run` writes a claims.json.") from None
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for a name that is too long)
            raise ReportError(
                f"{path} is a folder; name the claims.json in it, such as {path / 'claims.json'}."
            ) from None
        raise ReportError(f"{path} cannot be read ({error.strerror}); name a claims.json of `kdcourse run`.") from None
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not a claims.json of `kdcourse run`: {error}.") from None


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: a key stands twice, and one would hide the other.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} stands twice in one object")
    return found


def _report(content: object) -> Report:
    """What the file holds.

    Raises:
        ValueError: a field does not hold what it should; the message names it.
    """
    top = _object(content, "the whole")
    if (form := top.get("format", FORMAT)) != FORMAT:
        raise ValueError(f"its format is {reprlib.repr(form)}, and this kdcourse reads {FORMAT}; another version may")
    circumstances = {
        **{name: top.get(name) for name in ("python", "device")},
        **_object(top.get("versions"), "versions"),
    }
    lessons = _object(top.get("lessons"), "lessons")
    earlier_runs = _object(top.get("earlier_runs", {}), "earlier_runs")
    return Report(
        circumstances=_words(circumstances, ""),
        lessons={name: _claims(entries, name) for name, entries in lessons.items()},
        earlier_runs={name: _words(differs, f" of earlier run {name}") for name, differs in earlier_runs.items()},
    )


def _object(part: object, where: str) -> Mapping[str, Any]:
    if not isinstance(part, Mapping):
        raise ValueError(f"{where} is {reprlib.repr(part)}, which is no object")
    return part


def _words(part: object, where: str) -> dict[str, str]:
    words = _object(part, where)
    for name, word in words.items():
        if not isinstance(word, str):
            raise ValueError(f"{name}{where} is {reprlib.repr(word)}, which is no text")
    return dict(words)


def _claims(entries: object, lesson: str) -> dict[Key, Claim]:
    if not isinstance(entries, list):
        raise ValueError(f"lesson {lesson} is {reprlib.repr(entries)}, which is no list of claims")
    claims: dict[Key, Claim] = {}
    namesakes: Counter[str] = Counter()
    for place, entry in enumerate(entries, 1):
        try:
            claim = claim_from(entry)
        except ValueError as error:
            raise ValueError(f"claim {place} of lesson {lesson}: {error}") from None
        namesakes[claim.name] += 1
        claims[claim.name, namesakes[claim.name]] = claim
    return claims


def compare(before: Report, after: Report) -> Comparison:
    """Hold two runs against each other.

    Raises:
        ReportError: they have no claim of the same lesson.
    """
    moves = list(_moves(before, after))
    if not moves:
        raise ReportError(
            f"There is nothing to compare: the first run has claims of {_listed(before)}, "
            f"the second of {_listed(after)}."
        )
    moves += _broken_in_new_lessons(before, after)
    moves.sort(key=lambda move: (move.verdict in BREAKS, move.share_of_room), reverse=True)
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
    for lesson, old in before.lessons.items():
        if lesson in after.lessons:
            new = after.lessons[lesson]
            yield from (_move(lesson, key, old.get(key), new.get(key)) for key in {**old, **new})


def _broken_in_new_lessons(before: Report, after: Report) -> Iterator[Move]:
    for lesson, claims in after.lessons.items():
        if lesson not in before.lessons:
            yield from (_move(lesson, key, None, claim) for key, claim in claims.items() if not claim.holds)


def _move(lesson: str, key: Key, before: Claim | None, after: Claim | None) -> Move:
    name, number = key
    return Move(lesson, name if number == 1 else f"{name} ({number})", before, after)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < MOST_IN_FULL or math.isinf(share) else f"{100 * share:.0e}%"
