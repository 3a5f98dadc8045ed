"""Each model gets what its own forward names, and nothing that would mean something else to it."""

import pytest
import torch
from datasets import Dataset
from shapes import TRAINERS_OWN, WORDS, logged_loss, make_model, make_rows, make_tokenizer, make_trainer
from transformers import (
    DataCollatorWithFlattening,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    default_data_collator,
)

from kdcourse import MismatchError, distillation_loss, lm_distillation_loss
from kdcourse.cache import CacheMismatchError, fingerprint
from kdcourse.collators import collator
from kdcourse.columns import once_per_model, teacher_features
from kdcourse.teacher import ModelTeacher, cache_logits, logits_of

ALPHA, T = 0.4, 2.0


def bert(**changes):
    """A teacher to whom it matters which of two texts a token belongs to."""
    model = make_model("bert-classifier", seed=1, **changes).eval()
    model.bert.embeddings.token_type_embeddings.weight.data.mul_(10)
    return model


def distilbert():
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=WORDS, dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=3,
                              dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)  # fmt: skip
    return DistilBertForSequenceClassification(config)


def pairs():
    """Two texts in each row, and which of them a token belongs to."""
    rows = make_rows("bert-classifier").to_list()
    for row in rows:
        cut = len(row["input_ids"]) // 2
        row["token_type_ids"] = [0] * cut + [1] * (len(row["input_ids"]) - cut)
    return Dataset.from_list(rows)


@pytest.mark.parametrize("as_dataset", [True, False], ids=["dataset", "list"])
@pytest.mark.parametrize("keep", [True, False], ids=["unused columns kept", "removed"])
def test_a_teacher_reads_the_segments_that_its_student_cannot(as_dataset, keep, tmp_path):
    """BERT teaches DistilBERT on pairs: token types were dropped for both, and the loss was 1.081 instead of 0.667."""
    student, teacher, rows = distilbert(), bert(), pairs()
    batch = collator(make_tokenizer())([dict(row) for row in rows])
    ids = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        answers = teacher(**ids, token_type_ids=batch["token_type_ids"]).logits
        right = distillation_loss(student(**ids).logits, answers, batch["labels"], alpha=ALPHA, temperature=T).total
        blind = distillation_loss(
            student(**ids).logits, teacher(**ids).logits, batch["labels"], alpha=ALPHA, temperature=T
        ).total
    assert (right - blind).abs() > 0.01
    trainer = make_trainer(
        "bert-classifier", tmp_path, student=student, teacher=teacher, rows=rows if as_dataset else rows.to_list(),
        collator=collator(make_tokenizer()), remove_unused_columns=not keep,
    )  # fmt: skip
    assert logged_loss(trainer) == pytest.approx(right.item(), abs=1e-4)


def test_token_types_are_no_words(tmp_path):
    """A GPT-2 teacher of a BERT student looks segments up among its words."""
    batch = collator(make_tokenizer())([dict(row) for row in pairs()])
    teacher = make_model("gpt2-classifier", seed=1)
    assert "token_type_ids" not in teacher_features(batch, teacher)
    ids = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    assert torch.equal(ModelTeacher(teacher).logits(batch), teacher(**ids).logits)


def test_a_teacher_with_one_segment_is_not_asked_for_two(tmp_path):
    """RoBERTa's table of segments has one row, and the second is out of range."""
    batch = collator(make_tokenizer())([dict(row) for row in pairs()])
    assert "token_type_ids" not in teacher_features(batch, bert(type_vocab_size=1))


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_pairs_without_segments_are_refused(step, tmp_path):
    """DistilBERT's tokenizer makes no token types: pairs that it tokenized were one text to their teacher."""
    separator = 3
    tokenizer = make_tokenizer(sep_token=f"w{separator}")
    rows = [{"input_ids": [1, 7, 8, separator, 9, separator], "attention_mask": [1] * 6, "labels": 0}] * 4
    settings = {"student": distilbert(), "collator": collator(tokenizer), "processing_class": tokenizer}

    def trainer(rows, teacher):
        return make_trainer(
            "bert-classifier", tmp_path, teacher=teacher, rows=Dataset.from_list(rows),
            eval_rows=Dataset.from_list(rows), **settings,
        )  # fmt: skip

    with pytest.raises(MismatchError, match=r"two texts, and the batch has no token_type_ids.*BertForSequence.*zeros"):
        getattr(trainer(rows, bert()), step)()
    alone = [row | {"input_ids": [1, 7, 8, 9, 9, separator]} for row in rows]
    as_said = [row | {"token_type_ids": [0] * 6} for row in rows]
    own = [row | {"teacher_input_ids": row["input_ids"], "teacher_attention_mask": [1] * 6} for row in rows]
    settings["collator"] = default_data_collator
    for accepted, teacher in [
        (alone, bert()), (as_said, bert()), (own, bert()), (rows, bert(type_vocab_size=1)), (rows, distilbert()),
    ]:  # fmt: skip
        assert getattr(trainer(accepted, teacher), step)()


def test_packed_texts_are_read_one_by_one(tmp_path):
    """A teacher with a cache of keys and values does not see where a packed text ends: 0.7015 instead of 0.6556."""
    texts = [{"input_ids": row["input_ids"]} for row in make_rows("llama-lm", 4)]
    packed = DataCollatorWithFlattening(return_position_ids=True)([dict(text) for text in texts])
    student, teacher = make_model("llama-lm"), make_model("llama-lm", seed=1)
    assert teacher.config.use_cache

    def apart(model):
        """Each text alone, in the order of the packed row."""
        with torch.no_grad():
            return torch.cat([model(input_ids=torch.tensor([text["input_ids"]])).logits for text in texts], dim=1)

    right = lm_distillation_loss(apart(student), apart(teacher), packed["labels"], alpha=ALPHA, temperature=T).total
    trainer = make_trainer(
        "llama-lm", tmp_path, student=student, teacher=teacher, rows=Dataset.from_list(texts),
        collator=DataCollatorWithFlattening(return_position_ids=True), per_device_train_batch_size=4,
    )  # fmt: skip
    assert logged_loss(trainer) == pytest.approx(right.item(), abs=1e-4)


def test_every_column_of_the_teachers_own_reaches_it(tmp_path):
    """`teacher_` columns other than token ids were ignored, and the teacher read the student's."""

    class Patches(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            torch.manual_seed(width)
            self.head = torch.nn.Linear(width, 3)

        def forward(self, pixel_values, labels=None):
            return {"logits": self.head(pixel_values.flatten(1))}

    rows = [{"pixel_values": torch.randn(4).tolist(), "teacher_pixel_values": torch.randn(9).tolist(), "labels": 1}
            for _ in range(16)]  # fmt: skip
    student, teacher = Patches(4), Patches(9)
    small, large = (torch.tensor([row[name] for row in rows]) for name in ("pixel_values", "teacher_pixel_values"))
    with torch.no_grad():
        right = distillation_loss(
            student.head(small), teacher.head(large), torch.ones(16).long(), alpha=ALPHA, temperature=T
        ).total
    for data in (rows, Dataset.from_list(rows)):
        trainer = make_trainer("bert-classifier", tmp_path, student=Patches(4), teacher=teacher, rows=data,
                               collator=default_data_collator)  # fmt: skip
        assert logged_loss(trainer) == pytest.approx(right.item(), abs=1e-4)


def test_a_column_that_the_teacher_cannot_read_is_a_sentence():
    """A column that is swallowed by **kwargs."""
    batch = {"teacher_input_ids": torch.ones(1, 2).long(), "teacher_token_type_ids": torch.ones(1, 2).long()}
    with pytest.raises(ValueError, match="does not read token_type_ids"):
        teacher_features(batch, distilbert())


@pytest.mark.parametrize("as_dataset", [True, False], ids=["dataset", "list"])
@pytest.mark.parametrize("shape", ["llama-lm", "bert-classifier"])
@pytest.mark.parametrize("extra", [{"teacher_response": "hello"}, {"teacher_id": 1}], ids=["text", "number"])
def test_what_is_only_called_like_a_teachers_column_is_left_out(extra, shape, as_dataset, tmp_path):
    """Words that were to become a tensor; and a number, for which the teacher was not given the text."""
    rows = make_rows(shape).to_list()
    settings = {"collator": TRAINERS_OWN, "processing_class": make_tokenizer()}
    losses = []
    for data in (rows, [row | extra for row in rows]):
        given = Dataset.from_list(data) if as_dataset else data
        losses.append(logged_loss(make_trainer(shape, tmp_path, rows=given, **settings)))
    assert losses[0] == losses[1]


def test_a_teachers_own_columns_are_told_from_others_in_a_batch():
    """A number beside the text that was kept, and became all that the teacher read."""
    ids = torch.tensor([[5, 6, 7]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "teacher_id": torch.tensor([1])}
    assert teacher_features(batch, make_model("llama-lm")).keys() == {"input_ids", "attention_mask"}
    assert teacher_features(batch | {"teacher_input_ids": ids + 1}, make_model("llama-lm")).keys() == {"input_ids"}


LOGITS = torch.ones(2, 3)


@pytest.mark.parametrize("outputs", [{"logits": LOGITS}, (LOGITS, "hidden"), [LOGITS], LOGITS, ({"logits": LOGITS},)])
def test_logits_are_found_however_a_model_returns_them(outputs):
    """`return_dict=False`, or a module of one's own: an AttributeError."""
    assert logits_of(outputs) is LOGITS


@pytest.mark.parametrize("outputs", [{"hidden": LOGITS}, (), None, "logits"])
def test_outputs_without_logits_are_refused(outputs):
    """A tensor that happens to be there."""
    with pytest.raises(TypeError, match="no logits"):
        logits_of(outputs)


def test_a_cache_knows_the_segments(tmp_path):
    """Pairs that are scored as one text, and a cache that takes other segments for the same rows."""
    teacher, rows = bert(), pairs()
    batch = collator(make_tokenizer())([dict(row) for row in rows])
    batch.pop("labels")
    cached = cache_logits(tmp_path / "cache", teacher, make_tokenizer(), rows).cache
    with torch.no_grad():
        right = teacher(**batch).logits
    assert torch.allclose(torch.stack([cached[row] for row in range(len(rows))]), right, atol=1e-4)
    one_text = rows.map(lambda row: {"token_type_ids": [0] * len(row["input_ids"])})
    with pytest.raises(CacheMismatchError, match="other token ids"):
        cache_logits(tmp_path / "cache", teacher, make_tokenizer(), one_text)


@pytest.mark.parametrize("change", ["torch format", "no mask"])
def test_rows_are_scored_however_they_are_kept(change, tmp_path):
    """Tensors that JSON has no word for; a mask that nobody stored."""
    teacher, rows = make_model("gpt2-classifier", seed=1).eval(), make_rows("gpt2-classifier")
    expected = cache_logits(tmp_path / "plain", teacher, make_tokenizer(), rows).cache
    other = rows.with_format("torch") if change == "torch format" else rows.remove_columns("attention_mask")
    cached = cache_logits(tmp_path / "other", teacher, make_tokenizer(), other).cache
    assert all(torch.equal(cached[row], expected[row]) for row in range(len(rows)))


def test_a_tokenizer_in_python_has_a_fingerprint():
    """An AttributeError for a tokenizer that is not one of the fast ones."""
    slow = SlowTokenizer({"[PAD]": 0, "a": 1})
    again, other = SlowTokenizer({"[PAD]": 0, "a": 1}), SlowTokenizer({"[PAD]": 0, "b": 1})
    assert fingerprint("weights", slow) == fingerprint("weights", again)
    assert fingerprint("weights", slow) != fingerprint("weights", other)


class SlowTokenizer:
    """What is left of a tokenizer without the library in Rust."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def get_vocab(self):
        return self.vocabulary


def test_a_model_is_looked_through_once():
    """Thousands of modules, gone through at every step; or one model that gets another's answer."""
    looked = []
    look = once_per_model(lambda model: looked.append(model) or len(looked))
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    assert [look(first), look(second), look(first), look(second)] == [1, 2, 1, 2]
