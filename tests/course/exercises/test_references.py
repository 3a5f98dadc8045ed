"""The references themselves, against something that shares nothing with them: NumPy, SciPy, finite differences."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from course.exercises.domains import inputs_from
from course.exercises.rewrites import REWRITES

from kdcourse.course.exercises import Exercise
from kdcourse.course.exercises.calling import run, run_all, same
from kdcourse.course.exercises.catalogue import all_exercises
from kdcourse.course.exercises.diagnosis import edges_of, inputs_of

WRITTEN = [exercise for exercise in all_exercises().values() if isinstance(exercise, Exercise)]
IGNORED = -100
STEP = 1e-6


def array(tensor):
    return np.asarray(tensor, dtype=np.float64)


def log_softmax(logits):
    return scipy.special.log_softmax(array(logits), axis=-1)


def divergence(log_p, log_q):
    """KL(q ‖ p) in float64; a class with q = 0 adds nothing, one with p = 0 alone adds infinity."""
    q = np.exp(log_q)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(log_q), 0, q * (log_q - log_p))
    return terms.sum(-1)


def rows_of(student, teacher, temperature=1.0):
    return divergence(log_softmax(array(student) / temperature), log_softmax(array(teacher) / temperature))


def surprise(logits, labels):
    """−log p of each label, 0 where there is none."""
    log_p, labels = log_softmax(logits), np.asarray(labels)
    picked = np.take_along_axis(log_p, np.maximum(labels, 0)[:, None], -1)[:, 0]
    return np.where(labels == IGNORED, 0, -picked)


def objective(student, teacher, labels, alpha, temperature):
    soft = temperature**2 * rows_of(student, teacher, temperature).mean()
    return alpha * surprise(student, labels).mean() + (1 - alpha) * soft


def semi(student, teacher, labels, alpha):
    known = np.count_nonzero(np.asarray(labels) != IGNORED)
    return alpha * surprise(student, labels).sum() / max(known, 1) + (1 - alpha) * rows_of(student, teacher).mean()


def token_mean(divergences, labels):
    taught = [
        float(divergences[row, place - 1])
        for row in range(len(labels))
        for place in range(1, labels.shape[1])
        if labels[row, place] != IGNORED
    ]
    return math.fsum(taught) / len(taught) if taught else 0.0


def interval(first, second):
    gains = np.subtract(second, first)
    found = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    return found.low, found.high


INDEPENDENT = {
    "00.soft_label": lambda votes: float(np.average([0] * 4 + [0.5] + [1] * 4, weights=votes)),
    "00.one_sentence": lambda p, q, y, alpha: (
        (0 if y == IGNORED else -alpha * math.log(p[y])) + (1 - alpha) * scipy.stats.entropy(q, p)
    ),
    "01.forward_kl": lambda student, teacher: divergence(array(student), array(teacher)),
    "01.gradient": lambda student, teacher: np.exp(log_softmax(student)) - np.exp(log_softmax(teacher)),
    "02.kl_per_row": rows_of,
    "03.objective": objective,
    "04.semi": semi,
    "05.share": lambda logits, labels, items, steps: surprise(logits, labels).sum() / items,
    "06.token_mean": token_mean,
    "07.interval": interval,
    "11.mix": lambda logits, t: np.exp(log_softmax(array(logits) / t)).mean(0),
    "13.masked_kl": lambda s, t, allowed: rows_of(array(s)[:, allowed.numpy()], array(t)[:, allowed.numpy()]),
}
"""In float64, row by row, without PyTorch."""

OF_PARTS = {"03.soft_gradient", "05.collate", "06.labels", "10.budget", "11.bias", "13.kept"}
"""Held to something else below, or to the rewrites alone, which are written from the task."""


def inputs_for(exercise, count=60):
    return [*inputs_of(exercise), *edges_of(exercise), *inputs_from(exercise.id, count)]


@pytest.mark.parametrize("exercise", [each for each in WRITTEN if each.id in INDEPENDENT], ids=lambda each: each.id)
def test_a_reference_is_right(exercise):
    """A reference that is wrong, so that every right answer is refused."""
    for inputs in inputs_for(exercise):
        found = exercise.reference(*inputs)
        expected = INDEPENDENT[exercise.id](*inputs)
        found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5, err_msg=f"{inputs}")


@pytest.mark.parametrize("exercise", [each for each in WRITTEN if each.id in OF_PARTS], ids=lambda each: each.id)
def test_a_reference_agrees_with_what_was_written_from_the_task(exercise):
    """A reference that answers another question than the text asks."""
    inputs = inputs_for(exercise, 100)
    expected = run_all(exercise, exercise.reference, inputs)
    for answer in REWRITES[exercise.id]:
        found = run_all(exercise, answer, inputs)
        assert all(same(*pair, exercise.tolerance) for pair in zip(found, expected, strict=True)), answer.__name__


def test_every_reference_is_held_to_something():
    """An exercise whose reference nobody looks at."""
    assert {exercise.id for exercise in WRITTEN} <= set(INDEPENDENT) | OF_PARTS


def in_float64(inputs):
    return tuple(part.double() if torch.is_tensor(part) and part.is_floating_point() else part for part in inputs)


def slope(function, inputs, place):
    """By central differences."""
    ends = []
    for sign in (1, -1):
        moved = inputs[0].clone()
        moved.view(-1)[place] += sign * STEP
        ends.append(float(np.sum(function(moved, *inputs[1:]))))
    return (ends[0] - ends[1]) / (2 * STEP)


@pytest.mark.parametrize("exercise", [each for each in WRITTEN if each.gradient], ids=lambda each: each.id)
def test_a_gradient_is_that_of_the_value(exercise):
    """Autograd through a reference that cuts it somewhere, or in another direction than the value goes."""
    tried = 0
    for inputs in map(in_float64, inputs_from(exercise.id, 40)):
        if not inputs[0].numel() or inputs[0].abs().max() > 50 or not torch.isfinite(inputs[1].double()).all():
            continue
        of_logits = exercise.from_logits or (lambda logits: logits)

        def value(logits, *others, of_logits=of_logits):
            return INDEPENDENT[exercise.id](of_logits(logits), *others)

        _, gradient = run(exercise.reference, inputs, True, exercise.from_logits).values
        for place in range(min(inputs[0].numel(), 6)):
            assert slope(value, inputs, place) == pytest.approx(gradient.view(-1)[place].item(), rel=1e-3, abs=1e-4)
            tried += 1
    assert tried > 20


def test_the_soft_gradient_is_that_of_the_soft_term():
    """A power of T too many or too few in the closed form."""
    exercise = all_exercises()["03.soft_gradient"]
    for student, teacher, temperature in map(in_float64, inputs_from("03.soft_gradient", 30)):
        found = exercise.reference(student, teacher, temperature)
        for place in range(min(student.numel(), 6)):
            slope_of = slope(
                lambda s, t, temperature=temperature: temperature**2 * rows_of(s, t, temperature).mean(),
                (student, teacher), place,
            )  # fmt: skip
            assert slope_of == pytest.approx(found.view(-1)[place].item(), rel=1e-3, abs=1e-4)


def test_shares_add_up_to_the_mean_of_the_step():
    """A divisor that is right for one micro-batch and wrong for a step."""
    share = all_exercises()["05.share"].reference
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        logits, labels = torch.randn(11, 3, generator=generator), torch.randint(0, 3, (11,), generator=generator)
        labels[::4] = IGNORED
        items = int((labels != IGNORED).sum())
        parts = [share(logits[rows], labels[rows], items, 3) for rows in (slice(0, 5), slice(5, 9), slice(9, 11))]
        whole = surprise(logits, labels).sum() / items
        assert sum(parts).item() == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_the_stock_trainer_keeps_what_we_say(tmp_path):
    """A list of columns that a Trainer does not keep."""
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    from kdcourse.course.exercises import lesson13

    class Model(torch.nn.Module):
        def forward(self, input_ids=None, attention_mask=None, **kwargs): ...

    reference = all_exercises()["13.kept"].reference
    columns = [*lesson13.COLUMNS, "label_ids"]
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    for label_names in (["labels"], []):
        trainer = Trainer(Model(), arguments)
        trainer.label_names = label_names
        kept = trainer._remove_unused_columns(Dataset.from_dict({name: [0] for name in columns}))
        assert kept.column_names == reference(columns, Model.forward, label_names)
