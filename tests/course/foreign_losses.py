# ruff: noqa: N803, N806, N812  (others choose their names)
"""Losses as others write them, right ones and wrong ones, with names and signatures of their own."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer


def kl(student, teacher):
    """KL(teacher ‖ student) of logits, per row."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def mixed(outputs, labels, soft, ratio):
    return ratio * soft + (1 - ratio) * F.cross_entropy(outputs, labels)


# ---------------------------------------------------------------------------------------------------------------------
# Right, in six conventions


def hinton(student_logits, teacher_logits, targets, alpha=0.5, T=4.0):
    """The labels' weight is alpha."""
    soft = T * T * kl(student_logits.float() / T, teacher_logits.detach().float() / T).mean()
    return alpha * F.cross_entropy(student_logits.float(), targets) + (1 - alpha) * soft


def by_params(outputs, labels, teacher_outputs, params):
    """The weight and the temperature in an object, and alpha means the teacher."""
    T, alpha = params.temperature, params.alpha
    soft = F.kl_div((outputs / T).log_softmax(1), (teacher_outputs / T).softmax(1), reduction="batchmean")
    return soft * alpha * T * T + F.cross_entropy(outputs, labels) * (1 - alpha)


class AsModule(nn.Module):
    """Settings in the constructor, several losses in a dictionary."""

    def __init__(self, temp, lambda_=0.5):
        super().__init__()
        self.temp, self.lambda_ = temp, lambda_
        self.divergence, self.hard = nn.KLDivLoss(reduction="batchmean"), nn.CrossEntropyLoss()

    def forward(self, y_s, y_t, y):
        soft = self.divergence((y_s / self.temp).log_softmax(1), (y_t / self.temp).softmax(1)) * self.temp**2
        hard = self.hard(y_s, y)
        return {"loss": self.lambda_ * hard + (1 - self.lambda_) * soft, "hard": hard, "soft": soft}


def of_tokens(s, t, labels, tau=1.0, kd_ratio=0.5):
    """A language model's: shifted, masked, per token, 0 without any; reverse KL."""
    s, t, labels = s[:, :-1].float(), t[:, :-1].float().detach(), labels[:, 1:]
    taught = labels != -100
    count = taught.sum().clamp(min=1)
    s, t, labels = s[taught], t[taught], labels[taught]
    soft = tau**2 * kl(t / tau, s / tau).sum() / count
    return (1 - kd_ratio) * F.cross_entropy(s, labels, reduction="sum") / count + kd_ratio * soft


def two_weights(logits_s, logits_t, gt, *, ce_weight, kd_weight, temperature):
    hard = F.cross_entropy(logits_s, gt)
    soft = -(logits_t / temperature).softmax(-1) * (logits_s / temperature).log_softmax(-1)
    return SimpleNamespace(hard=hard, loss=ce_weight * hard + kd_weight * temperature**2 * soft.sum(-1).mean())


def soft_only(pred, soft_targets, temp=3.0):
    return temp**2 * kl(pred / temp, soft_targets / temp).mean()


def without_names(a, b, c, d, e):
    return hinton(b, a, c, d, e)


# ---------------------------------------------------------------------------------------------------------------------
# Wrong


def t_squared_missing(y_s, y_t, y, T, lam):
    return lam * F.cross_entropy(y_s, y) + (1 - lam) * kl(y_s / T, y_t / T).mean()


def t_once(y_s, y_t, y, T, lam):
    return lam * F.cross_entropy(y_s, y) + (1 - lam) * T * kl(y_s / T, y_t / T).mean()


def t_squared_divides(pred, teacher_pred, tau):
    return kl(pred / tau, teacher_pred / tau).mean() / tau**2


def t_squared_at_an_end(student, teacher, labels, alpha, T):
    soft = kl(student / T, teacher / T).mean()
    if alpha == 0:
        return soft
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * T**2 * soft


def t_squared_on_both(outputs, teacher_outputs, label, temp, alpha):
    return temp**2 * mixed(outputs, label, kl(outputs / temp, teacher_outputs / temp).mean(), alpha)


def t_squared_on_the_value(outputs, teacher_outputs, T):
    soft = kl(outputs / T, teacher_outputs / T).mean()
    return soft + (T**2 - 1) * soft.detach()


def swapped(preds, soft_targets, T=2.0):
    log_q, p = (soft_targets / T).log_softmax(-1), (preds / T).softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean") * T**2


def mean_over_classes(preds, labels, soft_targets, T=2.0, alpha=0.5):
    soft = nn.KLDivLoss(reduction="mean")((preds / T).log_softmax(-1), (soft_targets / T).softmax(-1)) * T**2
    return mixed(preds, labels, soft, alpha)


def teacher_only_softened(logits_s, logits_t, temperature=4.0):
    return temperature**2 * kl(logits_s, logits_t / temperature).mean()


def not_softened(logits_s, logits_t, labels, temperature=4.0, alpha=0.1):
    return mixed(logits_s, labels, kl(logits_s, logits_t).mean(), alpha) + 0 * temperature


def multiplied(logits_s, logits_t, temperature=4.0):
    return temperature**2 * kl(logits_s * temperature, logits_t * temperature).mean()


def hard_term_softened(stu, tea, labels, T, alpha):
    return mixed(stu / T, labels, T**2 * kl(stu / T, tea / T).mean(), alpha)


def softmax_before_cross_entropy(stu, tea, labels, T, alpha):
    return mixed(stu.softmax(-1), labels, T**2 * kl(stu / T, tea / T).mean(), alpha)


def softmax_twice(student_out, teacher_out, T=1.0):
    return T**2 * kl((student_out / T).softmax(-1), (teacher_out / T).softmax(-1)).mean()


def softmax_on_both_sides(student_out, teacher_out):
    return F.kl_div(student_out.softmax(-1), teacher_out.softmax(-1), reduction="batchmean")


def log_on_both_sides(student_out, teacher_out):
    return F.kl_div(student_out.log_softmax(-1), teacher_out.log_softmax(-1), reduction="batchmean")


def raw_logits(student_out, teacher_out):
    return F.kl_div(student_out, teacher_out.softmax(-1), reduction="batchmean")


def softmax_with_flag(student_out, teacher_out):
    return F.kl_div(student_out.softmax(-1), teacher_out.softmax(-1), reduction="batchmean", log_target=True)


def flag_without_log(student_out, teacher_out):
    return F.kl_div(student_out.log_softmax(-1), teacher_out.softmax(-1), reduction="batchmean", log_target=True)


def terms_clamped(student_out, teacher_out):
    return F.kl_div(student_out.log_softmax(-1), teacher_out.softmax(-1), reduction="none").clamp(min=0).sum(-1).mean()


def softmax_over_the_batch(student_out, teacher_out):
    return F.kl_div(student_out.log_softmax(0), teacher_out.softmax(0), reduction="batchmean")


def teacher_twice(student_out, teacher_out):
    return kl(teacher_out, teacher_out).mean() + 0 * student_out.sum()


def negative(student_out, teacher_out):
    return -kl(student_out, teacher_out).mean()


def in_bits(student_out, teacher_out):
    return kl(student_out, teacher_out).mean() / math.log(2)


def log_of_softmax(student_out, teacher_out):
    p, q = student_out.softmax(-1), teacher_out.softmax(-1)
    return (q * (q.log() - p.log())).sum(-1).mean()


def epsilon_inside(student_out, teacher_out):
    p, q = student_out.softmax(-1), teacher_out.softmax(-1)
    return (q * ((q + 1e-9).log() - (p + 1e-9).log())).sum(-1).mean()


def without_a_graph(student_out, teacher_out):
    return kl(student_out, teacher_out).mean().item()


def student_detached(student_out, teacher_out):
    target = student_out.detach().softmax(-1)
    return F.kl_div(teacher_out.log_softmax(-1), target, reduction="batchmean")


def soft_term_detached(y_s, y_t, y, alpha):
    return mixed(y_s, y, kl(y_s, y_t).mean().detach(), alpha)


def labels_smoothed(y_s, y_t, y, alpha):
    return alpha * kl(y_s, y_t).mean() + (1 - alpha) * F.cross_entropy(y_s, y, label_smoothing=0.1)


def divided_by_all_rows(y_s, y_t, y, alpha):
    return alpha * kl(y_s, y_t).mean() + (1 - alpha) * F.cross_entropy(y_s, y, reduction="sum") / len(y)


def divided_by_labelled_rows(y_s, y_t, y, alpha):
    labelled = (y != -100).sum()
    return alpha * kl(y_s, y_t).sum() / labelled + (1 - alpha) * F.cross_entropy(y_s, y)


def unlabelled_dropped(y_s, y_t, y, alpha):
    return alpha * kl(y_s, y_t)[y != -100].mean() + (1 - alpha) * F.cross_entropy(y_s, y)


def label_zero(y_s, y_t, y, alpha):
    return alpha * kl(y_s, y_t).mean() + (1 - alpha) * F.cross_entropy(y_s, y.clamp(min=0))


def in_place(y_s, y_t, y, T, alpha):
    hard = F.cross_entropy(y_s, y)
    y_s /= T
    return alpha * T**2 * kl(y_s, y_t / T).mean() + (1 - alpha) * hard


def with_chance(y_s, y_t):
    return kl(F.dropout(y_s), y_t).mean()


def sixteen_bits(y_s, y_t):
    return kl(y_s.bfloat16(), y_t.bfloat16()).mean()


def weight_ignored(y_s, y_t, y, alpha):
    return 0.5 * kl(y_s, y_t).mean() + 0.5 * F.cross_entropy(y_s, y) + 0 * alpha


def jumps_at_the_ends(student_logits, teacher_logits, beta=0.5):
    """As several libraries write it."""
    s, t = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    if beta == 0:
        return F.kl_div(s, t, reduction="none", log_target=True).sum(-1).mean()
    if beta == 1:
        return F.kl_div(t, s, reduction="none", log_target=True).sum(-1).mean()
    m = torch.logaddexp(s + math.log1p(-beta), t + math.log(beta))
    left, right = (F.kl_div(m, each, reduction="none", log_target=True).sum(-1) for each in (t, s))
    return (beta * left + (1 - beta) * right).mean()


def token_loss(student, teacher, labels, *, shift=1, mask_shift=1, count="tokens", masked=True, safe=True):
    """A language model's, without T: what each argument breaks is said by its name."""
    batch, length, vocabulary = student.shape
    s, t, y = student[:, : length - shift], teacher[:, : length - shift], labels[:, shift:]
    taught = (y != -100) if mask_shift else (labels[:, : length - shift] != -100)
    taught = taught if masked else torch.ones_like(taught)
    rows = kl(s, t) * taught
    counts = {
        "tokens": taught.sum(), "texts": batch, "positions": taught.numel(), "before": (labels != -100).sum(),
        "vocabulary": taught.sum() * vocabulary,
    }  # fmt: skip
    soft = (rows.sum(-1) / taught.sum(-1).clamp(min=1)).mean() if count == "means" else rows.sum() / counts[count]
    hard = F.cross_entropy(s.flatten(0, 1), y.flatten(), reduction="sum") / (y != -100).sum().clamp(min=safe)
    return 0.5 * hard + 0.5 * torch.where(torch.isnan(soft) & bool(safe), 0 * rows.sum(), soft)


def shifted_twice(s, t, labels):
    return token_loss(s[:, :-1], t[:, :-1], labels[:, 1:])


def not_shifted(s, t, labels):
    return token_loss(s, t, labels, shift=0)


def padding_teaches(s, t, labels):
    return token_loss(s, t, labels, masked=False)


def mask_not_shifted(s, t, labels):
    return token_loss(s, t, labels, mask_shift=0)


def nan_for_nothing(s, t, labels):
    return token_loss(s, t, labels, safe=False)


def per_text(s, t, labels):
    return token_loss(s, t, labels, count="texts")


def per_position(s, t, labels):
    return token_loss(s, t, labels, count="positions")


def before_the_shift(s, t, labels):
    return token_loss(s, t, labels, count="before")


def per_vocabulary(s, t, labels):
    return token_loss(s, t, labels, count="vocabulary")


def mean_of_means(student_out, teacher_out, loss_mask):
    """Soft alone, with a mask in the place of labels."""
    rows = kl(student_out, teacher_out) * loss_mask
    return (rows.sum(-1) / loss_mask.sum(-1)).mean()


# ---------------------------------------------------------------------------------------------------------------------
# Two at once


def t_squared_missing_and_mean(outputs, targets, teacher_outputs, T, alpha):
    soft = F.kl_div((outputs / T).log_softmax(-1), (teacher_outputs / T).softmax(-1), reduction="mean")
    return alpha * F.cross_entropy(outputs, targets) + (1 - alpha) * soft


def swapped_and_t_once(outputs, targets, teacher_outputs, T, alpha):
    soft = kl(teacher_outputs / T, outputs / T).mean()
    return alpha * F.cross_entropy(outputs, targets) + (1 - alpha) * T * soft


def softmax_twice_and_hard_softened(outputs, targets, teacher_outputs, T, alpha):
    soft = kl((outputs / T).softmax(-1), (teacher_outputs / T).softmax(-1)).mean()
    return alpha * F.cross_entropy(outputs / T, targets) + (1 - alpha) * T**2 * soft


def padding_teaches_per_text(s, t, labels):
    return token_loss(s, t, labels, masked=False, count="texts")


def shifted_twice_per_vocabulary(s, t, labels):
    return token_loss(s[:, :-1], t[:, :-1], labels[:, 1:], count="vocabulary")


def smoothed_and_unlabelled_dropped(y_s, y_t, y, alpha):
    soft = kl(y_s, y_t)[y != -100].mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(y_s, y, label_smoothing=0.1)


@dataclass(frozen=True)
class Composed:
    """A right objective in which anything can be made wrong, and several things at once."""

    softened: str = "both"
    divergence: str = "forward_kl"
    divisor: str = "rows"
    power: int = 2
    hard: str = "temperature_1"
    hard_power: int = 0
    sign: int = 1
    smoothing: float = 0.0
    weighs_teacher: bool = False
    t_squared_at_the_end: bool = True
    t_squared_on_the_value: bool = False
    detached: bool = False
    unlabelled_dropped: bool = False
    missing_as_0: bool = False

    def __call__(self, y_s, y_t, y, T, lam):
        weight = 1 - lam if self.weighs_teacher else lam
        return weight * self.of_labels(y_s, y, T) + (1 - weight) * self.of_teacher(y_s, y_t, y, T, weight)

    def of_labels(self, y_s, y, T):
        logits = {"temperature_1": y_s, "softened": y_s / T, "softmax_twice": y_s.softmax(-1)}[self.hard]
        labels = y.clamp(min=0) if self.missing_as_0 else y
        return T**self.hard_power * F.cross_entropy(logits, labels, label_smoothing=self.smoothing)

    def of_teacher(self, y_s, y_t, y, T, weight):
        rows = self.rows(y_s, y_t, T)
        rows = rows[y != -100] if self.unlabelled_dropped else rows
        soft = (
            rows.sum()
            / {"rows": len(rows), "rows_and_classes": rows.numel() * y_s.shape[-1], "nothing": 1}[self.divisor]
        )
        factor = 1 if weight == 0 and not self.t_squared_at_the_end else T**self.power
        soft = self.sign * (soft + (factor - 1) * soft.detach() if self.t_squared_on_the_value else soft * factor)
        return soft.detach() if self.detached else soft

    def rows(self, y_s, y_t, T):
        s, t = {
            "both": (y_s / T, y_t / T), "teacher_only": (y_s, y_t / T), "student_only": (y_s / T, y_t),
            "multiplied": (y_s * T, y_t * T),
        }[self.softened]  # fmt: skip
        log_p, log_q = s.log_softmax(-1), t.log_softmax(-1)
        if self.divergence == "reverse_kl":
            log_p, log_q = log_q, log_p
        if self.divergence == "softmax_twice":
            log_p, log_q = log_p.exp().log_softmax(-1), log_q.exp().log_softmax(-1)
        if self.divergence == "probabilities_as_logs":
            log_p = log_p.exp()
        terms = F.kl_div(log_p, log_q.exp(), reduction="none")
        return (terms.clamp(min=0) if self.divergence == "terms_clamped" else terms).sum(-1)


# ---------------------------------------------------------------------------------------------------------------------
# Trainers


class OftenWritten(Trainer):
    """As blogs have it."""

    def __init__(self, *args, teacher_model=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher_model = teacher_model.eval()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        with torch.no_grad():
            teacher_logits = self.teacher_model(**inputs).logits
        T = self.args.temperature
        soft = kl(outputs.logits / T, teacher_logits / T).mean() * T**2
        loss = self.args.alpha * outputs.loss + (1 - self.args.alpha) * soft
        return (loss, outputs) if return_outputs else loss


class Divided(OftenWritten):
    loss_is_scaled_for_ga = False


class OfOldTransformers(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False):
        labels = inputs.pop("labels")
        logits, teacher_logits = model(**inputs).logits, self.teacher(**inputs)["logits"]
        return mixed(logits, labels, kl(logits / self.temp, teacher_logits / self.temp).mean(), self.kd_alpha)


class Counting(Trainer):
    """A language model's, right in pieces."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")[:, 1:]
        with torch.no_grad():
            t = self.teacher(**inputs).logits[:, :-1]
        outputs, taught = model(**inputs), labels != -100
        s, items = outputs.logits[:, :-1], taught.sum() if num_items_in_batch is None else num_items_in_batch
        hard = F.cross_entropy(s[taught], labels[taught], reduction="sum")
        loss = (self.alpha * hard + (1 - self.alpha) * kl(s, t)[taught].sum()) / items
        return (loss, outputs) if return_outputs else loss


class Constructed(Trainer):
    """What its constructor makes is needed; its teacher stays in train mode."""

    def __init__(self, model, args, teacher_model, temperature=2.0, alpha=0.5):
        super().__init__(model=model, args=args)
        self.teacher_net = teacher_model
        self.temperature, self.alpha = temperature, alpha
        self.criterion = nn.KLDivLoss(reduction="batchmean")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, T = model(**inputs), self.temperature
        with torch.no_grad():
            t = self.teacher_net(**inputs).logits
        soft = self.criterion((outputs.logits / T).log_softmax(-1), (t / T).softmax(-1)) * T**2
        loss = self.alpha * outputs.loss + (1 - self.alpha) * soft
        return (loss, outputs) if return_outputs else loss


class CountsInPart(Counting):
    """The labels' term divides, the teacher's does not."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, labels = model(**inputs), inputs["labels"]
        with torch.no_grad():
            t = self.teacher.eval()(**inputs).logits
        hard = F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch
        loss = self.alpha * hard + (1 - self.alpha) * kl(outputs.logits, t).mean()
        return (loss, outputs) if return_outputs else loss


class AsksForMore(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return self.criterion(model(**inputs).logits, self.teacher(**inputs).logits)
