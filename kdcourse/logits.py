"""What is done to logits before a softmax: precision, and temperature."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Softmax in 16 bits loses a third of a small divergence."""
    return logits if logits.dtype == torch.float64 else logits.float()


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / T, in float32 or better.

    Raises:
        ValueError: a finite logit overflows. If it became -inf, it would pass for a class that is ruled out.
    """
    logits = at_least_float32(logits)
    quotient = logits / temperature
    if temperature < 1 and (quotient.isinf() & logits.isfinite()).any():
        raise ValueError(f"Logits divided by temperature {temperature} overflow; take a larger one.")
    return quotient
