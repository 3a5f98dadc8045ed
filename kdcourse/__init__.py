"""Knowledge distillation, derived, broken, measured and repaired.

The names below are imported when they are first used: neither `import kdcourse` nor the command line waits for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdcourse.lazy import lazily

if TYPE_CHECKING:
    from kdcourse.checks import MismatchError
    from kdcourse.compat import check_classifiers, check_language_models
    from kdcourse.divergence import forward_kl, jensen_shannon, reverse_kl
    from kdcourse.features import Feature
    from kdcourse.fused import fused_lm_distillation_loss
    from kdcourse.loss import (
        DistillationLoss,
        distillation_loss,
        lm_distillation_loss,
        token_distillation_loss,
    )
    from kdcourse.on_policy import OnPolicy
    from kdcourse.trainer import DistillationArguments, DistillationTrainer

__version__ = "0.1.0"

_HOMES = {
    "MismatchError": "checks",
    "check_classifiers": "compat",
    "check_language_models": "compat",
    "forward_kl": "divergence",
    "jensen_shannon": "divergence",
    "reverse_kl": "divergence",
    "Feature": "features",
    "fused_lm_distillation_loss": "fused",
    "DistillationLoss": "loss",
    "distillation_loss": "loss",
    "lm_distillation_loss": "loss",
    "token_distillation_loss": "loss",
    "OnPolicy": "on_policy",
    "DistillationArguments": "trainer",
    "DistillationTrainer": "trainer",
}

__all__ = [
    "DistillationArguments",
    "DistillationLoss",
    "DistillationTrainer",
    "Feature",
    "MismatchError",
    "OnPolicy",
    "check_classifiers",
    "check_language_models",
    "distillation_loss",
    "forward_kl",
    "fused_lm_distillation_loss",
    "jensen_shannon",
    "lm_distillation_loss",
    "reverse_kl",
    "token_distillation_loss",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
