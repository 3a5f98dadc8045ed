"""Batches of conversations and of token ids: what is padded, and which tokens have a label."""

import pytest
import torch
from datasets import Dataset
from shapes import TRAINERS_OWN, logged_loss, make_model, make_rows, make_tokenizer, make_trainer
from tokenizers.processors import TemplateProcessing
from transformers import DataCollatorForSeq2Seq

from kdcourse import lm_distillation_loss
from kdcourse.collators import LanguageModelCollator, tokenize_conversation, tokenize_prompt
from kdcourse.teacher import cache_logits

TEMPLATE = (
    "{% for message in messages %}{{ 'w3' if message.role == 'user' else 'w4' }} {{ message.content }} w5 {% endfor %}"
    "{% if add_generation_prompt %}w4 {% endif %}"
)
"""w3 begins a question, w4 an answer, and w5 ends both. w0, w1 and w2 are special, and found inside w10 or w23."""

QUESTION, ANSWER = {"role": "user", "content": "w30 w31"}, {"role": "assistant", "content": "w32 w33 w34"}
SHORT = {"role": "assistant", "content": "w35"}


def make_chat_tokenizer(**settings):
    tokenizer = make_tokenizer(**settings)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_the_last_message_alone_has_labels():
    """A student that is taught to ask, or to say what it had said before; an answer that never ends."""
    row = tokenize_conversation([QUESTION, SHORT, QUESTION, ANSWER], make_chat_tokenizer())
    before, answer = [3, 30, 31, 5, 4, 35, 5, 3, 30, 31, 5, 4], [32, 33, 34, 5]
    assert row["input_ids"] == before + answer
    assert row["labels"] == [-100] * len(before) + answer
    assert row["attention_mask"] == [1] * 16


@pytest.mark.parametrize("side", ["left", "right"])
def test_conversations_are_padded(side):
    """Padding that has a label, or is attended to; or on the left, where it moves the positions that a GPT-2 counts."""
    batch = LanguageModelCollator(make_chat_tokenizer(pad_side=side))(
        [{"messages": [QUESTION, ANSWER]}, {"messages": [QUESTION, SHORT]}]
    )
    long, short = [-100] * 5 + [32, 33, 34, 5], [-100] * 5 + [35, 5]
    assert batch["labels"].tolist() == [long, short + [-100] * 2]
    assert batch["attention_mask"].tolist() == [[1] * 9, [1] * 7 + [0] * 2]


def test_a_row_that_has_its_ids_keeps_them():
    """A conversation that the user has tokenized, with labels of their own, tokenized once more."""
    row = {"messages": [QUESTION, ANSWER], "input_ids": [7, 8], "labels": [-100, 8]}
    batch = LanguageModelCollator(make_chat_tokenizer())([row])
    assert (batch["input_ids"].tolist(), batch["labels"].tolist()) == ([[7, 8]], [[-100, 8]])


@pytest.mark.parametrize("name", ["label", "label_ids"])
def test_the_class_of_a_text_is_no_label_of_a_language_model(name, tmp_path):
    """A TypeError on a dataset of reviews: `label`, a number, was padded as if it were a label for each token."""
    plain = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in ([5, 6, 7], [8, 9])] * 8
    settings = {"collator": TRAINERS_OWN, "processing_class": make_tokenizer()}
    losses = [
        logged_loss(make_trainer("llama-lm", tmp_path, rows=Dataset.from_list(rows), **settings))
        for rows in ([row | {name: 1} for row in plain], plain)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("label", [2, torch.tensor(2)], ids=["number", "tensor"])
def test_a_classifiers_rows_are_refused(label, packed):
    """ "'int' object is not subscriptable", from inside of transformers."""
    collate = LanguageModelCollator(make_tokenizer(), packed=packed)
    with pytest.raises(ValueError, match=r"labels=.*one label for a whole text.*collators\.collator\(tokenizer\)"):
        collate([{"input_ids": [3, 4, 5], "labels": label}])


def test_a_conversation_without_an_answer_is_refused():
    """A question that is learned as if it were the answer."""
    with pytest.raises(
        ValueError, match=r"\['user', 'assistant', 'user'\] does not end .* a message of the assistant's"
    ):
        tokenize_conversation([QUESTION, ANSWER, QUESTION], make_chat_tokenizer())
    with pytest.raises(ValueError, match=r"\['assistant'\] does not end"):
        tokenize_conversation([ANSWER], make_chat_tokenizer())


@pytest.mark.parametrize("completion", ["w7", None], ids=["with its completion", "alone"])
def test_a_prompt_does_not_end_the_text(completion):
    """A tokenizer that adds an end to each text: the prompt ended, and its completion began another text."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="w0 $A w1", special_tokens=[("w0", 0), ("w1", 1)]
    )
    answer = [7, 1] if completion else []
    row = tokenize_prompt("w5 w6", completion, tokenizer)
    assert row == {
        "input_ids": [0, 5, 6, *answer],
        "attention_mask": [1] * (3 + len(answer)),
        "labels": [-100] * 3 + answer,
    }
    said = tokenize_prompt("w5 w1", "w7", make_tokenizer())
    assert said["input_ids"] == [5, 1, 7, 1]


def test_a_tokenizer_without_an_end_is_a_sentence():
    """None among the ids, of which torch says that a list is nested too deeply."""
    tokenizer = make_tokenizer(eos_token=None)
    with pytest.raises(ValueError, match=r"TokenizersBackend has no eos_token.*set tokenizer\.eos_token"):
        LanguageModelCollator(tokenizer)([{"prompt": "w5", "completion": "w7"}])
    assert tokenize_prompt("w5", None, tokenizer)["input_ids"] == [5]


def test_conversations_reach_a_trainer_as_they_are(tmp_path):
    """TRL's users bring rows of `messages` and no collator; the Trainer dropped the column and found no other."""
    rows = Dataset.from_list([{"messages": [QUESTION, ANSWER]}, {"messages": [QUESTION, SHORT]}] * 8)
    student, teacher = make_model("llama-lm"), make_model("llama-lm", seed=1).eval()
    batch = LanguageModelCollator(make_chat_tokenizer())(rows.to_list())
    features = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = student(**features).logits, teacher(**features).logits
    expected = lm_distillation_loss(*logits, batch["labels"], alpha=0.4, temperature=2.0).total

    trainer = make_trainer(
        "llama-lm", tmp_path, student=student, teacher=teacher, rows=rows, eval_rows=rows, collator=TRAINERS_OWN,
        processing_class=make_chat_tokenizer(),
    )  # fmt: skip
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert logged_loss(trainer) == pytest.approx(expected.item(), rel=1e-5)


def test_a_language_model_has_a_collator_that_pads_labels(tmp_path):
    """Uneven rows with labels are an error of the Trainer's own collator; one that is passed stays."""
    rows = make_rows("gpt2-lm")
    settings = {"rows": rows, "processing_class": make_tokenizer()}
    own = make_trainer("gpt2-lm", tmp_path / "a", **settings)
    default = make_trainer("gpt2-lm", tmp_path / "b", collator=TRAINERS_OWN, **settings)
    assert isinstance(default.data_collator, LanguageModelCollator)
    assert logged_loss(default) == logged_loss(own)
    passed = DataCollatorForSeq2Seq(make_tokenizer())
    assert make_trainer("gpt2-lm", tmp_path / "c", collator=passed, **settings).data_collator is passed


def test_padding_needs_no_token_of_its_own(tmp_path):
    """GPT-2, which has none: an error that tells to take the end of text for it, and whoever does so elsewhere erases
    each text's end from the labels.
    """
    bare, padded = make_tokenizer(pad_token=None), make_tokenizer(pad_token="w1")
    rows = [{"input_ids": [5, 6, 1]}, {"input_ids": [7, 8, 9, 1]}]
    ours, theirs = LanguageModelCollator(bare)(rows), LanguageModelCollator(padded)(rows)
    assert ours["labels"].tolist() == [[5, 6, 1, -100], [7, 8, 9, 1]]
    assert ours["attention_mask"].tolist() == [[1, 1, 1, 0], [1] * 4]
    assert {name: value.tolist() for name, value in ours.items()} == {
        name: value.tolist() for name, value in theirs.items()
    }
    assert bare.pad_token is None  # what is saved beside the student is what was loaded
    endless = make_tokenizer(pad_token=None, eos_token=None)
    assert LanguageModelCollator(endless)(rows)["input_ids"].tolist() == [[5, 6, 1, 0], [7, 8, 9, 1]]


def test_a_cache_of_texts_needs_no_pad_token(tmp_path):
    """A teacher that can be asked in the loop and not for a cache."""
    rows, teacher = make_rows("gpt2-lm"), make_model("gpt2-lm", seed=1)
    bare, padded = (
        cache_logits(tmp_path / name, teacher, make_tokenizer(pad_token=pad), rows).cache
        for name, pad in (("bare", None), ("padded", "w0"))
    )
    assert all(torch.allclose(bare[row], padded[row], atol=1e-6) for row in range(len(rows)))
