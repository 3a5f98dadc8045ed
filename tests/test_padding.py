"""Texts that somebody's own collator pads on the left teach as they do on the right, or are refused."""

import pytest
import torch
from datasets import Dataset
from shapes import PAD, SHAPES, WORDS, make_collator, make_model, make_rows, make_tokenizer, make_trainer, weights_of
from test_decoders import make, make_examples
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from kdcourse import MismatchError
from kdcourse.collators import TwoTokenizersCollator
from kdcourse.teacher import cache_logits

LEFT = make_tokenizer(pad_side="left")


def trained(shape, folder, **settings):
    trainer = make_trainer(shape, folder, eval_rows=make_rows(shape, 7, seed=1), **settings)
    trainer.train()
    return trainer, weights_of(trainer.model), trainer.evaluate()["eval_loss"]


def require_same_training(shape, ours, theirs, rel=1e-4):
    _, weights, loss = ours
    _, expected, expected_loss = theirs
    step = (expected - weights_of(make_model(shape))).norm()
    assert (weights - expected).norm() / step < rel
    assert loss == pytest.approx(expected_loss, rel=rel)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.startswith("bert")])
def test_a_text_teaches_the_same_on_either_side(shape, tmp_path):
    """GPT-2 reads each word at a place that the longest text of its batch decides: another loss for each batch."""
    left = {"collator": make_collator(shape, LEFT), "per_device_train_batch_size": 5, "gradient_accumulation_steps": 4}
    require_same_training(
        shape, trained(shape, tmp_path, per_device_eval_batch_size=2, **left), trained(shape, tmp_path)
    )


def test_a_cached_teacher_answers_as_it_does_in_the_loop(tmp_path):
    """Answers about texts that are padded on the right, to a student whose texts are padded on the left."""
    shape, rows = "gpt2-lm", make_rows("gpt2-lm")
    cached = cache_logits(tmp_path / "cache", make_model(shape, seed=1), make_tokenizer(), rows)
    sources = {"teacher": cached, "rows": cached.add_rows(rows)}
    losses = []
    for settings in ({}, sources):
        trainer = make_trainer(shape, tmp_path, collator=make_collator(shape, LEFT), **settings)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_side_that_changes_for_an_evaluation_is_seen(tmp_path):
    """A look at the first batch of a training alone, which is padded on the right."""
    shape, tokenizer = "gpt2-lm", make_tokenizer()
    trainer = make_trainer(
        shape, tmp_path, eval_rows=make_rows(shape, 7, seed=1), collator=DataCollatorForSeq2Seq(tokenizer)
    )
    trainer.train()
    right = trainer.evaluate()["eval_loss"]
    tokenizer.padding_side = "left"
    assert trainer.evaluate()["eval_loss"] == pytest.approx(right, rel=1e-5)


def test_positions_that_a_batch_brings_are_kept(tmp_path):
    """Positions of somebody's own, overwritten."""
    trainer = make_trainer("gpt2-lm", tmp_path)
    batch = {"input_ids": [[PAD, 5, 6]], "attention_mask": [[0, 1, 1]], "position_ids": [[7, 8, 9]]}
    batch = {name: torch.tensor(each) for name, each in batch.items()}
    assert trainer._complete(batch)["position_ids"].tolist() == [[7, 8, 9]]


def test_a_teacher_with_columns_of_its_own_has_a_side_of_its_own(tmp_path):
    """A teacher whose own tokenizer pads on the left, beside a student's that pads on the right."""
    shape = "gpt2-classifier"
    rows = make_rows(shape)
    own = rows.map(lambda row: {f"teacher_{name}": row[name] for name in ("input_ids", "attention_mask")})
    collate = TwoTokenizersCollator(make_collator(shape), DataCollatorWithPadding(LEFT))
    ours = make_trainer(shape, tmp_path, rows=own, collator=collate)
    theirs = make_trainer(shape, tmp_path, rows=rows)
    for trainer in (ours, theirs):
        trainer.train()
    step = (weights_of(theirs.model) - weights_of(make_model(shape))).norm()
    assert (weights_of(ours.model) - weights_of(theirs.model)).norm() / step < 1e-4


def test_a_decoders_text_as_long_as_the_encoders_is_not_cut(tmp_path):
    """Labels that are by chance as many as the tokens of a text, cut by its mask: a T5 that is refused."""
    rows = Dataset.from_dict({
        "input_ids": [[5, 6, 7, 8, 9, 10], [5, 6, 7]], "attention_mask": [[1] * 6, [1] * 3],
        "labels": [[11, 12, 13, 14, 15, 1], [16, 17, 18, 19, 20, 1]],
    })  # fmt: skip
    trainer = make_trainer(
        "bert-classifier", tmp_path, student=make("t5"), teacher=make("t5", 1), rows=rows,
        collator=DataCollatorForSeq2Seq(LEFT),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0


def test_a_row_without_a_token_has_no_side(tmp_path):
    """A crash about 0 elements at an empty text; or the one look is spent on it, and the next batch is misread."""
    trainer = make_trainer("gpt2-lm", tmp_path)
    batch = {"input_ids": [[PAD] * 3], "attention_mask": [[0] * 3], "labels": [[-100] * 3]}
    trainer._complete({name: torch.tensor(each) for name, each in batch.items()})
    batch = {"input_ids": [[PAD] * 3, [PAD, 5, 6]], "attention_mask": [[0] * 3, [0, 1, 1]], "labels": [[-100] * 3] * 2}
    batch = {name: torch.tensor(each) for name, each in batch.items()}
    completed = trainer._complete({**batch, "attention_mask": batch["attention_mask"].bool()})
    assert completed["position_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]


class Stubborn(GPT2LMHeadModel):
    """Takes positions, and reads others."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


SIZES = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def roberta(seed=0):
    torch.manual_seed(seed)
    sizes = {**SIZES, "intermediate_size": 32, "pad_token_id": PAD, "num_labels": 3, "max_position_embeddings": 40}
    return RobertaForSequenceClassification(RobertaConfig(**sizes)).eval()


def opt_classifier():
    torch.manual_seed(0)
    sizes = {**SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": PAD, "num_labels": 3}
    return OPTForSequenceClassification(OPTConfig(**sizes))


def opt(seed=0):
    torch.manual_seed(seed)
    return OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16, dropout=0.0)).eval()


@pytest.mark.parametrize(("shape", "student"), [("gpt2-lm", opt)])
def test_a_model_that_counts_no_padding_is_given_nothing(shape, student, tmp_path):
    """RoBERTa's positions begin at 2: it would read those that begin at 0 as padding and the like."""
    trainer = make_trainer(
        shape, tmp_path, student=student(), teacher=student(1), collator=make_collator(shape, LEFT), bf16=True
    )
    batch = make_collator(shape, LEFT)([dict(row) for row in make_rows(shape)])
    assert (batch["attention_mask"][:, 0] == 0).any()
    assert "position_ids" not in trainer._complete(batch)


@pytest.mark.parametrize(
    ("shape", "students", "role"),
    [
        ("bert-classifier", lambda: (make_model("bert-classifier"), make_model("bert-classifier", 1)), "student"),
        ("bert-classifier", lambda: (opt_classifier(), roberta(1)), "teacher"),
        ("gpt2-lm", lambda: (make_model("gpt2-lm"), Stubborn(make_model("gpt2-lm").config)), "teacher"),
        ("t5", lambda: (make("bart"), make("bart", 1)), "student"),
    ],
    ids=["bert", "roberta", "no positions", "bart"],
)  # fmt: skip
def test_what_reads_otherwise_behind_padding_is_refused(shape, students, role, tmp_path):
    """A classifier that answers for a padding, where BERT has its first token; an encoder that cannot be told positions
    (BART), and a model whose positions are to be told in other words."""
    student, teacher = students()
    settings = {"collator": make_collator(shape, LEFT)}
    if shape == "t5":
        rows = Dataset.from_list(make_examples("bart")).remove_columns("title")
        even = min(map(len, rows["labels"]))  # labels padded on the left are refused before
        rows = rows.map(lambda row: {"labels": row["labels"][:even]})
        settings = {"collator": DataCollatorForSeq2Seq(LEFT), "rows": rows}
    trainer = make_trainer(
        shape if shape in SHAPES else "bert-classifier", tmp_path, student=student, teacher=teacher, **settings
    )
    refused = {"student": student, "teacher": teacher}[role]
    with pytest.raises(MismatchError, match=rf"padded on the left, and the {role} \({type(refused).__name__}\) reads"):
        trainer.train()
