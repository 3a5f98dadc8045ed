"""One optimizer step, computed in float64 from the formulas: what the trainer is held against.

The models are asked directly, with features given by hand. Nothing here comes from the package.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import objective_reference
import torch
import torch.nn.functional as F  # noqa: N812

from census.architectures import DECODERS, FRAMES, LANGUAGE, MASKED, TOKENS

ALPHA, TEMPERATURE, RATE = 0.4, 2.0, 0.1


class NoObjectiveError(Exception):
    """The outputs are not the logits of the task."""


class Step(NamedTuple):
    losses: dict[str, float]
    changes: dict[str, torch.Tensor]


def in_float64(model):
    model = copy.deepcopy(model).double()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the fast one knows no float64
    return model


def step(architecture, student, teacher, batch) -> Step:
    """Student and teacher change in this: pass copies."""
    labels = batch["labels"]
    features = of_precision(features_of(architecture, student, batch), student)
    student.train()
    logits = logits_of(student(**features), labels)
    with torch.no_grad():
        answers = logits_of(teacher.eval()(**features), labels)
    objective = OBJECTIVES.get(architecture.task, objective_reference.objective)(
        *(each.detach().double().numpy() for each in (logits, answers)), labels.numpy(),
        alpha=ALPHA, temperature=TEMPERATURE,
    )  # fmt: skip
    balance = balance_of(student, features, labels) if architecture.setting.startswith("output_router") else 0.0
    ((logits * torch.from_numpy(objective.total.gradient)).sum() + balance).backward()
    losses = {"hard_loss": objective.hard.value, "soft_loss": objective.soft.value}
    changes = {
        name: -RATE * (torch.zeros_like(weight) if weight.grad is None else weight.grad)
        for name, weight in student.named_parameters()
    }
    return Step(losses | {"loss": objective.total.value + float(balance)}, changes)


def features_of(architecture, model, batch):
    """What a model reads. Of labels, an encoder-decoder makes by itself what its decoder reads."""
    features = {name: value for name, value in batch.items() if name != "labels"}
    if architecture.task not in DECODERS:
        return features
    labels = batch["labels"].clone()
    if architecture.model_type == "fsmt":  # its decoder would read the text of the encoder, and it overwrites labels
        features["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels.clone())
    return features | {"labels": labels}


def of_precision(features, model):
    precision = next(model.parameters()).dtype
    return {name: value.to(precision) if value.is_floating_point() else value for name, value in features.items()}


def logits_of(outputs, labels):
    logits = getattr(outputs, "logits", None)
    if logits is None or logits.shape[:-1] != labels.shape:
        raise NoObjectiveError
    return logits


def balance_of(student, features, labels):
    """What the student's own loss holds beside cross-entropy: the loss of its routers, in its weight."""
    outputs = student(**features, labels=labels)
    logits, labels = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return outputs.loss - F.cross_entropy(logits.double(), labels)


def token_objective(student, teacher, labels, **settings):
    """The objective over the rows of (B, T, C) that have a label, each compared where it is."""
    where = labels != objective_reference.IGNORED
    inside = objective_reference.objective(student[where], teacher[where], labels[where], **settings)

    def spread(term):
        gradient = 0 * student
        gradient[where] = term.gradient
        return term._replace(gradient=gradient)

    return objective_reference.Objective(*map(spread, inside))


OBJECTIVES = dict.fromkeys([TOKENS, FRAMES, MASKED, *DECODERS], token_objective) | {
    LANGUAGE: objective_reference.lm_objective
}
