"""The signatures that people give their losses: names, orders, keyword-only, settings in a constructor."""

import inspect
from types import SimpleNamespace

import torch
from torch import nn

NAMES = {
    "student": ("student_logits", "outputs", "y_s", "logits_s", "preds", "s", "student_outputs", "stu"),
    "teacher": ("teacher_logits", "soft_targets", "y_t", "logits_t", "teacher_outputs", "tea", "teacher_preds"),
    "labels": ("labels", "targets", "y", "gt", "target", "hard_labels"),
    "temperature": ("T", "temperature", "tau", "temp", "kd_temperature"),
    "weight": ("alpha", "lam", "kd_ratio", "lambda_", "gamma", "w"),
    "hard_weight": ("ce_weight", "hard_weight", "w_ce", "lambda_ce"),
    "soft_weight": ("kd_weight", "soft_weight", "w_kd", "lambda_kd"),
    "beta": ("beta", "jsd_beta"),
    "classes": ("allowed", "class_mask", "valid_classes"),
    "vocabulary": ("tokens", "vocab_size", "shared_vocabulary"),
}
"""What people call them: any one of each role goes with any of the others."""
TENSORS = ("student", "teacher", "labels", "classes", "vocabulary")
WRAPPED = {
    "number": lambda value: value,
    "dictionary": lambda value: {"loss": value, "logits": torch.zeros(2, 3)},
    "tuple": lambda value: (value, torch.zeros(())),
    "object": lambda value: SimpleNamespace(loss=value, other=None),
}
KINDS = ("positional", "keyword-only", "class")


def signed(of_roles, names, kind):
    """A loss of others.

    Args:
        of_roles: a function that takes keywords by their roles.
        names: from each role to the name of the argument, in the order of the arguments.
        kind: one of KINDS; a class has its settings in the constructor, and its tensors in `forward`.
    """
    roles = {name: role for role, name in names.items()}

    def call(given):
        return of_roles(**{roles[name]: value for name, value in given.items()})

    def named(*values, **keywords):
        return call(dict(zip(roles, values, strict=False)) | keywords)

    tensors = [name for name, role in roles.items() if role in TENSORS]
    if kind != "class":
        named.__signature__ = _signature(roles, keyword_only=kind == "keyword-only")
        named.__name__ = named.__qualname__ = f"loss({', '.join(roles)})"
        return named

    class Loss(nn.Module):
        __signature__ = _signature([name for name in roles if name not in tensors])

        def __init__(self, **settings):
            super().__init__()
            self.given = settings

        def forward(self, *values, **keywords):
            return call(self.given | dict(zip(tensors, values, strict=False)) | keywords)

    Loss.forward.__signature__ = _signature(["self", *tensors])
    Loss.__name__ = Loss.__qualname__ = f"Loss({', '.join(roles)})"
    return Loss


def _signature(names, keyword_only=False):
    kind = inspect.Parameter.KEYWORD_ONLY if keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def at_random(of_roles, roles, random):
    """The loss under names, in an order and of a kind that a generator draws."""
    order = random.sample(list(roles), len(roles))
    return signed(of_roles, {role: random.choice(NAMES[role]) for role in order}, random.choice(KINDS))
