"""The language model's objective without its logits: hidden states and heads in, the same loss out (lesson 06).

The logits of student and teacher for all tokens take gigabytes, and each is looked at once. So they are computed for a
few hundred tokens at a time, and so is the gradient, in closed form, before they are thrown away. With p_T and q_T as
in `loss.py`, a row's part of the gradient of the student's logits is

    alpha · (p_1 - onehot) / labelled + (1 - alpha) · T · (p_T - q_T) / taught

for forward KL. Other divergences, a teacher's top k, smoothed labels and infinities are left to the functions of
`loss.py` themselves, on the same few rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdcourse import checks
from kdcourse.checks import IGNORED_LABEL, MismatchError
from kdcourse.divergence import Divergence, forward_kl
from kdcourse.loss import Count, DistillationLoss, counts_of, divisor, mix, resolve_divergence, terms_of_rows
from kdcourse.topk import Cut, Logits

MEMORY = 120 * 10**6
"""Bytes that the logits of a chunk and what is computed from them may take, if nothing else is said."""

ROWS_IN_CACHE = 32
"""Element-wise work on a CPU goes by so many rows: with a large vocabulary, they stay in the processor's cache."""

BUFFERS = 8
"""How many blocks of rows the general path holds at once, those for its gradient included."""


@dataclass(frozen=True)
class Head:
    """How a model makes logits of hidden states: cap(scale · (hidden · weightᵀ + bias)).

    `cap(x)` is `softcap · tanh(x / softcap)` (Gemma 2), or x if there is none.
    """

    weight: Tensor
    """(V, H)."""
    bias: Tensor | None = None
    """(V,)."""
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor, out: Tensor, temperature: float = 1.0) -> Tensor:
        """Logits / temperature of hidden states (n, H), in the precision of `out` (n, V), and written there."""
        factor = self.scale / (self.softcap or temperature)
        multiply(hidden.to(out.dtype) * factor, self.weight.t(), out)
        if self.bias is not None:
            out.add_(self.bias, alpha=factor)
        return out if self.softcap is None else out.tanh_().mul_(self.softcap / temperature)


def multiply(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """left · right, in the precision of `out`: a head in 16 bits is converted in stripes, not as a whole."""
    if right.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    stripe = max(1, out.shape[1] // 16)
    for start in range(0, out.shape[1], stripe):
        out[:, start : start + stripe] = left @ right[:, start : start + stripe].to(out.dtype)
    return out


@dataclass(frozen=True)
class TeacherHead:
    """A teacher by its hidden states (positions, H) and its head."""

    hidden: Tensor
    head: Head

    def logits(self, positions: Tensor, out: Tensor, temperature: float) -> Logits:
        return self.head.logits(self.hidden[positions], out, temperature)


@dataclass(frozen=True)
class TeacherLogits:
    """A teacher by its logits (positions, V), whole or cut."""

    given: Logits

    def logits(self, positions: Tensor, out: Tensor, temperature: float) -> Logits:
        rows = self.given[positions]
        return rows if isinstance(rows, Cut) else torch.div(rows.to(out.dtype), temperature, out=out)


# A compiler that unrolls the loop over chunks takes minutes and gains nothing.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def fused_lm_distillation_loss(
    student_hidden: Tensor,
    student_head: Tensor | Head,
    teacher_hidden: Tensor | None,
    teacher_head: Tensor | Head | None,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float,
    divergence: str | Divergence = "forward_kl",
    beta: float | None = None,
    num_items: Count | tuple[Count, Count] | Tensor | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    teacher_logits: Logits | None = None,
    memory: int = MEMORY,
) -> DistillationLoss:
    """`lm_distillation_loss` of two models whose logits are never whole in memory.

    Args:
        student_hidden: (B, T, H), the student's last hidden states.
        student_head: (V, H), the weight of its head; or a `Head`, which also has a bias, a scale and a soft-cap.
        teacher_hidden, teacher_head: the teacher's, (B, T, H') and (V, H'); None, both, if its logits are given.
        labels: (B, T) token ids, not shifted; -100 marks prompt and padding, whose positions are never computed.
        teacher_logits: (B, T, V), or k of them, in the place of hidden states.
        memory: bytes for a chunk of logits and what is computed from it; inputs and gradients are not counted.
        alpha, temperature, divergence, beta, num_items, label_smoothing, class_weights: as in `distillation_loss`.

    Returns:
        Total, hard and soft in nats per labelled token. The gradient is that of the total; the two parts are numbers to
        be logged. It is computed with the value, so a second backward pass through the same loss is refused.

    Raises:
        MismatchError, ValueError: as `lm_distillation_loss`.
    """
    student = student_head if isinstance(student_head, Head) else Head(student_head)
    teacher = _teacher(teacher_hidden, teacher_head, teacher_logits)
    measure = resolve_divergence(divergence, beta)
    checks.require_mix(alpha, temperature)
    _require_fit(student_hidden, student, teacher, labels)
    checks.require_hard_options(student.weight.t(), label_smoothing, class_weights)

    positions = (labels[:, 1:] != IGNORED_LABEL).nonzero()
    positions = positions[:, 0] * labels.shape[1] + positions[:, 1]  # where each is in (B · T)
    targets = labels.flatten()[positions + 1]
    counts = counts_of(num_items, targets, len(targets))
    checks.require_legal(targets, len(student.weight), counts, class_weights)
    work = _Work(
        replace(student, weight=student.weight.detach(), bias=None if student.bias is None else student.bias.detach()),
        teacher, positions, targets, alpha, temperature, measure, counts, label_smoothing, class_weights, memory,
    )  # fmt: skip
    return DistillationLoss(*_Fused.apply(student_hidden.flatten(0, 1), student.weight, student.bias, work))


def _teacher(hidden: Tensor | None, head: Tensor | Head | None, logits: Logits | None) -> TeacherHead | TeacherLogits:
    if logits is not None:
        flat = logits.map(lambda part: part.flatten(0, 1)) if isinstance(logits, Cut) else logits.detach().flatten(0, 1)
        return TeacherLogits(flat)
    if hidden is None or head is None:
        raise ValueError("There is no teacher: pass teacher_hidden and teacher_head, or teacher_logits.")
    head = head if isinstance(head, Head) else Head(head)
    bias = None if head.bias is None else head.bias.detach()
    return TeacherHead(hidden.detach().flatten(0, 1), replace(head, weight=head.weight.detach(), bias=bias))


def _require_fit(hidden: Tensor, student: Head, teacher: TeacherHead | TeacherLogits, labels: Tensor | None) -> None:
    """No broadcasting: one vocabulary, one hidden state for each label, and heads that fit their hidden states."""
    if hidden.ndim != 3 or labels is None or labels.shape != hidden.shape[:2]:  # noqa: PLR2004  (batch, tokens, width)
        given = None if labels is None else tuple(labels.shape)
        raise MismatchError(
            f"student_hidden has shape {tuple(hidden.shape)} and labels {given}, but they are (B, T, H) and (B, T): "
            "one label per token, not shifted, since the shift is made here."
        )
    pairs = [("student", hidden.flatten(0, 1), student)]
    if isinstance(teacher, TeacherHead):
        pairs.append(("teacher", teacher.hidden, teacher.head))
    for role, states, head in pairs:
        if head.weight.ndim != 2 or states.shape != (labels.numel(), head.weight.shape[1]):  # noqa: PLR2004
            raise MismatchError(
                f"{role}_hidden holds {tuple(states.shape)} states and {role}_head has shape "
                f"{tuple(head.weight.shape)}, but there is one state per label, and a head is (V, H) for states of H."
            )
    ours = len(student.weight)
    theirs = len(teacher.head.weight) if isinstance(teacher, TeacherHead) else teacher.given.shape[-1]
    if ours != theirs:
        raise MismatchError(
            f"The student's head has {ours:,} token ids and the teacher {theirs:,}, but they are compared id for id; "
            "cut both to the vocabulary that is shared (see check_language_models)."
        )


@dataclass(frozen=True)
class _Work:
    """What a call is asked, besides the tensors that get a gradient."""

    student: Head
    teacher: TeacherHead | TeacherLogits
    positions: Tensor
    targets: Tensor
    alpha: float
    temperature: float
    measure: Divergence
    counts: tuple[Count, Count]
    label_smoothing: float
    class_weights: Tensor | None
    memory: int

    @property
    def has_closed_form(self) -> bool:
        dense = isinstance(self.teacher, TeacherHead) or not isinstance(self.teacher.given, Cut)
        plain = self.label_smoothing == 0 and self.class_weights is None and self.student.softcap is None
        return dense and plain and self.measure is forward_kl

    def mixed(self, hard: Tensor, soft: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over rows, as total, hard and soft of this call."""
        hard, soft = hard / divisor(self.counts[0]), soft / divisor(self.counts[1])
        return mix(self.alpha, hard, soft), hard, soft

    def sizes(self, dtype: torch.dtype, device: torch.device) -> tuple[int, int]:
        """Rows of a chunk, whose logits are multiplied at once, and of a block, which is looked at at once."""
        row = len(self.student.weight) * dtype.itemsize
        scratch = 3 if self.has_closed_form else BUFFERS
        in_block = max(1, min(ROWS_IN_CACHE if device.type == "cpu" else 2**30, self.memory // (2 * scratch * row)))
        return max(in_block, (self.memory - in_block * scratch * row) // (2 * row)), in_block


class _Fused(torch.autograd.Function):
    """Value and gradient in one pass over chunks; backward hands the gradient out."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> tuple[Tensor, ...]:
        needs = ctx.needs_input_grad[:3]
        with torch.autocast(hidden.device.type, enabled=False):
            pass_ = _Pass(hidden, work, needs)
            total, hard, soft = pass_.run()
        ctx.gradients = pass_.gradients_as(hidden, weight, bias)
        ctx.mark_non_differentiable(hard, soft)
        return total.clone(), hard, soft  # at an end of alpha the total is one of its parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The gradient of a fused loss is handed out once; compute the loss again.")
        gradients, ctx.gradients = ctx.gradients, None
        return *(None if each is None else each.mul_(of_total) for each in gradients), None


class _Pass:
    """One pass over the supervised positions, and what it has summed so far."""

    def __init__(self, hidden: Tensor, work: _Work, needs: tuple[bool, ...]) -> None:
        self.hidden, self.work, self.head = hidden, work, work.student
        self.dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.of_hidden, self.of_weight, self.of_bias = (
            torch.zeros_like(tensor, dtype=self.dtype) if needed and tensor is not None else None
            for tensor, needed in zip((hidden, self.head.weight, self.head.bias), needs, strict=True)
        )
        self.needs_gradient = any(needs)
        self.sums = torch.zeros(2, dtype=self.dtype, device=hidden.device)

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        vocabulary, rows = len(self.head.weight), len(self.work.positions)
        in_chunk, self.in_block = self.work.sizes(self.dtype, self.hidden.device)
        shape = (min(in_chunk, rows), vocabulary)
        self.student_buffer, self.teacher_buffer = (
            torch.empty(shape, dtype=self.dtype, device=self.hidden.device) for _ in range(2)
        )
        for start in range(0, rows, in_chunk):
            self._add_chunk(slice(start, min(start + in_chunk, rows)))
        loss = self.work.mixed(*self.sums)
        if loss[1].isnan() | loss[2].isnan():
            self._explain(in_chunk)
        return loss

    def gradients_as(self, *inputs: Tensor | None) -> list[Tensor | None]:
        """Those of hidden states, weight and bias, in the precision of each."""
        gradients = (self.of_hidden, self.of_weight, self.of_bias)
        return [
            None if gradient is None or tensor is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip(gradients, inputs, strict=True)
        ]

    def _logits(self, chunk: slice, temperature: float) -> tuple[Tensor, Logits]:
        """Of student and teacher, each / temperature; a teacher's top k stays as it is."""
        positions = self.work.positions[chunk]
        student = self.head.logits(self.hidden[positions], self.student_buffer[: len(positions)], temperature)
        return student, self.work.teacher.logits(positions, self.teacher_buffer[: len(positions)], temperature)

    def _add_chunk(self, chunk: slice) -> None:
        terms = None
        if self.work.has_closed_form:
            terms = self._in_closed_form(chunk)
        if terms is None or not terms.isfinite().all():
            terms = self._by_the_loss(chunk)
        self.sums += terms
        if self.needs_gradient:
            self._add_gradient(self.student_buffer[: chunk.stop - chunk.start], self.work.positions[chunk])

    def _blocks(self, chunk: slice) -> Iterator[slice]:
        """Rows of the chunk, a few at a time, counted from its beginning."""
        rows = chunk.stop - chunk.start
        for start in range(0, rows, self.in_block):
            yield slice(start, min(start + self.in_block, rows))

    def _in_closed_form(self, chunk: slice) -> Tensor:
        """Sums of the hard and the soft terms; the gradient takes the place of the student's logits."""
        student, teacher = self._logits(chunk, self.work.temperature)
        targets = self.work.targets[chunk]
        spare = [torch.empty_like(student[: self.in_block]) for _ in range(2)]
        return torch.stack(
            [self._forward_kl(student[rows], teacher[rows], targets[rows], *spare) for rows in self._blocks(chunk)]
        ).sum(dim=0)

    def _forward_kl(self, z: Tensor, u: Any, targets: Tensor, teacher_exp: Tensor, at_1: Tensor) -> Tensor:
        """z and u are logits / T. With e = exp(z - max) and f = exp(u - max), p_T = e / Σe and q_T = f / Σf; at T = 2,
        p_1 = e² / Σe², so that one exponential of the student serves both terms.
        """
        temperature, rows = self.work.temperature, len(z)
        f, at_1 = teacher_exp[:rows], at_1[:rows]
        hard_weight, soft_weight = self._weights()
        z -= z.amax(dim=-1, keepdim=True)
        u -= u.amax(dim=-1, keepdim=True)
        targets = targets.unsqueeze(1)
        of_label = temperature * z.gather(1, targets).squeeze(1)
        torch.exp(u, out=f)
        f_sum = f.sum(dim=-1)
        u -= z
        difference = dot(f, u) / f_sum
        if temperature not in (1, 2):
            torch.mul(z, temperature, out=at_1).exp_()
        e = z.exp_()
        e_sum = e.sum(dim=-1)
        e_sum_1 = e_sum if temperature == 1 else dot(e, e) if temperature == 2 else at_1.sum(dim=-1)  # noqa: PLR2004
        hard = e_sum_1.log() - of_label
        soft = temperature**2 * (difference + e_sum.log() - f_sum.log())
        if self.needs_gradient:
            soft_factor = (soft_weight * temperature / e_sum).unsqueeze(1)
            hard_factor = (hard_weight / e_sum_1).unsqueeze(1)
            if temperature == 2:  # noqa: PLR2004
                e.mul_(torch.addcmul(soft_factor, e, hard_factor, out=at_1))
            elif temperature == 1:
                e.mul_(soft_factor + hard_factor)
            else:
                e.mul_(soft_factor).addcmul_(at_1, hard_factor)
            e.addcmul_(f, -(soft_weight * temperature / f_sum).unsqueeze(1))
            e.scatter_add_(1, targets, -torch.as_tensor(hard_weight, dtype=e.dtype, device=e.device).expand(rows, 1))
        return torch.stack([hard.sum(), soft.sum()])

    def _weights(self) -> tuple[Any, Any]:
        """What one nat of a row's hard and soft term adds to the total."""
        one = torch.ones((), dtype=self.dtype, device=self.hidden.device)
        nothing = torch.zeros_like(one)
        return self.work.mixed(one, nothing)[0], self.work.mixed(nothing, one)[0]

    def _by_the_loss(self, chunk: slice) -> Tensor:
        """The same by the functions of `loss.py`, whatever the divergence, the teacher and their infinities are."""
        student, teacher = self._logits(chunk, 1.0)
        if self.work.temperature < 1:
            for logits in (student, teacher.logits if isinstance(teacher, Cut) else teacher):
                checks.require_no_overflow(logits, self.work.temperature)
        targets, sums = self.work.targets[chunk], torch.zeros_like(self.sums)
        for rows in self._blocks(chunk):
            block = student[rows].clone().requires_grad_(self.needs_gradient)
            with torch.set_grad_enabled(self.needs_gradient):
                hard, soft = terms_of_rows(
                    block, teacher[rows], targets[rows], self.work.temperature, self.work.measure,
                    self.work.label_smoothing, self.work.class_weights,
                )  # fmt: skip
                total, _, _ = self.work.mixed(hard.sum(), soft.sum())
            sums += torch.stack([hard.detach().sum(), soft.detach().sum()])
            if self.needs_gradient:
                (gradient,) = torch.autograd.grad(total, block)
                if self.head.softcap is not None:  # of cap, whose slope is 1 - tanh²
                    gradient *= 1 - (block.detach() / self.head.softcap) ** 2
                student[rows] = gradient
        return sums

    def _add_gradient(self, of_logits: Tensor, positions: Tensor) -> None:
        """From the gradient of a chunk's logits to those of hidden states, weight and bias."""
        scale = self.head.scale
        if self.of_hidden is not None:
            of_rows = torch.empty(len(positions), self.hidden.shape[1], dtype=self.dtype, device=self.hidden.device)
            self.of_hidden[positions] = multiply(of_logits, self.head.weight, of_rows).mul_(scale)
        if self.of_weight is not None:
            self.of_weight.addmm_(of_logits.t(), self.hidden[positions].to(self.dtype), alpha=scale)
        if self.of_bias is not None:
            self.of_bias.add_(of_logits.sum(dim=0), alpha=scale)

    def _explain(self, in_chunk: int) -> None:
        """Raise the error that the whole logits would have raised."""
        for start in range(0, len(self.work.positions), in_chunk):
            chunk = slice(start, min(start + in_chunk, len(self.work.positions)))
            student, teacher = self._logits(chunk, 1.0)
            teacher = teacher.logits if isinstance(teacher, Cut) else teacher
            checks.require_number(student.new_tensor(torch.nan), self.work.temperature, student, teacher)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, without a product in memory."""
    return torch.bmm(a.unsqueeze(1), b.unsqueeze(2)).flatten()
