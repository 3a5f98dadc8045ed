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
