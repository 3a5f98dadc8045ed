"""Several teachers: the mixture against its formula in float64, and every check for each of them."""

import copy
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from shapes import (
    WORDS,
    make_classifier,
    make_collator,
    make_model,
    make_prompted_rows,
    make_rows,
    make_tokenizer,
    make_trainer,
    weights_of,
)
from torch import nn

from kdcourse import DistillationArguments, DistillationTrainer, Feature, MismatchError, OnPolicy
from kdcourse.pieces import CacheMismatchError
from kdcourse.schedules import Schedule
from kdcourse.teacher import ModelTeacher, add_logits, cache_logits
from kdcourse.teachers import Teachers, mix_logits

# The formula, in float64, with NumPy alone.


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def mixture(logits, weights, temperature, mix):
    """The distribution at a temperature, (…, C)."""
    arrays = [np.asarray(each.double()) / temperature for each in logits]
    if mix == "probabilities":
        return sum(weight * softmax(each) for weight, each in zip(weights, arrays, strict=True))
    return softmax(sum(weight * each for weight, each in zip(weights, arrays, strict=True) if weight))


@st.composite
def drawn(draw):
    teachers, rows, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([0.1, 3.0, 100.0, 1e4]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    logits = [torch.tensor(random.normal(size=(rows, classes)) * size).to(dtype) for _ in range(teachers)]
    if draw(st.booleans()):  # a class that some of the teachers rule out, never the last
        for each in logits[: draw(st.integers(1, teachers))]:
            each[:, 0] = -math.inf
    weights = random.dirichlet(np.ones(teachers))
    if teachers > 1 and draw(st.booleans()):
        weights[1], weights[0] = 0.0, weights[0] + weights[1]
    return logits, weights.tolist(), draw(st.sampled_from([0.25, 1.0, 2.0, 20.0]))


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(case=drawn(), mix=st.sampled_from(["probabilities", "logits"]))
def test_a_mixture_is_the_formula(case, mix):
    """A mixture at temperature 1 that is taken for one at T; a logarithm of 0; a class that comes back."""
    logits, weights, temperature = case
    mixed = mix_logits(logits, weights, temperature, mix)
    assert mixed.dtype == (torch.float64 if logits[0].dtype == torch.float64 else torch.float32)
    found = softmax(np.asarray(mixed.double()) / temperature)
    expected = mixture(logits, weights, temperature, mix)
    largest = max(each[each.isfinite()].abs().max().item() for each in logits) / temperature
    rounding = 8 * (1 + largest) * (2.3e-16 if mixed.dtype == torch.float64 else 1.2e-7)
    assert np.abs(found - expected).max() <= rounding
    assert (found[expected == 0] == 0).all()


def test_what_tells_the_two_mixes_apart():
    """One name for the other: a class that one teacher rules out keeps half, or nothing."""
    sure, unsure = torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, 0.0]])
    halves = [0.5, 0.5]
    assert mix_logits([sure, unsure], halves, 1.0).softmax(-1)[0].tolist() == pytest.approx([0.75, 0.25])
    assert mix_logits([sure, unsure], halves, 1.0, "logits").softmax(-1)[0].tolist() == [1.0, 0.0]


def test_what_a_teacher_of_weight_0_says_has_no_say():
    """0 · NaN, and log 0."""
    good, bad = torch.randn(2, 3), torch.full((2, 3), math.nan)
    for mix in ("probabilities", "logits"):
        mixed = mix_logits([bad, good], [0.0, 1.0], 2.0, mix)
        assert torch.allclose((mixed / 2).softmax(-1), (good / 2).softmax(-1), atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "temperature", "mix", "word"),
    [
        ([0.5, 0.6], 1.0, "probabilities", "1 together"), ([1.5, -0.5], 1.0, "logits", "0 or more"),
        ([math.nan, 1.0], 1.0, "logits", "0 or more"), ([1.0], 1.0, "probabilities", "one for each"),
        ([0.5, 0.5], 0.0, "probabilities", "temperature"), ([0.5, 0.5], 1.0, "votes", "probabilities or logits"),
    ],
)  # fmt: skip
def test_a_mixture_that_is_none_is_refused(weights, temperature, mix, word):
    """Weights that change the temperature of a teacher, or make of a veto a vote."""
    with pytest.raises(ValueError, match=word):
        mix_logits([torch.zeros(2, 3), torch.zeros(2, 3)], weights, temperature, mix)


def test_shapes_are_not_broadcast():
    """(8, 1) mixed with (8, 3)."""
    with pytest.raises(MismatchError, match=r"teacher 2 \(8, 1\)"):
        mix_logits([torch.zeros(8, 3), torch.zeros(8, 1)], [0.5, 0.5], 1.0)


# In the trainer.

A, B = 1, 2
"""Seeds of two teachers."""


def teacher(shape, seed, **changes):
    return make_model(shape, seed=seed, dropout=0.1, **changes)


class ByHand:
    """A source of what two models say together, at the temperature that a list holds."""

    def __init__(self, models, weights, mix, temperatures):
        self.models, self.weights, self.mix = [ModelTeacher(model) for model in models], weights, mix
        self.temperatures = temperatures

    def logits(self, inputs):
        temperature = self.temperatures.pop(0) if len(self.temperatures) > 1 else self.temperatures[0]
        answers = [model.logits(inputs) for model in self.models]
        with np.errstate(divide="ignore"):
            logs = temperature * np.log(mixture(answers, self.weights, temperature, self.mix))
        return torch.tensor(logs, dtype=torch.float32)


def trained(shape, folder, teachers, steps=1, callback=None, **changes):
    trainer = make_trainer(shape, folder, teacher=teachers, max_steps=steps, **changes)
    if callback:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm", "llama-lm"])
def test_a_step_is_that_of_the_formula(shape, mix, tmp_path):
    """A mixture of fused losses, weights in another order, a teacher with dropout."""
    weights = [0.3, 0.7]
    ours = trained(
        shape, tmp_path, [teacher(shape, A), teacher(shape, B)], teacher_weights=weights, teacher_mix=mix,
        eval_rows=make_rows(shape, 13), per_device_eval_batch_size=4,
    )  # fmt: skip
    by_hand = ByHand([teacher(shape, A), teacher(shape, B)], weights, mix, [2.0])
    theirs = trained(shape, tmp_path, by_hand, eval_rows=make_rows(shape, 13), per_device_eval_batch_size=4)
    step = (weights_of(theirs.model) - weights_of(make_model(shape))).norm()
    assert step > 0
    assert (weights_of(ours.model) - weights_of(theirs.model)).norm() / step < 1e-4
    for name in ("loss", "hard_loss", "soft_loss"):
        assert ours.state.log_history[0][name] == pytest.approx(theirs.state.log_history[0][name], rel=1e-5)
    assert ours.evaluate()["eval_soft_loss"] == pytest.approx(theirs.evaluate()["eval_soft_loss"], rel=1e-5)


def test_the_temperature_is_that_of_the_step(tmp_path):
    """A mixture at the temperature that a schedule has left behind."""
    shape = "bert-classifier"
    schedule = Schedule(temperature=lambda progress: 4.0 if progress < 0.5 else 1.0)
    ours = trained(shape, tmp_path, [teacher(shape, A), teacher(shape, B)], 2, schedule)
    theirs = trained(
        shape, tmp_path, ByHand([teacher(shape, A), teacher(shape, B)], [0.5, 0.5], "probabilities", [4.0, 1.0]), 2,
        Schedule(temperature=lambda progress: 4.0 if progress < 0.5 else 1.0),
    )  # fmt: skip
    for mine, other in zip(ours.state.log_history[:2], theirs.state.log_history[:2], strict=True):
        assert mine["soft_loss"] == pytest.approx(other["soft_loss"], rel=1e-5)
        assert mine["temperature"] == other["temperature"]


@pytest.mark.parametrize("shape", ["gpt2-classifier", "gpt2-lm"])
def test_a_teacher_and_its_twin_are_one_teacher(shape, tmp_path):
    """Weights that do not sum to 1, or a teacher of weight 0 that is asked."""
    alone = trained(shape, tmp_path, teacher(shape, A))
    twins = trained(shape, tmp_path, [teacher(shape, A), teacher(shape, A)])

    class Silent:
        def logits(self, inputs):
            raise AssertionError("It was asked.")

    first = trained(shape, tmp_path, [teacher(shape, A), Silent()], teacher_weights=[1.0, 0.0])
    listed = trained(shape, tmp_path, [teacher(shape, A)])
    assert isinstance(listed.teacher, ModelTeacher)
    for each in (twins, first, listed):
        assert torch.allclose(weights_of(each.model), weights_of(alone.model), atol=1e-6)


@pytest.fixture(scope="module")
def rows():
    return make_rows("bert-classifier")


def test_a_cache_among_teachers_is_the_model(rows, tmp_path):
    """Rows of a cache for another batch than the model's."""
    shape = "bert-classifier"
    cached = cache_logits(tmp_path / "b", teacher(shape, B), make_tokenizer(), rows)
    numbered = cached.add_rows(rows)
    column = add_logits(rows, torch.stack([cached.cache[row] for row in range(len(rows))]))
    models = trained(shape, tmp_path, [teacher(shape, A), teacher(shape, B)])
    with_cache = trained(shape, tmp_path, [teacher(shape, A), cached], rows=numbered)
    with_column = make_trainer(shape, tmp_path, teacher=[teacher(shape, A), None], rows=column)
    with_column.train()
    for each in (with_cache, with_column):
        assert torch.allclose(weights_of(each.model), weights_of(models.model), atol=1e-6)
    with pytest.raises(ValueError, match=r"Teacher 2 of 2: The batch has .* no teacher_row"):
        trained(shape, tmp_path, [teacher(shape, A), cached])


def test_two_caches_hold_the_same_rows(rows, tmp_path):
    """Row 5 of one dataset mixed with row 5 of another."""
    shape = "bert-classifier"
    caches = [cache_logits(tmp_path / str(seed), teacher(shape, seed), make_tokenizer(), rows) for seed in (A, B)]
    both = trained(shape, tmp_path, caches, rows=caches[0].add_rows(rows))
    models = trained(shape, tmp_path, [teacher(shape, A), teacher(shape, B)])
    assert torch.allclose(weights_of(both.model), weights_of(models.model), atol=1e-6)
    turned = cache_logits(tmp_path / "turned", teacher(shape, B), make_tokenizer(), rows.select(range(15, -1, -1)))
    with pytest.raises(CacheMismatchError, match=r"Teacher 1 of 2 is the cache .* teacher 2"):
        make_trainer(shape, tmp_path, teacher=[caches[0], turned], rows=caches[0].add_rows(rows))


def test_some_of_the_classes_cannot_be_mixed(rows, tmp_path):
    """The rest of a top k that is spread over classes which another teacher keeps."""
    shape = "bert-classifier"
    cached = cache_logits(tmp_path / "k", teacher(shape, B), make_tokenizer(), rows, k=2, temperature=2.0)
    with pytest.raises(MismatchError, match=r"Teacher 2 of 2: CachedTeacher gives some .*TopK"):
        trained(shape, tmp_path, [teacher(shape, A), cached], rows=cached.add_rows(rows))


def test_vocabularies_of_three_widths(tmp_path):
    """A cut that only one of the teachers knows of."""
    shape, tokenizer = "gpt2-lm", make_tokenizer()
    wide, wider = teacher(shape, A, vocab_size=WORDS + 8), teacher(shape, B, vocab_size=WORDS + 24)
    options = {"processing_class": tokenizer, "student": make_model(shape, vocab_size=WORDS + 3)}
    ours = trained(
        shape, tmp_path, [wide, wider], teacher_processing_class=[tokenizer, make_tokenizer()], **copy.deepcopy(options)
    )

    class Cut(ByHand):
        def __init__(self):
            super().__init__([wide, wider], [0.5, 0.5], "probabilities", [2.0])
            self.models = [ModelTeacher(model, WORDS) for model in (wide, wider)]

    theirs = make_trainer(shape, tmp_path, teacher=Cut(), **copy.deepcopy(options))
    theirs._vocabulary = WORDS
    theirs.train()
    assert torch.allclose(weights_of(ours.model), weights_of(theirs.model), atol=1e-5)


class Reads(nn.Module):
    """A model that reads one column."""

    def __init__(self, column, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.column, self.layer = column, nn.Linear(2, 3)

    def answer(self, value):
        return self.layer(value)


class ReadsX(Reads):
    def forward(self, x):
        return self.answer(x)


class ReadsY(Reads):
    def forward(self, y):
        return self.answer(y)


class ReadsZ(Reads):
    def forward(self, z):
        return self.answer(z)


def test_each_teachers_columns_are_kept(tmp_path):
    """A column that only the second teacher reads, dropped on the way; or shown to the student."""
    rows = [{"x": [1.0, n], "y": [2.0, n], "z": [n, 3.0], "labels": n % 3} for n in range(4)]
    arguments = DistillationArguments(
        str(tmp_path), max_steps=1, alpha=0, report_to="none", use_cpu=True, logging_steps=1, disable_tqdm=True
    )
    trainer = DistillationTrainer(
        ReadsX("x", 0), arguments, teacher=[ReadsY("y", 1), ReadsZ("z", 2)], train_dataset=rows
    )
    trainer.train()
    assert trainer.state.log_history[0]["soft_loss"] > 0


def refusal(folder, teachers, shape="bert-classifier", **options):
    with pytest.raises((ValueError, TypeError)) as refused:
        make_trainer(shape, folder, teacher=teachers, **options).train()
    return str(refused.value)


NAMES = ["bad", "fair", "good"]


def test_each_teacher_is_checked_and_named(tmp_path):
    """A second teacher that nobody has looked at."""
    student = make_classifier(names=NAMES)
    good, turned = make_classifier(names=NAMES, seed=1), make_classifier(names=NAMES[::-1], seed=2)
    said = refusal(tmp_path, [good, turned], student=student)
    assert said.startswith("Teacher 2 of 2: Student and teacher have the same labels in another order")
    said = refusal(tmp_path, [student, good], student=student)
    assert said.startswith("Teacher 1 of 2: Student and teacher share weights")
    said = refusal(tmp_path, [make_model("gpt2-lm", seed=1), make_model("gpt2-lm", seed=2, vocab_size=60)], "gpt2-lm")
    assert said.startswith("Teacher 2 of 2: The student's vocabulary has 40 ids and the teacher's 60")
    said = refusal(tmp_path, [make_model("gpt2-lm", seed=1), make_model("gpt2-classifier", seed=2)], "gpt2-lm")
    assert said.startswith("Teacher 2 of 2: The student (GPT2LMHeadModel) is a language model")
    tokenizer, other = make_tokenizer(), make_tokenizer(swap=(5, 6))
    said = refusal(
        tmp_path, [make_model("gpt2-lm", seed=1), make_model("gpt2-lm", seed=2)], "gpt2-lm",
        processing_class=tokenizer, teacher_processing_class=[tokenizer, other],
    )  # fmt: skip
    assert said.startswith("Teacher 2 of 2: The tokenizers of student")


def test_probabilities_of_one_teacher_are_refused(tmp_path):
    """A second softmax that hides in a mixture."""

    class Softmax(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make_model("bert-classifier", seed=2)

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids, attention_mask).logits.softmax(-1)

    said = refusal(tmp_path, [make_model("bert-classifier", seed=1), Softmax()])
    assert said.startswith("Teacher 2 of 2: teacher_logits are probabilities")


@pytest.mark.parametrize(
    ("teachers", "settings", "word"),
    [
        ([], {}, "empty list"), (["gpt2", None], {}, "teacher 1 of 2"), ([None, None], {"teacher_weights": [1.0]}, "2"),
        (None, {"teacher_weights": [0.5, 0.5]}, "number of teachers is 1"),
        ([None, None], {"teacher_processing_class": [None] * 3}, "3 for 2 teachers"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_refused(teachers, settings, word, tmp_path):
    """A weight that belongs to nobody."""
    arguments = DistillationArguments(
        str(tmp_path), report_to="none", use_cpu=True, teacher_weights=settings.pop("teacher_weights", None)
    )
    with pytest.raises((ValueError, TypeError), match=word):
        DistillationTrainer(make_model("bert-classifier"), arguments, teacher=teachers, **settings)


@pytest.mark.parametrize("settings", [{"teacher_weights": [0.5, 0.4]}, {"teacher_mix": "geometric"}])
def test_settings_are_looked_at_when_they_are_made(settings, tmp_path):
    """An error after an hour of loading."""
    with pytest.raises(ValueError, match="teacher_"):
        DistillationArguments(str(tmp_path), report_to="none", use_cpu=True, **settings)


def test_settings_can_be_kept(tmp_path):
    """Weights that a saved training does not tell."""
    given = {"teacher_weights": [0.25, 0.75], "teacher_mix": "logits"}
    arguments = DistillationArguments(str(tmp_path), report_to="none", use_cpu=True, **given)
    kept = arguments.to_dict()
    assert {name: kept[name] for name in given} == given


def test_the_students_own_text_has_room_in_each_teacher(tmp_path):
    """A text that the second teacher's table of positions does not hold; a cache among judges of new text."""
    short = make_model("gpt2-lm", seed=2, n_positions=12)
    own = OnPolicy(share=1, max_new_tokens=8)
    teachers = [make_model("gpt2-lm", seed=1), short]
    assert "12 positions" in refusal(tmp_path, teachers, "gpt2-lm", rows=make_prompted_rows(), on_policy=own)
    made = cache_logits(tmp_path / "c", teachers[0], make_tokenizer(), make_rows("gpt2-lm"))
    said = refusal(tmp_path, [teachers[0], made], "gpt2-lm", on_policy=own)
    assert said.startswith("Teacher 2 of 2: on_policy has share=1")


def test_features_are_of_one_teacher(tmp_path):
    """Layers of the first teacher, which somebody takes for those of all."""
    with pytest.raises(MismatchError, match="there are 2 teachers"):
        DistillationTrainer(
            make_model("bert-classifier"),
            DistillationArguments(str(tmp_path), report_to="none", use_cpu=True),
            teacher=[make_model("bert-classifier", seed=1), make_model("bert-classifier", seed=2)],
            train_dataset=make_rows("bert-classifier"),
            data_collator=make_collator("bert-classifier"),
            features=[Feature("hidden_states.1", "hidden_states.1")],
        )


def test_a_new_student_meets_all_teachers(tmp_path):
    """A search whose second student is compared with nobody."""
    shape = "bert-classifier"
    trainer = make_trainer(shape, tmp_path, teacher=[teacher(shape, A), teacher(shape, B)])
    students = iter([make_model(shape), make_model(shape, num_labels=4)])
    trainer.model_init = lambda: next(students)
    trainer.train()
    assert isinstance(trainer.teacher, Teachers)
    with pytest.raises(MismatchError, match="Teacher 1 of 2: The student has 4 labels"):
        trainer.train()
