"""`DistillationTrainer` on a small student: the same step however it is cut, and nothing ignored in silence."""

import copy
import re

import pytest
import torch
from datasets import Dataset, Value
from shapes import make_model, make_rows, make_tokenizer
from transformers import DataCollatorWithPadding, TrainingArguments

from kdcourse import DistillationArguments, DistillationTrainer, MismatchError, distillation_loss
from kdcourse.collators import collator
from kdcourse.columns import LOGITS_COLUMN
from kdcourse.compat import lost_steps, require_label_ids
from kdcourse.teacher import add_logits, score


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def student():
    """Without dropout, so that two runs can be compared."""
    return make_model("gpt2-classifier")


@pytest.fixture(scope="module")
def teacher():
    """A teacher with dropout, which shows if it is not in eval mode."""
    return make_model("gpt2-classifier", seed=1, dropout=0.1)


@pytest.fixture(scope="module")
def rows(tokenizer, teacher):
    """16 rows with the teacher's logits; half have no label, spread unevenly."""
    rows = make_rows("gpt2-classifier").remove_columns("labels")
    unlabelled = {0, 1, 2, 3, 4, 5, 9, 14}
    rows = rows.add_column("label", [-100 if index in unlabelled else index % 3 for index in range(16)])
    return add_logits(rows, score(teacher, tokenizer, rows))


def make_trainer(student, tokenizer, folder, rows, teacher=None, **changes):
    settings = {
        "max_steps": 1, "per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
        "alpha": 0.5, "temperature": 2.0,
    } | changes  # fmt: skip
    return DistillationTrainer(
        copy.deepcopy(student),
        DistillationArguments(str(folder), **settings),
        teacher=teacher,
        train_dataset=rows,
        data_collator=collator(tokenizer),
    )


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 4), (1, 16), (3, 6)])
def test_a_step_is_the_same_however_it_is_cut(student, tokenizer, tmp_path, rows, batch, accumulation):
    """Gradients 4× too large at 4 accumulation steps (transformers#47688), or a mean of means over uneven labels."""
    whole = make_trainer(student, tokenizer, tmp_path, rows)
    cut = make_trainer(
        student, tokenizer, tmp_path, rows, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation
    )
    whole.train()
    cut.train()
    step = (weights(whole) - torch.cat([p.detach().flatten() for p in student.parameters()])).norm()
    assert step > 0
    assert (weights(whole) - weights(cut)).norm() / step < 1e-5
    for name in ("loss", "hard_loss", "soft_loss"):
        assert cut.state.log_history[0][name] == pytest.approx(whole.state.log_history[0][name], rel=1e-5)


def test_the_loss_is_that_of_the_objective(student, tokenizer, tmp_path, rows):
    """A trainer whose loss is not the function that the lessons derive."""
    trainer = make_trainer(student, tokenizer, tmp_path, rows, alpha=0.3, temperature=4.0)
    expected = distillation_loss(
        score(student, tokenizer, rows),
        torch.tensor(rows[LOGITS_COLUMN]),
        torch.tensor(rows["label"]),
        alpha=0.3,
        temperature=4.0,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert [logged[name] for name in ("loss", "hard_loss", "soft_loss")] == pytest.approx(
        [part.item() for part in expected], rel=1e-5
    )


def test_a_teacher_in_the_loop_is_the_cache(student, teacher, tokenizer, tmp_path, rows):
    """Dropout in the targets, labels sent to the teacher, or another teacher than the one that was cached."""
    cached = make_trainer(student, tokenizer, tmp_path, rows)
    online = make_trainer(
        student, tokenizer, tmp_path, rows.remove_columns(LOGITS_COLUMN), teacher=copy.deepcopy(teacher)
    )
    cached.train()
    online.train()
    assert torch.allclose(weights(cached), weights(online), atol=1e-6)


def test_the_teacher_stays_out_of_the_student(student, teacher, tokenizer, tmp_path, rows):
    """A teacher that is a submodule: put into train mode at every step, and saved with every checkpoint."""
    teacher = copy.deepcopy(teacher).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer = make_trainer(
        student, tokenizer, tmp_path, rows.remove_columns(LOGITS_COLUMN), teacher=teacher, max_steps=2
    )
    trainer.train()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert set(trainer.model.state_dict()) == set(student.state_dict())


def test_alpha_decides_what_is_learned(student, tokenizer, tmp_path, rows):
    """alpha = 1 that still listens to the teacher, alpha = 0 that still reads labels."""
    other_logits = rows.remove_columns(LOGITS_COLUMN).add_column(LOGITS_COLUMN, [[9.0, -9.0, -9.0]] * len(rows))
    other_labels = rows.map(lambda row: {"label": (row["label"] + 1) % 3 if row["label"] >= 0 else -100})

    def trained(dataset, alpha):
        trainer = make_trainer(student, tokenizer, tmp_path, dataset, alpha=alpha)
        trainer.train()
        return weights(trainer)

    assert torch.equal(trained(rows, 1.0), trained(other_logits, 1.0))
    assert torch.equal(trained(rows, 0.0), trained(other_labels, 0.0))
    assert not torch.equal(trained(rows, 0.5), trained(other_logits, 0.5))
    assert not torch.equal(trained(rows, 0.5), trained(other_labels, 0.5))


def test_unlabelled_sentences_alone_can_teach(student, tokenizer, tmp_path, rows):
    """A transfer set without labels that gives NaN, or no step at all."""
    unlabelled = rows.map(lambda _: {"label": -100})
    trainer = make_trainer(student, tokenizer, tmp_path, unlabelled)
    trainer.train()
    assert "hard_loss" not in trainer.state.log_history[0]
    assert trainer.state.log_history[0]["soft_loss"] > 0
    assert weights(trainer).isfinite().all()


def test_evaluation_reports_loss_and_metrics(student, tokenizer, tmp_path, rows):
    """An evaluation that fails for want of labels, or counts its rows like a training step."""
    labelled = rows.filter(lambda row: row["label"] >= 0)
    trainer = make_trainer(student, tokenizer, tmp_path, rows, per_device_eval_batch_size=8)
    trainer.compute_metrics = lambda predictions: {"rows": len(predictions.label_ids)}
    metrics = trainer.evaluate(labelled)
    expected = distillation_loss(
        score(student, tokenizer, labelled),
        torch.tensor(labelled[LOGITS_COLUMN]),
        torch.tensor(labelled["label"]),
        alpha=0.5,
        temperature=2.0,
    )
    assert metrics["eval_rows"] == 8
    assert metrics["eval_loss"] == pytest.approx(expected.total.item(), rel=1e-5)


def test_without_a_teacher_there_is_a_sentence(student, tokenizer, tmp_path, rows):
    """Columns that vanish: with remove_unused_columns the Trainer drops what the student's forward does not name."""
    trainer = make_trainer(student, tokenizer, tmp_path, rows.remove_columns(LOGITS_COLUMN))
    with pytest.raises(ValueError, match="There is no teacher"):
        trainer.train()


def test_labels_that_are_texts_are_a_sentence_that_helps(student, teacher, tokenizer, tmp_path, rows):
    """A file of comma-separated values, whose labels are words: an error about excessive nesting."""
    names = ["bad", "so-so", "good"]
    said = rows.remove_columns(["label", LOGITS_COLUMN]).add_column("label", [names[row % 3] for row in range(16)])
    trainer = make_trainer(student, tokenizer, tmp_path, said, teacher)
    with pytest.raises(MismatchError, match=r"holds texts.*label2id\[row\['label'\]\]\}, remove_columns=\['label'\]"):
        trainer.train()
    ids = dict(zip(names, range(3), strict=True))
    mapped = said.map(lambda row: {"labels": ids[row["label"]]}, remove_columns=["label"])  # as the sentence has it
    assert mapped["labels"][:4] == [0, 1, 2, 0]
    make_trainer(student, tokenizer, tmp_path, mapped, teacher).train()
    # Why it names another column: in one that was read from a file, datasets turns ids back into texts.
    read = said.cast_column("label", Value("large_string"))
    assert read.map(lambda row: {"label": ids[row["label"]]})["label"][:2] == ["0", "1"]
    with pytest.raises(MismatchError, match="The column 'labels' holds texts"):
        require_label_ids(Dataset.from_dict({"labels": [["B-PER", "O"]]}))


def test_labels_that_somebodys_own_code_makes_ids_are_left_to_it(student, teacher, tokenizer, tmp_path, rows):
    """A collator, or a transform, that looks names up, and is refused for what it gets."""
    names = ["bad", "so-so", "good"]
    said = rows.remove_columns(["label", LOGITS_COLUMN]).add_column("label", [names[row % 3] for row in range(16)])
    pads = DataCollatorWithPadding(tokenizer)

    def collate(examples):
        return pads([{**each, "label": names.index(each["label"])} for each in examples])

    trainer = make_trainer(student, tokenizer, tmp_path, said, teacher, remove_unused_columns=False)
    trainer.data_collator = collate
    trainer.train()
    require_label_ids(said.with_transform(lambda batch: {**batch, "label": list(map(names.index, batch["label"]))}))


def test_a_student_in_16_bits_is_told_what_it_loses(student, teacher, tokenizer, tmp_path, rows, caplog):
    """transformers loads what a checkpoint has: in bfloat16, a fine-tuning's steps are rounded away in silence."""
    with caplog.at_level("WARNING", "kdcourse"):
        make_trainer(student, tokenizer, tmp_path, rows, learning_rate=5e-5).train()
        assert not caplog.records
        make_trainer(copy.deepcopy(student).bfloat16(), tokenizer, tmp_path, rows, learning_rate=5e-5).train()
    assert "weights are bfloat16" in caplog.text and "above 0.026 in size" in caplog.text
    assert "dtype=torch.float32" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("step", [1e-3, 5e-5])
def test_weights_above_what_is_said_do_not_move(dtype, step):
    """A number in a warning that is not so."""
    model = torch.nn.Linear(2, 2).to(dtype)
    bound = float(re.search(r"above (\S+) in size", lost_steps(model, step))[1])
    above = (bound * torch.linspace(1.05, 4, 200)).to(dtype)
    assert torch.equal(above - step, above)
    below = (bound * torch.linspace(0.1, 0.2, 200)).to(dtype)
    assert not torch.equal(below - step, below)
    model.requires_grad_(False)
    assert lost_steps(model, step) is None


def test_what_would_be_ignored_is_refused(student, tokenizer, tmp_path, rows):
    """A loss function of one's own, which would run in place of the objective; arguments without an alpha."""
    for wrong, message in (({"divergence": "kl"}, "divergence is 'kl'"), ({"alpha": 2.0}, "alpha is 2.0"),
                           ({"temperature": 0.0}, "temperature is 0.0"), ({"beta": 0.1}, "'forward_kl' has none"),
                           ({"class_weights": [1, -2]}, "class_weights hold -2 for class 1")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            DistillationArguments(str(tmp_path), **wrong)
    with pytest.raises(TypeError, match="DistillationArguments"):
        DistillationTrainer(student, TrainingArguments(str(tmp_path), report_to="none"))
    with pytest.raises(ValueError, match="compute_loss_func"):
        DistillationTrainer(student, DistillationArguments(str(tmp_path), report_to="none"), compute_loss_func=print)
