"""The guide for somebody who teaches this in a room: pages made of the lessons and a rehearsal's record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup, escape

from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.expectations import expectations_path, read_expectations
from kdcourse.course.formulas import mathml
from kdcourse.course.html_pages import TEMPLATES, policy
from kdcourse.course.lessons import Lesson
from kdcourse.course.predictions import Prediction
from kdcourse.course.rehearsal.record import Rehearsal
from kdcourse.course.rehearsal.report import measured_on, spoken
from kdcourse.course.workshop.plans import Plan, all_plans, all_spoken
from kdcourse.course.workshop.quizzes import LETTERS, TITLES, all_quizzes
from kdcourse.course.workshop.sections import WORDS_A_MINUTE, Asked, sections_of
from kdcourse.course.workshop.symptoms import CASES, symptoms_in
from kdcourse.course.workshop.timetable import HAND_IN, QUIZ, TALK, WAIT_FROM, Timetable, lay_out

MARK = "Made by `kdcourse "
"""What stands in each file of the guide, and in no other."""
CODE = re.compile(r"`([^`]+)`|\*([^*]+)\*")
FORMULAS = {
    "objective": (
        r"\mathcal{L} = \alpha \cdot \mathrm{CE}(y, p_1) + (1 - \alpha) \cdot T^2 \cdot \mathrm{KL}(q_T \,\|\, p_T)"
    ),
    "softened": r"p_T = \mathrm{softmax}(s / T), \quad q_T = \mathrm{softmax}(t / T)",
    "divergence": r"\mathrm{KL}(q \,\|\, p) = \sum_c q_c \, (\log q_c - \log p_c) \ge 0",
    "gradient": r"\frac{\partial}{\partial s} \, T^2 \, \mathrm{KL}(q_T \,\|\, p_T) = T \, (p_T - q_T)",
}
"""Those of the handout."""


def made_by(command: str) -> str:
    return f"<!-- {MARK}{command}`. Edit what it is made of, and not this file. -->"


def plan_page(table: Timetable, lessons: Mapping[str, Lesson], record: Rehearsal | None) -> str:
    """A plan by the minute, with what is left out, what else may be, and what the computer takes."""
    numbers = table.plan.lessons
    times = {number: record.lessons[number] for number in numbers if record and number in record.lessons}
    questions = enumerate(all_quizzes()["exit"], 1)
    return _rendered(
        "plan.md", made_by=made_by(f"plan {table.plan.name}"), table=table, lessons=lessons, record=record, times=times,
        together=sum(each.seconds for each in times.values()),
        longest=max((each.longest for each in times.values()), key=lambda pair: pair[1], default=None),
        not_timed=[number for number in numbers if number not in times],
        foreign=[place for place, each in questions if each.lesson not in numbers],
    )  # fmt: skip


def plans_page(lessons: Mapping[str, Lesson], record: Rehearsal | None) -> str:
    """The minutes of each lesson, and all plans."""
    times = record.lessons if record else {}
    tables = [lay_out(plan, lessons, times) for plan in all_plans().values()]

    def lessons_of(plan: Plan) -> list[Lesson]:
        return [lessons[number] for number in plan.lessons]

    return _rendered("plans.md", made_by=made_by("guide"), lessons=lessons, tables=tables, lessons_of=lessons_of)


@dataclass(frozen=True)
class Answered:
    """A prediction with what many people say, what is right, and why."""

    asked: Asked
    usual: str
    right: str
    why: str


def lessons_page(lessons: Mapping[str, Lesson]) -> str:
    """For each lesson: what to say, what opens it, what the room predicts, where people get stuck, what can go."""
    tasks = {number: [each for each in all_exercises().values() if each.lesson == number] for number in lessons}
    asked = {number: _answered(lesson) for number, lesson in lessons.items()}
    return _rendered("lessons.md", made_by=made_by("guide"), lessons=lessons, tasks=tasks, asked=asked)


def _answered(lesson: Lesson) -> list[Answered]:
    expectations = read_expectations(expectations_path(lesson.number, lesson.path.parent))
    found = []
    for each in (asked for section in sections_of(lesson) for asked in section.predictions):
        known = expectations.prediction(each.name)
        right = Prediction(each.name, each.question, each.choices, known).right
        found.append(Answered(each, known.usual, right, known.why))
    return found


def quizzes_page() -> str:
    """Both quizzes as they are handed out."""
    return _of_quizzes("quizzes.md")


def sheets_page() -> str:
    """The same to print: a sheet of A4 for each, so that nobody has the second while answering the first."""
    return _of_quizzes("sheets.html", policy=policy())


def answers_page() -> str:
    """Their answers, each with its reason and its source."""
    return _of_quizzes("answers.md")


def _of_quizzes(name: str, **more: str) -> str:
    return _rendered(name, made_by=made_by("guide"), quizzes=all_quizzes(), titles=TITLES, letters=LETTERS, **more)


def handout_page(lessons: Mapping[str, Lesson]) -> str:
    """One page for learners: formula, conventions, symptoms. It asks no server for anything, and prints on A4."""
    formulas = {name: Markup(mathml(tex, "inline")) for name, tex in FORMULAS.items()}  # noqa: S704  (our own)
    symptoms = symptoms_in(lessons[CASES])
    return _rendered("handout.html", made_by=made_by("guide"), policy=policy(), symptoms=symptoms, formulas=formulas)


def _rendered(name: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=name.endswith(".html"), trim_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "cell": _in_a_cell, "line": _in_a_line, "sentence": _as_sentence, "question": _question, "choice": _as_choice,
        "spoken": spoken, "code": _with_code, "measured_on": measured_on,
    }  # fmt: skip
    environment.globals |= {
        "spoken": all_spoken(), "words_a_minute": WORDS_A_MINUTE, "talk": TALK, "quiz": QUIZ,
        "hand_in": HAND_IN,
        "wait_from": int(WAIT_FROM),
    }  # fmt: skip
    return environment.get_template(f"{name}.j2").render(values)


def _in_a_line(text: str) -> str:
    return " ".join(text.split())


def _in_a_cell(text: str) -> str:
    return _in_a_line(text).replace("|", "\\|")


def _as_sentence(text: str) -> str:
    words = _in_a_line(text)
    return words[:1].upper() + words[1:]


def _question(asked: Asked) -> str:
    return f"{asked.question} ({' / '.join(asked.choices)})" if asked.choices else asked.question


def _as_choice(choice: str) -> str:
    """A call as code, all else as it is."""
    return f"`{choice}`" if choice.startswith("F.") else choice


def _with_code(text: str) -> Markup:
    """HTML in which `code` is code and *words* are emphasised."""
    parts, last = [], 0
    for found in CODE.finditer(text):
        marked = Markup("<code>{}</code>").format(found[1]) if found[1] else Markup("<em>{}</em>").format(found[2])
        parts += [escape(text[last : found.start()]), marked]
        last = found.end()
    return Markup("").join([*parts, escape(text[last:])])


def lessons_by_number(lessons: Sequence[Lesson]) -> dict[str, Lesson]:
    return {lesson.number: lesson for lesson in lessons}
