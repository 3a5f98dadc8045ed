"""Exercises that ask for a test, a diagnosis, an experiment, a repair or a witness: judged rightly, and kindly."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import Misconception
from kdcourse.course.exercises.diagnosis import diagnose
from kdcourse.course.exercises.kinds.experiments import BudgetError, DesignTheExperiment
from kdcourse.course.exercises.kinds.faults import NameTheFault
from kdcourse.course.exercises.kinds.judged import Suspect
from kdcourse.course.exercises.kinds.mutants import KillTheMutants
from kdcourse.course.exercises.kinds.repairs import Property, RepairARun
from kdcourse.course.exercises.kinds.witnesses import FindTheWitness

SETTINGS = {"id": "99.kind", "title": "A kind", "difficulty": 1, "minutes": 2}


def stub(*inputs):
    raise NotImplementedError


# ---------------------------------------------------------------------------------------------------------------------
# Kill the mutants


def doubles(double):
    return double(3) == 6 and double(-1) == -2


MUTANTS = KillTheMutants(
    **SETTINGS, reference=doubles,
    right=[Suspect("twice", lambda x: 2 * x), Suspect("a sum", lambda x: x + x)],
    mutants=[Suspect("square", lambda x: x**2), Suspect("size", lambda x: 2 * abs(x)), Suspect("none", lambda x: None)],
    misconceptions=[Misconception("positive-alone", lambda double: double(3) == 6, "You try 3 alone.", "section 1")],
)  # fmt: skip


def asserting(double):
    assert double(3) == 6
    assert double(-1) == -2


def flip_flop(double, said=[True]):  # noqa: B006  (remembers, as a test must not)
    said.append(not said[-1])
    return said[-1]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (doubles, "passed", "kills 3 of 3 mutants and passes 2 of 2"),
        (asserting, "passed", "kills 3 of 3"),
        (lambda double: np.bool_(doubles(double)), "passed", "kills 3 of 3"),
        (lambda double: double(3) == 6, "misconception", "You try 3 alone"),
        (lambda double: double(3) == 6, "misconception", "survive: +size"),
        (lambda double: False, "different", "refused though right: twice; a sum"),
        (lambda double: double(2) == 4, "different", "survive: +square; size"),
        (lambda double: double(1) + 1 == 3, "error", "TypeError"),
        (lambda double: torch.ones(2), "error", "neither true nor false"),
        (flip_flop, "error", "two things of one function"),
        (stub, "not attempted", "not attempted yet"),
    ],
)
def test_a_test_is_judged_by_what_it_kills_and_passes(answer, kind, words):
    """A test that refuses everything, and so kills every mutant; one that gives another answer each time."""
    assert_diagnosed(MUTANTS, answer, kind, words)


# ---------------------------------------------------------------------------------------------------------------------
# Name the fault


def toy_log(fault, seed):
    noise = np.random.default_rng(seed).normal(scale=0.01, size=5)
    return {"healthy": np.linspace(1, 0, 5), "stuck": np.ones(5), "rising": np.linspace(1, 2, 5)}[fault] + noise


def by_the_end(log):
    change = log[-1] - log[0]
    return "stuck" if abs(change) < 0.2 else ("rising" if change > 0 else "healthy")


FAULTS = NameTheFault(
    **SETTINGS, faults=["healthy", "stuck", "rising"], run=toy_log, reference=by_the_end,
    misconceptions=[
        Misconception("sign", lambda log: by_the_end(log).replace("rising", "stuck"), "Look at signs.", "section 1")
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_the_end, "passed", "30 of 30 runs named rightly"),
        (lambda log: "stuck" if by_the_end(log) == "rising" else by_the_end(log), "misconception", "Look at signs"),
        (lambda log: "healthy", "different", r"10 of 30 .* 90% are asked for"),
        (lambda log: "healthy", "different", r"rising: +0 of 10 named; taken for 'healthy' \(10\)"),
        (lambda log: "broken", "error", "'broken', which is none of 'healthy', 'stuck', 'rising'"),
        (lambda log: log.nothing, "error", "AttributeError"),
        (lambda log: None, "error", "a `return` is missing"),
        (stub, "not attempted", "not attempted yet"),
    ],
)
def test_a_diagnosis_is_judged_by_new_runs(answer, kind, words):
    """A learner who is told only "wrong", and not what was taken for what."""
    assert_diagnosed(FAULTS, answer, kind, words)


# ---------------------------------------------------------------------------------------------------------------------
# Design the experiment


def toy_world(generator, differs):
    seeds = generator.normal(size=100)
    noise = {arm: generator.normal(scale=0.5, size=100) for arm in ("old", "new")}
    gain = {"old": 0.0, "new": 1.0 if differs else 0.0}
    return lambda arm, seed: seeds[seed] + noise[arm][seed] + gain[arm]


def gaps(run, count):
    return np.array([run("new", seed) - run("old", seed) for seed in range(count)])


def by_the_interval(run, budget):
    gap = gaps(run, budget // 2)
    return bool(gap.mean() > 2.132 * gap.std(ddof=1) / len(gap) ** 0.5)


EXPERIMENT = DesignTheExperiment(
    **SETTINGS, world=toy_world, budget=10, reference=by_the_interval,
    misconceptions=[
        Misconception("one-seed", lambda run, budget: bool(gaps(run, 1)[0] > 0), "One seed is a coin.", "section 1")
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_the_interval, "passed", "hardly a false alarm"),
        (lambda run, budget: bool(run("new", 0) > run("old", 0)), "misconception", "One seed is a coin"),
        (lambda run, budget: True, "different", r"false alarms: 100% of 250 worlds \(at most 5%; 8% may be luck\)"),
        (lambda run, budget: False, "different", r"power: +0% of 250 worlds \(at least 60%\)"),
        (lambda run, budget: bool(gaps(run, 6).mean() > 0), "error", r"BudgetError: all 10 runs are spent, .*'new', 5"),
        (lambda run, budget: 0.7, "error", "True or False"),
        (stub, "not attempted", "not attempted yet"),
    ],
)
def test_a_design_is_judged_in_worlds_whose_truth_is_known(answer, kind, words):
    """A design that is right once; one that buys more runs than there are."""
    assert_diagnosed(EXPERIMENT, answer, kind, words)


def test_a_world_is_played_within_its_budget_and_pays_once_for_a_run():
    """A budget that is spent by looking at the same run again."""
    run = EXPERIMENT.play(seed=0, differs=True)
    assert [run("old", 0) for _ in range(20)] == 20 * [run("old", 0)]
    for seed in range(1, 10):
        run("old", seed)
    with pytest.raises(BudgetError, match="all 10 runs are spent"):
        run("new", 0)


# ---------------------------------------------------------------------------------------------------------------------
# Repair a run


def doubles_what(value):
    return Property(f"doubles {value}", lambda f: "" if f(value) == 2 * value else f"gives {f(value)}")


REPAIR = RepairARun(
    **SETTINGS, broken=lambda x: x + 2, reference=lambda x: 2 * x,
    properties=[doubles_what(each) for each in (2, 3, -1)],
    misconceptions=[Misconception("squared", lambda x: 2 * abs(x), "You lose the sign.", "section 1")],
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda x: x + x, "passed", "all 3 properties hold"),
        (lambda x: x + 2, "not attempted", "not attempted yet; 1 of 3 properties hold"),
        (lambda x: x + 2, "not attempted", "doubles 3: +gives 5"),
        (lambda x: abs(x + x), "misconception", "You lose the sign"),
        (lambda x: -x, "different", "0 of 3 properties hold"),
        (lambda x: x / 0, "error", "ZeroDivisionError"),
        (stub, "not attempted", "not attempted yet"),
    ],
)
def test_a_repair_is_judged_by_its_properties(answer, kind, words):
    """Half a repair that is called wrong, without a word on what holds by now."""
    assert_diagnosed(REPAIR, answer, kind, words)


def test_what_is_written_anew_has_a_stub_in_the_place_of_broken_code():
    """A wrong answer that counts as not attempted, because the stub is not."""
    anew = dataclasses.replace(REPAIR, broken=stub)
    assert_diagnosed(anew, stub, "not attempted", "not attempted yet")
    assert_diagnosed(anew, lambda x: -x, "different", "0 of 3 properties hold")


def test_a_repair_that_calls_what_the_text_excludes_is_borrowed():
    """A solution that is pasted from the cell above, or imported, and counts as solved."""

    def twice(x):
        return 2 * x

    task = dataclasses.replace(REPAIR, excludes=[twice])
    assert_diagnosed(task, lambda x: twice(x), "borrowed", "twice")  # noqa: PLW0108  (a function of one's own)
    assert_diagnosed(task, REPAIR.reference, "borrowed", "That is right")
    assert_diagnosed(task, lambda x: x + x, "passed", "all 3 properties hold")


def test_two_mistakes_that_break_the_same_properties_are_told_apart_by_what_is_seen():
    """An unknown mistake that is called by the name of another."""

    def sign(f):
        return "" if f(3) == 6 else ("it is no number" if f(3) is None else f"it is {f(3)}")

    task = dataclasses.replace(
        REPAIR, broken=stub, properties=[Property("doubles", sign)],
        misconceptions=[Misconception("squared", lambda x: x * x, "You square it.", "section 1")],
    )  # fmt: skip
    assert_diagnosed(task, lambda x: x**2, "misconception", "You square it")
    assert_diagnosed(task, lambda x: x * x + 1, "different", "it is 10")
    assert_diagnosed(task, lambda x: None, "different", "it is no number")
    trained = dataclasses.replace(task, by_words=True)
    assert_diagnosed(trained, lambda x: x * x + 1, "misconception", "You square it")
    assert_diagnosed(trained, lambda x: None, "different", "it is no number")


# ---------------------------------------------------------------------------------------------------------------------
# Find the witness

WITNESS = FindTheWitness(
    **SETTINGS, reference=lambda: (-3.0,), illegal=lambda x: "" if isinstance(x, float) else f"{x!r} is no float.",
    right=[Suspect("double", lambda x: 2 * x), Suspect("a sum", lambda x: 2 * (x * 1e300) / 1e300)],
    suspects=[
        Suspect("square", lambda x: x**2), Suspect("size", lambda x: 2 * abs(x)), Suspect("root", lambda x: x**-0.5)
    ],
    misconceptions=[
        Misconception("positive", lambda: (3.0,), "You try 3 alone.", "section 1"),
        Misconception("overflow", lambda: (1e10,), "It is too large for any implementation.", "section 1"),
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda: (-4.0,), "passed", "tells 3 of 3 apart"),
        (lambda: (8.0,), "misconception", "You try 3 alone"),
        (lambda: (8.0,), "misconception", "still alike: +size"),
        (lambda: (2.0,), "different", "still alike: +square; size"),
        (lambda: (1e9,), "misconception", "too large for any implementation"),
        (lambda: (1e9,), "misconception", r"right: +2e\+09, inf"),
        (lambda: (3,), "error", "do not count: 3 is no float"),
        (lambda: (1.0, 2.0), "error", "do not fit"),
        (lambda: 3.0, "error", "a tuple is asked for"),
        (lambda: None, "error", "a `return` is missing"),
        (stub, "not attempted", "not attempted yet"),
    ],
)
def test_a_witness_is_judged_by_what_it_tells_apart(answer, kind, words):
    """A witness by overflow, which no implementation survives."""
    assert_diagnosed(WITNESS, answer, kind, words)


def assert_diagnosed(task, answer, kind, words):
    found = diagnose(task, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


@pytest.mark.parametrize("task", [MUTANTS, FAULTS, EXPERIMENT, REPAIR, WITNESS], ids=lambda task: type(task).__name__)
def test_an_answer_that_never_ends_is_stopped(task, monkeypatch):
    """An endless loop in one of five hundred worlds."""
    monkeypatch.setattr("kdcourse.course.exercises.calling.SECONDS", 0.2)

    def endless(*inputs):
        while True:
            pass

    assert_diagnosed(task, endless, "error", "still running")
