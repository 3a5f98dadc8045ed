"""What an evaluation counts: each row and each packed text once, and only the parts of the loss that there are."""

import pytest
import torch
from shapes import PAD, is_language_model, make_collator, make_model, make_rows, make_trainer
from transformers import DataCollatorWithFlattening, default_data_collator

from kdcourse import distillation_loss, lm_distillation_loss
from kdcourse.teacher import ColumnTeacher

ALPHA, T = 0.4, 2.0


def answers(model, shape, rows):
    batch = make_collator(shape)(list(rows))
    with torch.no_grad():
        return model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"]


def expected(shape, rows, alpha=ALPHA):
    student, labels = answers(make_model(shape), shape, rows)
    teacher, _ = answers(make_model(shape, seed=1), shape, rows)
    objective = lm_distillation_loss if is_language_model(shape) else distillation_loss
    return objective(student, teacher, labels, alpha=alpha, temperature=T)


def evaluated(shape, folder, rows, **settings):
    return make_trainer(shape, folder, **settings).evaluate(rows)


def without_labels(shape, rows):
    """Rows that nobody has labelled: -100 in every place."""
    ignored = (lambda row: [-100] * len(row["labels"])) if is_language_model(shape) else (lambda _: -100)
    return rows.map(lambda row: {"labels": ignored(row)})


@pytest.mark.parametrize("rows", [6, 7, 8])
def test_packed_texts_count_once_each_in_a_last_batch_that_is_not_full(rows, tmp_path):
    """Texts of the last batch left out, because their number is taken for that of rows, or all of them counted."""
    shape, data = "llama-lm", make_rows("llama-lm", rows, seed=3)
    texts = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in data]
    metrics = evaluated(shape, tmp_path, texts, per_device_eval_batch_size=3, collator=DataCollatorWithFlattening())
    right = expected(shape, data)
    assert metrics["eval_loss"] == pytest.approx(right.total.item(), rel=1e-5)
    assert metrics["eval_hard_loss"] == pytest.approx(right.hard.item(), rel=1e-5)


def test_a_row_with_padding_is_not_packed(tmp_path):
    """Positions of 0 in the padding, taken for texts of their own: alone in a batch, the row had a loss of 0.0."""
    shape, data = "llama-lm", make_rows("llama-lm", 4, seed=3).to_list()
    rows = [
        {
            "input_ids": [PAD] * 4 + row["input_ids"],
            "attention_mask": [0] * 4 + row["attention_mask"],
            "position_ids": [0] * 4 + list(range(len(row["input_ids"]))),
            "labels": [-100] * 4 + row["labels"],
        }
        for row in data
    ]
    metrics = evaluated(shape, tmp_path, rows, per_device_eval_batch_size=1, collator=default_data_collator)
    assert metrics["eval_loss"] == pytest.approx(expected(shape, data).total.item(), rel=1e-4)


def test_a_classifiers_row_with_positions_is_not_packed(tmp_path):
    """A row that is alone in the last batch, taken for packed texts: one label became one for each of its tokens."""
    shape, data = "gpt2-classifier", make_rows("gpt2-classifier", 5, seed=3)
    rows = data.map(lambda row: {"position_ids": list(range(len(row["input_ids"])))})
    short = [{name: row[name][:3] if name != "labels" else row[name] for name in row} for row in rows]
    metrics = evaluated(shape, tmp_path, short, per_device_eval_batch_size=2, collator=default_data_collator)
    right = expected(shape, [{name: row[name] for name in data.column_names} for row in short])
    assert metrics["eval_loss"] == pytest.approx(right.total.item(), rel=1e-5)


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_a_part_that_there_is_nothing_for_is_not_reported(shape, tmp_path):
    """A hard loss of rows that have no label, as if they were all right; a mix with a part that is missing."""
    rows = without_labels(shape, make_rows(shape))
    metrics = evaluated(shape, tmp_path, rows)
    assert "eval_hard_loss" not in metrics
    if is_language_model(shape):  # a token without a label does not teach
        assert "eval_soft_loss" not in metrics and metrics["eval_loss"] == 0
    else:
        right = expected(shape, rows, alpha=0)
        assert metrics["eval_soft_loss"] == pytest.approx(right.soft.item(), rel=1e-5)
        assert metrics["eval_loss"] == pytest.approx((1 - ALPHA) * right.soft.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("alpha", "labelled", "taught", "names"),
    [
        (0.4, True, True, {"loss", "hard_loss", "soft_loss"}),
        (0.4, False, True, {"soft_loss"}),
        (0.4, True, False, {"hard_loss"}),
        (0.0, False, True, {"loss", "soft_loss"}),
        (0.0, True, False, {"hard_loss"}),
        (1.0, True, False, {"loss", "hard_loss"}),
        (1.0, False, True, {"soft_loss"}),
    ],
)
def test_a_loss_is_reported_if_the_rows_have_all_that_alpha_asks_for(alpha, labelled, taught, names, tmp_path):
    """eval_loss of labels alone beside that of labels and teacher, and a best model chosen between the two."""
    shape = "bert-classifier"
    rows = make_rows(shape)
    logits, _ = answers(make_model(shape, seed=1), shape, rows)
    right = expected(shape, rows, alpha)
    rows = rows if labelled else rows.remove_columns("labels")
    if taught:
        rows = rows.add_column("teacher_logits", logits.tolist())
    metrics = evaluated(shape, tmp_path, rows, teacher=ColumnTeacher(), alpha=alpha)
    reported = {name for name in ("loss", "hard_loss", "soft_loss") if f"eval_{name}" in metrics}
    assert reported == names
    for name in names:
        part = right.total if name == "loss" else getattr(right, name.removesuffix("_loss"))
        assert metrics[f"eval_{name}"] == pytest.approx(part.item(), rel=1e-5)


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_texts_without_labels_are_predicted(shape, tmp_path):
    """A prediction that fails for want of labels, of rows or of tokens."""
    rows = make_rows(shape)
    trainer = make_trainer(shape, tmp_path, per_device_eval_batch_size=16)
    predicted = trainer.predict(rows.remove_columns("labels")).predictions
    logits, _ = answers(make_model(shape), shape, rows)
    real = make_collator(shape)(list(rows))["input_ids"] != PAD
    if is_language_model(shape):
        assert torch.allclose(torch.from_numpy(predicted)[real], logits[real], atol=1e-5)
    else:
        assert torch.allclose(torch.from_numpy(predicted), logits, atol=1e-5)


def test_logits_are_kept_where_somebody_asks_for_them(tmp_path):
    """(N, T, V) logits of a whole evaluation in memory, for a loss."""
    shape = "gpt2-lm"
    trainer = make_trainer(shape, tmp_path)
    loader = trainer.get_eval_dataloader(make_rows(shape))
    alone = trainer.evaluation_loop(loader, "Evaluation", prediction_loss_only=True)
    whole = trainer.evaluation_loop(loader, "Evaluation", prediction_loss_only=False)
    assert alone.predictions is None and alone.label_ids is None
    assert len(whole.predictions) == len(whole.label_ids) == 16
    assert alone.metrics["eval_loss"] == pytest.approx(whole.metrics["eval_loss"], rel=1e-6)
