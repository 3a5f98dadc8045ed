"""What lab 08 works on, with tiny models: rows beside their own answers, students stopped where they should be."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_lab08 import PLAN, WHOLE, make_task, make_teacher, make_tokenizer

from kdcourse.labs import lab08
from kdcourse.labs.lab08 import ARMS, Judge, Plan, Results, Task

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def a_tokenizer():
    return make_tokenizer()


@pytest.fixture
def task(tmp_path, a_tokenizer):
    return make_task(tmp_path / "lab", a_tokenizer)


def test_what_is_measured_is_what_the_logits_say(task):
    """A shift that is missing or made twice, a softmax over the wrong axis, bins that lose the most confident."""
    texts, model = task.texts["test"], task.teacher
    first_choice = torch.randint(0, 48, (5, 9), generator=torch.Generator().manual_seed(3))
    measured = lab08.measure(lab08.read(model, texts), texts, first_choice)
    with torch.no_grad():
        probabilities = model(input_ids=texts).logits.double().softmax(-1).numpy()
    for row, ids in enumerate(texts.numpy()):
        losses = [-math.log(probabilities[row, place, ids[place + 1]]) for place in range(9)]
        assert measured["loss"][row].item() == pytest.approx(np.mean(losses), rel=1e-5)
        named = probabilities[row, :9].argmax(-1)
        assert measured["choice"][row].tolist() == named.tolist()
        assert measured["agrees"][row].item() == pytest.approx((named == first_choice[row].numpy()).mean())
    confidence = probabilities[:, :9].max(-1).ravel()
    right = (probabilities[:, :9].argmax(-1) == texts[:, 1:].numpy()).ravel()
    counts, confidences, rights = measured["bins"].numpy().T
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        assert counts[low] == inside.sum()
        assert rights[low] == right[inside].sum()
        expected += abs(confidence[inside].sum() - right[inside].sum()) / 45
    assert confidences.sum() == pytest.approx(confidence.sum(), rel=1e-6)
    assert lab08.calibration_error(measured["bins"]) == pytest.approx(expected, rel=1e-5)


def test_reading_leaves_a_student_as_it_was(task):
    """A student that is judged in the middle of its training, and goes on without dropout."""
    student = make_teacher().train()
    lab08.read(student, task.texts["test"])
    assert student.training


def test_kept_hidden_states_are_the_teachers_logits(task):
    """Rows of another text, half precision that moves the distribution, a head of another model."""
    batch = {lab08.ROW_COLUMN: torch.tensor([7, 2])}
    implicit = task.answers("train").logits(batch)
    logits = implicit.hidden @ implicit.head.weight.t()
    with torch.no_grad():
        expected = task.teacher(input_ids=task.texts["train"][[7, 2]]).logits
    assert torch.allclose(logits, expected, atol=2e-2 * expected.abs().max())
    assert not torch.allclose(logits, expected.flip(0), atol=2e-2 * expected.abs().max())


def test_the_teachers_text_begins_like_a_persons_and_goes_on_otherwise(task):
    """An arm that learns from the very text that it should not see, or from openings alone."""
    text = task.teachers_text
    assert text.shape == task.texts["train"].shape
    assert (text[:, :3] == task.texts["train"][:, :3]).all()
    assert (text[:, 3:] != task.texts["train"][:, 3:]).float().mean() > 0.5
    assert (text[:, 3:] != 1).all()  # it does not end
    assert torch.equal(Task(task.folder, PLAN, task.tokenizer, task.teacher, task.texts).teachers_text, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
def test_each_arm_learns_what_it_says(task, name):
    """Two arms that are one: an alpha, a divergence or a text that is not handed on."""
    done = lab08.run(task, name, 0)
    assert set(done.by_steps) == {2, 4, 6}
    assert {where: set(found) for where, found in done.measured.items()} == {
        where: {"loss", "agrees", "bins"} for where in lab08.JUDGED
    }
    assert done.measured["test"]["loss"].shape == (5,)
    assert done.cost["cpu seconds"] > 0
    assert done.writes.startswith("This movie was")
    others = [lab08.run(task, other, 0).by_steps[2] for other in ARMS if other != name]
    assert all(abs(done.by_steps[2] - other) > 1e-6 for other in others)


def test_the_first_steps_of_an_arm_are_those_of_a_loop_by_hand(task):
    """Labels that are shifted twice, a teacher's rows beside other texts, a learning rate that is not warmed up."""
    order = []
    done = lab08.run(task, "forward KL", 0)

    class Watched(lab08.HiddenTeacher):
        def logits(self, inputs):
            order.append(inputs[lab08.ROW_COLUMN].tolist())
            return super().logits(inputs)

    task.folder = task.folder / "watched"
    answers = Task.answers
    task.answers = lambda name: Watched(answers(task, name).hidden, task.head)
    again = lab08.run(task, "forward KL", 0)
    assert again.by_steps == done.by_steps
    student = lab08.models.cut_student(task.teacher, PLAN.layers)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2, weight_decay=0.0)
    for step, rows in enumerate(order[:2]):
        optimizer.param_groups[0]["lr"] = 1e-2 * step / 2  # two steps of warm-up
        ids = task.texts["train"][rows]
        s = student(input_ids=ids).logits[:, :-1].log_softmax(-1)
        t = task.teacher(input_ids=ids).logits[:, :-1].log_softmax(-1)
        (t.exp() * (t - s)).sum(-1).mean().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    ids = task.texts["validation"]
    with torch.no_grad():
        s = student(input_ids=ids).logits[:, :-1].log_softmax(-1)
    loss = -s.gather(2, ids[:, 1:, None]).mean().item()
    assert done.by_steps[2] == pytest.approx(loss, abs=2e-3)


def test_a_student_is_that_of_its_best_step(task, monkeypatch):
    """The last student under the name of the best."""
    losses = {2: 3.0, 4: 1.0, 6: 2.0}
    seen = {}
    measure = lab08.measure

    def told(answer, texts, first_choice=None):
        measured = measure(answer, texts, first_choice)
        if texts is task.texts["validation"]:
            step = sorted(losses)[len(seen)]
            seen[step] = measured["loss"].mean().item()
            measured["loss"] = torch.full_like(measured["loss"], losses[step])
        return measured

    monkeypatch.setattr(lab08, "measure", told)
    run = lab08.run(task, "labels", 0)
    assert run.steps == 4
    monkeypatch.setattr(lab08, "measure", measure)
    for last, is_same in ((4, True), (6, False)):  # the rate stays as it is, so a shorter run is the beginning of ours
        plan = Plan(**{**vars(PLAN), "steps": last, "tried": (last,)})
        other = Task(task.folder, plan, task.tokenizer, task.teacher, task.texts)
        found = lab08.run(other, "labels", 0).measured["test"]["loss"]
        assert torch.equal(found, run.measured["test"]["loss"]) == is_same


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(task, monkeypatch):
    """A resumed run that reads the first texts twice, forgets what it has tried, or loses its best student."""
    whole = lab08.run(task, "forward KL", 1)
    task.folder = task.folder / "again"
    on_step_end, stops = Judge.on_step_end, [3, 5]

    def interrupted(self, args, state, control, **given):
        on_step_end(self, args, state, control, **given)
        if state.global_step == stops[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "on_step_end", interrupted)
        while stops:
            with pytest.raises(KeyboardInterrupt):
                lab08.run(task, "forward KL", 1)
            stops.pop(0)
    resumed = lab08.run(task, "forward KL", 1)
    assert resumed.by_steps == whole.by_steps
    assert torch.equal(resumed.measured["test"]["loss"], whole.measured["test"]["loss"])


@pytest.mark.slow
def test_an_experiment_that_is_killed_three_times_measures_the_same(tmp_path):
    """An hour's work that begins anew, a trial that is counted twice, or a student that is half of another run."""

    def experiment(folder, *dies_at):
        command = [sys.executable, str(TESTS / "tiny_lab08.py"), str(folder), *map(str, dies_at)]
        done = subprocess.run(command, cwd=TESTS, check=False, timeout=300)
        results = folder / "results.json"
        return done.returncode, json.loads(results.read_text(encoding="utf-8")) if results.exists() else None

    for dies_at in (2, 9, 11):  # while it heals, and in two arms, between the checkpoints
        assert experiment(tmp_path / "killed", dies_at) == (-signal.SIGKILL, None)
    code, resumed = experiment(tmp_path / "killed")
    assert code == 0
    _, whole = experiment(tmp_path / "whole")
    assert resumed.pop("minutes").keys() == whole.pop("minutes").keys()  # of the last process
    assert resumed == whole
    assert resumed["plan"] == json.loads(json.dumps(vars(WHOLE)))
    assert {name: cut["layers"] for name, cut in resumed["cuts"].items()}["last"] == [1, 2]


def test_what_is_finished_is_fetched_and_what_is_damaged_is_not(task, monkeypatch, capsys):
    """An hour of training for nothing, or a number that one flipped bit has changed."""
    first = lab08.run(task, "labels", 0).measured["test"]["loss"].clone()  # which the file may be read for anew
    (folder,) = [path for path in task.folder.glob("labels-0-*") if path.is_dir()]
    assert not list(folder.glob("checkpoint*")) and not (folder / lab08.BEST_FILE).exists()
    trained = []
    train = lab08.train
    monkeypatch.setattr(lab08, "train", lambda *given: (trained.append(given[2]), train(*given))[1])
    assert torch.equal(lab08.run(task, "labels", 0).measured["test"]["loss"], first)
    assert trained == []
    content = bytearray((folder / lab08.MEASURED_FILE).read_bytes())
    content[-1] ^= 1
    (folder / lab08.MEASURED_FILE).write_bytes(content)
    again = lab08.run(task, "labels", 0)
    assert trained == [0]
    assert "was damaged" in capsys.readouterr().out
    assert torch.equal(again.measured["test"]["loss"], first)


def test_other_settings_are_another_run(task):
    """Results of last week's learning rate under today's name."""
    digest = lab08._digest(task, "labels", 0)
    assert lab08._digest(task, "labels", 1) != digest
    assert lab08._digest(task, "forward KL", 0) != digest
    other = Plan(**{**vars(PLAN), "learning_rate": 1e-3})
    assert lab08._digest(Task(task.folder, other, task.tokenizer, task.teacher, task.texts), "labels", 0) != digest
    more_seeds = Plan(**{**vars(PLAN), "seeds": 9})
    assert lab08._digest(Task(task.folder, more_seeds, task.tokenizer, task.teacher, task.texts), "labels", 0) == digest


def test_results_come_back_as_they_were_measured(task, tmp_path):
    """Seeds in another order, a perplexity that is a mean of perplexities, better that is worse."""
    said = []
    results = lab08.run_all(task, ["labels", "reverse KL"], say=said.append)
    assert len(said) == 4
    results.save(tmp_path / "new" / "results.json")
    loaded = Results.load(tmp_path / "new" / "results.json")
    runs = [lab08.run(task, "labels", seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        losses = run.measured["editorials"]["loss"].double().numpy()
        assert loaded.losses("labels", "editorials")[seed] == pytest.approx(losses, abs=1e-5)
        assert loaded.perplexities("labels", "editorials")[seed] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
        agrees = run.measured["test"]["agrees"].mean().item()
        assert loaded.agreement("labels")[seed] == pytest.approx(agrees, abs=1e-4)
        assert loaded.calibration("labels")[seed] == pytest.approx(
            lab08.calibration_error(run.measured["test"]["bins"]), abs=1e-3
        )
    verdict = loaded.compare("labels", "reverse KL")
    gain = (loaded.losses("labels") - loaded.losses("reverse KL")).mean()
    assert verdict.difference == pytest.approx(gain)
    assert verdict.covers == "other seeds and other test examples"
    assert loaded.losses("teacher").shape == (1, 5)
    assert json.loads(json.dumps(loaded.plan)) == loaded.plan


def test_ways_to_cut_are_tried_alike(task):
    """A way that is judged before it has learned, or on other texts; layers of the plan under every name."""
    tried = lab08.try_cuts(task, steps=4, say=lambda _: None)
    assert tried["first"].layers == [0, 1] and tried["last"].layers == [1, 2]
    for cut in tried.values():
        ids = task.texts["validation"]
        with torch.no_grad():
            logits = lab08.models.cut_student(task.teacher, cut.layers)(input_ids=ids).logits[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
        assert cut.before == pytest.approx(expected, rel=1e-5)
        assert cut.after != pytest.approx(cut.before, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"tried": (4, 2, 6)}, "rise"), ({"tried": ()}, "rise"), ({"tried": (2, 4)}, "make them equal")],
)
def test_a_plan_that_makes_no_sense_is_refused(changes, said):
    """A run that is never judged, or not at its end."""
    with pytest.raises(ValueError, match=said):
        Plan(**{**vars(PLAN), **changes})


HEALED = Plan(**{**vars(PLAN), "healing": 2, "healing_rate": 5e-3})


def of_plan(task, plan):
    return Task(task.folder, plan, task.tokenizer, task.teacher, task.texts)


def test_a_healed_student_has_learned_from_labels_alone(task):
    """A healing by the teacher, which some arms never ask; on texts that an arm reads; begun anew each time."""
    healed = of_plan(task, HEALED).healed(0)
    student, order = lab08.models.cut_student(task.teacher, PLAN.layers), []

    class Watched(lab08.HiddenTeacher):
        def logits(self, inputs):
            order.append(inputs[lab08.ROW_COLUMN].tolist())
            return super().logits(inputs)

    again = of_plan(task, HEALED)
    again.folder = task.folder / "watched"
    answers = again.answers
    again.answers = lambda name: Watched(answers(name).hidden, again.head)
    again.healed(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3, weight_decay=0.0)
    for step, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = 5e-3 * step / 2
        ids = task.texts["healing"][rows]
        logits = student(input_ids=ids).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert len(order) == 2
    for name, weight in student.named_parameters():
        assert torch.allclose(healed.get_parameter(name), weight, atol=2e-4), name
    assert not torch.equal(of_plan(task, HEALED).healed(1).model.norm.weight, healed.model.norm.weight)
    assert torch.equal(of_plan(task, HEALED).healed(0).model.norm.weight, healed.model.norm.weight)


def test_all_arms_of_a_seed_begin_with_one_student(task):
    """A learning rate that an arm chose for itself, and that has healed its student, too."""
    faster = Plan(**{**vars(HEALED), "learning_rate": 1e-1})
    task.folder = task.folder / "one"
    first = of_plan(task, HEALED).healed(0)
    assert torch.equal(of_plan(task, faster).healed(0).model.norm.weight, first.model.norm.weight)
    assert len(list(task.folder.glob("healed-0-*.safetensors"))) == 1


def test_mixed_texts_are_half_editorials_beside_their_own_answers(task):
    """Answers to the film reviews beside the editorials, or editorials that later judge the student."""
    mixed = task.read_by(ARMS["mixed texts"])
    assert torch.equal(mixed, torch.cat([task.texts["train"][:8], task.texts["transfer"]]))
    implicit = task.answers(lab08.MIXED).logits({lab08.ROW_COLUMN: torch.tensor([1, 9])})
    with torch.no_grad():
        expected = task.teacher(input_ids=mixed[[1, 9]]).logits
    assert torch.allclose(implicit.hidden @ implicit.head.weight.t(), expected, atol=2e-2 * expected.abs().max())


def test_each_arm_takes_the_rate_that_suits_it(task):
    """The rate of another arm, of the test texts, or the last one that was tried."""
    plan = Plan(**{**vars(PLAN), "rates": (1e-5, 1e-2), "trial": 4, "seeds": 1})
    said = []
    results = lab08.run_all(of_plan(task, plan), ["forward KL"], say=said.append)
    trials = results.trials["forward KL"]
    assert set(trials) == {"1e-05", "0.01"}
    best = min(trials, key=trials.get)
    assert f"learning rate {float(best):g}" in said[0]
    one = Plan(**{**vars(PLAN), "steps": 4, "tried": (4,), "learning_rate": float(best)})
    assert lab08.run(of_plan(task, one), "forward KL", 0).by_steps[4] == pytest.approx(trials[best], abs=1e-5)
    assert results.losses("healed").shape == (1, 5)


@pytest.mark.slow
def test_no_text_is_both_learned_from_and_judged_by(smollm2_folder, tmp_path):
    """Editorials that the student has read, or films that have healed it, under the name of unseen ones."""
    texts = lab08.load_task(tmp_path, lab08.QUICK).texts
    assert {name: len(rows) for name, rows in texts.items()} == dict(lab08.QUICK.texts)
    seen = [tuple(row) for rows in texts.values() for row in rows.tolist()]
    assert len(set(seen)) == len(seen)
