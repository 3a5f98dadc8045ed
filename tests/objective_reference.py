"""The objective from its formulas, in float64, one row at a time, gradients in closed form; nothing is the package's.

Every term also says how far rounding can move it. `δ` is the error of a log-probability: dividing by T, subtracting the
maximum and subtracting the logarithm of a sum of C terms are each off by some units in the last place of the largest
number involved, so δ = (largest |logit| / T + C) units. A divergence Σ p · r is then off by δ · (Σ p|r| + 1), because p
is off by the fraction δ and r by δ itself. `slack` holds that bound in units; a test multiplies it by the precision of
the arithmetic that it looks at.
"""

from typing import NamedTuple

import numpy as np

IGNORED = -100


class Term(NamedTuple):
    """A number, its gradient with respect to the student's logits, and what rounding can do to both."""

    value: float
    gradient: np.ndarray
    slack: float
    gradient_slack: float


class Objective(NamedTuple):
    total: Term
    hard: Term
    soft: Term


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def log_sum_exp(log_values):
    peak = log_values.max(initial=-np.inf)
    return peak if np.isinf(peak) else peak + np.log(np.exp(log_values - peak).sum())


def largest(logits):
    return np.abs(logits[np.isfinite(logits)]).max()


def log_ratio(log_p, log_q):
    """log p − log q where p > 0, and 0 where p = 0: there the ratio only ever stands behind a factor p."""
    return np.array([a - b if a > -np.inf else 0.0 for a, b in zip(log_p, log_q, strict=True)])


def weigh(log_p, ratio):
    """p · ratio class by class. A ratio of +inf is +inf however small p is, even where exp(log p) underflows to 0."""
    return np.array([np.inf if np.isposinf(r) else np.exp(a) * r for a, r in zip(log_p, ratio, strict=True)])


def mixture(log_student, log_teacher, beta):
    return np.logaddexp(np.log(beta) + log_teacher, np.log1p(-beta) + log_student)


def divergence_terms(name, log_student, log_teacher, beta=0.5):
    """The summands of the divergence; their sum is its value in nats."""
    if name == "forward_kl":
        return weigh(log_teacher, log_ratio(log_teacher, log_student))
    if name == "reverse_kl":
        return weigh(log_student, log_ratio(log_student, log_teacher))
    log_mixture = mixture(log_student, log_teacher, beta)
    teacher_part = beta * weigh(log_teacher, log_ratio(log_teacher, log_mixture))
    student_part = (1 - beta) * weigh(log_student, log_ratio(log_student, log_mixture))
    return np.concatenate([teacher_part, student_part])


def divergence(name, log_student, log_teacher, beta=0.5):
    return divergence_terms(name, log_student, log_teacher, beta).sum()


def pull(name, log_student, log_teacher, beta=0.5):
    """p · ∂D/∂p for each class of the student's p, up to a constant factor of p, which softmax takes out again."""
    if name == "forward_kl":
        return -np.exp(log_teacher)
    if name == "reverse_kl":
        return weigh(log_student, log_ratio(log_student, log_teacher))
    return (1 - beta) * weigh(log_student, log_ratio(log_student, mixture(log_student, log_teacher, beta)))


def partition(teacher, k):
    """The buckets of a row: every class its own, or the k classes that the teacher likes best and all the others."""
    if k is None:
        return [[c] for c in range(len(teacher))]
    order = np.argsort(-teacher, kind="stable")
    return [[c] for c in order[:k]] + [list(order[k:])]


def pool(log_p, buckets):
    return np.array([log_sum_exp(log_p[np.array(bucket, dtype=int)]) for bucket in buckets])


def soft_row(student, teacher, temperature, name, beta=0.5, k=None):
    """T² · D between the two softened rows."""
    classes, buckets = len(student), partition(teacher, k)
    log_p = log_softmax(student / temperature)
    log_student, log_teacher = pool(log_p, buckets), pool(log_softmax(teacher / temperature), buckets)
    terms = divergence_terms(name, log_student, log_teacher, beta)
    delta = (max(largest(student), largest(teacher)) / temperature + classes) * (1 + np.abs(terms).sum())
    gradient = np.zeros(classes)
    if np.isfinite(terms).all():
        pulls = pull(name, log_student, log_teacher, beta)
        net = pulls - np.exp(log_student) * pulls.sum()
        for bucket, log_mass, force in zip(buckets, log_student, net, strict=True):
            if log_mass > -np.inf:
                gradient[bucket] = temperature * np.exp(log_p[bucket] - log_mass) * force
    return Term(temperature**2 * terms.sum(), gradient, temperature**2 * delta, temperature * delta)


def hard_row(student, label, label_smoothing=0.0, class_weights=None):
    """−Σ target · log p, where the target is the label, smoothed and weighted as torch's cross_entropy does it."""
    classes = len(student)
    weights = np.ones(classes) if class_weights is None else class_weights
    target = label_smoothing / classes * weights
    target[label] += (1 - label_smoothing) * weights[label]
    log_p = log_softmax(student)
    wanted = target > 0
    terms = -target[wanted] * log_p[wanted]
    delta = (largest(student) + classes) * (target.sum() + np.abs(terms).sum())
    return Term(terms.sum(), target.sum() * np.exp(log_p) - target, delta, delta)


def average(rows, where, shape, count):
    """The sum of the rows over a count, where a count of 0 stands for 1."""
    gradient, count = np.zeros(shape), max(count, 1)
    for place, row in zip(where, rows, strict=True):
        gradient[place] = row.gradient / count
    return Term(
        sum(row.value for row in rows) / count,
        gradient,
        sum(row.slack for row in rows) / count,
        max((row.gradient_slack for row in rows), default=0.0) / count,
    )


def mix(alpha, hard, soft):
    """alpha · hard + (1 − alpha) · soft; a term of weight 0 is left out, so that it may be infinite."""
    parts = [(weight, term) for weight, term in ((alpha, hard), (1 - alpha, soft)) if weight > 0]
    return Term(*(sum(weight * term[field] for weight, term in parts) for field in range(len(Term._fields))))


def objective(
    student, teacher, labels, *, alpha, temperature, divergence="forward_kl", beta=0.5, k=None, num_items=None,
    label_smoothing=0.0, class_weights=None,
):  # fmt: skip
    """alpha · CE + (1 − alpha) · T² · D over the rows of (N, C) logits."""
    rows = range(len(student))
    labelled = [] if labels is None else [n for n in rows if labels[n] != IGNORED]
    counts = (len(labelled), len(rows)) if num_items is None else num_items
    hard_count, soft_count = counts if isinstance(counts, tuple) else (counts, counts)
    hard_rows = [hard_row(student[n], labels[n], label_smoothing, class_weights) for n in labelled]
    soft_rows = [soft_row(student[n], teacher[n], temperature, divergence, beta, k) for n in rows]
    hard = average(hard_rows, labelled, student.shape, hard_count)
    soft = average(soft_rows, list(rows), student.shape, soft_count)
    return Objective(mix(alpha, hard, soft), hard, soft)


def lm_objective(student, teacher, labels, **settings):
    """The same over (B, T, V) logits: position t predicts label t + 1, and only positions with a label take part."""
    batch, length, _ = student.shape
    places = [(b, t) for b in range(batch) for t in range(length - 1) if labels[b, t + 1] != IGNORED]
    pick = tuple(np.array(places, dtype=int).reshape(-1, 2).T)
    targets = np.array([labels[b, t + 1] for b, t in places], dtype=int)
    rows = objective(student[pick], teacher[pick], targets, **settings)
    return Objective(*(_scatter(term, pick, student.shape) for term in rows))


def _scatter(term, pick, shape):
    gradient = np.zeros(shape)
    gradient[pick] = term.gradient
    return term._replace(gradient=gradient)
