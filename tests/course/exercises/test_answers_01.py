"""Pairs for 01.witness that no catalogue knows."""

import re

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

WITNESS = find_exercise("01.witness")


@pytest.mark.parametrize(
    ("pair", "kind", "words"),
    [
        (([0.5, 0.3, 0.2], [0.2, 0.8, 0.0]), "passed", "9 of 9"),
        ((torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.8, 0.0])), "passed", "9 of 9"),
        ((np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.8, 0.0])), "passed", "9 of 9"),
        (([0.5, 0.5, 0.0], [0.2, 0.3, 0.5]), "error", "KL is infinite"),
        (([0.5, 0.4], [0.2, 0.8]), "error", "add up to 0.9 and 1"),
        (([1.5, -0.5], [0.2, 0.8]), "error", "never below 0"),
        (([0.5, 0.5], [0.2, 0.3, 0.5]), "error", "of one length"),
        (([[0.5, 0.5]], [[0.2, 0.8]]), "error", "of one length"),
        (([1.0], [1.0]), "error", "at least 2 classes"),
        (("student", "teacher"), "error", "do not fit"),
        (([0.5, 0.5, 0.0], [0.25, 0.75, 0.0]), "passed", "9 of 9"),
        (([0.1, 0.6, 0.3], [0.5, 0.1, 0.4]), "misconception", "tells apart: +8 of 9"),
        (([0.6, 0.3, 0.1], [0.1, 0.3, 0.6]), "misconception", "as on any two distributions"),
    ],
)
def test_a_pair_is_judged_by_what_it_shows(pair, kind, words):
    """A pair that is refused for its type; one that is no distribution and passes."""
    found = diagnose(WITNESS, lambda: pair)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), found
