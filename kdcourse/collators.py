"""Batches of uneven rows, padded for one tokenizer or for two (lessons 05 and 06)."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from kdcourse.checks import IGNORED_LABEL
from kdcourse.columns import PLACE, TEACHER_PREFIX, TOKEN_COLUMNS
from kdcourse.served import SERVED, pad_served

if TYPE_CHECKING:
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

MESSAGES = "messages"
"""The column of a conversation: what was said, and by whom, as a list of {"role": …, "content": …}."""

PROMPT, COMPLETION = "prompt", "completion"
"""The columns of a text in two parts, each a string or a list of messages; the completion may be missing."""

WRITTEN_OUT = (MESSAGES, PROMPT, COMPLETION)
"""What `LanguageModelCollator` makes tokens of."""

OF_WHOLE_TEXTS = ("label", "label_ids")
"""What datasets call the class of a text, which is nothing to a language model."""

Rows = list[dict[str, Any]]
Collator = Callable[[Rows], Any]

Padding = TypeVar("Padding")


def padding_on_the_right(tokenizer: Padding) -> Padding:
    """A tokenizer (or feature extractor) that pads behind a text, whatever the given one does."""
    pads_right: Any = copy(tokenizer)
    pads_right.padding_side = "right"
    return pads_right


def padding_by_position(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """One that pads behind a language model's text: with the token that ends texts, where it has none for padding, as
    GPT-2. That is safe for whoever tells padding by the mask, as here, and not by the id.
    """
    if tokenizer.pad_token_id is not None:
        return padding_on_the_right(tokenizer)
    pads = padding_on_the_right(deepcopy(tokenizer))
    pads.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return pads


def collator(
    tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None = None
) -> DataCollatorWithPadding | TwoTokenizersCollator:
    """Pads a classifier's batch to its longest sentence, and renames `label` to `labels` on the way.

    With a teacher's own tokenizer, the columns that `tokenize(..., prefix="teacher_")` made are padded beside it.
    """
    from transformers import DataCollatorWithPadding

    padding = DataCollatorWithPadding(tokenizer)
    if teacher_tokenizer is None:
        return padding
    return TwoTokenizersCollator(padding, DataCollatorWithPadding(teacher_tokenizer))


@dataclass
class TwoTokenizersCollator:
    """Student and teacher read the same sentence, each in its own ids and padded to its own length."""

    student: Collator
    teacher: Collator

    def __call__(self, rows: Rows) -> dict[str, Any]:
        theirs = {TEACHER_PREFIX + name for name in TOKEN_COLUMNS} & rows[0].keys()
        if not theirs:
            return self.student(rows)
        student = self.student([{name: row[name] for name in row if name not in theirs} for row in rows])
        teacher = self.teacher([{name.removeprefix(TEACHER_PREFIX): row[name] for name in theirs} for row in rows])
        return {**student, **{TEACHER_PREFIX + name: tensor for name, tensor in teacher.items()}}


@dataclass
class LanguageModelCollator:
    """Pads a batch of token ids and labels for a causal language model, on the right, whatever the tokenizer says: on
    the left, padding would move the positions that a GPT-2 counts, and with them its answers.

    Without `labels`, every token is one; `label`, the class of a text, is none of them. Padding is told by its
    position, not by its id: where the pad token is also the end-of-text token, as in GPT-2, collators that go by the id
    erase each text's end from the labels (trl#6357). So a tokenizer without a pad token needs none.

    A row that has no ids, but `messages`, is written out by the tokenizer's chat template, and the last message is what
    has labels (see `tokenize_conversation`). One that has a `prompt`, and perhaps a `completion`, becomes a text whose
    completion has labels (see `tokenize_prompt`): a prompt alone has none, and is for a student that writes itself.

    A teacher's top k from elsewhere, beside each token that it predicts, is put where the student's logits predict that
    token, and padded (see `kdcourse.served`).

    With `packed`, the texts of a batch are one row, behind each other and without padding, told apart by positions that
    begin anew, as `DataCollatorWithFlattening` has it; what caches and servers say of them comes along.
    """

    tokenizer: PreTrainedTokenizerBase
    packed: bool = False

    @cached_property
    def _padding(self) -> PreTrainedTokenizerBase:
        return padding_by_position(self.tokenizer)

    def __call__(self, rows: Rows) -> Any:
        from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening

        texts = [self._tokens(row) for row in rows]
        served = [{name: text.pop(name) for name in SERVED if name in text} for text in texts]
        if self.packed:
            batch = DataCollatorWithFlattening()(texts)
            for name in [name for name in PLACE if name in texts[0]]:
                batch[name] = torch.tensor([int(text[name]) for text in texts])
        else:
            batch = DataCollatorForSeq2Seq(self._padding)(texts)
        if any(served):
            length = None if self.packed else batch["input_ids"].shape[1]
            batch.update(pad_served(served, texts, self.tokenizer, length))
        return batch

    def _tokens(self, row: dict[str, Any]) -> dict[str, Any]:
        if "input_ids" in row:
            if np.ndim(row.get("labels", [])) == 0:
                raise ValueError(
                    f"A row has labels={row['labels']}, one label for a whole text, and a language model's texts have "
                    "one for each token. To train a classifier, take kdcourse.collators.collator(tokenizer)."
                )
            left_out = (*WRITTEN_OUT, *OF_WHOLE_TEXTS)
            tokens = {"labels": row["input_ids"], **{name: row[name] for name in row if name not in left_out}}
            # Rows of a dataset in torch's or NumPy's format: transformers would pad their labels one by one, and warn.
            return tokens | {name: value.tolist() for name, value in tokens.items() if hasattr(value, "tolist")}
        served = {name: row[name] for name in SERVED if name in row}
        if MESSAGES in row:
            return {**tokenize_conversation(row[MESSAGES], self.tokenizer), **served}
        return {**tokenize_prompt(row[PROMPT], row.get(COMPLETION), self.tokenizer), **served}


def tokenize_conversation(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """`input_ids`, `attention_mask` and `labels` of a conversation; its last message alone has labels, with its end.

    Raises:
        ValueError: the chat template does not write the last message where it would let a model begin to answer, or
            the tokenizer does not say which characters a token stands for.
    """
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    asked = None
    if len(messages) > 1:
        asked = str(tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True))
    if asked is None or not text.startswith(asked):
        raise ValueError(
            f"A conversation of {[message.get('role') for message in messages]} does not end in an answer that begins "
            "where the chat template lets one begin; let it end with a message of the assistant's, or tokenize it "
            "yourself."
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for, so the last message cannot "
            "be told from those before it; load a fast tokenizer, or tokenize the conversations yourself."
        )
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if start >= len(asked) else IGNORED_LABEL
        for token, (start, _) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
    ]
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "labels": labels}


def tokenize_prompt(
    prompt: str | list[dict[str, Any]],
    completion: str | list[dict[str, Any]] | None,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, list[int]]:
    """`input_ids`, `attention_mask` and `labels` of a prompt, which has no labels, and of its completion, which has.

    Two strings are tokenized one by one, so that the completion begins where a student that is given the prompt begins
    to write, and the end-of-text token follows. Messages are written out by the chat template, up to where it lets a
    model begin to answer; with a completion they are a conversation.

    Raises:
        TypeError: a string and messages.
        ValueError: a tokenizer without a token that ends a text; or see `tokenize_conversation`.
    """
    if completion is not None and isinstance(prompt, str) != isinstance(completion, str):
        raise TypeError(
            f"The prompt is a {type(prompt).__name__} and the completion a {type(completion).__name__}; let both be "
            "strings, or both lists of messages."
        )
    if not isinstance(prompt, str):
        if completion is not None:
            return tokenize_conversation([*prompt, *completion], tokenizer)
        asked = str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
        ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(prompt)["input_ids"]
        if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(str(tokenizer.eos_token)):
            ids = ids[:-1]  # a tokenizer that ends each text ends this one too early
    answer: list[int] = []
    if isinstance(completion, str):
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no eos_token, so that nothing would say where a completion ends; set "
                "tokenizer.eos_token to the token with which the student's texts end."
            )
        answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {
        "input_ids": [*ids, *answer],
        "attention_mask": [1] * (len(ids) + len(answer)),
        "labels": [IGNORED_LABEL] * len(ids) + answer,
    }
