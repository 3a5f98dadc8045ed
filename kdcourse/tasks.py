"""What a model is asked, by its class: an answer for each example or token, or the next token (lesson 06)."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

from kdcourse.checks import MismatchError
from kdcourse.columns import unwrapped

Task = Literal["classifier", "token classifier", "language model"]
"""Logits (N, C); logits (B, T, C) compared where they are; logits (B, T, V) compared with the token behind them."""

TASKS: tuple[Task, ...] = get_args(Task)

LABELLED_TASKS: tuple[Task, ...] = ("classifier", "token classifier")
"""Those whose classes have names."""

_REGISTERS: dict[Task, tuple[str, ...]] = {
    "classifier": (
        "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION",
    ),
    "token classifier": ("TOKEN_CLASSIFICATION", "AUDIO_FRAME_CLASSIFICATION"),
    "language model": ("CAUSAL_LM",),
}  # fmt: skip
"""The registers of transformers' auto classes that a task is taken from."""

_DRAFTS = "drafts from the states of another model, and does not read input_ids"
_CODEBOOKS = "predicts several codebooks of sound at each step, not one token"
_IN_PLACE = "predicts a token at the token's own position, not the next one"
_OTHERS: dict[str, str] = {
    "CpmAntForCausalLM": "sees a whole text at once, the tokens that it is to predict among them",
    "FlaubertWithLMHeadModel": _IN_PLACE,
    "Gemma4AssistantForCausalLM": _DRAFTS,
    "Gemma4UnifiedAssistantForCausalLM": _DRAFTS,
    "MusicgenForCausalLM": _CODEBOOKS,
    "MusicgenMelodyForCausalLM": _CODEBOOKS,
    "Nemotron3DiarizationForAudioFrameClassification": "says of each speaker whether they speak, one sigmoid each",
    "XLMWithLMHeadModel": _IN_PLACE,
    "XLNetLMHeadModel": _IN_PLACE,
}
"""In those registers, and something else."""


def task_of(model: Any) -> Task | None:
    """The task of a model of transformers, in whatever it is wrapped; None for a class of one's own.

    Raises:
        MismatchError: a class of transformers for another task.
    """
    from transformers import PreTrainedModel

    model = unwrapped(model)
    if not isinstance(model, PreTrainedModel):
        return None
    names = [each.__name__ for each in type(model).__mro__]
    for name in names:
        if name in _OTHERS:
            raise MismatchError(
                f"{name} {_OTHERS[name]}, so that its logits are compared by other rules; take distillation_loss on "
                "rows that you select yourself."
            )
        if task := _tasks_by_class().get(name):
            if task == "language model":
                _require_that_it_looks_back_only(model)
            return task
    raise MismatchError(
        f"{names[0]} is neither a classifier (of examples or of tokens) nor a causal language model, and its logits "
        "are compared by other rules; take distillation_loss on rows that you select yourself."
    )


def _require_that_it_looks_back_only(model: Any) -> None:
    """An encoder with a causal head sees the token that it is to predict, unless it is told to be a decoder."""
    if getattr(model.config, "is_decoder", True) is False:
        raise MismatchError(
            f"{type(model).__name__} is an encoder here, and sees the tokens that it is to predict; load it with "
            "is_decoder=True."
        )


@cache
def _tasks_by_class() -> dict[str, Task]:
    from transformers.models.auto import modeling_auto

    tasks: dict[str, Task] = {}
    for task, registers in _REGISTERS.items():
        for register in registers:
            for names in getattr(modeling_auto, f"MODEL_FOR_{register}_MAPPING_NAMES").values():
                tasks |= dict.fromkeys([names] if isinstance(names, str) else names, task)
    return tasks
