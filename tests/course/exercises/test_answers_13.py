"""First looks at a run, for 13.first_look, that no catalogue knows."""

import pytest
import torch

from kdcourse.course.exercises import find_exercise
from kdcourse.course.exercises.diagnosis import diagnose

FIRST_LOOK = find_exercise("13.first_look")


def share_right(look):
    known = look.labels.ge(0)
    return (look.teacher_logits.argmax(1)[known] == look.labels[known]).double().mean()


def by_entropy(look):
    """Sureness by entropy, accuracy by a z-score; another order of the questions."""
    log_p = look.teacher_logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).mean() / torch.tensor(float(log_p.shape[1])).log()
    if (look.teacher_logits - look.asked_again).abs().max() > 1e-3:
        return "a teacher in training mode"
    if set(look.labels.unique().tolist()) - {-100, *range(log_p.shape[1])}:
        return "labels that are no classes"
    if entropy > 0.9:
        return "a head that is new"
    if share_right(look) < 0.8 * look.accuracy:
        return "answers of other sentences"
    return "answers that are nearly hard" if entropy < 0.1 else "healthy"


def by_loss(look):
    """The teacher's own cross-entropy in the place of its accuracy: what is sure and wrong is dear."""
    named = by_entropy(look)
    if named not in {"healthy", "answers of other sentences"}:
        return named
    loss = torch.nn.functional.cross_entropy(look.teacher_logits, look.labels)
    return "answers of other sentences" if loss > 0.8 else "healthy"


@pytest.mark.parametrize("answer", [by_entropy, by_loss], ids=lambda answer: answer.__name__)
def test_another_sound_look_passes(answer):
    """A diagnosis that is refused for the measure that it takes."""
    assert diagnose(FIRST_LOOK, answer).passed


@pytest.mark.parametrize("seed", range(60))
def test_the_reference_names_nearly_every_run(seed):
    """Runs that nobody could name: a fault that leaves no trace."""
    named = [FIRST_LOOK.reference(FIRST_LOOK.run(fault, seed)) for fault in FIRST_LOOK.faults]
    assert named == list(FIRST_LOOK.faults)


def test_a_guess_is_told_what_it_takes_for_what():
    """A learner who hears "wrong"."""
    found = repr(diagnose(FIRST_LOOK, lambda look: "healthy" if share_right(look) > 0.7 else "a head that is new"))
    assert "answers of other sentences:   0 of 10 named; taken for 'a head that is new' (10)" in found
