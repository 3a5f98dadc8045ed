"""What lab 11 works on, with networks of a few units: shifts, norms, biases, trainings that go on, and what is kept."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

from kdcourse.labs import lab11
from kdcourse.labs.lab11 import Arm, Plan, Recipe, Results, Task
from kdcourse.labs.mnist import Pictures

PLAN = Plan(
    teacher_width=6, widths={"student": 5, "small": 4, "tiny": 3}, teacher=Recipe(steps=12, rate=1e-2, batch_size=8),
    steps={"student": 8, "small": 8, "tiny": 8}, rates=(1e-2, 3e-2),
    trial={"student": 0.5, "small": 0.5, "tiny": 0.5}, held_out=10, batch_size=64, seeds=2,
)  # fmt: skip


def pictures(count, seed):
    random = torch.Generator().manual_seed(seed)
    return Pictures(torch.rand(count, 4, 4, generator=random), torch.randint(10, (count,), generator=random))


@pytest.fixture
def task(tmp_path):
    """Noise to learn from, with every digit in it."""
    train, test = pictures(60, 0), pictures(30, 1)
    train.labels[:10] = torch.arange(10)
    return Task(tmp_path, PLAN, train, test)


def test_a_shift_moves_a_picture_and_fills_with_paper():
    """Pictures that wrap around, that are all shifted alike, or that lose ink inside."""
    image = torch.zeros(200, 5, 5)
    image[:, 2, 2] = 1
    torch.manual_seed(0)
    found = lab11.shifted(image, 1)
    places = {tuple(place) for place in found.nonzero()[:, 1:].tolist()}
    assert places == set(itertools.product((1, 2, 3), repeat=2))
    assert found.sum() == 200
    corner = torch.zeros(200, 5, 5)
    corner[:, 0, 0] = 1
    assert set(lab11.shifted(corner, 1).sum(dim=(1, 2)).tolist()) == {0.0, 1.0}
    assert torch.equal(lab11.shifted(image, 0), image)


def test_norms_are_limited_where_weights_enter_a_hidden_unit():
    """A limit by column, on the output, or one that also stretches what is short."""
    model = lab11.network(2, 3)
    with torch.no_grad():
        for layer in (model[2], model[5], model[8]):
            layer.weight.fill_(1.0)
        model[2].weight[0] = 0.1
    lab11.limit_norms(model, 1.5)
    assert model[2].weight.norm(dim=1).tolist() == pytest.approx([0.2, 1.5, 1.5], rel=1e-4)
    assert model[5].weight.norm(dim=1).tolist() == pytest.approx([1.5] * 3, rel=1e-4)
    assert (model[8].weight == 1).all()


def test_the_best_shift_is_the_middle_of_the_best():
    """A bias with a wrong sign, of the wrong class, or the first of many that are equally good."""
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    labels = torch.tensor([0, 1, 1])
    found = lab11.best_shift(logits, labels, [1])
    by_hand = {
        shift / 10: (shift / 10 >= 2.0) + (shift / 10 <= 1.0) + (shift / 10 <= -3.0) for shift in range(-200, 201)
    }
    assert by_hand[found] == min(by_hand.values()) == 0
    assert 1 < found < 2
    assert found == pytest.approx(1.5, abs=0.15)
    both = lab11.best_shift(torch.tensor([[0.0, 5.0, 5.5]]), torch.tensor([0]), [1, 2])
    assert both < -5.5


def test_what_corrects_a_picture_has_not_seen_it():
    """A correction that is chosen by the pictures that it is judged by."""
    logits = torch.tensor([[2.0, 0.0], [9.0, 0.0]] * 4)
    labels = torch.tensor([1, 1] * 4)
    corrected = lab11.corrected_by_others(logits, labels, [1])
    even, odd = (corrected - logits)[::2, 1], (corrected - logits)[1::2, 1]
    assert even.unique().tolist() == pytest.approx([lab11.best_shift(logits[1::2], labels[1::2], [1])], abs=1e-4)
    assert odd.unique().tolist() == pytest.approx([lab11.best_shift(logits[::2], labels[::2], [1])], abs=1e-4)
    assert even[0] > 9
    assert odd[0] > 2


def test_three_readings_of_a_student_without_threes():
    """Errors of threes among all that are counted as those of others, or as it is after a correction."""
    logits = torch.zeros(6, 10)
    logits[:, 0] = 1.0
    labels = torch.tensor([0, 3, 3, 3, 3, 0])
    logits[1:5, 3] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    found = lab11.judge_corrected(logits, labels, [3])
    assert (found["as it is"], found["as it is, of its own"]) == (4, 4)
    assert (found["by the test pictures"], found["by the test pictures, of its own"]) == (0, 0)
    assert 0.5 < found["shift"] < 1


@pytest.mark.parametrize("stopped_at", [6, 11])
def test_a_training_that_was_interrupted_goes_on_as_it_was(tmp_path, monkeypatch, stopped_at):
    """Another order, jitter or dropout after an interruption, a schedule that begins anew."""
    images, labels = pictures(24, 0)
    recipe = Recipe(steps=14, rate=1e-2, batch_size=8, jitter=1, max_norm=1.0)
    monkeypatch.setattr(lab11, "SAVED_EVERY", 1)

    def begin():
        torch.manual_seed(0)
        return lab11.network(4, 5, 0.2, 0.5)

    def learn(stop=None, unfinished=None):
        seen = []

        def objective(model, batch, rows):
            seen.append(rows)
            if len(seen) == stop:
                raise KeyboardInterrupt
            return F.cross_entropy(model(batch), labels[rows])

        return lab11.train(begin(), images, objective, recipe, 3, unfinished), seen

    whole, _ = learn()
    with pytest.raises(KeyboardInterrupt):
        learn(stopped_at, tmp_path / "unfinished")
    again, seen = learn(unfinished=tmp_path / "unfinished")
    assert len(seen) == 14 - 3 * ((stopped_at - 1) // 3)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("all", range(60)),
        ("no threes", [row for row in range(60) if row % 10 != 3]),
        ("only 7s and 8s", [row for row in range(60) if row % 10 in (7, 8)]),
        ("3%", range(2)),
    ],
)
def test_an_arm_learns_from_the_pictures_of_its_name(task, which, expected):
    """Threes that are left in, a share of the wrong size."""
    train = Pictures(torch.zeros(60, 4, 4), torch.arange(60) % 10)
    assert task.rows_of(Arm("student", 0.1, pictures=which), train).tolist() == list(expected)


def test_the_teachers_answers_belong_to_the_rows_that_are_left(task):
    """A student without threes that is taught by the answers to other pictures."""
    arm = Arm("student", alpha=0.0, temperature=2.0, pictures="no threes")
    rows = task.rows_of(arm, task.train)
    model = lab11.network(4, 5).eval()
    batch = torch.tensor([1, 4])
    found = task._objective(arm, rows)(model, task.train.images[rows[batch]], batch)
    with torch.no_grad():
        said, taught = (each(task.train.images[rows[batch]]).double().numpy() / 2 for each in (model, task.teacher))

    def log_softmax(logits):
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    p, q = log_softmax(said), log_softmax(taught)
    assert found.item() == pytest.approx(4 * (np.exp(q) * (q - p)).sum(-1).mean(), rel=1e-4)


def test_results_come_back_as_they_were(task, tmp_path, capsys):
    """A run that trains anew what it has, a record with another arm's errors, seeds that share their wrong answers."""
    names = ("plain", "no threes")
    results = lab11.run_all(task, names)
    assert list(results.arms) == ["plain"]
    assert list(results.corrected) == ["no threes"]
    assert len(results.errors("plain")) == PLAN.seeds
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again == replace(results, plan=again.plan)
    wrong = again.arms["plain"][1]
    assert again.right("plain")[1].sum() == 30 - len(wrong)
    assert all(again.right("plain")[1][index] == 0 for index, _ in wrong)
    assert all(task.test.labels[index] != digit for index, digit in wrong)
    files = sorted(path.name for path in task.folder.glob("*.safetensors"))
    second = lab11.run_all(Task(task.folder, PLAN, task.train, task.test), names, announce=lambda words: None)
    assert second.arms == results.arms
    assert sorted(path.name for path in task.folder.glob("*.safetensors")) == files
    capsys.readouterr()


def test_a_rate_is_chosen_by_pictures_that_are_held_out(task):
    """A rate that the test pictures, or those that were learned from, have chosen."""
    tried = task.try_rates(Arm("tiny", 1.0))
    assert list(tried) == list(PLAN.rates)
    assert all(0 <= count <= PLAN.held_out for count in tried.values())
    task.test.labels.fill_(0)
    assert task.try_rates(Arm("tiny", 1.0)) == tried


def test_plans_have_the_arms_that_they_can_tell_apart():
    """A jittered arm where there is no jitter: twins by two names."""
    full, quick = (lab11.arms_of(plan) for plan in (lab11.FULL, lab11.QUICK))
    assert full.keys() - quick.keys() == {"plain, jittered", "distilled, jittered"}
    assert {arm.size for arm in full.values()} == set(lab11.FULL.widths)


def test_an_arm_that_there_is_not_is_named(tmp_path, capsys):
    """A KeyError after an hour of training."""
    with pytest.raises(SystemExit):
        lab11.main(["--folder", str(tmp_path), "--arms", "plain", "distiled"])
    assert "no arm 'distiled'; it has plain, distilled" in capsys.readouterr().err


def test_the_record_holds_all_arms_and_seeds():
    """A table with a hole, or one of another test set."""
    record = Results.load()
    assert record.arms.keys() | record.corrected.keys() == lab11.arms_of(lab11.FULL).keys()
    for name, of_seeds in {**record.arms, **record.corrected}.items():
        assert len(of_seeds) == record.plan["tiny_seeds" if name.endswith("tiny") else "seeds"], name
    assert len(record.labels) == 10
    assert all(0 <= index < record.pictures for index, _ in record.teacher)
