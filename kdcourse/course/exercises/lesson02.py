"""The exercises of lesson 02: what goes into a KL divergence, how a log-softmax is made, masks, and divisors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import kl_per_row, kl_terms


def _random_pair(generator: Generator) -> Inputs:
    return 2 * torch.randn(4, 6, generator=generator), 2 * torch.randn(4, 6, generator=generator)


# ---------------------------------------------------------------------------------------------------------------------
# 02.kl_per_row

P, Q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.3, 0.6]])
"""The student and the teacher of the lesson."""

KL_PER_ROW = Exercise(
    id="02.kl_per_row",
    title="KL divergence per row",
    difficulty=1,
    minutes=5,
    examples=[
        (P.log() + 1.5, Q.log() - 0.7),
        (Q.log(), Q.log()),
        (torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, -2.0]])),
    ],
    random_inputs=_random_pair,
    reference=kl_per_row,
    gradient=True,
    misconceptions=[
        Misconception(
            "softmax-on-both-sides",
            lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1)).sum(-1),
            "Your result is never above 0: -1.088 where ours is 1.002, and -1.358 where student and teacher are the "
            "same. A divergence cannot be negative: the first argument is a probability, and kl_div takes it for a "
            "logarithm.",
            "section 2",
        ),
        Misconception(
            "log-on-both-sides",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.log_softmax(-1)).sum(-1),
            "NaN from the first call on, and a gradient that is finite and wrong: your target is a log-probability, "
            "and without log_target=True kl_div takes its logarithm once more, of a negative number.",
            "section 2",
        ),
        Misconception(
            "raw-logits",
            lambda student, teacher: kl_terms(student, teacher.softmax(-1)).sum(-1),
            "Add 3 to all logits of the student, which changes none of its probabilities, and your result falls by 3: "
            "the student's logits went in as they are. For the first input you get -0.498 and not 1.002.",
            "section 2",
        ),
        Misconception(
            "roles-exchanged",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), student.softmax(-1)).sum(-1),
            "1.102 where ours is 1.002, and 0 for equal distributions: that is KL(student ‖ teacher), the other "
            "direction. kl_div takes the student first and averages with the weights of its second argument.",
            "section 2, and lesson 01 on what the direction changes",
        ),
        Misconception(
            "teacher-twice",
            lambda student, teacher: kl_terms(teacher.log_softmax(-1), teacher.softmax(-1)).sum(-1),
            "0 for every input, and no gradient for the student: both arguments come from the teacher.",
            "section 3",
        ),
        Misconception(
            "terms-clamped",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).clamp(min=0).sum(-1),
            "1.197 where ours is 1.002: the negative terms were cut off. They belong to the sum, and only the sum is "
            "sure not to be negative.",
            "section 1",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1)).mean(-1),
            "A third of ours with 3 classes, half of ours with 2: you averaged over the classes, but a divergence is "
            "their sum.",
            "section 7",
        ),
        Misconception(
            "softmax-with-flag",
            lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1), log_target=True).sum(-1),
            "0.383 where ours is 1.002, and 0 where student and teacher are the same: softmax on both sides, with "
            "log_target=True. It looks like a divergence and is none; both sides must be log_softmax for that flag.",
            "section 2",
        ),
        Misconception(
            "rows-together",
            lambda student, teacher: F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean"),
            "One number, also for two rows: 1.048 instead of (1.660, 0.437). That is reduction='batchmean', the mean "
            "over rows; asked for is one number for each.",
            "section 7",
        ),
        Misconception(
            "flag-without-log",
            lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.softmax(-1), log_target=True).sum(-1),
            "8.371 where ours is 1.002, and 6.709 where student and teacher are the same: log_target=True promises a "
            "logarithm, and the target is a probability.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 02.log_softmax


def _random_logits(generator: Generator) -> Inputs:
    return (20 * torch.randn(3, 5, generator=generator),)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def _log_softmax_shift_of_the_batch(logits: Tensor) -> Tensor:
    shifted = logits - logits.max()
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def _log_softmax_sum_of_the_batch(logits: Tensor) -> Tensor:
    shifted = logits - logits.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum().log()


def _log_softmax_shift_not_put_back(logits: Tensor) -> Tensor:
    shifted = logits - logits.amax(-1, keepdim=True)
    return logits - shifted.exp().sum(-1, keepdim=True).log()


LOG_SOFTMAX = Exercise(
    id="02.log_softmax",
    title="A log-softmax that survives any logits",
    difficulty=2,
    minutes=8,
    examples=[
        (torch.tensor([[1.0, 2.0, 3.0]]),),
        (torch.tensor([[0.0, 1.0], [3.0, 5.0]]),),
        (torch.tensor([[200.0, 0.0, -200.0]]),),
        (torch.tensor([[100.0, 99.0, 98.0]]),),
        (torch.tensor([[0.0, 1.0], [-300.0, -301.0]]),),
    ],
    random_inputs=_random_logits,
    reference=_log_softmax,
    gradient=True,
    misconceptions=[
        Misconception(
            "log-of-softmax",
            lambda logits: logits.softmax(-1).log(),
            "For (200, 0, -200) you get (0, -inf, -inf), ours is (0, -200, -400), and your gradient is NaN: the "
            "softmax came out as exactly 0 before the logarithm saw it.",
            "section 4",
        ),
        Misconception(
            "no-shift",
            lambda logits: logits - logits.exp().sum(-1, keepdim=True).log(),
            "For (100, 99, 98) you get -inf three times: exp(100) is more than float32 can hold. The formula is right, "
            "and it lacks the shift by the maximum.",
            "section 4",
        ),
        Misconception(
            "epsilon-inside",
            lambda logits: (logits.softmax(-1) + 1e-8).log(),
            "No probability gets below log(1e-8) = -18.42: for (200, 0, -200) you have (0, -18.42, -18.42) and ours is "
            "(0, -200, -400). Nothing is NaN any more, and the gradient of what was rounded away is 0.",
            "section 4, Break it",
        ),
        Misconception(
            "shift-of-the-batch",
            _log_softmax_shift_of_the_batch,
            "Right where the rows lie close together; a row 300 below the maximum of the batch becomes infinite. Each "
            "row needs its own maximum: amax(-1, keepdim=True).",
            "section 4",
        ),
        Misconception(
            "sum-of-the-batch",
            _log_softmax_sum_of_the_batch,
            "Right for a single row; with two rows, the probabilities of both together sum to 1. The sum runs over the "
            "last dimension only.",
            "section 4",
        ),
        Misconception(
            "log-sum-forgotten",
            lambda logits: logits - logits.amax(-1, keepdim=True),
            "The largest entry of each row is exactly 0, so a probability of 1, and the others come on top of it: "
            "steps 3 to 6 are missing.",
            "section 4",
        ),
        Misconception(
            "shift-not-put-back",
            _log_softmax_shift_not_put_back,
            "Too large by the maximum of the row, 3 for the logits (1, 2, 3): the sum was made of shifted logits, and "
            "then subtracted from the ones that were not.",
            "section 4, step 6",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 02.masked_kl


def _random_masked(generator: Generator) -> Inputs:
    return *_random_pair(generator), torch.arange(6) != torch.randint(6, (), generator=generator)


def _masked_kl(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_per_row(student[:, allowed], teacher[:, allowed])


def _rule_out(logits: Tensor, allowed: Tensor, value: float = -math.inf) -> Tensor:
    return logits.masked_fill(~allowed, value)


def _masked_kl_infinite_minus_infinite(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    student, teacher = _rule_out(student, allowed), _rule_out(teacher, allowed)
    return kl_terms(student.log_softmax(-1), teacher.softmax(-1)).sum(-1)


def _masked_kl_masked_after_softmax(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_terms(student.log_softmax(-1), teacher.softmax(-1))[:, allowed].sum(-1)


def _masked_kl_logit_of_zero(student: Tensor, teacher: Tensor, allowed: Tensor) -> Tensor:
    return kl_per_row(_rule_out(student, allowed, 0.0), _rule_out(teacher, allowed, 0.0))


MASKED_KL = Exercise(
    id="02.masked_kl",
    title="KL divergence where classes are ruled out",
    difficulty=2,
    minutes=8,
    examples=[
        (torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([True, True, False])),
        (torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.5]]), torch.tensor([True, True, True])),
    ],
    random_inputs=_random_masked,
    reference=_masked_kl,
    gradient=True,
    misconceptions=[
        Misconception(
            "infinite-minus-infinite",
            _masked_kl_infinite_minus_infinite,
            "NaN as soon as a class is ruled out: with a logit of -inf on both sides its term is 0 times infinity. "
            "Leave such classes out before you multiply.",
            "section 6",
        ),
        Misconception(
            "masked-after-softmax",
            _masked_kl_masked_after_softmax,
            "0.131 where ours is 0.462, for the first input: the softmax still counted the class that is ruled out, so "
            "what was left of each side adds up to less than 1, and the sum may even be negative. Mask first.",
            "section 6",
        ),
        Misconception(
            "logit-of-zero",
            _masked_kl_logit_of_zero,
            "0.364 where ours is 0.462, for the first input: a logit of 0 does not rule out anything, its probability "
            "is exp(0) over the sum. A class is ruled out by a logit of -inf, or by leaving it out.",
            "section 6",
        ),
        Misconception(
            "teacher-only",
            lambda student, teacher, allowed: kl_per_row(student, _rule_out(teacher, allowed)),
            "0.557 where ours is 0.462, for the first input: only the teacher was masked, and your student still loses "
            "probability to a class that nobody may choose.",
            "section 6",
        ),
        Misconception(
            "student-only",
            lambda student, teacher, allowed: kl_per_row(_rule_out(student, allowed), teacher),
            "Infinite as soon as a class is ruled out: only the student was masked, so it gives nothing where the "
            "teacher still gives something.",
            "section 6",
        ),
        Misconception(
            "nobody-ruled-out",
            lambda student, teacher, allowed: kl_per_row(student, teacher),
            "Right where nothing is ruled out, and 0.508 where ours is 0.462, for the first input: the mask was not "
            "used.",
            "section 6",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 02.token_mean


def _tokens(batch: int, tokens: int, vocabulary: int, lengths: list[int], seed: int) -> Inputs:
    generator = Generator().manual_seed(seed)
    student, teacher = (torch.randn(batch, tokens, vocabulary, generator=generator) for _ in range(2))
    return student, teacher, torch.arange(tokens) < torch.tensor(lengths).unsqueeze(-1)


def _random_tokens(generator: Generator) -> Inputs:
    seed = int(torch.randint(1_000_000, (), generator=generator))
    return _tokens(3, 5, 7, torch.randint(1, 6, (3,), generator=generator).tolist(), seed)


def _token_mean(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    return kl_per_row(student, teacher)[mask].mean()


def _token_mean_of_means(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    sums = kl_per_row(student, teacher).masked_fill(~mask, 0).sum(-1)
    return (sums / mask.sum(-1)).mean()


TOKEN_MEAN = Exercise(
    id="02.token_mean",
    title="Nats per token",
    difficulty=2,
    minutes=8,
    examples=[
        _tokens(1, 2, 3, [2], seed=0),
        _tokens(2, 3, 4, [3, 1], seed=1),
        _tokens(4, 7, 11, [7, 7, 7, 7], seed=2),
    ],
    random_inputs=_random_tokens,
    reference=_token_mean,
    misconceptions=[
        Misconception(
            "batchmean",
            lambda student, teacher, mask: kl_per_row(student, teacher)[mask].sum() / student.shape[0],
            "7 times ours for four sequences of 7 tokens, twice ours for one of 2: you divide by the number of "
            "sequences, as batchmean does with (B, T, V), and not by the number of tokens.",
            "section 7",
        ),
        Misconception(
            "batchmean-of-all",
            lambda student, teacher, mask: kl_per_row(student, teacher).sum() / student.shape[0],
            "7 times ours for four sequences of 7 tokens, where nothing is masked; where something is, the padding has "
            "a say as well. That is reduction='batchmean' of (B, T, V): divided by sequences, and blind to the mask.",
            "section 7",
        ),
        Misconception(
            "mean-of-elements",
            lambda student, teacher, mask: _token_mean(student, teacher, mask) / student.shape[-1],
            "Too small by the size of the vocabulary: a third of ours with 3 entries, an eleventh with 11. The mean "
            "runs over tokens, the vocabulary is summed.",
            "section 7",
        ),
        Misconception(
            "divided-by-all-positions",
            lambda student, teacher, mask: kl_per_row(student, teacher)[mask].sum() / mask.numel(),
            "Right where nothing is masked; with 4 tokens out of 6 it is 4/6 of ours: the padding is left out of the "
            "sum, and still counted in the divisor.",
            "section 7",
        ),
        Misconception(
            "mask-ignored",
            lambda student, teacher, mask: kl_per_row(student, teacher).mean(),
            "Right where nothing is masked, and otherwise the padding has a say: change the logits of a masked "
            "position, and your result changes.",
            "section 7",
        ),
        Misconception(
            "mean-of-means",
            _token_mean_of_means,
            "Right where all sequences have the same length; with lengths 3 and 1 the single token of the short one "
            "counts as much as the other three together.",
            "section 7",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 02.is_sound

Term = Callable[[Tensor, Tensor], Tensor]

ZERO = 1e-4
"""A sound term is closer to 0 than this where student and teacher agree, and further where they do not."""


@dataclass(frozen=True)
class KDTerm:
    """A distillation term to be examined. Copies are equal, so that a check sees that no input was changed."""

    name: str
    summands: Term

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.summands(student_logits, teacher_logits).sum() / student_logits.shape[0]

    def __repr__(self) -> str:
        return self.name


def _cold_reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Right, except that the third probability of the student in `PAIR` vanishes at T = 0.05."""
    return kl_terms((teacher / 0.05).log_softmax(-1), (student / 0.05).softmax(-1))


KD_TERMS = [
    KDTerm("the right term", kl_per_row),
    KDTerm("softmax on both sides", lambda student, teacher: kl_terms(student.softmax(-1), teacher.softmax(-1))),
    KDTerm("teacher twice", lambda student, teacher: kl_per_row(teacher, teacher)),
    KDTerm("student without gradient", lambda student, teacher: kl_per_row(student.detach(), teacher)),
    KDTerm("raw logits", lambda student, teacher: kl_terms(student, teacher.softmax(-1))),
    KDTerm("log on both sides", lambda student, teacher: kl_terms(student.log_softmax(-1), teacher.log_softmax(-1))),
    KDTerm("reverse KL, target a softmax, T = 0.05", _cold_reverse_kl),
]
"""One that is right, and six that the lesson has broken."""

PAIR = (torch.tensor([[-3.0, -3.02, -9.0]]), torch.tensor([[0.0, 2.0, 1.0]]))
"""A student whose raw logits make a positive number, and its teacher."""


def _random_term(generator: Generator) -> Inputs:
    index = int(torch.randint(3, (), generator=generator))
    return KD_TERMS[index], *_random_pair(generator)


def _is_positive(term: Term, student: Tensor, teacher: Tensor) -> bool:
    return term(student, teacher).item() > ZERO


def _vanishes(term: Term, teacher: Tensor) -> bool:
    """0 for a student that is its teacher."""
    return abs(term(teacher.clone(), teacher).item()) < ZERO


def _teaches(term: Term, student: Tensor, teacher: Tensor) -> bool:
    """The student's gradient is finite, and not 0 everywhere."""
    student = student.clone().requires_grad_()
    value = term(student, teacher)
    if not value.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value, student, allow_unused=True)
    return gradient is not None and bool(gradient.isfinite().all() and gradient.abs().max() > 0)


def _is_sound(term: Term, student: Tensor, teacher: Tensor) -> bool:
    return _is_positive(term, student, teacher) and _vanishes(term, teacher) and _teaches(term, student, teacher)


def _is_sound_graph_is_enough(term: Term, student: Tensor, teacher: Tensor) -> bool:
    has_graph = term(student.clone().requires_grad_(), teacher).requires_grad
    return has_graph and _is_positive(term, student, teacher) and _vanishes(term, teacher)


IS_SOUND = Exercise(
    id="02.is_sound",
    title="Is this distillation term alive?",
    difficulty=3,
    minutes=12,
    examples=[(term, *PAIR) for term in KD_TERMS],
    random_inputs=_random_term,
    reference=_is_sound,
    misconceptions=[
        Misconception(
            "finite-is-fine",
            lambda term, student, teacher: math.isfinite(term(student, teacher).item()),
            "You pass 6 of our 7 terms, and only one of them is right: -1.343 for a student that is its teacher "
            "is finite, too.",
            "section 2",
        ),
        Misconception(
            "value-is-enough",
            lambda term, student, teacher: _is_positive(term, student, teacher) and _vanishes(term, teacher),
            "You pass 'student without gradient' and the reverse KL at T = 0.05: both values are right, and no "
            "student learns from them, since one gradient is missing and the other is NaN.",
            "sections 3 and 6",
        ),
        Misconception(
            "graph-is-enough",
            _is_sound_graph_is_enough,
            "You pass the reverse KL at T = 0.05: it has requires_grad, and every entry of its gradient is NaN. Take "
            "the gradient and look at it.",
            "section 6",
        ),
        Misconception(
            "zero-not-tried",
            lambda term, student, teacher: _is_positive(term, student, teacher) and _teaches(term, student, teacher),
            "You pass 'raw logits': positive, with a gradient, and not 0 where student and teacher are the same. Give "
            "the term the teacher's logits on both sides.",
            "section 2",
        ),
    ],
)


EXERCISES = [KL_PER_ROW, LOG_SOFTMAX, MASKED_KL, TOKEN_MEAN, IS_SOUND]
