"""The student writes and the teacher judges: on-policy distillation (lesson 09).

A student that learns on the data's text sees, at each token, a beginning that it would perhaps never have written. Once
it writes itself, it goes on from its own mistakes. On-policy distillation trains it there: the student continues
prompts, and the teacher is asked about each of the student's tokens (Agarwal et al. 2024, On-Policy Distillation of
Language Models, arXiv 2306.13649, algorithm 1). Whose text the beginnings are is one choice, and the divergence is
another.

What is drawn depends on the training's seed, the number of the step and the row alone: neither on random numbers that
something else has used up, nor on how a step's rows are cut into micro-batches and spread over processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kdcourse.checks import IGNORED_LABEL, MismatchError, require_temperature
from kdcourse.columns import LABELS, Batch, once_per_model, unwrapped
from kdcourse.compat import positions_of, vocabulary_of
from kdcourse.counting import WrittenBatch
from kdcourse.teacher import CachedTeacher, ColumnTeacher, in_eval_mode

READ = ("input_ids", "attention_mask", LABELS)
"""The columns of a batch of which a text can be written anew."""

TRIED = 5
"""Tokens of a made-up prompt."""

CLOSE = 3e-2
"""Of the largest logit: what rounding in 16 bits can change."""


@dataclass(frozen=True)
class OnPolicy:
    """How much of the text, and how, a student writes itself.

    Each optimizer step is on the student's own text with probability `share`, all of its micro-batches and processes
    alike, and else on the data's. (TRL draws, too, but for each micro-batch; the algorithm of the paper is for a step.)

    Args:
        share: of the steps, 0 (the data's text alone) to 1; TRL calls it `lmbda`.
        max_new_tokens: where a text ends that has not ended itself.
        temperature: of sampling. The loss has a temperature of its own, in `DistillationArguments`.
        top_k: sample from so many tokens at most; None from all.
        top_p: sample from the likeliest tokens that together reach this probability; None from all.

    Raises:
        ValueError: a setting is out of range.
    """

    share: float = 0.5
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(
                f"share is {self.share}, but it is a share of the steps: 0 is the data's text alone, 1 the student's."
            )
        _require_count("max_new_tokens", self.max_new_tokens, "tokens that the student writes")
        try:
            require_temperature(self.temperature)
        except ValueError as error:
            raise ValueError(f"In on_policy, {error} For the likeliest token each time, take top_k=1.") from None
        if self.top_k is not None:
            _require_count("top_k", self.top_k, "tokens to sample from; None is for all of them")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, but it is a probability above 0; None, or 1, is for all tokens.")

    @classmethod
    def of(cls, given: OnPolicy | Mapping[str, Any] | str | None) -> OnPolicy | None:
        """The settings, from themselves, their names and values, or those as JSON on a command line.

        Raises:
            TypeError, ValueError: something else, or a name that is none.
        """
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError:
                raise ValueError(f"on_policy is {given!r}; as a text, it is JSON: '{{\"share\": 0.5}}'.") from None
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"on_policy is {given!r}; pass kdcourse.OnPolicy(share={given!r}), or None.")
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"on_policy has no {unknown[0]!r}; it has {', '.join(names)}.")
        return cls(**given)

    def is_drawn(self, seed: int, step: int) -> bool:
        """Whether a step, counted from 0, is on the student's text; the same wherever it is asked."""
        return bool(_uniform(1, seed, step, 0)[0] < self.share)


def _require_count(name: str, number: Any, of: str) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} is {number!r}, but it counts {of}: a whole number, 1 or more.")


def _uniform(count: int, *key: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers in [0, 1) that belong to a key; keys of equal length that differ have nothing to do with each other."""
    return np.random.default_rng(key).random(count)


def require_writer(settings: OnPolicy, student: Any, teacher: Any, task: str | None, spread_by: str | None) -> None:
    """A student that can write, and a teacher that can judge what nobody has seen before.

    Args:
        spread_by: what keeps the student's weights in pieces, if anything does.

    Raises:
        MismatchError: which of the two cannot.
    """
    if not settings.share:
        return
    name = type(unwrapped(student)).__name__
    if task != "language model" or not hasattr(unwrapped(student), "generate"):
        raise MismatchError(
            f"on_policy has share={settings.share}, but the student ({name}) writes no text: that takes a causal "
            "language model with a method `generate`. Leave on_policy out."
        )
    if teacher is None or isinstance(teacher, (CachedTeacher, ColumnTeacher)):
        source = "there is no teacher model" if teacher is None else f"the teacher is a {type(teacher).__name__}"
        raise MismatchError(
            f"on_policy has share={settings.share}, but {source}: answers that were computed before are "
            "for the data's text, and there are none for what the student is going to write. Pass the teacher itself, "
            "teacher=model, or take share=0."
        )
    if spread_by is not None:
        raise MismatchError(
            f"on_policy has share={settings.share}, but {spread_by} keeps the student's weights in pieces, and it "
            "writes with whole ones; train with plain data parallelism, or take share=0."
        )


@dataclass(frozen=True)
class Writer:
    """A causal language model that continues the prompts of a batch, in eval mode, without gradients, with a cache of
    keys and values. The model has its own mode back afterwards, and its own generation settings: those are not used,
    since a model's defaults (top_p=0.95, a penalty of repetitions) are no sample of what it would say (trl#6337).
    """

    model: Any
    settings: OnPolicy
    tokenizer: PreTrainedTokenizerBase | None = None
    vocabulary: int | None = None
    """How many ids may be written, if the teacher knows fewer than the model."""
    teacher: Any = None
    """A model that has to have room for what is written, too."""

    def write(self, batch: Batch, keys: Sequence[tuple[int, ...]]) -> WrittenBatch:
        """The batch with the model's continuations in the place of the data's.

        Prompts are what `prompts_of` finds. A row of what comes back is prompt and continuation, padded on the right;
        the continuation has labels, its end included, and nothing else has.

        Args:
            batch: input_ids (B, T), and perhaps attention_mask and labels.
            keys: of each row, from which its random numbers come.

        Raises:
            MismatchError, ValueError: columns that belong to the data's text, a row that has no prompt, or one after
                which there is no room.
        """
        prompts = prompts_of(batch)
        longest = max(map(len, prompts))
        require_room_to_write("student", self.model, longest, self.settings)
        require_room_to_write("teacher", self.teacher, longest, self.settings)
        device = batch["input_ids"].device
        written = self.continue_all(prompts, keys, device)
        texts = [torch.cat(pair) for pair in zip(prompts, written, strict=True)]
        labels = [
            torch.cat([torch.full_like(prompt, IGNORED_LABEL), own])
            for prompt, own in zip(prompts, written, strict=True)
        ]
        columns = {
            "input_ids": pad_sequence(texts, batch_first=True, padding_value=self.pad),
            "attention_mask": pad_sequence([torch.ones_like(text) for text in texts], batch_first=True),
            LABELS: pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
        }
        return WrittenBatch({name: column.to(device) for name, column in columns.items()})

    def continue_all(
        self, prompts: Sequence[Tensor], keys: Sequence[tuple[int, ...]], device: torch.device
    ) -> list[Tensor]:
        """What the model writes after each prompt (P,), up to the end of its text, with that; on the CPU."""
        places = list(range(len(prompts)))
        together = [places]
        if len({len(prompt) for prompt in prompts}) > 1 and minds_padding(self.model):
            places.sort(key=lambda place: len(prompts[place]))
            together = [list(group) for _, group in groupby(places, key=lambda place: len(prompts[place]))]
        written: dict[int, Tensor] = {}
        for group in together:
            completions = self._continue([prompts[place] for place in group], [keys[place] for place in group], device)
            written |= dict(zip(group, completions, strict=True))
        return [written[place] for place in range(len(prompts))]

    def _continue(
        self, prompts: Sequence[Tensor], keys: Sequence[tuple[int, ...]], device: torch.device
    ) -> list[Tensor]:
        ids = pad_sequence(list(prompts), batch_first=True, padding_value=self.pad, padding_side="left")
        mask = pad_sequence([torch.ones_like(prompt) for prompt in prompts], batch_first=True, padding_side="left")
        points = torch.from_numpy(np.stack([_uniform(self.settings.max_new_tokens, *key) for key in keys]))
        completions = _generate(
            self.model,
            ids.to(device),
            mask.to(device),
            logits_processor=self._draw(points.to(device, _widest(device)), ids.shape[1]),
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=self.pad,
        )
        return [up_to_the_end(completion, self.ends) for completion in completions[:, ids.shape[1] :].cpu()]

    def _draw(self, points: Tensor, prompt: int) -> LogitsProcessorList:
        """From logits to the one token that is drawn, in transformers' own order."""
        steps: list[Any] = [_Known(self.vocabulary)] if self.vocabulary else []
        steps.append(TemperatureLogitsWarper(float(self.settings.temperature)))
        if self.settings.top_k is not None:
            steps.append(TopKLogitsWarper(self.settings.top_k))
        if self.settings.top_p is not None:
            steps.append(TopPLogitsWarper(self.settings.top_p))
        return LogitsProcessorList([*steps, _Drawn(points, prompt)])

    @property
    def ends(self) -> list[int]:
        """The ids that end a text: those of the model's generation settings (Llama 3 has three) and the tokenizer's."""
        known = (getattr(unwrapped(self.model), "generation_config", None), self.tokenizer)
        ends: list[int] = []
        for each in known:
            theirs = getattr(each, "eos_token_id", None)
            ends += [theirs] if isinstance(theirs, int) else theirs or []
        return list(dict.fromkeys(ends))

    @property
    def pad(self) -> int:
        """Any id will do, since padding is told by the mask."""
        own = getattr(self.tokenizer, "pad_token_id", None)
        return own if own is not None else next(iter(self.ends), 0)


def prompts_of(batch: Batch) -> list[Tensor]:
    """Of each row, the tokens before the first that has a label; all of them, where none has. On the CPU, unpadded.

    Raises:
        MismatchError: the batch holds something beside a text, which would not fit another one.
        ValueError: a row begins with a label, so that there is nothing to continue.
    """
    if others := sorted(set(batch) - set(READ)):
        raise MismatchError(
            f"The batch brings {others[0]}, which belongs to the data's text and would not fit what the student "
            "writes; leave the column out (texts packed into one row: pad them instead), or take share=0."
        )
    ids = batch["input_ids"].cpu()
    is_real = batch["attention_mask"].cpu().bool() if "attention_mask" in batch else torch.ones_like(ids).bool()
    labels = batch.get(LABELS)
    has_label = torch.zeros_like(is_real) if labels is None else labels.cpu() != IGNORED_LABEL
    is_prompt = is_real & ((has_label & is_real).cumsum(dim=1) == 0)
    for number, row in enumerate(is_prompt):
        if not row.any():
            raise ValueError(
                f"Row {number} of a batch has no prompt: its first token has a label already, so there is nothing that "
                "the student could continue. Give the tokens that it is to begin from the label -100, or rows of "
                "`messages`, or of `prompt` and `completion`."
            )
    return [text[row] for text, row in zip(ids, is_prompt, strict=True)]


def require_room_to_write(role: str, model: Any, prompt: int, settings: OnPolicy) -> None:
    """
    Raises:
        MismatchError: a model's table of positions ends before the longest text that the student may write.
    """
    positions = None if model is None else positions_of(model)
    if positions is not None and prompt + settings.max_new_tokens > positions:
        raise MismatchError(
            f"A prompt has {prompt:,} tokens and the student may write max_new_tokens={settings.max_new_tokens:,}, but "
            f"the {role} ({type(unwrapped(model)).__name__}) has {positions:,} positions; cut the prompts, or let it "
            f"write {max(positions - prompt, 0):,} tokens at most."
        )


def up_to_the_end(completion: Tensor, ends: Sequence[int]) -> Tensor:
    """A completion (T,) up to its first end, with that: what stands behind is padding, whatever its id is."""
    places = torch.isin(completion, torch.tensor(ends, dtype=completion.dtype)).nonzero()
    return completion[: int(places[0]) + 1] if len(places) else completion


class _Known(LogitsProcessor):
    """Rules out the ids that one of two models does not know."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, torch.arange(self.vocabulary, scores.shape[1], device=scores.device), -torch.inf)


class _Drawn(LogitsProcessor):
    """The token on which a point falls, where the tokens' probabilities are laid end to end on a line.

    `generate` would draw from the random numbers that all rows share: a row's text would then depend on the rows beside
    it, and on what has been drawn before a checkpoint.

    Args:
        points: (B, max_new_tokens), in [0, 1).
        prompt: tokens before the first that is written.
    """

    def __init__(self, points: Tensor, prompt: int) -> None:
        self.points, self.prompt = points, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        line = scores.to(self.points.dtype).softmax(dim=-1).cumsum(dim=-1)
        point = self.points[:, input_ids.shape[1] - self.prompt, None] * line[:, -1:]
        drawn = torch.searchsorted(line, point, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def _widest(device: torch.device) -> torch.dtype:
    """In which a sum over a vocabulary loses least; Apple's devices have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _generate(model: Any, ids: Tensor, mask: Tensor, *, logits_processor: Any = None, **settings: Any) -> Any:
    """`generate` with these settings and no others, in eval mode: no dropout, and a cache even where training
    recomputes activations, since models give that up in train mode alone.
    """
    config = GenerationConfig(do_sample=False, num_beams=1, use_cache=True, **settings)
    with in_eval_mode(model), _without_generation_settings(model), torch.no_grad():
        return model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=logits_processor
        )


@contextmanager
def _without_generation_settings(model: Any) -> Iterator[None]:
    """What a setting leaves open would be filled from the model's own."""
    holders = [each for each in {model, unwrapped(model)} if hasattr(each, "generation_config")]
    own = [each.generation_config for each in holders]
    try:
        for each in holders:
            each.generation_config = GenerationConfig()
        yield
    finally:
        for each, config in zip(holders, own, strict=True):
            each.generation_config = config


@once_per_model
def minds_padding(model: nn.Module) -> bool:
    """Whether a model goes on otherwise after a prompt that is padded on its left; tried once, on a made-up one.

    Models with a state for the whole text (RWKV), or positions of which `generate` does not know, do. Their prompts are
    continued by length, without padding.
    """
    device = next(model.parameters()).device
    prompt = torch.arange(1, TRIED + 1, device=device)[None] % (vocabulary_of(model) or TRIED)
    padding = torch.zeros(1, 2, dtype=torch.long, device=device)
    alone = _first_logits(model, prompt, torch.ones_like(prompt))
    padded = _first_logits(
        model, torch.cat([padding, prompt], dim=1), torch.cat([padding, torch.ones_like(prompt)], dim=1)
    )
    return bool((alone - padded).abs().max() > CLOSE * alone.abs().max())


def _first_logits(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    answer = _generate(
        model, ids, mask, max_new_tokens=1, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    return answer.logits[0].float()
