"""Answers to the exercises of lesson 10 that no catalogue knows."""

import math
import re

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

REDUCE, BUDGET = find_exercise("10.reduce"), find_exercise("10.budget")


def drawn(seed=0):
    """A step of five pieces, uneven in every way, with NaN-free rubbish where nothing counts."""
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for length in (3, 1, 7, 4, 2):
        hard, soft = 10 * torch.rand(2, length, generator=generator)
        taught = torch.rand(length, generator=generator) < 0.8
        labelled = taught & (torch.rand(length, generator=generator) < 0.5) & (length != 2)
        pieces.append((hard, labelled, soft, taught))
    return pieces


def by_numpy(reduce):
    """Against NumPy's masked means, on a drawn step."""
    hard, labelled, soft, taught = (
        np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*drawn(), strict=True)
    )
    expected = 0.3 * hard[labelled].mean() + 0.7 * soft[taught].mean()
    return math.isclose(float(reduce(drawn(), 0.3)), expected, rel_tol=1e-3)


def by_asserts(reduce):
    assert by_numpy(reduce)


def two_alphas(reduce):
    """Each term alone: right for all but what mixes them up, which is seen as well."""
    return by_numpy(reduce) and math.isfinite(float(reduce(drawn(1), 1.0)))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_numpy, "passed", "16 of 16|kills 16"),
        (by_asserts, "passed", "16 of 16|kills 16"),
        (two_alphas, "passed", "16 of 16|kills 16"),
        (lambda reduce: True, "different", "0 of 16"),
        (lambda reduce: False, "different", "refused though right"),
        (lambda reduce: float(reduce(drawn(), 0.3)) > 0, "misconception", "finite number"),
    ],
)
def test_a_test_is_judged_by_what_it_kills(answer, kind, words):
    """A test of another hand that is refused; one that approves of everything and passes."""
    found = diagnose(REDUCE, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


def test_no_mutant_is_right():
    """A wrong reduction that no test can kill, and right ones that differ."""
    alone = {each.name: 0 for each in REDUCE.mutants}
    for seed in range(20):
        step = drawn(seed)
        right = [float(each.function(step, 0.3)) for each in REDUCE.right]
        assert max(right) - min(right) < 1e-4
        for each in REDUCE.mutants:
            value = float(each.function(step, 0.3))
            alone[each.name] += math.isnan(value) or abs(value - right[0]) > 1e-3
    assert min(alone.values()) >= 15, alone


def keep_at_least_one(teacher, student, tokens, epochs, vocabulary, k, disk):
    """Caches a single epoch, too, if all of it fits: a mixture of two mistakes."""
    size = tokens * vocabulary * 2
    if size <= disk:
        return "all", tokens * (teacher + 2 * epochs * student), size
    return "ask", tokens * epochs * (teacher + 3 * student), 0


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (keep_at_least_one, "different", "all|ask"),
        (lambda *setting: "ask", "different", "ask"),
        (lambda *setting: None, "error", "nothing back"),
    ],
)
def test_a_plan_is_judged_by_the_sheet(answer, kind, words):
    """An unknown mixture that is called by the name of a known mistake."""
    found = diagnose(BUDGET, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)
