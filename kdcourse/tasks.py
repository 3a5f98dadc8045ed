"""What a model is asked, by its class: an answer for each example or token, the next token, or a token where it stands
(lesson 06).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args

from kdcourse.checks import MismatchError
from kdcourse.columns import arguments_of, unwrapped

Task = Literal["classifier", "token classifier", "language model", "masked language model", "encoder-decoder"]
"""Logits (N, C); logits (B, T, C) compared where they are; logits (B, T, V) compared with the token behind them; and
logits (B, T, V) compared where they are: with a token that was masked, or with what a decoder says next.
"""

TASKS: tuple[Task, ...] = get_args(Task)

LABELLED_TASKS: tuple[Task, ...] = ("classifier", "token classifier")
"""Those whose classes have names."""

VOCABULARY_TASKS: tuple[Task, ...] = ("language model", "masked language model", "encoder-decoder")
"""Those whose classes are the tokens of a vocabulary."""

_REGISTERS: dict[Task, tuple[str, ...]] = {
    "encoder-decoder": ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ"),
    "masked language model": ("MASKED_LM",),
    "language model": ("CAUSAL_LM",),
    "token classifier": ("TOKEN_CLASSIFICATION", "AUDIO_FRAME_CLASSIFICATION"),
    "classifier": (
        "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION",
    ),
}  # fmt: skip
"""The registers of transformers' auto classes that a task is taken from. Where a class stands in several, the first one
holds: BART fills in masks by saying a text, and XLM looks both ways.
"""

_DRAFTS = "drafts from the states of another model, and does not read input_ids"
_CODEBOOKS = "predicts several codebooks of sound at each step, not one token"
_IN_PLACE = "predicts a token at the token's own position, which it sees unless perm_mask hides it"
_OTHERS: dict[str, str] = {
    "CpmAntForCausalLM": "sees a whole text at once, the tokens that it is to predict among them",
    "DiaForConditionalGeneration": _CODEBOOKS,
    "Gemma4AssistantForCausalLM": _DRAFTS,
    "Gemma4UnifiedAssistantForCausalLM": _DRAFTS,
    "MusicgenForCausalLM": _CODEBOOKS,
    "MusicgenMelodyForCausalLM": _CODEBOOKS,
    "Nemotron3DiarizationForAudioFrameClassification": "says of each speaker whether they speak, one sigmoid each",
    "XLNetLMHeadModel": _IN_PLACE,
}
"""In those registers, and something else."""

_ENCODER_WITHOUT_MASKS = "bert-generation"
"""A model type whose causal class looks both ways unless told otherwise, and that fills in no masks."""


def task_of(model: Any, said: Task | None = None) -> Task | None:
    """The task of a model of transformers, in whatever it is wrapped; None for a class of one's own.

    Args:
        said: the task that somebody says it is for. A class of one's own on a body of transformers needs it.

    Raises:
        MismatchError: a class of transformers for another task; or one's own, of which nobody has said it.
    """
    from transformers import PreTrainedModel

    model = unwrapped(model)
    if not isinstance(model, PreTrainedModel):
        return None
    for each in type(model).__mro__:
        if each.__name__ in _OTHERS:
            why = _OTHERS[each.__name__]
            rows = "" if why == _IN_PLACE else "distillation_loss on rows that you select yourself"
            raise MismatchError(
                f"{each.__name__} {why}, so that its logits are compared by other rules; take "
                f"{rows or 'token_distillation_loss'}."
            )
        if task := _registered(each.__name__, model):
            if task in _REQUIREMENTS:
                _REQUIREMENTS[task](model)
            return task
    is_ones_own = not type(model).__module__.startswith("transformers.")
    if is_ones_own and said:
        return None
    way_out = (
        " If it has a task of those all the same, say which: DistillationArguments(task=…)." if is_ones_own else ""
    )
    raise MismatchError(
        f"{type(model).__name__} is neither a classifier (of examples or of tokens), nor a causal or masked language "
        "model, nor an encoder-decoder that reads decoder_input_ids, and its logits are compared by other rules. Where "
        "logits and labels stand at the same places, take token_distillation_loss; else distillation_loss on rows that "
        f"you select yourself.{way_out}"
    )


def registered_task(model: Any) -> Task | None:
    """The task that a model's class, or one that it is made from, is registered for, whether or not it is trained."""
    model = unwrapped(model)
    return next((task for each in type(model).__mro__ if (task := _registered(each.__name__, model))), None)


def _registered(name: str, model: Any) -> Task | None:
    for task in _tasks_by_class().get(name, ()):
        # Voxtral and others stand among encoder-decoders, and have no decoder of their own: they read one row.
        if task != "encoder-decoder" or "decoder_input_ids" in arguments_of(model):
            return task
    return None


def with_article(task: Task) -> str:
    return f"{'an' if task[0] in 'aeiou' else 'a'} {task}"


def _require_that_it_looks_back_only(model: Any) -> None:
    """An encoder with a causal head sees the token that it is to predict, unless it is told to be a decoder.

    GPT-NeoX, which is no encoder, has the setting, too, and looks back only whatever it says.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    can_look_both_ways = model.config.model_type in (*MODEL_FOR_MASKED_LM_MAPPING_NAMES, _ENCODER_WITHOUT_MASKS)
    if can_look_both_ways and getattr(model.config, "is_decoder", True) is False:
        raise MismatchError(
            f"{type(model).__name__} is an encoder here, and sees the tokens that it is to predict; load it with "
            "is_decoder=True."
        )


def _require_that_it_looks_both_ways(model: Any) -> None:
    """A masked token is told from what stands before and behind it; one that looks back only predicts the next."""
    settings = [name for name in ("is_decoder", "causal") if getattr(model.config, name, False)]
    if settings:
        raise MismatchError(
            f"{type(model).__name__} looks back only here, and a masked language model tells a token from both sides; "
            f"load it with {settings[0]}=False, or a class for causal language models."
        )


def _require_that_its_decoder_looks_back_only(model: Any) -> None:
    """A decoder that is put together with an encoder is one that can be told to see all tokens at once."""
    decoder = getattr(model.config, "decoder", None)
    if getattr(decoder, "is_decoder", True) is False:
        raise MismatchError(
            f"The decoder of {type(model).__name__} sees the tokens that it is to predict; load it with "
            "config.decoder.is_decoder=True."
        )
    if getattr(model.config, "output_router_logits", False):
        raise MismatchError(
            f"{type(model).__name__} has losses of routers in encoder and decoder, which are not added here; load it "
            "with output_router_logits=False."
        )


_REQUIREMENTS: dict[Task, Callable[[Any], None]] = {
    "language model": _require_that_it_looks_back_only,
    "masked language model": _require_that_it_looks_both_ways,
    "encoder-decoder": _require_that_its_decoder_looks_back_only,
}


@cache
def _tasks_by_class() -> dict[str, list[Task]]:
    from transformers.models.auto import modeling_auto

    tasks: dict[str, list[Task]] = {}
    for task, registers in _REGISTERS.items():
        for register in registers:
            for names in getattr(modeling_auto, f"MODEL_FOR_{register}_MAPPING_NAMES").values():
                for name in [names] if isinstance(names, str) else names:
                    tasks.setdefault(name, []).append(task)
    return tasks
