"""How much memory one step of a language model's distillation takes, with its logits and without (lab 08).

A process of its own does the step, since what a process has once had it rarely gives back: `peak_of_a_step` starts this
module, which prints one line of JSON. It is the trainer's step, optimizer included, with a teacher that reads along.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 1800
"""After which a step is given up."""

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_of_a_step(
    *,
    fused: bool,
    model: Path | None = None,
    layers: Sequence[int] | None = None,
    tokens: int = 1024,
    length: int = 128,
    **settings: Any,
) -> dict[str, int]:
    """Bytes that a process with teacher and student has before a step (`before`), and the most in it (`peak`).

    Args:
        fused: without the logits.
        model: folder of the teacher; SmolLM2 if None.
        layers: those that the student keeps; all if None.
        tokens: of the step, in texts of `length`.
        settings: more of `DistillationArguments`, such as gradient_checkpointing.

    Raises:
        RuntimeError: the process failed; it says how.
    """
    from kdcourse.labs import assets

    case = {
        "fused": fused, "model": str(model or assets.locate("smollm2")), "tokens": tokens, "length": length,
        "layers": None if layers is None else list(layers), "settings": settings,
    }  # fmt: skip
    done = subprocess.run(  # noqa: S603  (our own interpreter and module)
        [sys.executable, "-m", "kdcourse.labs.memory", json.dumps(case)],
        capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["without a word; it may have run out of memory"]
        raise RuntimeError(f"The step in a process of its own ended with {done.returncode}: {last[0]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def step(
    fused: bool, model: str, layers: list[int] | None, tokens: int, length: int, settings: dict[str, Any]
) -> dict[str, int]:
    """One step in this process; see `peak_of_a_step`."""
    import torch
    from transformers import AutoModelForCausalLM

    from kdcourse import DistillationArguments, DistillationTrainer
    from kdcourse.labs.models import cut_student

    teacher = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    student = cut_student(teacher, range(teacher.config.num_hidden_layers) if layers is None else layers)
    random = torch.Generator().manual_seed(0)
    texts = torch.randint(0, teacher.config.vocab_size, (tokens // length, length), generator=random)
    rows: Any = [{"input_ids": ids, "labels": ids} for ids in texts]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = DistillationArguments(
            scratch, alpha=0.5, temperature=1.0, fused=fused, max_steps=1, per_device_train_batch_size=len(texts),
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            **settings,
        )  # fmt: skip
        trainer = DistillationTrainer(student, arguments, teacher=teacher, train_dataset=rows)
        with suppress(OSError):
            CLEAR.write_text("5", encoding="ascii")  # the high-water mark begins anew
        before = resident()
        trainer.train()
    return {"before": before, "peak": peak()}


def resident() -> int:
    """Bytes of this process that are in memory."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most that this process has had: since the mark was reset where the system can, or since it began."""
    if STATUS.exists():
        lines = STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on a Mac


if __name__ == "__main__":
    print(json.dumps(step(**json.loads(sys.argv[1]))))
