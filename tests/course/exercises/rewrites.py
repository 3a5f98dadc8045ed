"""Right answers that look different: other functions, other orders, other libraries. Each has to pass.

Written from the task of each exercise alone, as a learner would, and without a look at the references.
"""

import inspect
import math
import statistics

import numpy as np
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)

REWRITES = {}


def solves(exercise):
    def keep(function):
        REWRITES.setdefault(exercise, []).append(function)
        return function

    return keep


# ---------------------------------------------------------------------------------------------------------------------
# 00


@solves("00.soft_label")
def by_index(votes):
    share = 0
    for step, count in enumerate(votes):
        share += count * (1 if step > 4 else 0.5 if step == 4 else 0)
    return share / sum(votes)


@solves("00.soft_label")
def in_numpy(votes):
    return np.average([0, 0, 0, 0, 0.5, 1, 1, 1, 1], weights=votes)


@solves("00.soft_label")
def in_torch(votes):
    votes = torch.tensor(votes, dtype=torch.float64)
    return (votes[5:].sum() + 0.5 * votes[4]) / votes.sum()


@solves("00.one_sentence")
def one_sentence_in_numpy(p, q, y, alpha):
    hard = 0 if y == -100 else -np.log(p[y])
    return alpha * hard + (1 - alpha) * scipy.stats.entropy(q, p)


@solves("00.one_sentence")
def one_sentence_in_torch(p, q, y, alpha):
    p, q = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    hard = F.nll_loss(p.log()[None], torch.tensor([y]), reduction="sum")
    return alpha * hard + (1 - alpha) * F.kl_div(p.log(), q, reduction="sum")


@solves("00.one_sentence")
def one_sentence_by_entropies(p, q, y, alpha):
    loss = 0.0
    if y >= 0:
        loss -= alpha * math.log(p[y])
    cross = -sum(b * math.log(a) for a, b in zip(p, q, strict=True))
    entropy = -sum(b * math.log(b) for b in q)
    return loss + (1 - alpha) * (cross - entropy)


# ---------------------------------------------------------------------------------------------------------------------
# 01


@solves("01.forward_kl")
def with_kl_div(student_log_probs, teacher_log_probs):
    return F.kl_div(student_log_probs, teacher_log_probs.exp(), reduction="none").sum(-1)


@solves("01.forward_kl")
def renormalised(student_log_probs, teacher_log_probs):
    student = torch.log_softmax(student_log_probs, -1)
    return F.kl_div(student, torch.softmax(teacher_log_probs, -1), reduction="none").sum(-1)


@solves("01.forward_kl")
def with_xlogy(student_log_probs, teacher_log_probs):
    q = teacher_log_probs.exp()
    return (torch.xlogy(q, q) - q * student_log_probs).sum(-1)


@solves("01.forward_kl")
def with_where(student_log_probs, teacher_log_probs):
    q = teacher_log_probs.exp()
    difference = torch.where(q > 0, teacher_log_probs - student_log_probs, 0.0)
    return torch.einsum("...c,...c->...", q, difference)


@solves("01.gradient")
def with_exp(student_logits, teacher_logits):
    return student_logits.log_softmax(-1).exp() - F.softmax(teacher_logits, dim=-1)


@solves("01.gradient")
def gradient_in_numpy(student_logits, teacher_logits):
    return scipy.special.softmax(student_logits.numpy(), -1) - scipy.special.softmax(teacher_logits.numpy(), -1)


# ---------------------------------------------------------------------------------------------------------------------
# 02


@solves("02.kl_per_row")
def log_target(student_logits, teacher_logits):
    student, teacher = F.log_softmax(student_logits, 1), F.log_softmax(teacher_logits, 1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


@solves("02.kl_per_row")
def row_by_row(student_logits, teacher_logits):
    rows = zip(student_logits, teacher_logits, strict=True)
    return torch.stack([F.kl_div(s.log_softmax(0), t.softmax(0), reduction="sum") for s, t in rows])


@solves("02.kl_per_row")
def cross_entropy_minus_entropy(student_logits, teacher_logits):
    q = teacher_logits.softmax(-1).double()
    student = student_logits.double()
    cross = F.cross_entropy(student, q, reduction="none")
    return cross - torch.special.entr(q).sum(-1)


# ---------------------------------------------------------------------------------------------------------------------
# 03


@solves("03.soft_gradient")
def softened_difference(student, teacher, temperature):
    p, q = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return (p - q) * temperature / student.size(0)


@solves("03.soft_gradient")
def powers_written_out(student, teacher, temperature):
    rows, _ = student.shape
    per_row = (1 / temperature) * (torch.softmax(student / temperature, -1) - torch.softmax(teacher / temperature, -1))
    return temperature**2 * per_row * (1 / rows)


@solves("03.objective")
def batchmean(student, teacher, labels, alpha, temperature):
    soft = F.kl_div(
        F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    return alpha * F.nll_loss(student.log_softmax(1), labels) + (1 - alpha) * soft * temperature * temperature


@solves("03.objective")
def as_a_lerp(student, teacher, labels, *, alpha, temperature):
    picked = student.log_softmax(-1).gather(1, labels[:, None])
    q = F.softmax(teacher / temperature, -1)
    log_q, log_p = F.log_softmax(teacher / temperature, -1), F.log_softmax(student / temperature, -1)
    soft = temperature**2 * (q * (log_q - log_p)).sum(1).mean()
    return torch.lerp(soft, -picked.mean(), alpha)


# ---------------------------------------------------------------------------------------------------------------------
# 04


@solves("04.semi")
def by_a_mask(student, teacher, labels, alpha):
    known = labels >= 0
    hard = F.cross_entropy(student[known], labels[known]) if known.any() else 0 * student.sum()
    soft = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
    return alpha * hard + (1 - alpha) * soft


@solves("04.semi")
def with_a_loop(student, teacher, labels, alpha):
    hard, soft, count = 0.0, 0.0, 0
    for row in range(len(labels)):
        log_p, log_q = student[row].log_softmax(0), teacher[row].log_softmax(0)
        soft = soft + (log_q.exp() * (log_q - log_p)).sum() / len(labels)
        if labels[row] != -100:
            hard, count = hard - log_p[labels[row]], count + 1
    return alpha * hard / max(count, 1) + (1 - alpha) * soft


# ---------------------------------------------------------------------------------------------------------------------
# 05


@solves("05.collate")
def with_pad_sequence(rows, pad_id):
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


@solves("05.collate")
def with_a_table(rows, pad_id):
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = torch.as_tensor(row["input_ids"])
        mask[place, :length] = 1
    return {"labels": torch.tensor([row["label"] for row in rows]), "attention_mask": mask, "input_ids": ids}


@solves("05.share")
def picked_and_added(logits, labels, items, steps):
    known = labels != -100
    picked = logits.log_softmax(-1)[known].gather(1, labels[known, None])
    return -picked.sum() / items


@solves("05.share")
def mean_times_count(logits, labels, items, steps):
    each = F.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    return each.sum() * (1 / items)


# ---------------------------------------------------------------------------------------------------------------------
# 06


@solves("06.labels")
def token_by_token(ids, mask, prompts):
    labels = torch.full_like(ids, -100)
    for row in range(len(ids)):
        seen = 0
        for column in range(ids.shape[1]):
            if mask[row, column] == 1:
                seen += 1
                if seen > prompts[row]:
                    labels[row, column] = ids[row, column]
    return labels


@solves("06.labels")
def by_the_start(ids, mask, prompts):
    start = mask.argmax(1, keepdim=True) + torch.tensor(prompts)[:, None]
    place = torch.arange(ids.shape[1])[None]
    return torch.where((place >= start) & mask.bool(), ids, -100)


@solves("06.token_mean")
def with_a_weight(divergences, labels):
    weight = (labels[:, 1:] != -100).to(divergences)
    total = weight.sum()
    return torch.where(weight > 0, divergences[:, :-1], 0).sum() / torch.where(total > 0, total, torch.ones_like(total))


@solves("06.token_mean")
def nothing_is_zero(divergences, labels):
    kept = divergences[:, :-1][labels[:, 1:] >= 0]
    return kept.mean() if len(kept) else torch.tensor(0.0)


# ---------------------------------------------------------------------------------------------------------------------
# 07


@solves("07.interval")
def with_scipy(first, second):
    found = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    return found.low, found.high


@solves("07.interval")
def with_numpy(first, second):
    gains = np.subtract(second, first)
    half = scipy.stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return np.array([gains.mean() - half, gains.mean() + half])


@solves("07.interval")
def with_statistics(first, second):
    gains = [b - a for a, b in zip(first, second, strict=True)]
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return list(scipy.stats.t(len(gains) - 1, statistics.fmean(gains), error).interval(0.95))


# ---------------------------------------------------------------------------------------------------------------------
# 10


@solves("10.budget")
def by_a_table(teacher, student, tokens, epochs, vocabulary, k, disk):
    learning = 3 * student * tokens * epochs
    if epochs == 1:
        return "ask", teacher * tokens + learning, 0
    number = 4 if vocabulary < 65_537 else 6
    ways = [("all", 2 * vocabulary, 1), ("top-k", k * number + 4, 1), ("ask", 0, epochs)]
    way, size, times = next(each for each in ways if disk - each[1] * tokens >= 0)
    return way, times * teacher * tokens + learning, size * tokens


@solves("10.budget")
def bytes_of_each_token(teacher, student, tokens, epochs, vocabulary, k, disk):
    room = disk // tokens
    forward = 3 * epochs * student
    if epochs > 1 and room >= vocabulary * 2:
        return ["all", (forward + teacher) * tokens, 2 * tokens * vocabulary]
    cut = 4 + 2 * k + k * (4 if vocabulary > 2**16 else 2)
    if epochs > 1 and room >= cut:
        return ["top-k", (forward + teacher) * tokens, cut * tokens]
    return ["ask", (forward + epochs * teacher) * tokens, 0]


# ---------------------------------------------------------------------------------------------------------------------
# 11


@solves("11.bias")
def by_counting(logits, labels, missing, shifts):
    best, fewest = None, math.inf
    for shift in shifts:
        raised = logits.detach().double().numpy().copy()
        raised[:, missing] += shift
        wrong = sum(int(said) != int(meant) for said, meant in zip(raised.argmax(1), labels, strict=True))
        if wrong < fewest:
            best, fewest = shift, wrong
    return best


@solves("11.bias")
def all_at_once(logits, labels, missing, shifts):
    raised = logits.repeat(len(shifts), 1, 1)
    raised[..., missing] += torch.tensor(shifts, dtype=logits.dtype)[:, None]
    right = (raised.argmax(-1) == labels).sum(-1).tolist()
    return shifts[right.index(max(right))]


@solves("11.mix")
def through_logarithms(logits, temperature):
    log_probs = torch.log_softmax(logits / temperature, dim=2)
    return (log_probs.logsumexp(0) - math.log(len(logits))).exp()


@solves("11.mix")
def teacher_by_teacher(logits, temperature):
    total = 0
    for each in logits:
        total = total + F.softmax(each / temperature, dim=1)
    return total / len(logits)


# ---------------------------------------------------------------------------------------------------------------------
# 13


@solves("13.masked_kl")
def without_the_others(student, teacher, allowed):
    student, teacher = student[:, allowed], teacher[:, allowed]
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="none").sum(-1)


@solves("13.masked_kl")
def with_a_mask(student, teacher, allowed):
    log_p = student.masked_fill(~allowed, -math.inf).log_softmax(-1)
    log_q = teacher.masked_fill(~allowed, -math.inf).log_softmax(-1)
    difference = torch.where(allowed, log_q.masked_fill(~allowed, 0) - log_p.masked_fill(~allowed, 0), 0)
    return (log_q.exp() * difference).sum(-1)


@solves("13.kept")
def with_a_loop_over_columns(columns, forward, label_names):
    names = list(inspect.signature(forward).parameters)
    kept = []
    for column in columns:
        if column in names or column in ("label", "label_ids") or column in label_names:
            kept.append(column)
    return kept


@solves("13.kept")
def as_a_tuple(columns, forward, label_names):
    used = set(inspect.signature(forward).parameters) | set(label_names) | {"label", "label_ids"}
    return tuple(filter(used.__contains__, columns))
