"""What the trainer makes of an architecture: the right step, a sentence, or neither."""

from __future__ import annotations

import copy
import tempfile
import traceback
from inspect import Parameter, Signature
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import kdcourse
from census import by_hand
from census.architectures import DECODERS, FRAMES, LANGUAGE, MASKED, TOKENS
from census.by_hand import NoObjectiveError, features_of, of_precision
from census.examples import LENGTHS, POSITIONS, SAID, collate, make_rows, too_long
from census.shrinking import WORDS, tiny_config
from kdcourse import DistillationArguments, DistillationTrainer

EQUAL, REFUSED, NOT_BUILT = "equal", "refused", "not built"
DIFFERENT, CRASHED = "different", "crashed"
"""What must not be."""

SEEN = "seen"
"""Of a head: the step is computed without logits."""

CLOSE, LOSS_CLOSE = 1e-3, 1e-4
"""Relative errors that float32 explains, of the change of all weights and of a loss."""

MATTERS = 1e-3
"""A column is read if without it the teacher's logits move by more."""


class Verdict(NamedTuple):
    verdict: str
    reason: str = ""
    reads: tuple[str, ...] = ()
    """The columns that matter to the model as a teacher."""
    head: str = ""
    """Of a language model that is trained: SEEN, or why its logits are computed whole."""


class WrongError(Exception):
    """The trainer did something else than what is right."""


def judge(architecture) -> Verdict:
    try:
        student, teacher = make_model(architecture, seed=0), make_model(architecture, seed=1)
    except Exception as error:
        return Verdict(NOT_BUILT, in_short(error))
    if words := refusal(student, teacher):
        return Verdict(REFUSED, words)
    try:
        rows = make_rows(architecture, student)
        steps = right_steps(architecture, student, teacher, collate(rows))
    except Exception as error:
        return Verdict(NOT_BUILT, in_short(error))
    try:
        head = makes_one_of(steps, student, teacher, rows)
        if head == SEEN:  # and the same, in the other way
            makes_one_of(steps, student, teacher, rows, fused=False)
        looks_back_only(architecture, teacher, collate(rows))
        teaches_another(architecture, teacher, rows)
        refuses_what_is_too_long(architecture, student, teacher)
    except WrongError as error:
        return Verdict(DIFFERENT, str(error))
    except Exception as error:
        return Verdict(REFUSED, str(error)) if is_a_sentence_of_ours(error) else Verdict(CRASHED, in_short(error))
    return Verdict(EQUAL, reads=what_is_read(architecture, teacher, collate(rows)), head=head)


def refusal(student, teacher):
    """What the trainer says to a pair, before it sees any rows; nothing, if it takes them."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            arguments = DistillationArguments(folder, report_to="none", use_cpu=True)
            DistillationTrainer(copy.deepcopy(student), arguments, teacher=copy.deepcopy(teacher))
    except Exception as error:
        return str(error) if is_a_sentence_of_ours(error) else ""
    return ""


def make_model(architecture, seed):
    """Random weights of a size that makes every layer matter, and no dropout."""
    torch.manual_seed(seed)
    model = architecture.model_class(tiny_config(architecture)).float()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for weight in filter(torch.Tensor.numel, model.parameters()):
            noise = torch.randn_like(weight)
            weight.copy_(noise * weight[0].numel() ** -0.5 if weight.ndim > 1 else weight + 0.1 * noise)
    return model


def right_steps(architecture, student, teacher, batch):
    """The step by hand in float64, and in float32 for models that then compute something else, such as other hashes.

    None of them, where the outputs are not such as the task's objective compares.
    """
    steps, failures = [], []
    for prepare in (by_hand.in_float64, copy.deepcopy):
        try:
            step = by_hand.step(architecture, prepare(student), prepare(teacher), batch)
        except NoObjectiveError:
            return []
        except Exception as error:  # a kernel or a mask that knows no float64, or a model that does not work
            failures.append(error)
        else:
            steps += [step] if all(change.isfinite().all() for change in step.changes.values()) else []
    if not steps:
        raise failures[-1] if failures else ValueError("Its gradients are not numbers.")
    return steps


def makes_one_of(steps, student, teacher, rows, **settings):
    """Require that the trainer makes the right step; whether it could do without the logits of both models."""
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    trained = copy.deepcopy(student)
    trainer = train(trained, teacher, rows, **settings)
    logged = trainer.state.log_history[0]
    changes = {name: weight.detach() - before[name] for name, weight in trained.named_parameters()}
    if not steps:
        raise WrongError("its outputs are not those of the task, and it is trained")
    wrong = [words for step in steps if (words := difference(step, logged, changes))]
    if len(wrong) == len(steps):
        raise WrongError(wrong[0])
    return head_of(trainer)


def head_of(trainer):
    looks = (trainer.students_head, trainer.teachers_head)
    return next((look.reason for look in looks if look.reason), SEEN if all(look.is_seen for look in looks) else "")


def difference(step, logged, changes):
    """What is wrong with a step of the trainer; nothing, if it is the one computed by hand."""
    for name, right in step.losses.items():
        if not is_close(logged.get(name, 0.0), right):
            return f"{name} is {logged.get(name, 0.0):.4f} instead of {right:.4f}"
    ours, theirs = (torch.cat([each[name].flatten().double() for name in changes]) for each in (changes, step.changes))
    error = float((ours - theirs).norm() / theirs.norm())
    return "" if error < CLOSE else f"the weights move otherwise: relative error {error:.1e}"


def is_close(loss, right):
    return abs(loss - right) <= LOSS_CLOSE * (1 + abs(right))


def train(student, teacher, rows, **settings):
    """One step on all rows."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationArguments(
            folder, max_steps=1, per_device_train_batch_size=len(rows), optim="sgd", learning_rate=by_hand.RATE,
            max_grad_norm=0.0, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
            alpha=by_hand.ALPHA, temperature=by_hand.TEMPERATURE, **settings,
        )  # fmt: skip
        trainer = DistillationTrainer(student, arguments, teacher=teacher, train_dataset=rows, data_collator=collate)
        trainer.train()
    return trainer


class Plain(nn.Module):
    """A student of somebody's own, which names one column and gives the same answers whatever is in it."""

    def __init__(self, column, shape):
        super().__init__()
        self.answers = nn.Parameter(torch.randn(shape))

        def forward(**_):
            return 1 * self.answers

        forward.__signature__ = Signature([Parameter(column, Parameter.POSITIONAL_OR_KEYWORD)])
        self.forward = forward


TASKS = {
    TOKENS: "token classifier", FRAMES: "token classifier", LANGUAGE: "language model", MASKED: "masked language model",
    **dict.fromkeys(DECODERS, "encoder-decoder"),
}  # fmt: skip


def teaches_another(architecture, teacher, rows):
    """A teacher reads what its student does not name."""
    batch = collate(rows)
    answers = ask(architecture, teacher, batch)
    student = Plain(teacher.main_input_name, answers.shape)
    objective = by_hand.OBJECTIVES.get(architecture.task, by_hand.objective_reference.objective)(
        student.answers.detach().double().numpy(), answers.double().numpy(), batch["labels"].numpy(),
        alpha=by_hand.ALPHA, temperature=by_hand.TEMPERATURE,
    )  # fmt: skip
    in_order = {"train_sampling_strategy": "sequential", "task": TASKS.get(architecture.task, "classifier")}
    soft = train(student, teacher, rows, **in_order).state.log_history[0]["soft_loss"]
    if not is_close(soft, objective.soft.value):
        raise WrongError(f"it teaches another otherwise: soft_loss is {soft:.4f} instead of {objective.soft.value:.4f}")


def ask(architecture, teacher, batch):
    with torch.no_grad():
        return teacher.eval()(**of_precision(features_of(architecture, teacher, batch), teacher)).logits


def what_is_read(architecture, teacher, batch):
    answers = ask(architecture, teacher, batch)
    names = [name for name in sorted(batch) if name != "labels"]
    return tuple(name for name in names if matters(name, architecture, teacher, batch, answers))


def matters(name, architecture, teacher, batch, answers):
    try:
        without = ask(architecture, teacher, {other: value for other, value in batch.items() if other != name})
    except Exception:  # it cannot do without
        return True
    return without.shape != answers.shape or not (without - answers).abs().max() < MATTERS


def looks_back_only(architecture, teacher, batch):
    """A language model that sees the token which it is to predict is always right; so is a decoder."""
    if architecture.task == LANGUAGE:
        column, place, lengths = "input_ids", -1, LENGTHS
    elif architecture.task in DECODERS:  # the last token but one: its decoder reads it at the end
        column, place, lengths = "labels", -2, SAID
    else:
        return
    whole = [row for row, length in enumerate(lengths) if length == max(lengths)]  # padding sees what it likes
    other_ends = dict(batch, **{column: batch[column].clone()})
    other_ends[column][:, place] = WORDS - 1
    moved = (ask(architecture, teacher, other_ends) - ask(architecture, teacher, batch))[whole, :-1].abs().max()
    if not moved < MATTERS:
        raise WrongError(f"it sees the tokens that it is to predict: logits before the last token move by {moved:.2g}")


def refuses_what_is_too_long(architecture, student, teacher):
    """A text beyond a model's positions is read, where the model can, or refused; it is no index error."""
    for rows in too_long(architecture, student):
        try:
            copy.deepcopy(student)(**features_of(architecture, student, collate(rows)))
            can = True
        except Exception:
            can = False
        try:
            train(student, teacher, rows)
        except Exception as error:
            if can or not is_a_sentence_of_ours(error):
                raise WrongError(f"a text of {POSITIONS + 20} tokens: {in_short(error)}") from error


def is_a_sentence_of_ours(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = Path(where.filename).is_relative_to(Path(kdcourse.__file__).parent)
    return isinstance(error, (ValueError, TypeError)) and is_ours and (where.line or "").startswith("raise ")


def in_short(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({Path(where.filename).name})"
