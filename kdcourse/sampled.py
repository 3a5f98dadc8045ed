"""k classes drawn from a teacher's distribution, so that the student's gradient is right on average.

The k largest always leave out the same classes, however long the student trains: what it could learn within the rest
is lost. If classes are drawn, and each counts for as much as it stands for, every class has its say on average. That is
the idea of Sparse Logit Sampling (Anshumann et al. 2025, arXiv 2503.16870), which draws with replacement and stores how
often each class came. Here a class is drawn at most once, and one that would be drawn for certain keeps its own
probability: exactly k classes, the layout of the top k, and of all such draws the one with the smallest squared error
(Fearnhead and Clifford 2003, On-line inference for hidden Markov models via particle filters, section 3.2).

With probabilities q, there is one c with Σ min(1, q / c) = k. A class is kept with probability min(1, q / c), and then
weighs max(q, c): q on average, and the k weights add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdcourse.divergence import forward_kl
from kdcourse.temperature import at_temperature
from kdcourse.topk import Cut, require_cut, require_own_temperature

AT_ONCE = 2**22
"""Probabilities in float64 that a draw looks at together."""

ROUNDING = 1e-9
"""A class that is drawn with a probability this near to 1 counts as certain, so that none is drawn twice."""


@dataclass(frozen=True)
class Sampled(Cut):
    """k classes of each row, drawn. `rest` is the logarithm of c, which a drawn class weighs at least, on the scale of
    logit / T: the weights are softmax(max(logits / T, rest)). It is -inf where nothing had to be drawn.
    """


def sample_k(logits: Tensor, k: int, temperature: float, seed: int | Sequence[int]) -> Sampled:
    """Draw k different classes of each row (..., C), for a loss at `temperature`.

    Raises:
        ValueError: k is not between 1 and C, the temperature is none, a logit overflows at it, or a row gives no
            probabilities (NaN, +inf, or -inf alone).
    """
    logits = require_cut(logits, k, temperature)
    width = logits.shape[-1]
    rows = logits.reshape(-1, width)
    starts = torch.from_numpy(np.random.default_rng(seed).random(len(rows))).to(rows.device)
    drawn = [
        _draw(at_temperature(some, temperature).double(), k, start)
        for some, start in zip(
            rows.split(max(1, AT_ONCE // width)), starts.split(max(1, AT_ONCE // width)), strict=True
        )
    ]
    classes, rest = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return Sampled(
        rows.gather(-1, classes).reshape(*logits.shape[:-1], k),
        classes.reshape(*logits.shape[:-1], k),
        rest.to(logits.dtype).reshape(logits.shape[:-1]),
        temperature,
        width,
    )


def _draw(scaled: Tensor, k: int, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (n, k) and log c (n,) of rows logit / T (n, C); `starts` (n,), uniform in [0, 1), decides which."""
    log_sums = scaled.logsumexp(dim=-1)
    if not log_sums.isfinite().all():
        top = scaled[~log_sums.isfinite()][0].max().item()
        raise ValueError(
            f"A row of the teacher's logits has {top} as its largest value, and no probabilities follow from that; "
            "look for an overflow in the model (float16?)."
        )
    probs = (scaled - log_sums.unsqueeze(-1)).exp()
    largest, classes = probs.topk(k, dim=-1)
    beyond = probs.scatter(-1, classes, 0).sum(dim=-1, keepdim=True)
    places = torch.arange(k, 0, -1, device=scaled.device)  # that are free before each of the k largest
    left = largest.flip(-1).cumsum(-1).flip(-1) + beyond  # to be spread over them
    is_certain = (largest * places >= left * (1 - ROUNDING)).int().cummin(dim=-1).values.bool()
    certain = is_certain.sum(dim=-1, keepdim=True)
    to_draw = k - certain
    threshold = left.gather(-1, certain.clamp(max=k - 1)) / to_draw  # inf, where nothing is to be drawn
    others = probs.scatter(-1, classes, largest.masked_fill(is_certain, 0))
    drawn = _systematic(others, to_draw, starts.unsqueeze(-1), k)
    place = torch.arange(k, device=scaled.device).expand_as(classes)
    classes = torch.where(is_certain, classes, drawn.gather(-1, (place - certain).clamp(min=0)))
    log_threshold = threshold.log().masked_fill(to_draw == 0, -math.inf).squeeze(-1)
    return classes, log_threshold + log_sums


def _systematic(weights: Tensor, number: Tensor, starts: Tensor, k: int) -> Tensor:
    """Indices (n, k), of which the first `number` (n, 1) are drawn: each with probability number · weight / Σ weights.

    The weights are laid end to end on a line of length `number`, and points that are 1 apart pick those they fall on.
    """
    line = weights.cumsum(dim=-1)
    line = line / line[:, -1:].clamp(min=torch.finfo(line.dtype).tiny) * number
    points = starts.clamp(max=1 - ROUNDING) + torch.arange(k, device=weights.device)
    return torch.searchsorted(line, points, right=True).clamp(max=weights.shape[-1] - 1)


def sampled_forward_kl(student_log_probs: Tensor, teacher: Sampled, temperature: float) -> Tensor:
    """What KL(teacher ‖ student) = Σ q (log q - log p) is on average over draws: Σ w (log q - log p), with weights w.

    A single one may be negative. Its gradient is that of Σ w (log w - log p), a forward KL, from which it differs by
    what a class weighs more than its own probability.

    Args:
        student_log_probs: (..., C).

    Returns:
        (...), in nats.

    Raises:
        MismatchError: the teacher's classes were drawn at another temperature.
    """
    require_own_temperature(teacher, temperature)
    missing = teacher.classes < 0
    classes = teacher.classes.long().clamp(min=0)  # a copy: what was made for inference cannot be saved for backward
    scaled = at_temperature(teacher.logits.to(student_log_probs), temperature)
    rest = teacher.rest.to(student_log_probs).unsqueeze(-1)
    log_weights = torch.maximum(scaled, rest).masked_fill(missing, -math.inf).log_softmax(dim=-1)
    overstated = torch.where((scaled < rest) & ~missing, rest - scaled, 0)
    own = forward_kl(student_log_probs.gather(-1, classes), log_weights)
    return own - (log_weights.exp() * overstated).sum(dim=-1)
