"""`model_init` and a search over hyperparameters: each student and each setting is looked at as the first was."""

import sys
from types import SimpleNamespace

import pytest
from settings.by_hand import step
from shapes import WORDS, make_classifier, make_collator, make_model, make_rows, make_tokenizer
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, HyperParamSearchBackendBase
from transformers.integrations import integration_utils
from transformers.trainer_utils import HPSearchBackend

from kdcourse import DistillationArguments, DistillationTrainer, MismatchError

SHAPE = "bert-classifier"


def make_trainer(folder, model_init, teacher=None, **settings):
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.1, "logging_steps": 1,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    return DistillationTrainer(
        args=DistillationArguments(str(folder), **defaults | settings),
        model_init=model_init, teacher=teacher or make_model(SHAPE, seed=1), train_dataset=make_rows(SHAPE),
        data_collator=make_collator(SHAPE),
    )  # fmt: skip


class OneAfterTheOther(HyperParamSearchBackendBase):
    """Runs the trials that the space lists, and gives what each has logged first."""

    name = "one after the other"

    @staticmethod
    def is_available():
        return True

    def ensure_available(self):
        pass

    def run(self, trainer, n_trials, direction, **options):
        logs = []
        for trial in trainer.hp_space(None):
            trainer.objective = None
            trainer.train(trial=trial)
            logs.append(trainer.state.log_history[0])
        return logs

    def default_hp_space(self, trial):
        return []


@pytest.fixture
def search(monkeypatch):
    """A search without a package for it: the Trainer takes a trial's values from a dictionary for wandb's sweeps."""
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.WANDB, OneAfterTheOther)
    monkeypatch.setattr(integration_utils, "is_ray_tune_available", lambda: True)  # which may say what a trial holds
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=SimpleNamespace(id="0")))  # which names its folder

    def run(trainer, trials):
        return trainer.hyperparameter_search(lambda _: trials, n_trials=len(trials), backend="wandb")

    return run


@pytest.mark.parametrize("start", [{"alpha": 0.5, "temperature": 2.0}, {"alpha": 0, "temperature": 2}])
def test_a_search_trains_with_the_values_of_its_trial(search, tmp_path, start):
    """The Trainer casts a trial's value to the type that it finds: from alpha=0, 0.7 became 0, and from T=2, 1.5 became
    1; and what a trial had not logged was added to the next one's losses."""
    trials = [{"alpha": 0.7, "temperature": 1.5}, {"alpha": 0.25, "temperature": 3.5}]
    trainer = make_trainer(tmp_path, lambda: make_model(SHAPE), **start)
    for log, trial in zip(search(trainer, trials), trials, strict=True):
        by_hand, _ = step(SHAPE, make_rows(SHAPE), **trial)
        assert log["loss"] == pytest.approx(by_hand.total.item(), rel=1e-5)
        assert log["hard_loss"] == pytest.approx(by_hand.hard.item(), rel=1e-5)
        assert log["soft_loss"] == pytest.approx(by_hand.soft.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        ({"alpha": 7}, "alpha is 7.0, but the weight of the labels must lie between 0 and 1"),
        ({"temperature": 0}, "temperature is 0.0"),
        ({"class_weights": [1, -1, 1]}, "class_weights hold -1"),
        ({"divergence": "kl"}, "kl"),
        ({"divergence": "jensen_shannon", "beta": 2}, "beta"),
    ],
)
def test_a_trials_values_are_checked(search, tmp_path, trial, words):
    """Values that the arguments would refuse, set behind their back."""
    trainer = make_trainer(tmp_path, lambda: make_model(SHAPE))
    with pytest.raises(ValueError, match=words):
        search(trainer, [trial])


def test_a_trials_class_weights_are_used(search, tmp_path):
    """Weights that were read once, when the trainer was made: a search over them trained every trial alike."""
    trainer = make_trainer(tmp_path, lambda: make_model(SHAPE), class_weights=[1.0, 1.0, 1.0])
    even, twice = search(trainer, [{"class_weights": [1.0, 1.0, 1.0]}, {"class_weights": [2.0, 2.0, 2.0]}])
    assert twice["hard_loss"] == pytest.approx(2 * even["hard_loss"], rel=1e-5)


def first_then(first, later):
    """A `model_init` that gives one model to the trainer's own making, and another for each training."""
    models = iter([first])
    return lambda: next(models, later)


def test_a_later_student_may_not_share_the_teachers_weights(tmp_path):
    """`model_init=lambda: model` where the model is the teacher: only the first student was compared."""
    teacher = make_model(SHAPE, seed=1)
    trainer = make_trainer(tmp_path, first_then(make_model(SHAPE), teacher), teacher)
    with pytest.raises(ValueError, match="share weights"):
        trainer.train()


def test_a_later_students_labels_are_compared(tmp_path):
    """Labels in another order, which teach the wrong class."""
    names = ["bad", "fair", "good"]
    first, later = make_classifier(names=names), make_classifier(names=names[::-1])
    trainer = make_trainer(tmp_path, first_then(first, later), make_classifier(names=names, seed=1))
    with pytest.raises(MismatchError, match="order"):
        trainer.train()


def test_each_training_begins_with_a_student_of_its_own(tmp_path):
    """A second training that goes on with the first one's student, or logs what the first had left unlogged."""
    trainer = make_trainer(tmp_path, lambda: make_model(SHAPE), logging_steps=2, max_steps=3, learning_rate=0.5)
    trainer.train()
    first = trainer.state.log_history[0]
    trainer.train()
    names = ("loss", "hard_loss", "soft_loss")
    assert [trainer.state.log_history[0][name] for name in names] == pytest.approx([first[name] for name in names])


class Named:
    """A source of logits that says for which labels they are, as a cache does."""

    label_names = ("bad", "fair", "good")

    def logits(self, inputs):
        raise AssertionError("A student with other labels is asked to learn from them.")


def test_a_later_students_labels_are_compared_with_those_of_a_cache(tmp_path):
    """A cache that is held against the first student alone."""
    first, later = make_classifier(names=Named.label_names), make_classifier(names=Named.label_names[::-1])
    trainer = make_trainer(tmp_path, first_then(first, later), Named())
    with pytest.raises(MismatchError, match="logits were computed for"):
        trainer.train()


def test_a_model_is_made_from_its_trial(search, tmp_path):
    """A search over the student's shape that trains one shape again and again."""
    seen = []

    def model_init(trial):
        seen.append(trial)
        return make_model(SHAPE)

    search(make_trainer(tmp_path, model_init), [{"alpha": 0.25}])
    assert {"alpha": 0.25} in seen


def test_a_later_student_shares_the_vocabulary_that_the_first_did(tmp_path):
    """A teacher whose padded ids are cut off for the first student alone: a mismatch at the first step."""
    shape, tokenizer = "gpt2-lm", make_tokenizer()
    settings = {"max_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    trainer = DistillationTrainer(
        args=DistillationArguments(str(tmp_path), logging_steps=1, per_device_train_batch_size=16, **settings),
        model_init=lambda: make_model(shape), teacher=make_model(shape, seed=1, vocab_size=WORDS + 8),
        processing_class=tokenizer, teacher_processing_class=tokenizer, train_dataset=make_rows(shape),
        data_collator=make_collator(shape),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["soft_loss"] > 0
