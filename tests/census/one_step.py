"""One step of an architecture, by the trainer and by hand."""

from __future__ import annotations

import copy
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

import objective_reference
import torch
import torch.nn.functional as F  # noqa: N812

import kdcourse
from census.examples import collate, make_rows
from census.shrinking import tiny_config
from kdcourse import DistillationArguments, DistillationTrainer

ALPHA, TEMPERATURE, RATE = 0.4, 2.0, 0.1
STUDENT, TEACHER = 0, 1

EQUAL, REFUSED, NOT_BUILT, CRASHED, DIFFERENT = "equal", "refused", "not built", "crashed", "different"


class Verdict(NamedTuple):
    verdict: str
    reason: str


def judge(architecture) -> Verdict:
    try:
        student, teacher = (make_model(architecture, seed) for seed in (STUDENT, TEACHER))
        rows = make_rows(architecture, student)
        try:
            by_hand = step_by_hand(architecture, in_float64(student), in_float64(teacher), rows)
        except (RuntimeError, TypeError):  # a kernel that knows no float64
            by_hand = step_by_hand(architecture, copy.deepcopy(student), copy.deepcopy(teacher), rows)
    except Exception as error:
        return Verdict(NOT_BUILT, brief(error))
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    try:
        logged = step_of_the_trainer(student, teacher, rows)
    except Exception as error:
        return Verdict(REFUSED if is_in_our_words(error) else CRASHED, brief(error))
    changes = {name: weight.detach() - before[name] for name, weight in student.named_parameters()}
    if isinstance(by_hand, str):
        return Verdict(DIFFERENT, by_hand + f" {logged}")
    return compare(by_hand, logged, changes)


def brief(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return (
        text
        if is_in_our_words(error)
        else f"{type(error).__name__}: {text[:300]} ({Path(where.filename).name}:{where.lineno})"
    )


def is_in_our_words(error):
    """Whether the package raised it, not something that the package called."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = Path(where.filename).is_relative_to(Path(kdcourse.__file__).parent)
    return isinstance(error, (ValueError, TypeError)) and is_ours and (where.line or "").startswith("raise ")


def make_model(architecture, seed):
    torch.manual_seed(seed)
    model = architecture.model_class(tiny_config(architecture))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
            else:
                weight.add_(0.1 * torch.randn_like(weight))
    return model.float()


def in_float64(model):
    model = copy.deepcopy(model).double()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the fast one knows no float64
    return model


class Step(NamedTuple):
    losses: dict
    changes: dict


def step_by_hand(architecture, student, teacher, rows):
    batch = collate(rows)
    labels = batch.pop("labels")
    student, teacher = student.train(), teacher.eval()
    precision = next(student.parameters()).dtype
    batch = {name: column.to(precision) if column.is_floating_point() else column for name, column in batch.items()}
    outputs = student(**batch)
    with torch.no_grad():
        answers = first_logits(teacher(**batch))
    logits = first_logits(outputs)
    if logits is None:
        return "No logits."
    expected = expected_shape(architecture.task, labels)
    if logits.shape[:-1] != expected:
        return f"Logits {tuple(logits.shape)} for labels {tuple(labels.shape)}."
    values = [each.detach().double().numpy() for each in (logits, answers)]
    objective = OBJECTIVES.get(architecture.task, objective_reference.objective)(
        *values, labels.numpy(), alpha=ALPHA, temperature=TEMPERATURE
    )
    router = own_extra(architecture, student, batch, labels)
    (logits * torch.from_numpy(objective.total.gradient)).sum().add(router).backward()
    losses = {
        "loss": objective.total.value + float(router),
        "hard_loss": objective.hard.value,
        "soft_loss": objective.soft.value,
    }
    changes = {
        name: -RATE * weight.grad if weight.grad is not None else torch.zeros_like(weight)
        for name, weight in student.named_parameters()
    }
    return Step(losses, changes)


def own_extra(architecture, student, batch, labels):
    """What the model's own loss holds beside cross-entropy."""
    try:
        outputs = student(**batch, labels=labels)
    except Exception:
        return 0.0
    if getattr(outputs, "loss", None) is None:
        return 0.0
    logits = outputs.logits.double()
    alignments = [(logits.flatten(0, -2), labels.flatten())]
    if architecture.task == "causal language model":  # some decoders leave the shift to whoever feeds them
        alignments.append((logits[:, :-1].flatten(0, -2), labels[:, 1:].flatten()))
    extra = min((outputs.loss - F.cross_entropy(*flat) for flat in alignments), key=torch.abs)
    return extra if extra.abs() > 1e-5 else 0.0


def token_objective(student, teacher, labels, **settings):
    where = labels != -100
    inside = objective_reference.objective(student[where], teacher[where], labels[where], **settings)

    def spread(term):
        gradient = 0 * student
        gradient[where] = term.gradient
        return term._replace(gradient=gradient)

    return objective_reference.Objective(*map(spread, inside))


OBJECTIVES = {
    "token classification": token_objective,
    "audio frame classification": token_objective,
    "causal language model": objective_reference.lm_objective,
}


def expected_shape(task, labels):
    return labels.shape


def first_logits(outputs):
    return getattr(outputs, "logits", None)


def step_of_the_trainer(student, teacher, rows):
    with tempfile.TemporaryDirectory() as folder:
        trainer = DistillationTrainer(
            student,
            DistillationArguments(
                folder, max_steps=1, per_device_train_batch_size=len(rows), optim="sgd", learning_rate=RATE,
                max_grad_norm=0.0, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
                use_cpu=True, alpha=ALPHA, temperature=TEMPERATURE,
            ),
            teacher=teacher,
            train_dataset=rows,
            data_collator=collate,
        )  # fmt: skip
        trainer.train()
    return trainer.state.log_history[0]


def compare(by_hand, logged, changes):
    for name, right in by_hand.losses.items():
        if not abs(logged.get(name, 0.0) - right) <= 1e-4 * abs(right) + 1e-5:
            return Verdict(DIFFERENT, f"{name} is {logged.get(name)}, by hand {right}")
    ours = torch.cat([changes[name].flatten() for name in changes]).double()
    right = torch.cat([by_hand.changes[name].flatten() for name in changes])
    error = (ours - right).norm() / right.norm()
    return Verdict(EQUAL if error < 1e-3 else DIFFERENT, f"weights {error:.1e}")
