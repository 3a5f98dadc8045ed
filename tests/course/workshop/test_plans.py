"""Plans for a room: minutes that are the lessons' own, nothing twice, nothing between, and pages that are of today."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kdcourse.course import cli
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.lessons import Lesson, LessonError, course_lessons
from kdcourse.course.rehearsal.record import LessonTimes
from kdcourse.course.workshop.guide import guide, record_of, write_guide
from kdcourse.course.workshop.pages import plan_page
from kdcourse.course.workshop.plans import Break, Plan, PlanError, all_plans, all_spoken, breaks_of
from kdcourse.course.workshop.quizzes import all_quizzes
from kdcourse.course.workshop.sections import sections_of, shared_out
from kdcourse.course.workshop.timetable import HAND_IN, QUIZ, TALK, lay_out

DOCS = Path(__file__).parents[3] / "docs" / "instructor"
LESSONS = {lesson.number: lesson for lesson in course_lessons()}


def one_day(*numbers, cut=(), breaks=()):
    return Plan("a-plan", "A plan", [list(numbers)], list(cut), list(breaks))


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda each: each.number)
def test_sections_and_exercises_are_the_whole_lesson(lesson):
    """A section, a prediction or an exercise that no plan has; minutes that get lost in rounding."""
    sections = sections_of(lesson)
    exercises = [each for section in sections for each in section.exercises]
    assert exercises == lesson.exercises
    assert sum(section.minutes for section in sections) + sum(each.minutes for each in exercises) == lesson.minutes
    sources = ["".join(cell["source"]) for cell in lesson.cells]
    asked = [name for source in sources for name in re.findall(r'^predict\(\s*"([^"]+)"', source, re.MULTILINE)]
    assert [each.name for section in sections for each in section.predictions] == asked
    prose = ["".join(cell["source"]) for cell in lesson.cells if cell["cell_type"] == "markdown"]
    assert len(sections) == 1 + sum(len(re.findall(r"^## ", text, re.MULTILINE)) for text in prose)


def test_minutes_are_shared_out_by_weight():
    """A long section that gets as many minutes as a short one; a minute too many."""
    assert shared_out(10, [1, 1, 8]) == [1, 1, 8]
    assert shared_out(10, [1, 1, 1]) in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    assert sum(shared_out(44, [0.3, 2.2, 5.1, 0.01])) == 44


def test_a_lesson_without_minutes_is_refused(tmp_path):
    """A plan in which a lesson takes no time."""
    path = tmp_path / "20_short.ipynb"
    path.write_text(LESSONS["01"].path.read_text(encoding="utf-8").replace("**45 minutes**", "a while"), "utf-8")
    with pytest.raises(LessonError, match="20_short or one of its exercises does not say"):
        sections_of(Lesson(path))


def test_nobody_is_asked_about_lessons_that_were_not_taught():
    """An exit quiz of ten minutes with five questions that nobody can answer."""
    titles = {name: [row.title for row in lay_out(plan, LESSONS, {}).rows] for name, plan in all_plans().items()}
    assert "Exit quiz" in titles["half-day"]
    assert "Exit quiz" not in titles["half-day-trainers"]


def test_a_plan_takes_the_minutes_of_its_lessons():
    """A plan that forgets the predictions that a room answers aloud, or a lesson."""
    table = lay_out(one_day("01", "02"), LESSONS, {})
    lessons = [LESSONS["01"], LESSONS["02"]]
    predictions = sum("".join(cell["source"]).count("\npredict(") for each in lessons for cell in each.cells)
    predictions += sum("".join(cell["source"]).startswith("predict(") for each in lessons for cell in each.cells)
    assert table.predictions == predictions > 10
    assert table.minutes() == 45 + 45 + TALK * (predictions + 2) + 2 * QUIZ + HAND_IN


@pytest.mark.parametrize("plan", all_plans().values(), ids=lambda each: each.name)
def test_nothing_overlaps_and_nothing_is_between(plan):
    """Two things at one time; a quarter of an hour in which nobody knows what to do."""
    table = lay_out(plan, LESSONS, {"07": LessonTimes(120.0, {"pair": 90.0})})
    for day in range(1, len(plan.days) + 1):
        rows = [row for row in table.rows if row.day == day]
        assert rows[0].begin == plan.start
        assert [row.begin + row.minutes for row in rows[:-1]] == [row.begin for row in rows[1:]]
        assert len([row for row in rows if row.kind == "break"]) == len(plan.breaks)
    assert [row.kind for row in table.rows].count("quiz") in (1, 2)
    assert table.rows[0].kind == "quiz"


@pytest.mark.parametrize("plan", all_plans().values(), ids=lambda each: each.name)
def test_nobody_sits_for_longer_than_an_hour_and_a_half(plan):
    """Two hours of a room without a window, and no break."""
    table = lay_out(plan, LESSONS, record_of(None).lessons)
    for day in range(1, len(plan.days) + 1):
        sat = [0]
        for row in (row for row in table.rows if row.day == day):
            if row.kind == "break":
                sat.append(0)
            else:
                sat[-1] += row.minutes
        assert max(sat) <= 90, sat


@pytest.mark.parametrize("plan", all_plans().values(), ids=lambda each: each.name)
def test_a_day_ends_with_what_is_handed_in(plan):
    """Forty people who leave with their answers; a handout that gives away what the room is asked."""
    rows = lay_out(plan, LESSONS, {}).rows
    assert [row for row in rows if row.kind == "hand-in"] == [rows[-1]]
    assert "handout" in rows[-1].title


def test_what_the_exit_quiz_asks_is_not_left_out():
    """A question about a section that the plan has cut."""
    for plan in all_plans().values():
        cut = [
            section for number in plan.lessons for section in sections_of(LESSONS[number])
            if f"{number}: {section.title}" in plan.cut
        ]  # fmt: skip
        shown = {name for section in cut for name in (*section.cells, *(each.name for each in section.predictions))}
        assert not shown & {name for each in all_quizzes()["exit"] for name in (each.cell, each.prediction)}, plan.name


def test_lessons_that_a_plan_takes_for_granted_are_said():
    """A room that is asked about T² and has never seen PyTorch's KL, with no word of it to whoever teaches."""
    assert LESSONS["07"].prerequisites == ["00", "03", "04", "05"]
    assert LESSONS["00"].prerequisites == []
    assert lay_out(one_day("00", "01", "03", "07"), LESSONS, {}).taken_for_granted == {
        "02": ["03"], "04": ["07"], "05": ["07"],
    }  # fmt: skip
    assert lay_out(one_day("00", "01"), LESSONS, {}).taken_for_granted == {}
    page = plan_page(lay_out(one_day("03"), LESSONS, {}), LESSONS, None)
    assert f"| 02 | 03 | *{all_spoken()['02'].say}* |" in page
    assert "for the computer" not in page


@pytest.mark.parametrize("plan", all_plans().values(), ids=lambda each: each.name)
def test_what_is_said_does_not_answer_what_is_asked(plan):
    """A sentence like: the gradient shrinks like one over T squared, before the room predicts by how much."""
    page = plan_page(lay_out(plan, LESSONS, {}), LESSONS, None).partition("## What is left out")[0]
    lines = [line for line in page.replace("\\|", "|").splitlines() if re.match(r"\| \d\d:\d\d ", line)]

    def line_of(words):
        return max((place for place, line in enumerate(lines) if " ".join(words.split()) in line), default=-1)

    for number in plan.lessons:
        asked = [each.question for section in sections_of(LESSONS[number]) for each in section.predictions]
        last = max(map(line_of, asked))
        assert 0 <= last <= line_of(all_spoken()[number].say)


def test_what_is_cut_is_gone_and_saves_its_minutes():
    """A cut that is only said."""
    whole = lay_out(one_day("03"), LESSONS, {})
    section = next(each for each in sections_of(LESSONS["03"]) if each.title.startswith("7 ·"))
    less = lay_out(one_day("03", cut=["03.loop", f"03: {section.title}"]), LESSONS, {})
    saved = 12 + section.minutes + TALK * len(section.predictions)
    assert whole.minutes() - less.minutes() == saved == sum(cut.minutes for cut in less.cuts)
    assert not [row for row in less.rows if row.title == section.title or row.title.startswith("03.loop")]
    assert all(cut.reason for cut in (*less.cuts, *less.next_cuts))
    assert not {cut.name for cut in less.cuts} & {cut.name for cut in less.next_cuts}


def test_a_long_computation_is_waited_for():
    """A room that looks at an hourglass, and a plan that does not know of it."""
    cell = sections_of(LESSONS["01"])[1].cells[-1]
    quick, slow = (lay_out(one_day("01"), LESSONS, {"01": LessonTimes(99.0, {cell: each})}) for each in (5.0, 61.0))
    assert slow.minutes("wait") == slow.minutes() - quick.minutes() == 2


def test_a_break_comes_between_two_parts():
    """A bell in the middle of an exercise."""
    table = lay_out(one_day("01", breaks=[Break(9 * 60 + 31, 15)]), LESSONS, {})
    (pause,) = [place for place, row in enumerate(table.rows) if row.kind == "break"]
    assert table.rows[pause - 1].begin < 9 * 60 + 31 <= table.rows[pause].begin
    assert table.rows[pause + 1].begin == table.rows[pause].begin + 15


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (one_day("01", cut=["01.nothing"]), "cuts 01.nothing, which its lessons do not have"),
        (one_day("01", cut=["01.gradient"]), "does not say why"),
        (one_day("55"), "has lessons 55, and there are 00, 01"),
        (one_day("01", breaks=[Break(23 * 60, 15)]), "break at 23:00, and the day is over at 1"),
        (one_day(*LESSONS).moved("20:00"), "does not fit into a day that begins at 20:00"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan, words):
    """A section that was renamed, and that a plan still believes to have left out."""
    with pytest.raises(PlanError, match=words):
        lay_out(plan, LESSONS, {})


@pytest.mark.parametrize("text", ["10:30", "10:30/x", "25:00/10", "10:30/0", "tea"])
def test_a_break_that_is_none_is_refused(text):
    """A lunch that is lost for a typing error."""
    with pytest.raises(PlanError, match="write"):
        breaks_of(text)


def test_breaks_move_with_the_day():
    """Lunch before the morning has begun."""
    plan = all_plans()["day"].moved("10:15")
    assert plan.start - 9 * 60 == 75
    own = all_plans()["day"].breaks
    assert [each.at - before.at for each, before in zip(plan.breaks, own, strict=True)] == [75] * len(own)
    assert plan.moved("10:15", "").breaks == []


def test_something_is_said_of_every_lesson_and_each_cut_exists():
    """A new lesson that a room begins without a word; advice to leave out a section that was renamed."""
    assert list(all_spoken()) == list(LESSONS)
    for number, spoken in all_spoken().items():
        sections = sections_of(LESSONS[number])
        known = {section.title for section in sections} | {each.id for each in LESSONS[number].exercises}
        assert set(spoken.cuts) <= known, number


def test_the_pages_are_those_of_today():
    """A guide to a version of the course that is gone; `kdcourse guide --out docs/instructor` writes it anew."""
    for name, text in guide(course_lessons(), record_of(None)).items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, name


def test_where_people_get_stuck_is_all_that_is_known():
    """A mistake that a room makes and the guide does not know; a prediction without its answer."""
    page = " ".join((DOCS / "lessons.md").read_text(encoding="utf-8").split())
    for task in all_exercises().values():
        assert [each.name for each in task.misconceptions if " ".join(each.signature.split()) not in page] == []
    for number, lesson in LESSONS.items():
        known = read_expectations(expectations_path(number, lesson.path.parent)).predictions
        assert known, number
        for each in known.values():
            assert f"Most say *{' '.join(each.usual.split())}*" in page


def test_a_guide_replaces_a_guide_and_nothing_else(tmp_path):
    """Somebody's own notes, overwritten; a page with half of the text."""
    (tmp_path / "day.md").write_text("my notes", encoding="utf-8")
    (tmp_path / "plans.md").write_text("Made by `kdcourse guide`, long ago", encoding="utf-8")
    renamed = write_guide(course_lessons(), None, tmp_path)
    assert [path.name for path in renamed] == ["day.md"]
    assert renamed[tmp_path / "day.md"].read_text(encoding="utf-8") == "my notes"
    assert "# Minutes and plans" in (tmp_path / "plans.md").read_text(encoding="utf-8")
    assert write_guide(course_lessons(), None, tmp_path) == {}


def test_a_plan_is_shown_and_written(tmp_path):
    """An option that changes nothing; a name that is wrong and a traceback."""
    page = tmp_path / "day.md"
    asked = ["plan", "half-day", "--start", "13:00", "--breaks", "14:30/20"]
    shown = CliRunner().invoke(cli.app, asked)
    assert re.search(r"^13:00 +10 +Entry quiz, while the laptops get going$", shown.output, re.MULTILINE)
    assert re.search(r"^14:\d\d +20 +Break$", shown.output, re.MULTILINE)
    written = CliRunner().invoke(cli.app, [*asked, "--markdown", str(page)])
    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert "| 13:00 | 10 |" in page.read_text(encoding="utf-8")
    assert "there is no break" in CliRunner().invoke(cli.app, ["plan", "half-day", "--breaks", ""]).output
    assert "there is no break" not in CliRunner().invoke(cli.app, ["plan", "half-day"]).output
    refused = CliRunner().invoke(cli.app, ["plan", "week"])
    assert refused.exit_code == 2
    assert "half-day, half-day-trainers, day" in refused.output
