"""What lab 09 works on, with tiny models: whose text is learned, what a step costs, and who judges."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdcourse.labs import lab09
from kdcourse.labs.lab09 import ARMS, PROMPT, WRITTEN, Arm, Ground, Plan, Results

PLAN = Plan(steps=6, warm_up=2, batch_size=3, seeds=2, rows=12, judged=4)


@pytest.fixture(scope="module")
def ground():
    """Made-up texts, and a teacher with weights that nobody has trained."""
    random = torch.Generator().manual_seed(0)
    train, validation, test = (
        torch.randint(1, lab09.VOCABULARY, (count, PROMPT + WRITTEN), generator=random) for count in (12, 4, 4)
    )
    return Ground(None, lab09.language_model(16, 16, 1, seed=9).requires_grad_(False), train, validation, test)


@pytest.fixture(scope="module")
def student():
    return lab09.language_model(8, 8, 1, seed=1)


def by_hand(student, teacher, texts, kl):
    """One token after the other, in NumPy."""

    def logits(model):
        with torch.no_grad():
            return model(texts).logits.double().numpy()

    def softmax(numbers):
        weights = np.exp(numbers - numbers.max())
        return weights / weights.sum()

    answers, said, found = logits(teacher), logits(student), []
    for row in range(len(texts)):
        for place in range(PROMPT, PROMPT + WRITTEN):
            found.append(kl(softmax(said[row, place - 1]), softmax(answers[row, place - 1])))
    return np.reshape(found, (len(texts), WRITTEN))


FORWARD, REVERSE = (lambda p, q: (q * np.log(q / p)).sum()), (lambda p, q: (p * np.log(p / q)).sum())


@pytest.mark.parametrize(("divergence", "kl"), [("forward_kl", FORWARD), ("reverse_kl", REVERSE)])
def test_the_loss_is_that_of_what_is_written(ground, student, divergence, kl):
    """Prompts that are learned, a shift that is missing, a divergence that is turned round."""
    texts = ground.test[:2]
    found = lab09.loss_of(student.eval(), ground, texts, divergence).item()
    assert found == pytest.approx(by_hand(student, ground.teacher, texts, kl).mean(), rel=1e-4)


def test_each_arm_reads_the_text_of_its_name(ground, student):
    """An arm that is on-policy by name alone; a mixture that never mixes."""
    rows, seen = torch.tensor([2, 5]), {}
    for text in lab09.TEXTS:
        arm = Arm(text, "forward_kl")
        seen[text] = [lab09.texts_of_step(ground, arm, student, rows, 0, step) for step in range(8)]
        assert all(torch.equal(texts[:, :PROMPT], ground.train[rows, :PROMPT]) for texts in seen[text])
    people = ground.train[rows]
    own, teachers, mixed = seen["student"], seen["teacher"], seen["mixed"]
    assert all(torch.equal(texts, people) for texts in seen["people"])
    assert not any(torch.equal(a, b) or torch.equal(a, people) for a, b in zip(own, teachers, strict=True))
    kinds = {(torch.equal(texts, ours), torch.equal(texts, people)) for texts, ours in zip(mixed, own, strict=True)}
    assert kinds == {(True, False), (False, True)}
    likely = lab09.write(student, people[:, :PROMPT], [(0, 0, 3, 0), (0, 0, 3, 1)])
    assert torch.equal(own[3], likely)
    assert not torch.equal(own[3], own[4])


def test_arms_of_a_seed_begin_alike_and_take_the_same_prompts(ground):
    """Twins that differ in their first weights, or in which texts they were dealt."""
    first, again = (lab09.warmed_up(ground, PLAN, 1) for _ in range(2))
    other = lab09.warmed_up(ground, PLAN, 2)
    weights = [torch.cat([weight.flatten() for weight in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(lab09.batches(PLAN, 12, 1, 5), lab09.batches(PLAN, 12, 1, 9)[:5])
    assert sorted(lab09.batches(PLAN, 12, 1, 4).flatten().tolist()) == list(range(12))


def test_writing_is_counted():
    """A comparison at equal steps, where one side writes for nothing."""
    flops = {text: lab09.flops_per_text(text) for text in lab09.TEXTS}
    length, teacher, student = PROMPT + WRITTEN, (96, 256, 3), (32, 64, 1)

    def pass_of(width, inner, layers):
        products = layers * (4 * width * width + 3 * width * inner) + width * lab09.VOCABULARY
        attention = layers * 2 * length * width
        return 2 * length * (products + attention)

    assert flops["people"] == pytest.approx(3 * pass_of(*student) + pass_of(*teacher), rel=0.01)
    assert flops["teacher"] - flops["people"] == pytest.approx(pass_of(*teacher), rel=0.01)
    assert flops["student"] - flops["people"] == pytest.approx(pass_of(*student), rel=0.01)
    assert flops["mixed"] == pytest.approx((flops["people"] + flops["student"]) / 2)


def test_equal_cost_is_fewer_steps_for_what_costs_more():
    """Steps that rise with the cost."""
    assert lab09.steps_at_equal({"people": 2.0, "student": 5.0}, replace(PLAN, steps=100)) == {
        "people": 100, "student": 40,
    }  # fmt: skip


def test_a_student_is_judged_on_people_and_on_itself(ground, student):
    """A judge of another text than its name says; a teacher's loss that is the student's."""
    judged = lab09.judge(ground, student, seed=3)
    own = lab09.write(student, ground.test[:, :PROMPT], [(1, 3, 0, row) for row in range(4)])
    assert judged.keys() == {*lab09.JUDGES, "own_forward"}
    with torch.no_grad():
        logits = student(ground.test).logits[:, PROMPT - 1 : -1].transpose(1, 2)
    loss = torch.nn.functional.cross_entropy(logits, ground.test[:, PROMPT:], reduction="none")
    assert torch.allclose(judged["loss"], loss, atol=1e-4)
    for name, texts, kl in (
        ("people_forward", ground.test, FORWARD), ("people_reverse", ground.test, REVERSE),
        ("own_forward", own, FORWARD), ("own_reverse", own, REVERSE),
    ):  # fmt: skip
        np.testing.assert_allclose(judged[name], by_hand(student, ground.teacher, texts, kl), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        said = ground.teacher(own).logits[:, PROMPT - 1 : -1].softmax(-1)
    asked = -said.gather(-1, own[:, PROMPT:, None]).squeeze(-1).log()
    assert torch.allclose(judged["own_teacher_loss"], asked, atol=1e-4)


def test_numbers_come_back_as_they_were_packed():
    """Scores that are cut, or stand beside another text."""
    values = np.linspace(0, 6, 31)
    assert lab09.unpack(lab09.pack(values)) == pytest.approx(values, abs=2e-3)


@pytest.mark.slow
def test_results_are_stored_seed_by_seed(ground, tmp_path):
    """A run that was stopped and kept nothing; an arm judged after another one's steps."""
    names, kept = ("people, forward_kl", "student, reverse_kl"), []
    results = lab09.measure(
        ground, PLAN, names, say=lambda words: None, keep=lambda each: kept.append(len(each.start["loss"]))
    )
    assert kept == [1, 2]
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again.of(names[0], "loss").shape == (2, 4)
    assert len(again.positions[names[1]]["own_reverse"][1]) == WRITTEN
    steps = again.steps["seconds"]
    for name in names:
        for course in again.course[name]:
            assert course["seconds"][0] == 0
            assert course["seconds"][-1] == pytest.approx(
                steps[ARMS[name].text] * again.seconds[ARMS[name].text], rel=0.01
            )
    verdict = again.compare(*names, "loss")
    assert verdict.difference == pytest.approx((again.of(names[0], "loss") - again.of(names[1], "loss")).mean())


def test_token_ends_are_counted_in_characters_of_the_text():
    """Cuts by bytes, or by what a tokenizer makes of the text."""

    class Halves:
        def __call__(self, text, **settings):
            places = [(start, min(start + 2, len(text))) for start in range(0, len(text), 2)]
            return {"offset_mapping": places}

    class Words:
        def __call__(self, text, **settings):
            ends = [place for place, letter in enumerate(text) if letter == " "] + [len(text)]
            return {"offset_mapping": list(zip([0, *ends], ends, strict=False))}

    assert lab09.token_ends(Halves(), "abcde") == {2: 1, 4: 2, 5: 3}
    assert lab09.measure_ends(["ab cd", "abcd ef"], Halves(), Words()) == {
        "texts": 2, "first": 7, "second": 4, "shared": 4,
    }  # fmt: skip


def test_what_is_shipped_knows_more_than_frequencies():
    """A teacher that was stored untrained, with other weights than it was trained to, or beside another tokenizer."""
    plan = Plan(rows=64, judged=32)
    shipped = lab09.load_ground(plan)
    said = lab09.judge_the_teacher(shipped)
    assert len(shipped.tokenizer) == lab09.VOCABULARY
    assert shipped.test.shape == (32, PROMPT + WRITTEN)
    assert said["teacher"] < 3.3
    assert 5 < said["frequencies"] < math.log(lab09.VOCABULARY)
    assert lab09.TEACHER.stat().st_size < 1.5e6


def test_the_record_holds_all_arms_and_seeds():
    """A table with a hole; a record of another plan than the module's."""
    record = Results.load()
    assert record.plan["learning_rate"] == Plan().learning_rate
    tried = [record.rates[f"{rate:g}"] for rate in lab09.RATES]
    assert all(
        better["people, forward_kl"] < worse["people, forward_kl"] for worse, better in itertools.pairwise(tried)
    )
    assert all(
        better["student, reverse_kl"] < worse["student, reverse_kl"] for worse, better in itertools.pairwise(tried)
    )
    for name in ARMS:
        for judge in lab09.JUDGES:
            scores = record.of(name, judge)
            assert scores.shape == (record.plan["seeds"], record.plan["judged"])
            assert np.isfinite(scores).all()
    assert 0 < record.tokenizers["shared"] <= min(record.tokenizers["first"], record.tokenizers["second"])
