"""Write the guide: what of it can be made, is made, so that it cannot go stale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdcourse.course.lessons import Lesson
from kdcourse.course.rehearsal.record import STORED, Rehearsal, read_rehearsal
from kdcourse.course.rehearsal.report import to_markdown as rehearsal_page
from kdcourse.course.workshop.pages import (
    MARK,
    answers_page,
    handout_page,
    lessons_by_number,
    lessons_page,
    made_by,
    plan_page,
    plans_page,
    quizzes_page,
    sheets_page,
)  # fmt: skip
from kdcourse.course.workshop.plans import find_plan
from kdcourse.course.workshop.timetable import lay_out
from kdcourse.files import set_aside, write_whole

WITH_A_PAGE = ("half-day", "day")
"""Plans that the guide has a page of; `kdcourse plan` makes those of others."""


def guide(lessons: Sequence[Lesson], record: Rehearsal | None) -> dict[str, str]:
    """Each file of the guide with its text."""
    by_number = lessons_by_number(lessons)
    times = record.lessons if record else {}
    plans = {f"{name}.md": lay_out(find_plan(name), by_number, times) for name in WITH_A_PAGE}
    pages = {
        "plans.md": plans_page(by_number, record),
        **{name: plan_page(table, by_number, record) for name, table in plans.items()},
        "lessons.md": lessons_page(by_number),
        "quizzes.md": quizzes_page(),
        "sheets.html": sheets_page(),
        "answers.md": answers_page(),
        "handout.html": handout_page(by_number),
    }
    return pages | ({"rehearsal.md": _marked(rehearsal_page(record), "rehearse")} if record else {})


def write_guide(lessons: Sequence[Lesson], record: Rehearsal | None, out: Path) -> dict[Path, Path]:
    """Write the guide into `out`, each file whole; an earlier guide is replaced, other files of its names are renamed.

    Returns:
        The files that were renamed, each with its new name.

    Raises:
        OSError: `out` cannot be written.
    """
    renamed = {}
    texts = guide(lessons, record)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = out / name
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            renamed[path] = set_aside(path)
        write_whole(path, text)
    return renamed


def record_of(path: Path | None) -> Rehearsal | None:
    """The record in this file; or that which the course brings, if it brings one.

    Raises:
        RecordError: the file is none.
    """
    return read_rehearsal(path) if path else read_rehearsal() if STORED.is_file() else None


def _marked(page: str, command: str) -> str:
    """A page with its mark behind the title."""
    title, _, rest = page.partition("\n")
    return f"{title}\n\n{made_by(command)}\n{rest}"
