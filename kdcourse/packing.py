"""Does a model read texts that are packed into one row one by one? Tried once, on a row that is made up (lesson 05).

Where one text ends, only the positions say, which begin anew. Llama and most others make a mask of that. OPT, BLOOM or
Falcon do not, nor does a model with a state for the whole row (Mamba): they read a text as the end of the one before
it, and nothing of it shows but a wrong loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdcourse.checks import MismatchError
from kdcourse.columns import LABELS, Batch, is_packed, unwrapped
from kdcourse.compat import vocabulary_of
from kdcourse.teacher import in_eval_mode

FEW = 4
"""Tokens of a text that is made up."""

CLOSE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""By how much of their spread a text's logits may move, by their precision. Rows of one shape are rounded alike, so
that nothing moves but where a sum is made in another order.
"""

CLOSE_IN_16_BITS = 3e-2


def holds_several_texts(batch: Batch) -> bool:
    """Whether more than one text is packed into a row; a look at the device, where there is one row with positions."""
    return is_packed(batch) and int((batch["position_ids"] == 0).sum()) > 1


def require_read_apart(role: str, model: nn.Module, batch: Batch, ask: Callable[[nn.Module, Batch], Tensor]) -> None:
    """A model's answers to the second text of a row do not depend on the first.

    The model is asked twice about a few tokens, as it is inside of what wraps or compiles it, in eval mode, without
    gradients, and without a trace in the random numbers. One whose weights are spread over processes is not tried.

    Args:
        batch: packed; a row of the same columns is made up.
        ask: the logits (1, T, V) of a model for such a row.

    Raises:
        MismatchError: they do.
    """
    inside: Any = unwrapped(model)
    words = vocabulary_of(inside)
    if words is None or is_spread(inside):
        return
    first, other, second = (torch.arange(1, 3 * FEW + 1) % words).view(3, FEW).tolist()
    with asked_aside(inside, batch["input_ids"].device):
        one, another = (ask(inside, _packed([before, second], batch))[0, -FEW:] for before in (first, other))
    moved, spread = (one - another).float().abs().max(), one.float().std(dim=-1).max()
    if moved > CLOSE.get(one.dtype, CLOSE_IN_16_BITS) * spread:
        raise MismatchError(
            f"Several texts are packed into one row, and the {role} ({type(inside).__name__}) reads across them: what "
            "it says of a text depends on the text before it. Pad instead of packing: "
            "data_collator=kdcourse.collators.LanguageModelCollator(tokenizer)."
        )


def is_spread(model: nn.Module) -> bool:
    """Whether a model's weights are spread over processes, which would all have to ask it at once."""
    return any(hasattr(weight, "device_mesh") for weight in model.parameters())


@contextmanager
def asked_aside(model: nn.Module, device: torch.device) -> Iterator[None]:
    """In eval mode, without gradients, and without a trace in the random numbers."""
    drawing_devices = [device] if device.type == "cuda" else []
    with in_eval_mode(model), torch.random.fork_rng(devices=drawing_devices), torch.no_grad():
        yield


def _packed(texts: list[list[int]], like: Batch) -> dict[str, Any]:
    """The texts in one row, with the columns that another packed batch has."""
    from transformers import DataCollatorWithFlattening

    collate = DataCollatorWithFlattening(
        return_flash_attn_kwargs="cu_seq_lens_q" in like, return_seq_idx="seq_idx" in like
    )
    row = collate([{"input_ids": text} for text in texts])
    if "attention_mask" in like:
        row["attention_mask"] = torch.ones_like(row["input_ids"])
    device = like["input_ids"].device
    return {
        name: value.to(device) if isinstance(value, Tensor) else value for name, value in row.items() if name != LABELS
    }
