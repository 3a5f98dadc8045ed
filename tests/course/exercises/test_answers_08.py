"""Diagnoses and tests for lesson 08 that no catalogue knows, and the runs that they are made of."""

import math
import re
from functools import cache

import numpy as np
import pytest
import torch

from kdcourse.course.exercises import find_exercise, material
from kdcourse.course.exercises.diagnosis import diagnose

CURVE, PERPLEXITY = find_exercise("08.curve"), find_exercise("08.perplexity")
RUNS = material("08.curve")


def column(log, name):
    return np.array([line[name] for line in log])


def with_a_table(log):
    """The same signs in another order, and each read from another place of the log."""
    hard, soft, new = (column(log, name) for name in ("hard_loss", "soft_loss", "eval_loss"))
    signs = {
        "labels not shifted": hard[-1] < 0.5,
        "T squared missing": soft[0] < 1,
        "summed over tokens": soft[0] > 10,
        "too few texts": new[-1] > new.min() + 0.05,
        "padding counted": new[-1] - hard[-1] > 0.5,
        "another tokenizer": soft[-1] > 1.1,
    }
    return next((name for name, shown in signs.items() if shown), "healthy")


def features(log):
    hard, soft, new = (column(log, name) for name in ("hard_loss", "soft_loss", "eval_loss"))
    return np.array([hard[-1] / new[-1], np.log(soft[0]), soft[-1] / soft[0], 4 * new[-1] / new.min()])


@cache
def those_that_i_played():
    return [(fault, features(RUNS.play(fault, seed))) for fault in RUNS.FAULTS for seed in range(4)]


def nearest_of_those_that_i_played(log):
    return min(those_that_i_played(), key=lambda each: np.linalg.norm(each[1] - features(log)))[0]


def instead(fault, name):
    return lambda log: name if with_a_table(log) == fault else with_a_table(log)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [with_a_table, nearest_of_those_that_i_played])
def test_other_signs_are_as_good(answer):
    """An exercise that asks for our thresholds; runs from which nothing can be learned by playing."""
    those_that_i_played()  # not on the time of an answer
    assert diagnose(CURVE, answer).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (instead("padding counted", "healthy"), "misconception", "padding is counted, which anybody predicts"),
        (instead("summed over tokens", "another tokenizer"), "misconception", "no mean over tokens"),
        (instead("too few texts", "labels not shifted"), "different", "taken for 'labels not shifted'"),
        (lambda log: "padding", "error", "'padding', which is none of 'healthy', 'labels not shifted'"),
        (lambda log: log[-1]["loss_on_new_texts"], "error", "KeyError"),
    ],
)
def test_a_diagnosis_that_is_nearly_right_is_told_what_it_takes_for_what(answer, kind, words):
    """Wrong, without a word on which runs."""
    found = diagnose(CURVE, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), repr(found)


def test_a_run_begins_where_arithmetic_puts_it_and_its_signs_are_those_of_its_fault():
    """Logs that teach a sum which does not come out; a fault without its sign."""
    for seed in range(3):
        logs = {fault: RUNS.play(fault, seed) for fault in RUNS.FAULTS}
        sound = logs["healthy"]
        assert [line["step"] for line in sound] == list(range(0, 81, 10))
        for log in logs.values():
            assert np.allclose(column(log, "loss"), 0.8 * column(log, "hard_loss") + 0.2 * column(log, "soft_loss"))
            assert log[0]["hard_loss"] == pytest.approx(math.log(30), abs=1e-5)
            assert log[-1]["loss"] < log[0]["loss"]
        assert logs["T squared missing"][0]["soft_loss"] == pytest.approx(sound[0]["soft_loss"] / 4)
        assert sound[0]["soft_loss"] < 4 * math.log(30) < logs["summed over tokens"][0]["soft_loss"]
        assert sound[-1]["eval_loss"] == pytest.approx(min(column(sound, "eval_loss")))


def test_a_run_is_the_same_whenever_it_is_played_and_nobody_can_spoil_it():
    """An answer that changes a log, and all that come after it; a fault that is another tomorrow."""
    RUNS.play("healthy", 0)[0]["loss"] = np.nan
    assert RUNS.play("healthy", 0) == RUNS.play("healthy", 0)
    assert not np.isnan(column(RUNS.play("healthy", 0), "loss")).any()
    assert RUNS.play("healthy", 0) != RUNS.play("healthy", 1)
    assert RUNS.mystery(1) == RUNS.mystery(1)
    with pytest.raises(ValueError, match="no fault 'T² missing'; there are 'healthy'"):
        RUNS.play("T² missing", 0)


def batch(lengths, seed):
    """Texts of these lengths, and logits over five ids."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        labels[row, length:] = -100
    return 2 * torch.randn(*labels.shape, 5, generator=generator), labels


def by_cross_entropy(perplexity):
    batches = [batch((7, 4), 0), batch((3,), 1), batch((5, 2), 2)]
    texts = [(s[:-1], y[1:]) for logits, labels in batches for s, y in zip(logits, labels, strict=True)]
    scores, tokens = (torch.cat(parts) for parts in zip(*texts, strict=True))
    right = torch.nn.functional.cross_entropy(scores, tokens).exp()
    return abs(perplexity(batches) - right) < 1e-3


def by_asserts(perplexity):
    """One token of probability 1/2, two of 1/8, by hand: 2 · 8 · 8 = 128, whose cube root is 5.04."""
    half, eighth = torch.tensor([7.0, 1, 1, 1, 1, 1, 1, 1]).log(), torch.zeros(8)
    first = torch.stack([half, eighth, 50 * torch.eye(8)[5]]).unsqueeze(0)
    second = torch.stack([eighth, 50 * torch.eye(8)[5], 50 * torch.eye(8)[5]]).unsqueeze(0)
    batches = [(first, torch.tensor([[3, 0, 2]])), (second, torch.tensor([[1, 4, -100]]))]
    assert perplexity(batches) == pytest.approx(128 ** (1 / 3))


def by_a_batch_that_predicts_nothing(perplexity):
    """As lesson 06 teaches to try; what is left without the last batch is then no token at all."""
    silent = (torch.zeros(2, 4, 5), torch.full((2, 4), -100))
    silent[1][0, 0] = 1
    batches = [batch((7, 4), 0), batch((3,), 1), batch((5, 2), 2)]
    return (
        by_cross_entropy(perplexity)
        and abs(perplexity([silent, *batches]) - perplexity(batches)) < 1e-6
        and perplexity([silent, batches[0]]) > 0
    )


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (by_cross_entropy, "passed", "kills 14 of 14"),
        (by_a_batch_that_predicts_nothing, "passed", "kills 14 of 14"),
        (by_asserts, "passed", "kills 14 of 14"),
        (lambda perplexity: perplexity([batch((7, 4), 0)]) > 0, "different", "survive: +mean of the batches"),
        (lambda perplexity: True, "misconception", "at least 1"),
        (lambda perplexity: False, "different", "right ones passed: +0 of 3"),
        (lambda perplexity: perplexity(1.0), "error", "TypeError"),
    ],
)
def test_a_test_of_a_perplexity_is_judged_by_what_it_kills(answer, kind, words):
    """A sound test that is refused for its form."""
    found = diagnose(PERPLEXITY, answer)
    assert found.kind == kind, found
    assert re.search(words, repr(found)), found


def test_the_right_ones_are_right():
    """An exercise whose right implementations share a mistake."""
    batches = [batch((6, 2, 5), 4), batch((4,), 5)]
    probabilities = [
        logits[row, place].double().softmax(-1)[labels[row, place + 1]].item()
        for logits, labels in batches
        for row in range(len(labels))
        for place in range(labels.shape[1] - 1)
        if labels[row, place + 1] != -100
    ]
    assert len(probabilities) == 5 + 1 + 4 + 3
    expected = math.exp(-sum(map(math.log, probabilities)) / len(probabilities))
    assert [each.function(batches) for each in PERPLEXITY.right] == pytest.approx(3 * [expected], rel=1e-5)
    assert not [each.name for each in PERPLEXITY.mutants if each.function(batches) == pytest.approx(expected, rel=1e-3)]
