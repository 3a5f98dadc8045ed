"""What a rehearsed class hands in: right answers that are right, mistakes that are those that they are called."""

import io
import json
import random
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from kdcourse.course.exercises.calling import all_same, run_all
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.exercises.exercise import Exercise
from kdcourse.course.grading.answers import answers_in
from kdcourse.course.grading.confine import RULES
from kdcourse.course.lessons import course_lessons, course_notebooks, find_lessons
from kdcourse.course.rehearsal.answers import BLANK, asked_in, filled_in, known_mistakes, right, unknown_mistake
from kdcourse.course.rehearsal.hostile import ATTACKS, FILES
from kdcourse.course.rehearsal.people import ClassError, Expected, differences, kinds_of, make_class
from kdcourse.course.rehearsal.sources import NotOneTextError, source_of_mistake, source_of_reference

PLAN = find_lessons(["00", "01", "03", "07"], course_lessons())
FUNCTIONS = [each for each in all_exercises().values() if isinstance(each, Exercise) and each.lesson in "00 01 03 07"]
HELD = dict.fromkeys(RULES, True)


def made(people=40, seed=0, lessons=PLAN, held=HELD, canary="/nowhere/canary.txt"):
    return make_class(people, seed, lessons, course_notebooks(), Path(canary), held)


def function_of(code, name):
    scope = {"__name__": "an answer"}
    exec(code, scope)  # noqa: S102  (code of this repository)
    return scope[name]


@pytest.mark.parametrize("task", FUNCTIONS, ids=lambda each: each.id)
def test_a_text_does_what_its_function_does(task):
    """A known mistake that is another one once it has been written out, and a class that teaches nothing about it."""
    written = 0
    for mistake in task.misconceptions:
        try:
            code = source_of_mistake(task, mistake.name, "answer")
        except NotOneTextError:
            continue
        written += 1
        assert "kdcourse.course" not in code
        answer = function_of(code, "answer")
        given, expected = (run_all(task, each, task.examples) for each in (answer, mistake.wrong))
        assert all_same(given, expected, task.tolerance), mistake.name
    assert written == len(task.misconceptions)
    reference = function_of(source_of_reference(task, "answer"), "answer")
    assert all_same(*(run_all(task, each, task.examples) for each in (reference, task.reference)), task.tolerance)


def test_what_no_text_can_bring_is_refused():
    """An answer that stops at an import of what the grader hides, counted as a known mistake."""
    with pytest.raises(NotOneTextError, match="does not declare nothing"):
        source_of_mistake(all_exercises()["03.objective"], "nothing", "answer")
    for task in all_exercises().values():
        for mistake in task.misconceptions:
            try:
                assert "kdcourse.course" not in source_of_mistake(task, mistake.name, "answer")
            except NotOneTextError as error:
                assert str(error)


def test_every_exercise_has_a_solution_to_hand_in():
    """A lesson in which nobody is right, because its cells were tagged otherwise."""
    for lesson in course_lessons():
        assert [each.id for each in asked_in(lesson)] == [each.id for each in lesson.exercises]
    loop = next(each for each in asked_in(PLAN[2]) if each.id == "03.loop")
    assert [each.id for each in asked_in(PLAN[2]) if loop.leans_on(each)] == ["03.objective"]


def test_an_answer_is_what_the_grader_takes():
    """Answers that stand in the notebook and that nobody finds there; a blank one that counts as an attempt."""
    lesson = PLAN[1]
    asked = asked_in(lesson)
    answers = [(asked[0], right(asked[0])), (asked[1], known_mistakes(asked[1])[0]), (asked[2], BLANK)]
    found = {each.exercise: each.code for each in answers_in(json.dumps(filled_in(lesson.cells, answers)).encode())}
    assert list(map(bool, found.values())) == [True, True, False]


def test_an_unknown_mistake_changes_a_value():
    """A mutant that is right, and a rehearsal that calls the grader wrong for passing it."""
    for lesson in PLAN:
        for asked in asked_in(lesson):
            task, answer = all_exercises()[asked.id], unknown_mistake(asked, lesson, random.Random(7))
            assert (answer is not None) == isinstance(task, Exercise), asked.id
            if answer is not None:
                [code] = [
                    each.code
                    for each in answers_in(json.dumps(filled_in(lesson.cells, [(asked, answer)])).encode())
                    if each.exercise == asked.id
                ]
                given = run_all(task, function_of(code, asked.function), task.examples)
                expected = run_all(task, task.reference, task.examples)
                assert not all_same(given, expected, task.tolerance)


def test_a_class_is_of_all_kinds():
    """A rehearsal of forty people in which nobody attacks, or nobody is right."""
    kinds = Counter(kinds_of(40))
    assert kinds == {"known": 12, "hostile": 12, "unknown": 6, "blank": 4, "right": 6}
    assert Counter(kinds_of(6)) == {"known": 1, "hostile": 1, "unknown": 1, "blank": 1, "right": 2}
    played = made()
    assert len({each.path for each in played.handed_in}) == 40
    assert sum(len(each.expected.mistakes) for each in played.handed_in) >= 20
    assert len({each.person.partition("-")[2] for each in played.handed_in if each.kind == "hostile"}) == 12
    assert {each.lesson for each in played.handed_in} == {"00", "01", "03", "07"}
    assert sum(each.path.endswith(".zip") for each in played.handed_in) > 10
    with pytest.raises(ClassError, match="at least 6"):
        made(5)


def test_the_same_seed_is_the_same_class():
    """A rehearsal that goes on after a crash with other people."""
    first, again, other = made(12), made(12), made(12, seed=1)
    assert first == again
    assert [each.data for each in first.handed_in] != [each.data for each in other.handed_in]


def test_what_would_do_harm_is_left_out():
    """A fork bomb on a system that does not hold it off."""
    played = made(held=HELD | {"processes": False, "writing": False})
    assert set(played.left_out) == {"starts-processes", "writes-outside"}
    told = b"".join(each.data if not each.path.endswith(".zip") else inside(each.data) for each in played.handed_in)
    assert b"os.fork" not in told
    assert b"canary.txt" not in told
    assert all(attack.needs in ("", *RULES) for attack in ATTACKS)
    assert len({attack.name for attack in ATTACKS} | set(FILES)) == len(ATTACKS) + len(FILES)


def inside(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.namelist()[0])


EXPECTED = Expected("graded", {"a": ("passed",), "b": ("misconception",)}, {"b": "hard-label"}, "twin.ipynb")
PASSED, MISTAKEN = (
    {"verdict": "passed", "misconception": ""},
    {"verdict": "misconception", "misconception": "hard-label"},
)


@pytest.mark.parametrize(
    ("status", "exercises", "notes", "words"),
    [
        ("graded", {"a": PASSED, "b": MISTAKEN}, ["The same file as twin.ipynb."], []),
        ("refused", {}, [], ["it is refused, and should be graded"]),
        ("graded", {"a": PASSED}, [], ["it has verdicts for ['a'], and should have for ['a', 'b']"]),
        ("graded", {"a": MISTAKEN, "b": MISTAKEN}, ["twin.ipynb"], ["a is misconception, and should be passed"]),
        (
            "graded", {"a": PASSED, "b": MISTAKEN | {"misconception": "counts"}}, ["twin.ipynb"],
            ["b is counts, and should be hard-label"],
        ),
        ("graded", {"a": PASSED, "b": MISTAKEN}, [], ["nobody says that it is twin.ipynb"]),
    ],
)  # fmt: skip
def test_what_is_other_than_expected_is_said(status, exercises, notes, words):
    """A rehearsal that finds everything in order."""
    assert differences(EXPECTED, status, exercises, notes) == words
