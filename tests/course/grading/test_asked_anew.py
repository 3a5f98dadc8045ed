"""A right answer is right on what no notebook asks; one that has learned by heart what is asked is not."""

import pytest
from course.exercises.rewrites import REWRITES

from kdcourse.course.exercises import Exercise, all_exercises
from kdcourse.course.exercises.diagnosis import diagnose, edges_of, inputs_of
from kdcourse.course.exercises.kinds.experiments import DesignTheExperiment
from kdcourse.course.exercises.kinds.faults import NameTheFault
from kdcourse.course.exercises.kinds.mutants import KillTheMutants
from kdcourse.course.grading.anew import asked_anew

TASKS = all_exercises()


def of_kind(kind):
    return [each for each in TASKS.values() if isinstance(each, kind)]


def by_heart(table):
    """An answer that looks up what it is given."""
    return lambda *given: table.get(repr(given), next(iter(table.values())))


def by_counting(said):
    """An answer that knows how often it was asked, and begins anew at the end."""
    calls = []

    def answer(*given):
        calls.append(given)
        return said[(len(calls) - 1) % len(said)]

    return answer


def refused(task, answer):
    """Whether an answer passes in a notebook, and not where it is graded."""
    assert diagnose(task, answer).passed
    found = asked_anew(task, answer, "its text")
    return found is not None and found.kind == "different" and "does not ask" in found.message


@pytest.mark.parametrize("name", ["00.soft_label", "05.collate", "06.labels", "10.budget", "13.kept"])
def test_a_table_of_inputs_is_no_answer(name):
    """Numbers that were computed with the reference, in a notebook, and handed in."""
    task = TASKS[name]
    assert refused(task, by_heart({repr(each): task.reference(*each) for each in (*inputs_of(task), *edges_of(task))}))


def test_a_table_of_runs_is_no_answer():
    """The same, for logs that anybody can play."""
    task = TASKS["12.unfair"]
    runs = {repr((task.run(fault, seed),)): fault for fault in task.faults for seed in task.seeds}
    assert refused(task, by_heart(runs))
    assert refused(task, by_counting([fault for fault in task.faults for _ in task.seeds]))


def test_a_count_of_worlds_is_no_answer():
    """250 times no and 250 times yes."""
    assert refused(TASKS["12.decide"], by_counting([False] * 250 + [True] * 250))


def test_a_count_of_mutants_is_no_answer():
    """A test that looks at nothing, and knows who comes when."""
    for task in of_kind(KillTheMutants):
        said = [True] * len(task.right) + [False] * len(task.mutants)
        assert refused(task, by_counting(said + said[::-1]))


@pytest.mark.parametrize(
    "task", of_kind(Exercise | NameTheFault | DesignTheExperiment | KillTheMutants), ids=lambda each: each.id
)
def test_right_answers_are_right_there_too(task):
    """A right answer that is refused for a rare input."""
    for answer in (task.reference, *REWRITES.get(task.id, [])):
        assert asked_anew(task, answer, answer.__name__) is None
