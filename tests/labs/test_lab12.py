"""What lab 12 works on: twins that differ in one thing, networks side by side, settings that validation chose."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from kdcourse.labs import lab12
from kdcourse.labs.lab12 import ARMS, COMPARISONS, Arm, Crowd, Ground, Results, Setting, Teacher


@pytest.fixture
def ground():
    """Three clouds of points: 60 rows of the pool, 20 to validate, 30 to test, 10 without a label."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    inputs = torch.randn(120, 4, generator=random) + 3 * torch.nn.functional.one_hot(labels, 4)
    labels[110:] = -100
    rows = torch.arange(120)
    return Ground(inputs, labels, rows[:60], rows[60:80], rows[80:110], rows[110:], classes=3, width=5)


@pytest.fixture
def short(monkeypatch):
    """Trainings of a moment."""
    monkeypatch.setattr(lab12, "STEPS", (3, 6))
    monkeypatch.setattr(lab12, "SEEDS", range(2))
    monkeypatch.setattr(lab12, "TUNING_SEEDS", range(1000, 1002))
    monkeypatch.setitem(lab12.TEACHERS, "128", Teacher(width=8, rows=60, steps=20))


def alone(inputs, rows, aims, seed, steps, rate, temperature, decay):
    """One network, in the plain way."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    for batch in rows[torch.randint(len(rows), (steps, 64), generator=torch.Generator().manual_seed(seed))]:
        log_p = (network(inputs[batch]) / temperature).log_softmax(-1)
        divergence = (aims[batch] * (aims[batch].clamp_min(1e-30).log() - log_p)).sum(-1).mean()
        optimizer.zero_grad()
        (temperature**2 * divergence).backward()
        optimizer.step()
    return network(inputs)


def test_networks_side_by_side_learn_what_each_would_alone(ground):
    """A loss that is averaged over networks, a T² that is missing, a seed that is dealt the batches of another."""
    seeds = (3, 8)
    rows = torch.stack([lab12.order_of_rows(ground, seed)[:20] for seed in seeds])
    aims = torch.randn(2, 120, 3, generator=torch.Generator().manual_seed(1)).softmax(-1)
    crowd = Crowd(4, 5, 3, seeds)
    lab12.train(crowd, ground.inputs, rows, aims, seeds, steps=30, rate=0.01, temperature=3.0, decay=0.1)
    for place, seed in enumerate(seeds):
        expected = alone(ground.inputs, rows[place], aims[place], seed, 30, 0.01, 3.0, 0.1)
        assert torch.allclose(crowd(ground.inputs)[place], expected, atol=1e-4)


def test_more_rows_begin_with_the_fewer(ground):
    """Twins of 50 and 100 rows that have no row in common; unlabelled rows before the pool is used up."""
    order = lab12.order_of_rows(ground, 4)
    assert torch.equal(order, lab12.order_of_rows(ground, 4))
    assert sorted(order[:60].tolist()) == list(range(60))
    assert order[60:].tolist() == list(range(110, 120))
    assert not torch.equal(order, lab12.order_of_rows(ground, 5))


def test_a_flipped_label_is_wrong_and_only_the_pool_has_any(ground):
    """Flips that hit the right class again, or the test rows."""
    flipped = lab12.flipped_labels(ground, 2, 0.3)
    wrong = flipped != ground.labels
    assert wrong.sum() == 18
    assert not wrong[60:].any()
    assert (flipped[:60] < 3).all()
    assert torch.equal(lab12.flipped_labels(ground, 2, 0.0), ground.labels)


def test_each_arm_aims_at_what_its_name_says(ground):
    """Named classes in the place of people's labels; smoothing that adds up to more than one; a temperature twice."""
    seeds, answers = (0, 1), torch.randn(2, 120, 3, generator=torch.Generator().manual_seed(1))

    def aims(arm, knob):
        return lab12.aims_of(ground, arm, knob, seeds, answers)

    labels = aims(Arm("", "labels", 60), 0.0)
    assert torch.equal(labels[0, :110].argmax(-1), ground.labels[:110])
    smoothed = aims(Arm("", "smoothed", 60), 0.3)
    assert torch.allclose(smoothed[:, :110].sum(-1), torch.ones(2, 110))
    assert smoothed[0, 0].tolist() == pytest.approx([0.8, 0.1, 0.1])
    soft = aims(Arm("", "soft", 60), 2.0)
    assert torch.allclose(soft, torch.softmax(answers / 2, -1))
    named = aims(Arm("", "named", 70, labelled=25), 0.0)
    for place, seed in enumerate(seeds):
        order = lab12.order_of_rows(ground, seed)
        assert torch.equal(named[place, order[:25]], labels[place, order[:25]])
        assert torch.equal(named[place, order[25:]].argmax(-1), answers[place, order[25:]].argmax(-1))


def test_noise_is_drawn_once_and_is_as_large_as_was_said(ground):
    """Noise that is new in each step, as no stored answer's is."""
    answers = 5 * torch.randn(2, 120, 3, generator=torch.Generator().manual_seed(1))
    arm = Arm("", "soft", 60, noise=0.5)
    first, again = (lab12.answers_for(ground, arm, (0, 1), lambda name: answers) for _ in range(2))
    assert torch.equal(first, again)
    assert (first - answers).std().item() == pytest.approx(2.5, rel=0.1)
    assert not torch.equal(first[0] - answers[0], first[1] - answers[1])
    assert lab12.answers_for(ground, Arm("", "labels", 60), (0, 1), lambda name: answers).numel() == 0


def test_several_teachers_answer_with_their_mean(ground, monkeypatch):
    """An average of logits, in which the loudest teacher wins; members that are one and the same."""
    monkeypatch.setitem(lab12.TEACHERS, "one", Teacher(width=6, rows=60, steps=30))
    monkeypatch.setitem(lab12.TEACHERS, "two", Teacher(width=6, rows=60, steps=30, members=2))
    one, two = (lab12.ask(ground, name, (0, 1)).softmax(-1) for name in ("one", "two"))
    other = 2 * two - one
    assert torch.allclose(two.sum(-1), torch.ones(2, 120), atol=1e-4)
    assert (other > -1e-4).all()
    assert not torch.allclose(other, one, atol=0.01)


def test_an_assistant_learns_from_its_teacher_and_not_from_labels(ground, monkeypatch):
    """An assistant that is a smaller teacher."""
    monkeypatch.setitem(lab12.TEACHERS, "one", Teacher(width=6, rows=60, steps=200))
    monkeypatch.setitem(lab12.TEACHERS, "between", Teacher(width=6, rows=60, steps=200, taught_by="one"))
    teacher = lab12.ask(ground, "one", (0,))
    no_labels = dataclasses.replace(ground, labels=torch.zeros_like(ground.labels))
    monkeypatch.setattr(
        lab12, "ask", lambda of, name, seeds, ask=lab12.ask: teacher if name == "one" else ask(of, name, seeds)
    )
    between = lab12.ask(no_labels, "between", (0,))
    assert (between.argmax(-1) == teacher.argmax(-1)).float().mean() > 0.9


def test_validation_rows_choose_and_test_rows_do_not(ground, short):
    """A setting that was picked because the test rows like it."""
    spoilt = ground.labels.clone()
    spoilt[80:110] = (spoilt[80:110] + 1) % 3
    arm = Arm("", "soft", 60)
    chosen = [
        lab12.tune(each, arm, lab12.asking(each, lab12.TUNING_SEEDS), lab12.TUNING_SEEDS)
        for each in (ground, dataclasses.replace(ground, labels=spoilt))
    ]
    assert chosen[0] == chosen[1]
    setting, tried = chosen[0]
    assert len(tried) == 2 * 3 * 2
    assert tried[f"{setting.rate:g} {setting.knob:g} {setting.steps}"] == max(tried.values())
    assert not set(lab12.SEEDS) & set(lab12.TUNING_SEEDS)


def test_a_longer_arm_has_longer_trainings_and_no_more_tries():
    """A rival at equal cost that is stopped as early as the other."""
    plain, longer = (lab12.settings_of(Arm("", "labels", 60, longer=times)) for times in (1.0, 1.5))
    assert plain.keys() == longer.keys()
    assert all([1.5 * steps for steps in plain[each]] == longer[each] for each in plain)


def test_a_run_that_was_stopped_goes_on(ground, short):
    """Arms that are trained twice, or are judged by other seeds after a restart."""
    arms, kept = {"labels 10": Arm("a", "labels", 10), "soft 10": Arm("b", "soft", 10)}, []
    plan = lab12.the_plan()

    def keep(results):
        kept.append(list(results.right["toy"]))
        if len(kept) == 1:
            raise KeyboardInterrupt

    results = Results(plan)
    with pytest.raises(KeyboardInterrupt):
        lab12.measure(results, ground, "toy", arms, say=lambda words: None, keep=keep)
    results = lab12.measure(results, ground, "toy", arms, say=lambda words: None, keep=keep)
    assert kept == [["labels 10"], ["labels 10", "soft 10"]]
    whole = lab12.measure(Results(plan), ground, "toy", arms, say=lambda words: None)
    for name in arms:
        assert np.array_equal(results.of(name, "toy"), whole.of(name, "toy"))
        assert results.of(name, "toy").shape == (2, 30)
    assert results.of_teacher("128", "toy").shape == (2, 30)


def test_a_record_of_another_plan_is_not_completed(tmp_path, monkeypatch):
    """Arms of two experiments in one table."""
    file = tmp_path / "lab12.json"
    Results(lab12.the_plan(), rows={"digits": 3}, versions=lab12.versions()).save(file)
    assert lab12.begin(file).rows == {"digits": 3}
    monkeypatch.setattr(lab12, "RATES", (1e-3,))
    assert lab12.begin(file).rows == {}
    assert lab12.begin(tmp_path / "none.json").rows == {}


def test_digits_are_learned_chosen_and_judged_by_different_rows():
    """A test row that was learned from."""
    digits = lab12.load_digits()
    rows = torch.cat([digits.pool, digits.validation, digits.test])
    assert sorted(rows.tolist()) == list(range(1797))
    assert [len(each) for each in (digits.pool, digits.validation, digits.test)] == [600, 200, 997]


@pytest.mark.slow
def test_sentences_are_the_means_of_their_words():
    """Vectors beside the sentence of another, answers of another set, padding that is averaged."""
    reviews = lab12.load_reviews()
    assert [len(each) for each in (reviews.pool, reviews.validation, reviews.test, reviews.unlabelled)] == [
        8103, 1000, 1500, 20_000,
    ]  # fmt: skip
    assert len(reviews.inputs) == len(reviews.labels) == len(reviews.answers) == 30_603
    assert (reviews.labels[reviews.unlabelled] == -100).all()
    right = reviews.answers[reviews.test].argmax(-1) == reviews.labels[reviews.test]
    assert right.float().mean().item() == pytest.approx(0.864, abs=0.001)
    assert reviews.inputs[reviews.pool].std(0).mean().item() == pytest.approx(1, abs=0.01)


def in_use(arm):
    """The choices of an arm that make a difference to it."""
    choices = {name: value for name, value in vars(arm).items() if name not in ("words", "labelled")}
    if arm.aims in ("labels", "smoothed"):
        del choices["teacher"]
    if arm.aims == "named":  # labels, too, of which the teacher has made some
        choices["aims"] = "labels"
    return choices


@pytest.mark.parametrize(
    "comparison", [each for each in COMPARISONS if isinstance(each.first, str)], ids=lambda c: c.words
)
def test_twins_differ_in_one_thing(comparison):
    """Two changes that are reported as one. Where more is meant, the words say it: equal cost, 600 labels."""
    first, second = (in_use(ARMS[comparison.task][side]) for side in (comparison.first, comparison.second))
    changed = {name for name in first.keys() & second.keys() if first[name] != second[name]}
    if comparison.words == "100 answers for 600 labels":
        assert changed == {"aims", "rows"}
    elif "equal cost" in comparison.words:
        assert "longer" in changed
    elif "wrong labels" in comparison.words and "aims" in changed:
        assert changed == {"aims", "flipped"}  # the labels' own, or those of the teacher
    else:
        assert len(changed) == 1, changed


def test_comparisons_are_named_once():
    """A family with one comparison in it twice, under the same words."""
    names = [(each.question, each.words, each.task) for each in COMPARISONS]
    assert len(set(names)) == len(names)
    assert len({(each.first, each.second, each.task) for each in COMPARISONS if each.question != 6}) == sum(
        each.question != 6 for each in COMPARISONS
    )
    assert {each.question for each in COMPARISONS} == set(range(1, 9))


needs_record = pytest.mark.skipif(not lab12.RESULTS.exists(), reason="lab 12 has not been run whole")


@needs_record
def test_the_record_holds_all_arms_and_seeds():
    """A table with a hole; a record of another plan than the module's; a setting that was not the best tried."""
    record = Results.load()
    assert record.plan == lab12.the_plan()
    for task, arms in ARMS.items():
        assert record.right[task].keys() == arms.keys()
        for name, arm in arms.items():
            assert record.of(name, task).shape == (20, {"digits": 997, "reviews": 1500}[task])
            setting, tried = Setting(**record.settings[task][name]), record.tried[task][name]
            grid = itertools.chain.from_iterable(
                [(rate, knob, each) for each in steps] for (rate, knob), steps in lab12.settings_of(arm).items()
            )
            assert tried.keys() == {f"{rate:g} {knob:g} {steps}" for rate, knob, steps in grid}
            assert tried[f"{setting.rate:g} {setting.knob:g} {setting.steps}"] == max(tried.values())
    family = record.family()
    assert list(family) == list(COMPARISONS)
    assert all(p >= verdict.p for verdict, p in family.values())
