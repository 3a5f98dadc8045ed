"""What a distillation loss can consist of: terms of the labels and of the teacher, one number per row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.diagnose.batches import Batch
from kdcourse.divergence import forward_kl, jensen_shannon, reverse_kl

Rows = Callable[[Tensor, Tensor], Tensor]
"""From student and teacher logits, softened already, to a number for each row."""


@dataclass(frozen=True)
class Divergence:
    """One thing that a teacher's term can be; `mistake` where nobody can mean it."""

    words: str
    rows: Rows
    mistake: bool = False
    choice: bool = False
    """A choice that is not the usual one."""


def kl_terms(student: Tensor, target: Tensor, log_target: bool = False) -> Tensor:
    """`F.kl_div` without its sum: one number per class."""
    return F.kl_div(student, target, reduction="none", log_target=log_target)


def _of_log_probs(function: Rows) -> Rows:
    return lambda student, teacher: function(student.log_softmax(-1), teacher.log_softmax(-1))


def _kl_with(student: Rows, log_target: bool = False) -> Rows:
    """`F.kl_div` with something of the student and something of the teacher."""
    return lambda s, t: kl_terms(student(s, t), t.softmax(-1), log_target).sum(-1)


def _cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return -(teacher.exp() * student).sum(-1)


def _sorted_difference(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = (logits.softmax(-1).sort(-1).values for logits in (student, teacher))
    return (student - teacher).abs().sum(-1)


def _over_the_batch(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_terms(student.log_softmax(-2), teacher.softmax(-2)).sum(-1)


DIVERGENCES = {
    "forward_kl": Divergence("forward KL, KL(teacher ‖ student)", _of_log_probs(forward_kl)),
    "reverse_kl": Divergence(
        "reverse KL, KL(student ‖ teacher); with F.kl_div, that is also what its arguments turned round give",
        _of_log_probs(reverse_kl),
        choice=True,
    ),
    "cross_entropy": Divergence(
        "the cross-entropy of the student under the teacher: forward KL plus the teacher's entropy, so it is not 0 for "
        "identical models; its gradient is that of forward KL",
        _of_log_probs(_cross_entropy),
    ),
    "symmetric_kl": Divergence(
        "the sum of both KL divergences", _of_log_probs(lambda s, t: forward_kl(s, t) + reverse_kl(s, t)), choice=True
    ),
    "logit_mse": Divergence(
        "the squared difference of the logits", lambda s, t: (s - t).square().sum(-1), choice=True
    ),
    "logit_l1": Divergence("the absolute difference of the logits", lambda s, t: (s - t).abs().sum(-1), choice=True),
    "centred_logit_mse": Divergence(
        "the squared difference of the centred logits",
        lambda s, t: (s - t - (s - t).mean(-1, keepdim=True)).square().sum(-1),
        choice=True,
    ),
    "chi_square": Divergence(
        "the squared difference of the probabilities over the teacher's, twice what KL is close to it",
        lambda s, t: ((s.softmax(-1) - t.softmax(-1)).square() / t.softmax(-1)).sum(-1),
        choice=True,
    ),
    "probability_mse": Divergence(
        "the squared difference of the probabilities",
        lambda s, t: (s.softmax(-1) - t.softmax(-1)).square().sum(-1),
        choice=True,
    ),
    "total_variation": Divergence(
        "the absolute difference of the probabilities",
        lambda s, t: (s.softmax(-1) - t.softmax(-1)).abs().sum(-1),
        choice=True,
    ),
    "log_probability_mse": Divergence(
        "the squared difference of the log-probabilities",
        _of_log_probs(lambda s, t: (s - t).square().sum(-1)),
        choice=True,
    ),
    "sorted_l1": Divergence("the difference of the sorted probabilities", _sorted_difference, choice=True),
    "cosine": Divergence(
        "1 minus the cosine of the logits", lambda s, t: 1 - F.cosine_similarity(s, t, dim=-1), choice=True
    ),
    "teacher_argmax": Divergence(
        "the cross-entropy with the teacher's first choice: all that it says of the other classes is lost",
        lambda s, t: -s.log_softmax(-1).gather(-1, t.argmax(-1, keepdim=True)).squeeze(-1),
        choice=True,
    ),
    "probabilities_as_logs": Divergence(
        "F.kl_div with probabilities of the student where log-probabilities belong; it is never above 0",
        _kl_with(lambda s, _: s.softmax(-1)),
        mistake=True,
    ),
    "raw_logits": Divergence(
        "F.kl_div with the student's logits as they are where log-probabilities belong (right only if the caller "
        "passes log-probabilities)",
        _kl_with(lambda s, _: s),
        mistake=True,
    ),
    "two_probabilities_log_target": Divergence(
        "F.kl_div with softmax on both sides and log_target=True, which promises logarithms",
        _kl_with(lambda s, _: s.softmax(-1), log_target=True),
        mistake=True,
    ),
    "probability_target_as_log": Divergence(
        "F.kl_div with log_target=True and a target that is a probability, and no logarithm",
        _kl_with(lambda s, _: s.log_softmax(-1), log_target=True),
        mistake=True,
    ),
    "student_softmax_twice": Divergence(
        "forward KL with a second softmax over the student's probabilities",
        lambda s, t: forward_kl(s.softmax(-1).log_softmax(-1), t.log_softmax(-1)),
        mistake=True,
    ),
    "teacher_softmax_twice": Divergence(
        "forward KL with a second softmax over the teacher's probabilities",
        lambda s, t: forward_kl(s.log_softmax(-1), t.softmax(-1).log_softmax(-1)),
        mistake=True,
    ),
    "softmax_twice": Divergence(
        "forward KL with a second softmax on both sides: probabilities went in where logits belong",
        lambda s, t: forward_kl(s.softmax(-1).log_softmax(-1), t.softmax(-1).log_softmax(-1)),
        mistake=True,
    ),
    "terms_clamped": Divergence(
        "forward KL whose negative terms were cut off; they belong to the sum",
        lambda s, t: kl_terms(s.log_softmax(-1), t.softmax(-1)).clamp(min=0).sum(-1),
        mistake=True,
    ),
    "terms_without_sign": Divergence(
        "forward KL whose terms lost their sign; the negative ones belong to the sum as they are",
        lambda s, t: kl_terms(s.log_softmax(-1), t.softmax(-1)).abs().sum(-1),
        mistake=True,
    ),
    "softmax_over_the_batch": Divergence(
        "forward KL whose softmax runs over the rows and not over the classes (dim=0, or dim=1 of three)",
        _over_the_batch,
        mistake=True,
    ),
    "averaged_logs": Divergence(
        "Jensen-Shannon with a mixture of log-probabilities, which does not add up to 1",
        _of_log_probs(lambda s, t: (forward_kl((s + t) / 2, t) + forward_kl((s + t) / 2, s)) / 2),
        mistake=True,
    ),
}  # fmt: skip

EPSILONS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""What people add to a probability before they take its logarithm; less than that changes nothing that is common."""


def _with_epsilon(epsilon: float, *, both: bool) -> Rows:
    def rows(student: Tensor, teacher: Tensor) -> Tensor:
        p, q = student.softmax(-1), teacher.softmax(-1)
        return (q * ((q + epsilon * both).log() - (p + epsilon).log())).sum(-1)

    return rows


DIVERGENCES |= {
    f"epsilon_{epsilon:g}{'_on_both_sides' if both else ''}": Divergence(
        f"forward KL with {epsilon:g} added to probabilities before their logarithm, which caps what a class can cost",
        _with_epsilon(epsilon, both=both),
        mistake=True,
    )
    for epsilon in EPSILONS
    for both in (False, True)
}

OF_THE_INPUT = {
    "probabilities_as_logs", "raw_logits", "two_probabilities_log_target", "probability_target_as_log",
    "student_softmax_twice", "teacher_softmax_twice", "softmax_twice",
}  # fmt: skip
"""Mistakes that any loss makes that is given something else than it wants."""

UNSCALED = {"logit_mse", "logit_l1", "centred_logit_mse"}
"""Differences of logits, which a temperature only scales."""

SOFTENED = {
    "both": (1, 1), "teacher_only": (0, 1), "student_only": (1, 0), "neither": (0, 0), "multiplied": (-1, -1),
    "twice": (2, 2), "half": (0.5, 0.5),
}  # fmt: skip
"""By which powers of T the logits of student and teacher are divided."""

SOFTENED_WORDS = {
    "both": "both sides are divided by T before the softmax",
    "teacher_only": "only the teacher's logits are divided by T, and the student's are not",
    "student_only": "only the student's logits are divided by T, and the teacher's are not",
    "neither": "T is given, and neither side is softened by it",
    "multiplied": "logits are multiplied by T and not divided, which sharpens",
    "twice": "logits are divided by T²: the temperature is applied twice",
    "half": "logits are divided by the root of T",
}

BETAS = tuple(beta / 20 for beta in range(1, 20))


@dataclass(frozen=True)
class Soft:
    """The teacher's term: which divergence, of logits that are softened how."""

    divergence: str
    softened: str = "both"
    beta: float | None = None

    def rows(self, batch: Batch, temperature: float) -> Tensor:
        student, teacher = SOFTENED[self.softened]
        rows = measure(self.divergence, self.beta)
        return rows(batch.student / temperature**student, batch.teacher / temperature**teacher)

    def rows_cut_after_softmax(self, batch: Batch, temperature: float, kept: Tensor) -> Tensor | None:
        """Of those classes alone, whose probabilities no longer add up to 1; None if that is no sum over classes."""
        student, teacher = SOFTENED[self.softened]
        cut = (
            (logits / temperature**power).log_softmax(-1)[..., kept[: logits.shape[-1]].nonzero().squeeze(-1)]
            for logits, power in ((batch.student, student), (batch.teacher, teacher))
        )
        rows = OF_LOG_PROBS.get(self.divergence)
        return rows(*cut) if rows and self.beta is None else None


OF_LOG_PROBS: dict[str, Rows] = {
    "forward_kl": forward_kl, "reverse_kl": reverse_kl, "cross_entropy": _cross_entropy,
}  # fmt: skip
"""Sums over classes of something of two log-probabilities."""


def measure(name: str, beta: float | None = None) -> Rows:
    if beta is None:
        return DIVERGENCES[name].rows
    if name == "skew_kl":
        return _of_log_probs(lambda s, t: forward_kl(torch.logaddexp(s + math.log1p(-beta), t + math.log(beta)), t))
    if name == "skew_reverse_kl":
        return _of_log_probs(lambda s, t: forward_kl(torch.logaddexp(t + math.log1p(-beta), s + math.log(beta)), s))
    if name == "blend_of_kls":
        return _of_log_probs(lambda s, t: beta * reverse_kl(s, t) + (1 - beta) * forward_kl(s, t))
    if name == "jensen_shannon_halves":
        return _of_log_probs(lambda s, t: jensen_shannon(s, t, beta) + (0.5 - beta) * _difference_of_sides(s, t, beta))
    return _of_log_probs(lambda s, t: jensen_shannon(s, t, beta))


def _difference_of_sides(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return forward_kl(mixture, teacher) - forward_kl(mixture, student)


FAMILIES = {
    "jensen_shannon": Divergence("generalised Jensen-Shannon", _of_log_probs(jensen_shannon)),
    "skew_kl": Divergence("forward KL from a mixture (skew KL)", _of_log_probs(forward_kl), choice=True),
    "skew_reverse_kl": Divergence(
        "reverse KL from a mixture (skew reverse KL)", _of_log_probs(reverse_kl), choice=True
    ),
    "blend_of_kls": Divergence("a weighted sum of both KL divergences", _of_log_probs(forward_kl), choice=True),
    "jensen_shannon_halves": Divergence(
        "Jensen-Shannon with beta in the mixture and halves outside", _of_log_probs(jensen_shannon), mistake=True
    ),
}
KNOWN = DIVERGENCES | FAMILIES
"""Divergences by name, those with a beta among them."""


def soft_terms(betas: Sequence[float], *, built_in: bool) -> list[Soft]:
    """All of them, the likeliest first; of a T that is built in, its powers are other numbers that may be."""
    terms = []
    for softened in list(SOFTENED)[: 4 if built_in else None]:
        terms += [Soft(name, softened) for name in DIVERGENCES]
        if softened in ("both", "neither"):
            terms += [Soft(name, softened, beta) for beta in betas or BETAS for name in FAMILIES]
    return terms


HARD = {
    "temperature_1": "cross-entropy with the labels, at temperature 1",
    "softened": "cross-entropy with the labels of logits that are divided by T: the hard term is taken at T = 1",
    "softmax_twice": "cross-entropy of probabilities: F.cross_entropy takes logits, and makes a softmax of its own",
    "probability": "minus the probability of the label: F.nll_loss takes log-probabilities",
}  # fmt: skip


def hard_logits(kind: str, student: Tensor, temperature: float) -> Tensor:
    """What is picked at the label, with a minus in front."""
    if kind == "softened":
        return (student / temperature).log_softmax(-1)
    if kind == "softmax_twice":
        return student.softmax(-1).log_softmax(-1)
    return student.softmax(-1) if kind == "probability" else student.log_softmax(-1)


def hard_rows(kind: str, batch: Batch, temperature: float, offset: int) -> tuple[Tensor, Tensor]:
    """The surprise at the label `offset` further on, and the mean surprise of all classes; 0 without a label."""
    end = batch.labels.shape[-1]
    labels = batch.labels[..., offset:]
    log_probs = hard_logits(kind, batch.student[..., : end - offset, :], temperature)
    labelled = labels != IGNORED_LABEL
    picked = log_probs.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return -picked * labelled, -log_probs.mean(-1) * labelled
