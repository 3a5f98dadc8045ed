"""The few lines with which libraries compute their losses, so that what is said of them is tried without them.

Each is shortened to what its arguments here reach, and otherwise as it stands in the release that is named.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import nn


def trl_generalized_jsd(student_logits, teacher_logits, beta=0.5, temperature=1.0):
    """TRL 1.16.0, trl/experimental/gkd/gkd_trainer.py, `generalized_jsd_loss`, "batchmean" of rows; Apache-2.0."""
    student_log_probs = F.log_softmax(student_logits / temperature, dim=-1)
    teacher_log_probs = F.log_softmax(teacher_logits / temperature, dim=-1)
    if beta == 0:
        jsd = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    elif beta == 1:
        jsd = F.kl_div(teacher_log_probs, student_log_probs, reduction="none", log_target=True)
    else:
        beta = torch.tensor(beta, dtype=student_log_probs.dtype)
        both = torch.stack([student_log_probs + torch.log1p(-beta), teacher_log_probs + torch.log(beta)])
        mixture_log_probs = torch.logsumexp(both, dim=0)
        kl_teacher = F.kl_div(mixture_log_probs, teacher_log_probs, reduction="none", log_target=True)
        kl_student = F.kl_div(mixture_log_probs, student_log_probs, reduction="none", log_target=True)
        jsd = beta * kl_teacher + (1 - beta) * kl_student
    return jsd.sum() / jsd.size(0)


def liger_jsd(student_logits, teacher_logits, target, beta=0.5, temperature=1.0):
    """Liger 0.8.5, liger_kernel/chunked_loss, soft term alone, by the labels that count; BSD-2-Clause."""
    student_log_probs = F.log_softmax(student_logits / temperature, dim=-1)
    teacher_log_probs = F.log_softmax(teacher_logits / temperature, dim=-1)
    both = torch.stack([student_log_probs + math.log(1 - beta), teacher_log_probs + math.log(beta)], dim=0)
    log_mean_probs = torch.logsumexp(both, dim=0)
    student_kl = F.kl_div(log_mean_probs, student_log_probs, reduction="none", log_target=True)
    teacher_kl = F.kl_div(log_mean_probs, teacher_log_probs, reduction="none", log_target=True)
    jsd_loss = (beta * teacher_kl + (1 - beta) * student_kl).sum(dim=-1)
    return jsd_loss.masked_fill(target == -100, 0.0).sum() / (target != -100).sum().clamp(min=1)


def distillkit_dense_kl(student_logits, teacher_logits, labels, temperature=1.0):
    """DistillKit 1.0.0 at a61c2e7, distillkit/lossfuncs/kl.py, masked as its trainer does it; Apache-2.0."""
    if labels.ndim == 1:
        raise ValueError("(texts, tokens, vocabulary) is asked for")
    student_logprobs = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher_logprobs = torch.log_softmax(teacher_logits.float() / temperature, dim=-1)
    kl_per_element = F.kl_div(student_logprobs, teacher_logprobs, reduction="none", log_target=True)
    mask = labels >= 0
    return (kl_per_element.sum(-1) * mask.float()).sum().to(student_logits.dtype) * temperature**2 / mask.float().sum()


def distillkit_sparse_kl(student_logits, teacher_logits, eps=1e-8):
    """DistillKit 1.0.0 at a61c2e7, `sparse_kl_div_inner` with SYMMETRIC_UNIFORM at T = 1, of a top 3; Apache-2.0."""
    values, ids = teacher_logits.log_softmax(-1).topk(3)
    student = student_logits.gather(-1, ids) - torch.logsumexp(student_logits.float(), dim=-1, keepdim=True)
    probs = values.exp()
    inner_sum = (probs * (values - student)).sum(-1)
    log_teacher_missing = torch.log1p(-probs.float().sum(-1).clamp(min=eps, max=1 - eps))
    log_student_missing = torch.log1p(-student.float().exp().sum(-1).clamp(min=eps, max=1 - eps))
    missing_kl = log_teacher_missing.exp() * (log_teacher_missing - log_student_missing)
    return (inner_sum + missing_kl).mean()


class TorchdistillKD(nn.KLDivLoss):
    """torchdistill 1.1.5, torchdistill/losses/mid_level.py, `KDLoss` of logits; MIT."""

    def __init__(self, temperature, alpha):
        super().__init__(reduction="batchmean")
        self.temperature, self.alpha, self.beta = temperature, alpha, 1 - alpha
        self.cross_entropy_loss = nn.CrossEntropyLoss()

    def forward(self, student_logits, teacher_logits, targets):
        soft_loss = super().forward(
            torch.log_softmax(student_logits / self.temperature, dim=1),
            torch.softmax(teacher_logits / self.temperature, dim=1),
        )
        if self.alpha is None or self.alpha == 0 or targets is None:
            return soft_loss
        hard_loss = self.cross_entropy_loss(student_logits, targets)
        return self.alpha * hard_loss + self.beta * (self.temperature**2) * soft_loss


def modelopt_kd(logits_s, logits_t, temperature=1.0):
    """ModelOpt 0.47.0, modelopt/torch/distill/losses.py, `LogitsDistillationLoss` as it is by default; Apache-2.0."""
    soft_log_probs = F.log_softmax(logits_s / temperature, dim=-1)
    soft_targets = F.softmax(logits_t / temperature, dim=-1)
    return F.kl_div(soft_log_probs, soft_targets.detach(), reduction="mean") * temperature**2
