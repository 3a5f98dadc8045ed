"""Right losses in any convention, drawn at random: what `kdcourse diagnose` says of each is what it was made of.

KDCOURSE_DEEP=1 (`make test-deep`) draws four hundred, anew in each run; otherwise there are twelve.
"""

import math
import os
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from foreign_signatures import KINDS, NAMES, WRAPPED, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_diagnose import not_named_of_tokens, pairs_of_tokens

from kdcourse.course.diagnose import diagnose_loss

DEEP = bool(os.environ.get("KDCOURSE_DEEP"))


def kl(p, q):
    """KL(q ‖ p) of log-probabilities, per row."""
    return F.kl_div(p, q, reduction="none", log_target=True).sum(-1)


def jensen_shannon(s, t, beta):
    m = torch.logaddexp(t + math.log(beta), s + math.log1p(-beta))
    return beta * kl(m, t) + (1 - beta) * kl(m, s)


DIVERGENCES = {
    "forward_kl": lambda s, t, _: kl(s, t),
    "reverse_kl": lambda s, t, _: kl(t, s),
    "jensen_shannon": lambda s, t, beta: jensen_shannon(s, t, beta or 0.5),
    "cross_entropy": lambda s, t, _: -(t.exp() * s).sum(-1),
    "symmetric_kl": lambda s, t, _: kl(s, t) + kl(t, s),
}
"""Of log-probabilities of student and teacher, and a beta where it is an argument."""
MIXTURES = {
    "labels": lambda hard, soft, weight: weight * hard + (1 - weight) * soft,
    "teacher": lambda hard, soft, weight: (1 - weight) * hard + weight * soft,
    "teacher_added": lambda hard, soft, weight: hard + weight * soft,
    "two_weights": lambda hard, soft, hard_weight, soft_weight: hard_weight * hard + soft_weight * soft,
    "alone": lambda _, soft: soft,
}
PRECISIONS = {"as it is": lambda x: x, "float32": lambda x: x.float(), "float64": lambda x: x.double()}


@dataclass(frozen=True)
class Convention:
    """How somebody computes a right loss."""

    is_tokens: bool
    divergence: str
    mixture: str
    has_temperature: bool
    has_beta: bool
    has_t_squared: bool
    reduction: str
    precision: str
    factors: tuple[float, float]
    wrapped: str

    @property
    def roles(self):
        weights = {"two_weights": ["hard_weight", "soft_weight"], "alone": []}.get(self.mixture, ["weight"])
        has_labels = self.mixture != "alone" or self.is_tokens
        optional = {"labels": has_labels, "temperature": self.has_temperature, "beta": self.has_beta}
        return ["student", "teacher", *(role for role, there in optional.items() if there), *weights]

    def __call__(self, *, student, teacher, labels=None, temperature=1.0, beta=None, **weights):
        student, teacher = (PRECISIONS[self.precision](logits) for logits in (student, teacher))
        if self.is_tokens:
            student, teacher, labels = student[:, :-1], teacher[:, :-1], labels[:, 1:]
        log_p, log_q = ((logits / temperature).log_softmax(-1) for logits in (student, teacher))
        rows = DIVERGENCES[self.divergence](log_p, log_q, beta)
        taught = labels != -100 if self.is_tokens else torch.ones_like(rows, dtype=torch.bool)
        soft = self.reduced(rows * taught, taught)
        hard = 0.0
        if self.mixture != "alone":
            surprise = F.cross_entropy(student.flatten(0, -2), labels.flatten(), reduction="none").view_as(rows)
            hard = self.reduced(surprise, labels != -100)
        power = temperature**2 if self.has_t_squared else 1.0
        hard_factor, soft_factor = self.factors
        mixed = MIXTURES[self.mixture](hard_factor * hard, soft_factor * power * soft, *weights.values())
        return WRAPPED[self.wrapped](mixed)

    def reduced(self, rows, counted):
        return {"mean": rows.sum() / counted.sum().clamp(min=1), "sum": rows.sum(), "none": rows}[self.reduction]

    @property
    def said(self):
        """What is to be said of it."""
        said = {"direction": self.divergence, "gradient": "yes", "vocabulary": "refused"}
        counts = {"mean": "tokens" if self.is_tokens else "rows", "sum": "nothing", "none": "per_row"}
        said["divisor"] = counts[self.reduction]
        if self.mixture != "alone":
            labelled = {"mean": "tokens" if self.is_tokens else "labelled_rows"}
            said |= {"hard": "temperature_1", "hard_divisor": labelled.get(self.reduction, counts[self.reduction])}
        if self.mixture in ("labels", "teacher", "teacher_added"):
            said |= {"weight": self.mixture, "ends": "yes"}
        if self.has_temperature:
            said |= {"t_squared": "yes" if self.has_t_squared else "no", "softened": "both"}
        else:
            said["softened"] = "no_temperature"
        if self.is_tokens:
            said["mask"] = "ignored"
        return said


@st.composite
def right_losses(draw):
    """A loss that nobody can find fault with, in a signature that somebody uses, and what is to be said of it."""
    is_tokens, has_temperature = draw(st.booleans()), draw(st.booleans())
    divergence, mixture = draw(st.sampled_from(sorted(DIVERGENCES))), draw(st.sampled_from(sorted(MIXTURES)))
    # Where the teacher's factor is the caller's, or stands alone, so may be T².
    is_left = has_temperature and mixture in ("two_weights", "alone") and draw(st.booleans())
    factors = st.sampled_from([1.0, 0.5, 2.0, 10.0]) if mixture not in ("alone",) else st.just(1.0)
    convention = Convention(
        is_tokens, divergence, mixture, has_temperature,
        has_beta=divergence == "jensen_shannon" and draw(st.booleans()),
        has_t_squared=not is_left,
        reduction=draw(st.sampled_from(["mean", "sum"] if is_tokens else ["mean", "sum", "none"])),
        precision=draw(st.sampled_from(sorted(PRECISIONS))),
        factors=(draw(factors), draw(factors)),
        wrapped=draw(st.sampled_from(sorted(WRAPPED))),
    )  # fmt: skip
    order = draw(st.permutations(convention.roles))
    names = {role: draw(st.sampled_from(NAMES[role])) for role in order}
    return signed(convention, names, draw(st.sampled_from(KINDS))), convention


@settings(
    max_examples=400 if DEEP else 12, deadline=None, derandomize=not DEEP, print_blob=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(right_losses())
def test_a_right_loss_is_described_as_what_it_is(drawn):
    """A name that is taken for another one's, or a false alarm in a convention that nobody thought of."""
    own, convention = drawn
    report = diagnose_loss(own)
    said = convention.said
    assert {question: report.get(question) for question in said} == said, (own.__name__, convention)
    assert [finding.words for finding in report.problems] == [], (own.__name__, convention)


@pytest.mark.slow
def test_pairs_of_mistakes_of_a_language_model_are_both_named():
    """A mistake that hides another one; half of the pairs would be the least, and 19 of 21 are named as both."""
    pairs = pairs_of_tokens()
    hidden = not_named_of_tokens(pairs)
    assert len(pairs) == 21
    assert len(hidden) <= 2, hidden
