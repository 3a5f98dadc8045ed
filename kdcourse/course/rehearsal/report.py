"""What a rehearsal has measured, for reading."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from kdcourse.course.rehearsal.record import LessonTimes, Rehearsal

KINDS = {
    "right": "all right",
    "known": "known mistakes",
    "unknown": "mistakes that nobody has declared",
    "blank": "blank",
    "hostile": "hostile",
}
STAGES = {"editions": "editions made", "answers": "answers written and handed in", "grading": "graded"}


def to_markdown(rehearsal: Rehearsal) -> str:
    return "\n".join(_lines(rehearsal)) + "\n"


def _lines(rehearsal: Rehearsal) -> Iterator[str]:
    problems = rehearsal.problems
    yield "# A rehearsal"
    yield ""
    yield sentence(rehearsal)
    yield ""
    yield "As expected, every one." if not problems else "**Not as expected:**"
    yield from ["", *(f"- {problem}" for problem in problems)] if problems else []
    if rehearsal.left_out:
        yield ""
        yield f"Left out, since this system does not hold them off: {', '.join(rehearsal.left_out)}."
    yield from ["", "## Seconds", "", *stages(rehearsal), "", "## Who", "", *who(rehearsal)]
    if rehearsal.lessons:
        yield from ["", "## Lessons", "", *lessons(rehearsal.lessons)]


def sentence(rehearsal: Rehearsal) -> str:
    """The class and its longest submission."""
    longest = rehearsal.longest
    return (
        f"On {measured_on(rehearsal)}, {rehearsal.people} people were graded in "
        f"{spoken(rehearsal.seconds['grading'])} (known mistakes: {rehearsal.known_mistakes}, hostile notebooks: "
        f"{rehearsal.count('hostile')}). The longest took {spoken(longest.seconds)}: {longest.file}."
    )


def measured_on(rehearsal: Rehearsal) -> str:
    """The machine, and whether it had other things to do."""
    machine = rehearsal.machine
    words = f"{machine['cores']} cores ({machine['system']}, Python {machine['python']}, torch {machine['torch']})"
    return f"{words} with a load of {machine['load']} before" if machine.get("load") else words


def spoken(seconds: float) -> str:
    """ "48 s" or "3 min 5 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"  # noqa: PLR2004  (as one says it)


def stages(rehearsal: Rehearsal) -> Iterator[str]:
    yield "| stage | seconds |"
    yield "|---|---|"
    for stage, words in STAGES.items():
        yield f"| {words} | {rehearsal.seconds[stage]:.0f} |"


def who(rehearsal: Rehearsal) -> Iterator[str]:
    """A row for each kind of people: what was given, and how long the longest took."""
    given: dict[str, Counter[str]] = defaultdict(Counter)
    longest: dict[str, float] = defaultdict(float)
    for each in rehearsal.submissions:
        given[each.kind].update(words.partition(":")[0] for words in each.given.values())
        longest[each.kind] = max(longest[each.kind], each.seconds)
    yield "| handed in | people | verdicts | longest, seconds |"
    yield "|---|---|---|---|"
    for kind, words in KINDS.items():
        said = ", ".join(f"{count} {verdict}" for verdict, count in given[kind].most_common())
        yield f"| {words} | {rehearsal.count(kind)} | {said} | {longest[kind]:.0f} |"


def lessons(times: Mapping[str, LessonTimes]) -> Iterator[str]:
    yield "| lesson | seconds | longest cell | seconds |"
    yield "|---|---|---|---|"
    for number, each in times.items():
        cell, seconds = each.longest
        yield f"| {number} | {each.seconds:.0f} | `{cell}` | {seconds:.0f} |"
