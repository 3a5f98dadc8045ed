"""The language model's objective without its logits: hidden states and heads in, the same loss out (lesson 06).

The logits of student and teacher for all tokens take gigabytes, and each is looked at once. So they are computed for a
few hundred tokens at a time, and so is the gradient, in closed form, before they are thrown away. With p_T and q_T as
in `loss.py`, a row's part of the gradient of the student's logits is

    alpha · (p_1 - onehot) / labelled + (1 - alpha) · T · (p_T - q_T) / taught

for forward KL. Other divergences, a teacher's top k, smoothed labels and infinities are left to the functions of
`loss.py` themselves, on the same few rows.
"""

from __future__ import annotations

import math
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

MEMORY = 110 * 10**6
"""Bytes that the logits of a chunk and what is computed from them may take, if nothing else is said."""

IN_CACHE = 12 * 10**6
"""Bytes that element-wise work on a CPU touches at a time: few enough to stay in the processor's cache."""

EVERY, NONE = slice(None), torch.empty(0, dtype=torch.long)

ALIGNED = 16
"""Rows of a chunk are a multiple of this, since a row of a stripe then fills whole lines of the cache."""

BIT = math.log(2)
"""In nats."""

SQUARED = 2
"""The temperature at which e^T is a square."""

BUFFERS = 14
"""How many blocks of rows the general path makes at the most, besides the logits: those for its gradient included."""

GATHERED = 16
"""Rows of given teacher logits that are copied at a time."""


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

    def logits(self, hidden: Tensor, out: Tensor, temperature: float = 1.0, ids: slice = EVERY) -> Tensor:
        """Logits / temperature of hidden states (n, H) for some token ids, in the precision of `out`, written there."""
        factor = self.scale / (self.softcap or temperature)
        multiply(hidden.to(out.dtype) * factor, self.weight[ids].t(), out)
        if self.bias is not None:
            out.add_(self.bias[ids], alpha=factor)
        return out if self.softcap is None else out.tanh_().mul_(self.softcap / temperature)

    def logits_of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """One logit for each hidden state, (n,), that of the token id that belongs to it; there is no soft-cap."""
        logits = (hidden * self.weight[ids].to(hidden.dtype)).sum(dim=-1)
        return self.scale * (logits if self.bias is None else logits + self.bias[ids])


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

    def at(self, positions: Tensor, dtype: torch.dtype) -> TeacherHead:
        return replace(self, hidden=self.hidden[positions].to(dtype))

    def logits(self, out: Tensor, temperature: float, ids: slice = EVERY) -> Logits:
        return self.head.logits(self.hidden, out, temperature, ids)


@dataclass(frozen=True)
class TeacherLogits:
    """A teacher by its logits (positions, V), whole or cut."""

    given: Logits
    positions: Tensor = NONE

    def at(self, positions: Tensor, dtype: torch.dtype) -> TeacherLogits:
        return replace(self, positions=positions)  # which are not copied as a whole

    def logits(self, out: Tensor, temperature: float, ids: slice = EVERY) -> Logits:
        if not isinstance(self.given, Tensor):
            return self.given[self.positions]
        for of_rows, into in zip(self.positions.split(GATHERED), out.split(GATHERED), strict=True):
            torch.div(self.given[of_rows, ids].to(out.dtype), temperature, out=into)
        return out


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
        memory: bytes for a chunk of logits and what is computed from it; inputs, gradients (in float32 until they are
            handed out) and what the products of the processor's own library need are not counted.
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
    labels = checks.whole_labels(labels)
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
            "cut both to the vocabulary that is shared (see check_language_models). A DistillationTrainer does that "
            "for a model and for a cache, given both tokenizers: processing_class and teacher_processing_class."
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
        """Rows of a chunk, whose logits are multiplied at once, and the bytes besides for what is looked at at once."""
        vocabulary, width = self.student.weight.shape
        if isinstance(self.teacher, TeacherHead):
            besides = 2 * self.teacher.hidden.shape[1]
        else:  # a top k is logits and 64-bit ids, gathered
            besides = 0 if isinstance(self.teacher.given, Tensor) else 3 * self.teacher.given.logits.shape[-1]
        row = (2 * vocabulary + 4 * width + besides) * dtype.itemsize
        scratch = self.memory // 2 if device.type != "cpu" else min(self.memory // 2, IN_CACHE)
        if self.has_closed_form:
            scratch //= 6  # two stripes of logits beside it, and what they are made of
        else:
            scratch = max(scratch, BUFFERS * vocabulary * dtype.itemsize)
        in_chunk = max(1, (self.memory - scratch) // row)
        return in_chunk - in_chunk % ALIGNED if in_chunk > ALIGNED else in_chunk, scratch


@dataclass(frozen=True)
class _Chunk:
    """Positions whose logits are in memory at once, (rows, V), token id by token id: so the products are fastest, and a
    stripe of the vocabulary is in one piece.
    """

    positions: Tensor
    targets: Tensor
    hidden: Tensor
    student: Tensor
    teacher: Tensor
    stripes: list[slice]
    spare: Tensor
    """(rows, ids of a stripe)."""


class _Fused(torch.autograd.Function):
    """Value and gradient in one pass over chunks; backward hands the gradient out."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> tuple[Tensor, ...]:
        needs = ctx.needs_input_grad[:3]
        with torch.autocast(hidden.device.type, enabled=False):
            pass_ = _Pass(hidden, work, needs)
            total, hard, soft = pass_.run()
        ctx.gradients = pass_.gradients_as(hidden, weight, bias)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        ctx.mark_non_differentiable(hard, soft)
        return total.clone(), hard, soft  # at an end of alpha the total is one of its parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The gradient of a fused loss is handed out once; compute the loss again.")
        gradients, ctx.gradients = ctx.gradients, None
        pairs = zip(gradients, ctx.dtypes, strict=True)
        return *(None if each is None else each.mul_(of_total).to(dtype) for each, dtype in pairs), None


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
        rows, vocabulary = len(self.work.positions), len(self.head.weight)
        in_chunk, self.scratch = self.work.sizes(self.dtype, self.hidden.device)
        size = min(in_chunk, rows) * vocabulary
        self.buffers = [torch.empty(size, dtype=self.dtype, device=self.hidden.device) for _ in range(2)]
        for start in range(0, rows, in_chunk):
            self._add_chunk(slice(start, min(start + in_chunk, rows)))
        loss = self.work.mixed(*self.sums)
        if loss[1].isnan() | loss[2].isnan():
            self._explain(in_chunk)
        self.buffers.clear()
        return loss

    def gradients_as(self, *inputs: Tensor | None) -> list[Tensor | None]:
        """Those of hidden states, weight and bias, in the precision of each; but float16 has to wait for the backward
        pass: a loss is scaled (by 65,536 as training begins) because its gradient would round to 0 there.
        """
        gradients = (self.of_hidden, self.of_weight, self.of_bias)
        return [
            None
            if gradient is None or tensor is None
            else gradient.to(gradient.dtype if tensor.dtype == torch.float16 else tensor.dtype)
            for gradient, tensor in zip(gradients, inputs, strict=True)
        ]

    def _add_chunk(self, chunk: slice) -> None:
        if not (self.work.has_closed_form and self._in_closed_form(chunk)):
            self._by_the_loss(chunk)

    def _in_closed_form(self, chunk: slice) -> bool:
        """A chunk's terms and gradients, in two passes over stripes of the vocabulary, each small enough for a cache.

        z and u are logits / T in bits, beyond the largest of the first stripe: a power of two is computed in a third of
        the time of a power of e. With e = 2^z and f = 2^u, p_T = e / Σe and q_T = f / Σf; at T = 2, p_1 = e² / Σe², so
        that one exponential of the student serves both terms. False, and nothing is added, where that is not finite:
        infinite logits, or such that exceed the first stripe's by far.
        """
        laid_out, temperature = self._lay_out(chunk), self.work.temperature
        largest, difference, e_sum, e_sum_1, f_sum = self._sums(laid_out)
        of_label = self.head.logits_of(laid_out.hidden, laid_out.targets)
        hard = e_sum_1.log() + temperature * BIT * largest - of_label
        soft = temperature**2 * (BIT * difference / f_sum + e_sum.log() - f_sum.log())
        terms = torch.stack([hard.sum(), soft.sum()])
        if not terms.isfinite().all():
            return False
        self.sums += terms
        if self.needs_gradient:
            hard_weight, soft_weight = self._weights()
            soft_factor = soft_weight * temperature
            self._add_gradients(laid_out, hard_weight / e_sum_1, soft_factor / e_sum, -soft_factor / f_sum)
        return True

    def _lay_out(self, chunk: slice) -> _Chunk:
        positions, vocabulary = self.work.positions[chunk], len(self.head.weight)
        rows = len(positions)
        stripe = max(1, self.scratch // (rows * self.dtype.itemsize))
        student, teacher = (each[: rows * vocabulary].view(vocabulary, rows).t() for each in self.buffers)
        return _Chunk(
            positions, self.work.targets[chunk], self.hidden[positions].to(self.dtype), student, teacher,
            [slice(start, min(start + stripe, vocabulary)) for start in range(0, vocabulary, stripe)],
            torch.empty(min(stripe, vocabulary), rows, dtype=self.dtype, device=self.hidden.device).t(),
        )  # fmt: skip

    def _sums(self, chunk: _Chunk) -> tuple[Tensor, ...]:
        """The student's largest z of the first stripe, and Σ f·(u - z), Σe, Σe^T and Σf; (rows,) each.

        e, or z if e^T is not made of it, takes the place of the student's logits, and f that of the teacher's.
        """
        temperature, teacher = self.work.temperature, self.work.teacher.at(chunk.positions, self.dtype)
        largest: list[Tensor] = []
        sums = []
        for ids in chunk.stripes:
            z = self.head.logits(chunk.hidden, chunk.student[:, ids], temperature * BIT, ids)
            u: Any = teacher.logits(chunk.teacher[:, ids], temperature * BIT, ids)
            largest = largest or [z.amax(dim=-1, keepdim=True), u.amax(dim=-1, keepdim=True)]
            z -= largest[0]
            u -= largest[1]
            x = torch.sub(u, z, out=chunk.spare[:, : z.shape[1]])
            f = u.exp2_()
            of_stripe = [x.mul_(f).sum(dim=-1), f.sum(dim=-1)]
            if temperature == 1:
                e_sum = e_sum_1 = z.exp2_().sum(dim=-1)
            elif temperature == SQUARED:
                e_sum = z.exp2_().sum(dim=-1)
                e_sum_1 = torch.mul(z, z, out=x).sum(dim=-1)
            else:
                e_sum = torch.exp2(z, out=x).sum(dim=-1)
                e_sum_1 = torch.mul(z, temperature, out=x).exp2_().sum(dim=-1)
            sums.append(torch.stack([*of_stripe, e_sum, e_sum_1]))
        difference, f_sum, e_sum, e_sum_1 = torch.stack(sums).sum(dim=0)
        return largest[0].squeeze(1), difference, e_sum, e_sum_1, f_sum

    def _add_gradients(self, chunk: _Chunk, of_e_1: Tensor, of_e: Tensor, of_f: Tensor) -> None:
        """The gradient of a stripe of logits, and at once, while it is in the cache, its part of the products."""
        temperature, scale = self.work.temperature, self.head.scale
        of_e_1, of_e, of_f = (factor.unsqueeze(1) for factor in (of_e_1, of_e, of_f))
        of_rows = torch.zeros_like(chunk.hidden)
        for ids in chunk.stripes:
            e, f = chunk.student[:, ids], chunk.teacher[:, ids]
            x = chunk.spare[:, : e.shape[1]]
            if temperature == 1:
                e.mul_(of_e + of_e_1)
            elif temperature == SQUARED:
                e.mul_(torch.mul(e, of_e_1, out=x).add_(of_e))
            else:
                torch.mul(e, temperature, out=x).exp2_().mul_(of_e_1)
                e.exp2_().mul_(of_e).add_(x)
            e.addcmul_(f, of_f)
            if self.of_hidden is not None:
                of_rows.addmm_(e, self.head.weight[ids].to(self.dtype), alpha=scale)
            if self.of_weight is not None:
                self.of_weight[ids].addmm_(e.t(), chunk.hidden, alpha=scale)
            if self.of_bias is not None:
                self.of_bias[ids].add_(e.sum(dim=0), alpha=scale)
        onehot = -scale * self._weights()[0]  # the label's part, which all ids but one have none of
        if self.of_hidden is not None:
            of_rows += onehot * self.head.weight[chunk.targets].to(self.dtype)
            self.of_hidden[chunk.positions] = of_rows
        if self.of_weight is not None:
            self.of_weight.index_add_(0, chunk.targets, onehot * chunk.hidden)
        if self.of_bias is not None:
            self.of_bias.index_add_(0, chunk.targets, onehot.expand(len(chunk.targets)))

    def _logits(self, chunk: slice) -> tuple[Tensor, Logits]:
        """Of student and teacher, (rows, V) each; a teacher's top k stays as it is."""
        positions, vocabulary = self.work.positions[chunk], len(self.head.weight)
        rows = len(positions)
        student, teacher = (each[: rows * vocabulary].view(rows, vocabulary) for each in self.buffers)
        of_teacher = self.work.teacher.at(positions, self.dtype).logits(teacher, 1.0)
        return self.head.logits(self.hidden[positions], student), of_teacher

    def _weights(self) -> tuple[Any, Any]:
        """What one nat of a row's hard and soft term adds to the total."""
        one = torch.ones((), dtype=self.dtype, device=self.hidden.device)
        nothing = torch.zeros_like(one)
        return self.work.mixed(one, nothing)[0], self.work.mixed(nothing, one)[0]

    def _by_the_loss(self, chunk: slice) -> None:
        """The same by the functions of `loss.py`, whatever the divergence, the teacher and their infinities are."""
        student, teacher = self._logits(chunk)
        if self.work.temperature < 1:
            for logits in (student, teacher.logits if isinstance(teacher, Cut) else teacher):
                checks.require_no_overflow(logits, self.work.temperature)
        targets = self.work.targets[chunk]
        in_block = max(1, self.scratch // (BUFFERS * student.shape[1] * self.dtype.itemsize))
        for start in range(0, len(student), in_block):
            rows = slice(start, min(start + in_block, len(student)))
            block = student[rows].clone().requires_grad_(self.needs_gradient)
            with torch.set_grad_enabled(self.needs_gradient):
                hard, soft = terms_of_rows(
                    block, teacher[rows], targets[rows], self.work.temperature, self.work.measure,
                    self.work.label_smoothing, self.work.class_weights,
                )  # fmt: skip
                total, _, _ = self.work.mixed(hard.sum(), soft.sum())
            self.sums += torch.stack([hard.detach().sum(), soft.detach().sum()])
            if self.needs_gradient:
                (gradient,) = torch.autograd.grad(total, block)
                if self.head.softcap is not None:  # of cap, whose slope is 1 - tanh²
                    gradient *= 1 - (block.detach() / self.head.softcap) ** 2
                student[rows] = gradient
        if self.needs_gradient:
            self._add_gradient(student, self.work.positions[chunk])

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
            student, teacher = self._logits(chunk)
            teacher = teacher.logits if isinstance(teacher, Cut) else teacher
            checks.require_number(student.new_tensor(torch.nan), self.work.temperature, student, teacher)
