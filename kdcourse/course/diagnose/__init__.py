"""What does this loss compute? Anybody's distillation loss, probed from outside and told in words.

    from kdcourse.course.diagnose import diagnose_loss

    print(diagnose_loss(my_loss))
    diagnose_loss(my_loss, roles={"teacher": "y_t"})["t_squared"].answer

`kdcourse diagnose package.module:my_loss` does the same in a shell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from kdcourse.course.diagnose.case import Case, find_case
from kdcourse.course.diagnose.foreign import ROLES, SECONDS, Asked, ForeignLoss, load
from kdcourse.course.diagnose.probes import of_unknown, probe
from kdcourse.course.diagnose.report import Finding, Report, in_order
from kdcourse.course.diagnose.terms import describe
from kdcourse.course.diagnose.trainers import (
    accumulation,
    evaluation,
    handling,
    is_trainer,
    loss_of,
    teacher_mode,
)
from kdcourse.course.exercises.keeping import world_as_it_was

__all__ = ["Finding", "Report", "diagnose_loss", "load"]

OF_TRAINERS = (accumulation, teacher_mode, handling, evaluation)
WANTED = {
    "teacher_probabilities": "The teacher's probabilities in the place of logits",
    "log_probabilities_and_probabilities": "The student's log-probabilities and the teacher's probabilities, as "
    "F.kl_div wants them",
    "log_probabilities": "Log-probabilities of both",
    "probabilities": "Probabilities of both",
}


def diagnose_loss(
    function: Any, roles: Mapping[str, str] | None = None, ask: Asked | None = None, seconds: float = SECONDS
) -> Report:
    """Find out what a distillation loss computes, by calling it.

    Args:
        function: it; an instance or a class with a `forward`; or a subclass of transformers' Trainer, for its
            `compute_loss`. The result may be the loss, or hold it: first, or under the name loss or total.
        roles: from student, teacher, labels, mask, temperature, weight, hard_weight, soft_weight or beta to the name
            of the argument that is it; only where the names do not say so.
        ask: whom to ask what an argument is; nobody if not given.
        seconds: how long one call of the loss may take.

    Raises:
        MisuseError: it is not known what an argument is, or the loss cannot be called.
    """
    with world_as_it_was():
        warnings.simplefilter("ignore")  # what PyTorch says of a loss is no business of ours
        loss = ForeignLoss(loss_of(function) if is_trainer(function) else function, roles, ask, seconds)
        case = find_case(loss)
        findings = [*_inputs(case), *(describe(case) if case.formula else of_unknown(case)), *probe(case)]
        if is_trainer(function):
            findings += [each for question in OF_TRAINERS for each in question(function, case)]
    return Report(loss.name, dict(loss.roles), in_order(findings))


def _inputs(case: Case) -> Iterator[Finding]:
    shape = "(texts, tokens, vocabulary)" if case.is_tokens else "(rows, classes)"
    taken = "; ".join(f"{name} is taken for {ROLES[role]}" for role, name in case.loss.roles.items())
    if case.loss.feed == "logits":
        yield Finding("inputs", "logits", f"Logits, {shape}. {taken}.", "02")
        return
    words = f"{WANTED[case.loss.feed]}, {shape}; whoever calls it takes the softmax, and softens. {taken}."
    yield Finding("inputs", case.loss.feed, words, "02", "note")
