"""How far a student's distribution is from its teacher's: log-probabilities in, nats per row out (lessons 01, 02).

Every function takes the student first and the teacher second, two tensors of log-probabilities of one shape (..., C),
and returns (...). Probabilities of exactly 0 (log-probability -inf) are legal: 0 · log 0 is 0, in value and gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kdcourse.checks import require_equal_shapes

Divergence = Callable[[Tensor, Tensor], Tensor]


def forward_kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(teacher ‖ student) = Σ q (log q - log p): what `nn.KLDivLoss` computes, and cross-entropy minus entropy.

    It is infinite where the student rules out a class that the teacher allows, so the student learns to cover.
    """
    require_equal_shapes("student_log_probs", student_log_probs, "teacher_log_probs", teacher_log_probs)
    return _kl(teacher_log_probs, student_log_probs)


def reverse_kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(student ‖ teacher) = Σ p (log p - log q).

    It is infinite where the student allows a class that the teacher rules out, so the student learns to choose.
    """
    require_equal_shapes("student_log_probs", student_log_probs, "teacher_log_probs", teacher_log_probs)
    return _kl(student_log_probs, teacher_log_probs)


def jensen_shannon(student_log_probs: Tensor, teacher_log_probs: Tensor, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence β KL(q ‖ m) + (1 - β) KL(p ‖ m) with m = β q + (1 - β) p; never infinite.

    As β → 0 it goes to 0 like β KL(q ‖ p), and as β → 1 like (1 - β) KL(p ‖ q). The ends themselves are refused, since
    code that puts a plain KL there makes the loss jump: take `forward_kl` or `reverse_kl` instead.
    Formula: Agarwal et al. (2023), On-Policy Distillation of Language Models, equation 1.

    Raises:
        ValueError: beta is not strictly between 0 and 1.
    """
    require_equal_shapes("student_log_probs", student_log_probs, "teacher_log_probs", teacher_log_probs)
    require_inner(beta)
    mixture = _log_mixture(student_log_probs, teacher_log_probs, beta)
    return beta * _kl(teacher_log_probs, mixture) + (1 - beta) * _kl(student_log_probs, mixture)


def require_inner(beta: float) -> None:
    """
    Raises:
        ValueError: beta is not strictly between 0 and 1.
    """
    if not 0 < beta < 1:
        raise ValueError(
            f"beta is {beta}, but it must lie strictly between 0 and 1; at the ends use forward_kl or reverse_kl."
        )


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) over the last dimension."""
    ruled_out = log_p == -math.inf
    # 0 · log 0 is 0. Masking the difference, not the product, keeps NaN out of the gradient as well.
    difference = (log_p - log_q).masked_fill(ruled_out, 0)
    # exp(-1000) underflows to 0, which is no more 0 than it is allowed to hide an infinite difference: 0 · inf is NaN.
    # A finite one, such as the 3e38 of a class that is masked by the lowest number, does weigh nothing there.
    p = log_p.exp()
    p = torch.where(difference.isinf(), p.clamp(min=torch.finfo(p.dtype).tiny), p)
    return (p * difference).sum(dim=-1)


def _log_mixture(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """log(β q + (1 - β) p), with a gradient that is 0, not NaN, where both are ruled out."""
    both_ruled_out = (student == -math.inf) & (teacher == -math.inf)
    mixture = torch.logaddexp(
        teacher.masked_fill(both_ruled_out, 0) + math.log(beta),
        student.masked_fill(both_ruled_out, 0) + math.log1p(-beta),
    )
    return mixture.masked_fill(both_ruled_out, -math.inf)


DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
