"""What lab 07 works on: rows beside their own answers, labels of whom they are said to be, results as measured."""

import numpy as np
import pytest
import torch

from kdcourse.labs import lab07, metrics
from kdcourse.labs.lab07 import Results


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lab07.load_task(tmp_path_factory.mktemp("lab"))


def test_rows_are_taught_by_their_own_answers(task):
    """The first 100 sentences beside the last 100 answers."""
    taught = task.taught("transfer", 100)
    assert taught["input_ids"][:] == task.sets["transfer"]["input_ids"][:100]
    assert torch.equal(torch.tensor(taught["teacher_logits"]), task.teacher_logits("transfer")[:100])
    assert set(taught["label"]) == {-100}


def test_labels_are_those_of_people_or_of_the_teacher(task):
    """An arm of hard labels that learns from people, and is called the teacher's."""
    people, teacher = (np.array(task.taught("train", labels=whose)["label"]) for whose in ("people", "teacher"))
    assert (people == np.array(task.sets["train"]["label"])).all()
    assert (teacher == task.teacher_logits("train").argmax(-1).numpy()).all()
    assert 0.02 < (people != teacher).mean() < 0.08


def test_elsewhere_only_clear_sentences_judge_a_model(task):
    """A model that is called wrong about "it comes in a box", which people rate 0.05."""
    assert task.judged("test").all()
    ratings = torch.tensor(task.sets["products"]["rating"][:])
    assert ratings[task.judged("products")].abs().min() >= 0.5 - 1e-6
    assert int(task.judged("products").sum()) == 2977
    logits = task.teacher_logits("products")
    clear = ratings.abs() >= 0.5
    right = (logits.argmax(-1) == task.labels("products"))[clear].double().mean()
    measured = task.measure({"products": logits})["products"]
    assert measured["accuracy"] == pytest.approx(right.item())
    assert set(measured) == {metric.name for metric in metrics.METRICS}


def test_results_come_back_as_they_were_saved(tmp_path):
    """Seeds in another order, or an arm under the name of another."""
    measured = [{"test": {"accuracy": value}} for value in (0.7512345, 0.5)]
    results = Results(measured[1], {"labels": measured, "soft": measured[::-1]}, {"steps": 3}, 1.5, {"torch": "2"})
    results.save(tmp_path / "new" / "results.json")
    loaded = Results.load(tmp_path / "new" / "results.json")
    assert loaded.scores("labels") == [0.75123, 0.5]
    assert loaded.scores("soft") == [0.5, 0.75123]
    assert (loaded.teacher, loaded.budget, loaded.versions) == (measured[1], {"steps": 3}, {"torch": "2"})


def test_which_sentences_were_right_comes_back_bit_by_bit(tmp_path):
    """Answers of the seed beside, or of the sentences that only fill the last byte."""
    random = np.random.default_rng(0)
    right = random.random((2, 13)) < 0.7
    packed = [lab07.pack(row) for row in right]
    results = Results({}, {}, {"steps": 1}, 0.0, {}, {"test": 13}, {"soft": {"test": packed}})
    results.save(tmp_path / "results.json")
    assert (Results.load(tmp_path / "results.json").right("soft") == right).all()
    assert len(packed[0]) == 4


def test_arms_are_compared_on_the_same_sentences_with_the_steps_that_suit_each():
    """Equal steps under the name of the best, or one set of sentences for another."""

    def at(*steps_and_right):
        return {
            f"{arm}@{steps}" if steps < 5 else arm: {"test": [lab07.pack(right)] * 2}
            for arm, steps, right in steps_and_right
        }

    few, many = [True] * 4 + [False] * 6, [True] * 7 + [False] * 3
    arms = {
        name: [{"validation": {"accuracy": value}}] * 2
        for name, value in {"a@1": 0.5, "a@2": 0.9, "a@3": 0.5, "a": 0.6, "b@1": 0, "b@2": 0, "b@3": 0, "b": 1}.items()
    }
    answers = at(("a", 2, few), ("a", 5, many), ("b", 5, many), ("b", 2, few))
    results = Results({}, arms, {"steps": 5}, 0.0, {}, {"test": 10}, answers)
    assert results.compare("a", "b").difference == pytest.approx(0.3)
    assert results.compare("a", "b", steps=5).difference == 0
    assert results.compare("a", "b").covers == "other seeds and other test examples"


def test_half_precision_is_what_the_machine_has(monkeypatch):
    """bfloat16 on a card that only emulates it, or any of the two on a CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported, settings in ((True, {"bf16": True}), (False, {"fp16": True})):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=supported: including_emulation or native
        )
        assert lab07.half_precision() == settings
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lab07.half_precision() == {}


def test_the_best_number_of_steps_is_chosen_on_validation_sentences():
    """A budget that was chosen by the accuracy that is then reported, or by the luckiest seed."""

    def measured(*pairs):
        return [{"validation": {"accuracy": validation}, "test": {"accuracy": test}} for validation, test in pairs]

    arms = {
        "labels@20": measured((0.70, 0.9), (0.70, 0.9)),
        "labels@40": measured((0.78, 0.6), (0.76, 0.6)),
        "labels@60": measured((0.60, 0.7), (0.90, 0.7)),
        "labels": measured((0.75, 0.8), (0.75, 0.8)),
    }
    results = Results({}, arms, {"steps": 100}, 0.0, {})
    assert results.best_steps("labels") == 40
    assert results.at_best("labels") == [0.6, 0.6]


def test_the_shipped_results_are_those_of_a_full_run():
    """A quick run, or one with a seed missing, that was stored as evidence."""
    results = Results.load()
    assert results.budget == {"steps": 1000, "batch size": 64, "seeds": 5}
    tried = [f"{arm}@{steps}" for arm in lab07.ARMS for steps in (200, 400, 600)]
    assert sorted(results.arms) == sorted([*lab07.ARMS, *tried])
    for measured in results.arms.values():
        assert len({each["test"]["negative_log_likelihood"] for each in measured}) == 5
    assert lab07.RESULTS.stat().st_size < 400_000


def test_the_stored_answers_give_the_stored_accuracies(task):
    """Answers of another run than the scores beside them, or in another order than the sentences."""
    results = Results.load()
    assert results.sentences == {name: int(task.judged(name).sum()) for name in lab07.COMPARED}
    for arm in results.arms:
        for where in lab07.COMPARED:
            right = results.right(arm, where)
            assert right.mean(axis=1) == pytest.approx(results.scores(arm, where=where), abs=6e-6)
    (teacher,) = results.right("teacher")
    assert (teacher == task.right("test", task.teacher_logits("test"))).all()
    assert teacher.mean() == pytest.approx(results.teacher["test"]["accuracy"], abs=6e-6)
    together = results.right("soft-20000").mean(axis=0)  # what the teacher finds easy is easy for its students
    assert np.corrcoef(together, teacher)[0, 1] > 0.2
