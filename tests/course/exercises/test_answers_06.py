"""Batches for 06.witness that no catalogue knows."""

import math
import re

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

WITNESS = find_exercise("06.witness")
NAN, INF = math.nan, math.inf

NUMBERS = [[3.0, 5.0, NAN], [7.0, 11.0, 13.0]]
LABELS = [[4, 0, -100], [-100, 5, 9]]


@pytest.mark.parametrize(
    ("batch", "kind", "words"),
    [
        ((NUMBERS, LABELS), "misconception", "still alike: +multiplied by a mask"),
        (([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]], LABELS), "passed", "10 of 10"),
        (([[3.0, INF, 2.0], [7.0, 11.0, 13.0]], LABELS), "passed", "10 of 10"),
        ((torch.tensor([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]]), torch.tensor(LABELS)), "passed", "10 of 10"),
        ((np.array([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]]), np.array(LABELS)), "passed", "10 of 10"),
        (([[3, 5, 2], [7, 11, 13]], [[4, 0, -100], [-100, 5, 9]]), "misconception", "9 of 10"),
        (([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]], [[4, 6, -100], [-100, 5, 9]]), "misconception", "None of your labels"),
        (([[3.0, 5.0, 2.0]], [[4, 0, -100]]), "different", "still alike: .*a mean of each text first"),
        (([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]], [[4, 0, -100], [-100, 5, NAN]]), "error", "whole numbers"),
        (([[3.0, NAN, 2.0], [7.0, 11.0, 13.0]], [[4, 0, -1], [-100, 5, 9]]), "error", "from 0 on, or -100"),
        (([[NAN, 5.0, 2.0], [7.0, 11.0, 13.0]], LABELS), "error", "where a position teaches"),
        (([[-3.0, 5.0, 2.0], [7.0, 11.0, 13.0]], LABELS), "error", "where a position teaches"),
        (([[3.0, 5.0], [7.0, 11.0]], [[4, -100], [5, -100]]), "error", "no position teaches"),
        (([[3.0, 5.0], [7.0, 11.0]], LABELS), "error", "of one shape"),
        (([3.0, 5.0], [4, 0]), "error", "of one shape"),
        (([[3.0], [5.0]], [[4], [0]]), "error", "at least 2 positions"),
        (([[3.0, 5.0], [7.0]], [[4, 0], [5]]), "error", "do not fit"),
        (("numbers", "labels"), "error", "do not fit"),
    ],
)
def test_a_batch_is_judged_by_what_it_shows(batch, kind, words):
    """A batch that is refused for its type; one that no training could meet and passes."""
    found = diagnose(WITNESS, lambda: batch)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


@pytest.mark.slow
def test_no_suspect_is_right():
    """A wrong mean that no batch can tell apart, or that is right in every batch that may be given."""
    generator = torch.Generator().manual_seed(0)
    alone = {each.name: 0 for each in WITNESS.suspects}
    for _ in range(300):
        labels = torch.randint(0, 3, (3, 4), generator=generator)
        labels[torch.rand(3, 4, generator=generator) < 0.4] = -100
        numbers = torch.rand(3, 4, generator=generator, dtype=torch.float64)
        if WITNESS.illegal(numbers, labels):
            continue
        right = [each.function(numbers, labels) for each in WITNESS.right]
        assert max(right) - min(right) < 1e-9
        for each in WITNESS.suspects:
            alone[each.name] += abs(each.function(numbers, labels) - right[0]) > 1e-3
    assert {name for name, times in alone.items() if times < 30} == {"multiplied by a mask of 0 and 1"}
