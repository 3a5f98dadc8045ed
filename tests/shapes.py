"""Tiny models of every shape that the trainer supports, with rows that are uneven in every way that has gone wrong.

No dropout, so that two runs can be compared; random weights, so that nothing is fetched.
"""

from __future__ import annotations

import random

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from kdcourse import DistillationArguments, DistillationTrainer
from kdcourse.collators import LanguageModelCollator, collator

WORDS = 40
PAD = 0
LABELS = 3
EXTRA = ("processing_class", "teacher_processing_class", "features")
"""What a trainer takes beside its arguments."""

TRAINERS_OWN = "the trainer's own"
"""As a collator: none is passed."""

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def _bert(dropout: float) -> BertConfig:
    return BertConfig(
        vocab_size=WORDS, num_labels=LABELS, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **_SIZES
    )


def _gpt2(dropout: float) -> GPT2Config:
    return GPT2Config(
        vocab_size=WORDS, num_labels=LABELS, n_embd=16, n_layer=2, n_head=2, n_positions=32, pad_token_id=PAD,
        bos_token_id=1, eos_token_id=1, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    )  # fmt: skip


def _llama(dropout: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=WORDS, num_labels=LABELS, num_key_value_heads=1, pad_token_id=PAD, bos_token_id=1, eos_token_id=1,
        attention_dropout=dropout, **_SIZES,
    )  # fmt: skip


SHAPES = {
    "bert-classifier": (BertForSequenceClassification, _bert),
    "gpt2-classifier": (GPT2ForSequenceClassification, _gpt2),
    "llama-classifier": (LlamaForSequenceClassification, _llama),
    "gpt2-lm": (GPT2LMHeadModel, _gpt2),
    "llama-lm": (LlamaForCausalLM, _llama),
}


def make_model(shape, seed=0, dropout=0.0, **changes):
    model_class, make_config = SHAPES[shape]
    config = make_config(dropout)
    config.update(changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "position" not in name:
                weight.data.mul_(10)  # so that student and teacher disagree by more than rounding
    return model


def make_classifier(shape="bert-classifier", names=None, label2id=None, **changes):
    """A classifier whose labels have these names, in this order, unless `label2id` says otherwise."""
    model = make_model(shape, **changes)
    if names is not None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = label2id or {name: index for index, name in enumerate(names)}
    return model


def load_without_head(folder):
    """A BERT classifier from a checkpoint that has no head for it."""
    make_model("bert-classifier").bert.save_pretrained(folder)
    return BertForSequenceClassification.from_pretrained(folder, num_labels=LABELS)


def make_tokenizer(words=WORDS, pad_side="right", pad_token="w0", swap=(), **special):
    """Words w0, w1 … with their number as id; `swap` exchanges the ids of two."""
    exchanged = dict(zip(swap, reversed(swap), strict=True))
    vocabulary = {f"w{index}": exchanged.get(index, index) for index in range(words)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="w2"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad_token, unk_token="w2", padding_side=pad_side,
        **{"bos_token": "w1", "eos_token": "w1"} | special,
    )  # fmt: skip


def is_language_model(shape):
    return shape.endswith("lm")


def make_rows(shape, rows=16, seed=0):
    """Sequences of 3 to 14 tokens. Half a classifier's rows have no label; a language model's prompts have none."""
    random_numbers = random.Random(seed)
    columns = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in range(rows):
        ids = [random_numbers.randrange(3, WORDS) for _ in range(random_numbers.randint(3, 14))]
        prompt = random_numbers.randrange(len(ids))
        label = random_numbers.randrange(LABELS) if row % 3 else -100
        columns["input_ids"].append(ids)
        columns["attention_mask"].append([1] * len(ids))
        columns["labels"].append([-100] * prompt + ids[prompt:] if is_language_model(shape) else label)
    return Dataset.from_dict(columns)


def make_prompted_rows(rows=16):
    """A language model's rows, each with a prompt of 1 to 12 tokens, the end-of-text token among them."""
    prompted = [row for row in make_rows("gpt2-lm", 3 * rows).to_list() if row["labels"][0] == -100][:rows]
    for row in prompted[::3]:
        row["input_ids"][0] = 1
    return Dataset.from_list(prompted)


def make_collator(shape, tokenizer=None):
    """The package's own; transformers' where a language model's texts are to be padded on the left, as ours are not."""
    tokenizer = tokenizer or make_tokenizer()
    if not is_language_model(shape):
        return collator(tokenizer)
    if tokenizer.padding_side == "left":
        return DataCollatorForSeq2Seq(tokenizer)
    return LanguageModelCollator(tokenizer)


def make_trainer(shape, folder, *, student=None, teacher=None, rows=None, eval_rows=None, collator=None, **settings):
    """One SGD step on 16 rows, unless `settings` say otherwise; `collator=None` is this module's, TRAINERS_OWN none."""
    extra = {name: settings.pop(name) for name in EXTRA if name in settings}
    defaults = {
        "max_steps": 1, "per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
        "alpha": 0.4, "temperature": 2.0,
    }  # fmt: skip
    return DistillationTrainer(
        student or make_model(shape),
        DistillationArguments(str(folder), **defaults | settings),
        teacher=teacher or make_model(shape, seed=1, dropout=0.1),
        train_dataset=rows or make_rows(shape),
        eval_dataset=eval_rows,
        data_collator=None if collator == TRAINERS_OWN else collator or make_collator(shape),
        **extra,
    )


def logged_loss(trainer):
    """What the first step of a training reports."""
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def weights_of(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])
