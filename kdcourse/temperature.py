"""What is done to logits before a softmax: precision, and temperature (lesson 03)."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Softmax in 16 bits loses a third of a small divergence."""
    return logits if logits.dtype == torch.float64 else logits.float()


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / T, in float32 or better. A finite logit may overflow at T < 1; see `checks.overflows`."""
    return at_least_float32(logits) / temperature
