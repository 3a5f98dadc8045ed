"""A training run that may be killed in the middle of an epoch.

Arguments: folder; `kill`, `resume` or `whole`; and perhaps `scheduled`, for alpha and temperature that change, or
`grouped`, for rows of one length together, or `writing`, for a language model that writes half of its texts itself.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from shapes import make_model, make_prompted_rows, make_rows, make_trainer, weights_of
from transformers import TrainerCallback

from kdcourse import OnPolicy
from kdcourse.schedules import Schedule

DIES_AT = 8


class Die(TrainerCallback):
    """SIGKILL between two micro-batches of a step, after the last checkpoint: no handler runs, nothing is saved."""

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, mode, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    torch.set_num_threads(1)
    writes = "writing" in options
    shape = "gpt2-lm" if writes else "gpt2-classifier"
    # 24: the checkpoint is in the second epoch
    rows = make_prompted_rows(64) if writes else make_rows(shape, 24 if "grouped" in options else 64)
    trainer = make_trainer(
        shape, folder, student=make_model(shape, dropout=0.1), rows=rows, optim="adamw_torch",
        per_device_train_batch_size=2, gradient_accumulation_steps=3, max_steps=15, save_strategy="steps", save_steps=5,
        learning_rate=1e-2, max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=3,
        train_sampling_strategy="group_by_length" if "grouped" in options else "random",
        on_policy=OnPolicy(share=0.5, max_new_tokens=5) if writes else None,
    )  # fmt: skip
    if "scheduled" in options:
        trainer.add_callback(Schedule(alpha=lambda progress: progress, temperature=lambda progress: 4 - 3 * progress))
    if mode == "kill":
        trainer.add_callback(Die())
    trainer.train(resume_from_checkpoint=mode == "resume")
    logs = [log for log in trainer.state.log_history if "soft_loss" in log]
    torch.save({"weights": weights_of(trainer.model), "logs": logs}, folder / "end.pt")
