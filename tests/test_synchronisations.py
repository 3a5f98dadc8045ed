"""How often a step makes the program wait for the device: twice for checks, whatever is checked."""

import pytest
import torch
from shapes import make_collator, make_model, make_rows, make_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from kdcourse import distillation_loss, lm_distillation_loss
from kdcourse.topk import top_k

LOOKS_AT_A_VALUE = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim"}
"""What takes a value, or a size that depends on values, from the device to the program: `if tensor`, `.item()`, a mask
as an index."""


class Waits(TorchDispatchMode):
    """Counts the operations for which a program waits on a GPU; they are the same on a CPU, where nobody waits."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        by_mask = function.name().startswith("aten::index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1] or ()
        )
        if function.name() in LOOKS_AT_A_VALUE or by_mask:
            self.names.append(function.name())
        return function(*args, **kwargs or {})


def waits_of(call):
    with Waits() as waits:
        call()
    return waits.names


ROWS = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, -100, 2, 3, 4])
PAIR = torch.tensor([4, 6])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_items": PAIR},
        {"num_items": torch.tensor(5)},
        {"temperature": 0.5},
        {"label_smoothing": 0.1, "class_weights": torch.ones(5)},
        {"divergence": "jensen_shannon"},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_a_classifiers_step_waits_at_most_twice(options):
    """Eight waits for one loss: on a GPU each empties the queue of work."""
    student, teacher = ROWS
    options = {"alpha": 0.5, "temperature": 2.0} | options
    assert len(waits_of(lambda: distillation_loss(student, teacher, LABELS, **options))) <= 2


def test_a_top_k_teacher_waits_no_longer():
    """The path that is to save work, and waits more."""
    student, teacher = ROWS
    kept = top_k(teacher, 2, 2.0)
    assert len(waits_of(lambda: distillation_loss(student, kept, LABELS, alpha=0.5, temperature=2.0))) <= 2


def test_a_language_models_step_waits_once_more_to_select_its_tokens():
    """Eleven waits: a mask as an index asks the device three times how many tokens it holds."""
    student, teacher = ROWS.reshape(2, 2, 3, 5)
    labels = torch.tensor([[0, 1, 2], [-100, 3, 4]])
    call = lambda: lm_distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0, num_items=PAIR)  # noqa: E731
    assert waits_of(call).count("aten::nonzero") == 1
    assert len(waits_of(call)) <= 3


@pytest.mark.parametrize("shape", ["bert-classifier", "gpt2-lm"])
def test_the_trainer_adds_none(shape, tmp_path):
    """Rows that are counted on the program's side; a look that is for the first batch, at each."""
    trainer = make_trainer(shape, tmp_path)
    batch = make_collator(shape)([dict(row) for row in make_rows(shape)])
    (_, counts) = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    counted = waits_of(lambda: trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu")))
    model = trainer.model.train()
    alone = waits_of(lambda: model(**{name: part for name, part in batch.items() if name != "labels"}))
    teacher = make_model(shape, seed=1).eval()
    taught = waits_of(lambda: teacher(**{name: part for name, part in batch.items() if name != "labels"}))
    trainer.compute_loss(model, batch, num_items_in_batch=counts)  # the first batch is looked at more closely
    step = waits_of(lambda: trainer.compute_loss(model, batch, num_items_in_batch=counts))
    checks = 2 if shape.endswith("classifier") else 4  # one for each chunk of a language model's tokens: here is one
    assert counted == []
    assert len(step) <= len(alone) + len(taught) + checks
