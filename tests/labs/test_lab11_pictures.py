"""What lab 11 asks with pictures, with a plan of a few steps: whose answers an arm hears, and to which pictures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdcourse.labs import lab11_pictures as pictures
from kdcourse.labs.lab11_pictures import ARMS, Lab, Plan, Results

PLAN = Plan(steps=2, batch_size=8, copies=3, weights=(1.0,), held_out=8, seeds=2)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab11"), PLAN)


def teachers_logits(model, images):
    with torch.no_grad():
        return model(pixel_values=images).logits


def test_pictures_are_as_the_models_read_them(lab):
    """Ink and paper exchanged, a scale of 255, a picture that was turned."""
    images = torch.zeros(2, 8, 8)
    images[0, :, 0] = 1
    found = pictures.processed(images)
    assert found.shape == (2, 1, 16, 16)
    assert (found[1] == -1).all()
    assert (found[0, 0, :, 0] > 0.5).all()
    assert (found[0, 0, :, 8:] == -1).all()
    assert len(lab.train.labels) + len(lab.test.labels) == 1797


def test_a_moved_picture_has_paper_at_its_edge():
    """A shift that brings in grey, which no processor has made."""
    torch.manual_seed(0)
    found = pictures.moved(torch.ones(50, 1, 4, 4), 1)
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    assert (found == 1).any(dim=-1).any(dim=-1).all()


ROWS = torch.tensor([5, 0, 9])


@pytest.mark.parametrize("answers", ["kept", "kept by seed", "asked", "probabilities", "logits"])
def test_an_arm_hears_the_answers_of_its_name(lab, answers):
    """An arm that is asked where it says kept; answers to other rows; a mean that is the other one."""
    arm = replace(ARMS["soft answers"], answers=answers)
    dataset, teacher = lab.rows_of(arm, ROWS)
    images, labels = lab.train.images[ROWS], lab.train.labels[ROWS]
    if answers == "asked":
        assert teacher is lab.teacher
        assert "teacher_logits" not in dataset.column_names
        assert torch.equal(dataset["pixel_values"][:], images)
        return
    assert teacher is None
    found, shown = dataset["teacher_logits"][:], dataset["pixel_values"][:]
    if answers == "kept by seed":
        assert torch.equal(dataset["labels"][:], labels.repeat(3))
        assert not torch.equal(shown[:3], shown[3:6])
        assert torch.allclose(found, teachers_logits(lab.teacher, shown), atol=1e-4)
        return
    assert torch.equal(shown, images)
    if answers == "kept":
        assert torch.allclose(found, teachers_logits(lab.teacher, images), atol=1e-4)
        return
    one, other = (teachers_logits(each, images).double().numpy() for each in lab.specialists)
    t = PLAN.temperature
    p, q = (np.exp(each / t) / np.exp(each / t).sum(-1, keepdims=True) for each in (one, other))
    expected = (p + q) / 2 if answers == "probabilities" else np.sqrt(p * q) / np.sqrt(p * q).sum(-1, keepdims=True)
    np.testing.assert_allclose((found.double() / t).softmax(-1).numpy(), expected, atol=1e-4)


def test_specialists_have_seen_their_half(lab, monkeypatch):
    """A specialist for everything."""
    seen = []
    monkeypatch.setattr(
        pictures, "trained", lambda model, rows, *_, **__: seen.append(set(rows["labels"][:].tolist())) or model
    )
    monkeypatch.setattr(Lab, "_kept", lambda self, name, settings, make: make())
    fresh = Lab(lab.folder / "fresh", PLAN)
    assert len(fresh.specialists) == 2
    assert seen == [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}]


@pytest.mark.slow
def test_a_run_is_kept_and_judged_arm_by_arm(lab, tmp_path):
    """An arm that is trained twice, or judged by the answers of another."""
    words = []
    results = pictures.run_all(lab, words.append)
    files = sorted(path.name for path in lab.folder.glob("*.safetensors"))
    assert pictures.run_all(Lab(lab.folder, PLAN), lambda said: None).arms == results.arms
    assert sorted(path.name for path in lab.folder.glob("*.safetensors")) == files
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again.arms == results.arms
    logits = lab.answers(ARMS["labels"], 1)["shifted"]
    assert again.arms["labels"]["shifted"][1] == (logits.argmax(1) != lab.test.labels).nonzero().flatten().tolist()
    assert again.right("labels", "shifted")[1].sum() == again.pictures - again.errors("labels", "shifted")[1]
    assert len(words) == 2 + len(ARMS)
    assert 0 < results.apart["KL, nats"] < math.inf


def test_the_record_of_pictures_holds_all_arms_and_seeds():
    """A table with a hole; a record of another plan than the module's."""
    record = Results.load()
    plan = Plan()
    assert record.plan["weights"] == list(plan.weights)
    assert record.plan["steps"] == plan.steps
    assert list(record.arms) == list(ARMS)
    for judged in record.arms.values():
        assert judged.keys() == {"as they are", "shifted"}
        assert all(len(seeds) == plan.seeds for seeds in judged.values())
