"""A right answer is asked once more, what no notebook asks: a table of what was asked there, or a count, is no answer.

Inputs and their order are drawn by the answer's own text. So an answer is asked the same in every run, and nobody can
have looked up what that will be: who writes it into the answer has changed the text.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch

from kdcourse.course.exercises.diagnosis import UNKNOWN, Diagnosis, difference
from kdcourse.course.exercises.exercise import Exercise, Function, Task
from kdcourse.course.exercises.kinds.experiments import DesignTheExperiment, Purse
from kdcourse.course.exercises.kinds.faults import NameTheFault
from kdcourse.course.exercises.kinds.judged import StoppedError
from kdcourse.course.exercises.kinds.mutants import KillTheMutants
from kdcourse.hashing import hash_text

INPUTS = 5
RUNS, SHARE = 2, 0.5
"""Runs with each fault, and how many of all have to be named: who named nine of ten has no such bad luck."""
WORLDS, ALARMS, POWER = 60, 0.2, 0.3
"""Experiments, false alarms at most, and differences found at least."""
SAID = "Right on what the notebook asks, but not on what it does not ask."


def asked_anew(task: Task, function: Function, code: str) -> Diagnosis | None:
    """What is to be said of an answer that has passed, and is not right elsewhere; nothing if it is.

    Args:
        code: of the answer.
    """
    first = 1000 + int(hash_text(f"{task.id}\n{code}")[:7], 16)
    if isinstance(task, Exercise):
        return _computes(task, function, first)
    try:
        if isinstance(task, NameTheFault):
            said = _names(task, function, first)
        elif isinstance(task, DesignTheExperiment):
            said = _decides(task, function, first)
        else:
            said = _tests(task, function, first) if isinstance(task, KillTheMutants) else ""
    except StoppedError as stopped:
        said = stopped.diagnosis.message
    return Diagnosis("different", f"{SAID} {said}") if said else None


def _computes(task: Exercise, function: Function, first: int) -> Diagnosis | None:
    seeds = (torch.Generator().manual_seed(first + place) for place in range(INPUTS))
    found = difference(task, function, [task.random_inputs(seed) for seed in seeds])
    return found and replace(found, message=f"{SAID} {found.message.removeprefix(UNKNOWN).lstrip()}".rstrip())


def _names(task: NameTheFault, function: Function, first: int) -> str:
    runs = [(fault, first + place) for fault in task.faults for place in range(RUNS)]
    random.Random(first).shuffle(runs)  # noqa: S311  (an order, and no secret)
    right = sum(task.named(function, *each) == each[0] for each in runs)
    return "" if right >= SHARE * len(runs) else f"{right} of {len(runs)} other runs are named rightly."


def _decides(task: DesignTheExperiment, function: Function, first: int) -> str:
    truths = np.random.default_rng(first).permutation([False, True] * (WORLDS // 2))
    worlds = (task.world(np.random.default_rng([2, first, place]), bool(truth)) for place, truth in enumerate(truths))
    said = [task.truth(task.call(function, Purse(run, task.budget), task.budget).values[0]) for run in worlds]
    alarms, power = (float(np.mean([one for one, truth in zip(said, truths, strict=True) if truth == differs]))
                     for differs in (False, True))  # fmt: skip
    is_right = alarms <= ALARMS and power >= POWER
    return "" if is_right else f"In {WORLDS} other worlds: {alarms:.0%} false alarms, and {power:.0%} power."


def _tests(task: KillTheMutants, function: Function, first: int) -> str:
    suspects = [*((each, True) for each in task.right), *((each, False) for each in task.mutants)]
    random.Random(first).shuffle(suspects)  # noqa: S311
    wrong = [each.name for each, is_right in suspects if task.approves(function, each) != is_right]
    return f"In another order, your test is wrong about {wrong[0]}." if wrong else ""
