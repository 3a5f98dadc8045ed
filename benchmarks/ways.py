"""The ways to a language model's distillation loss and its gradients, and one of them measured in a process of its own.

`fused_loss.py` starts this module once for each thing that it asks: `python benchmarks/ways.py '{"way": "ours", …}'`
prints one line of JSON. Every way is asked for the same: alpha · CE + (1 - alpha) · T² · KL(teacher ‖ student), a mean
over tokens, from hidden states and heads, and its gradients with respect to the student's.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from kdcourse import fused_lm_distillation_loss, lm_distillation_loss
from kdcourse.fused import MEMORY

FLOOR_ROWS = (256, 512, 1024)
"""Chunks of the four products that the floor is the best of."""


@dataclass(frozen=True)
class Case:
    """What is asked of every way: shapes, precision and settings, and how much of it at once."""

    tokens: int = 2048
    vocabulary: int = 49_152
    student_width: int = 288
    teacher_width: int = 576
    dtype: str = "float32"
    alpha: float = 0.5
    temperature: float = 2.0
    memory: int = MEMORY
    """Of ours, in bytes."""
    rows: int = 256
    """Tokens in a chunk of checkpointed chunks and of `liger_small`: about as many as ours has."""
    device: str = "cpu"


TOY = Case(tokens=70, vocabulary=130, student_width=12, teacher_width=20, memory=20_000, rows=32)
"""The case in which losses and gradients are compared: several chunks, the last one cut."""

AGREEMENT = {"float32": 1e-4, "bfloat16": 3e-2}
"""How far a loss or a gradient may be off, relative to float64; a factor T² left out is 0.75 at T = 2."""


class Inputs:
    """Hidden states (1, tokens + 1, H), of which the last predicts nothing, heads and labels."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        kind = {"dtype": getattr(torch, case.dtype), "device": case.device}

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(**kind)

        self.hidden = draw(1, case.tokens + 1, case.student_width).requires_grad_()
        self.head = (draw(case.vocabulary, case.student_width) / case.student_width**0.5).requires_grad_()
        self.teacher_hidden = draw(1, case.tokens + 1, case.teacher_width)
        self.teacher_head = draw(case.vocabulary, case.teacher_width) / case.teacher_width**0.5
        self.labels = torch.randint(case.vocabulary, (1, case.tokens + 1), generator=generator).to(case.device)

    @property
    def states(self) -> Tensor:
        """(tokens, H), for whoever wants them shifted and flat."""
        return self.hidden[0, :-1]

    @property
    def teacher_states(self) -> Tensor:
        return self.teacher_hidden[0, :-1]

    @property
    def targets(self) -> Tensor:
        return self.labels[0, 1:]

    def logits(self) -> tuple[Tensor, Tensor]:
        """(tokens, V) each, whole."""
        with torch.no_grad():
            teacher = self.teacher_states @ self.teacher_head.t()
        return self.states @ self.head.t(), teacher

    @property
    def gradients(self) -> list[Tensor]:
        return [leaf.grad for leaf in (self.hidden, self.head) if leaf.grad is not None]

    def forget(self) -> None:
        self.hidden.grad = self.head.grad = None


Loss = Callable[[Inputs, Case], Tensor]


@dataclass(frozen=True)
class Way:
    """How to get from inputs to a loss; what it needs is imported when it is called."""

    title: str
    loss: Loss
    package: str = "torch"
    needs_gpu: bool = False
    compiles: bool = False

    def step(self, inputs: Inputs, case: Case) -> float:
        """Forward and backward."""
        inputs.forget()
        loss = self.loss(inputs, case)
        loss.backward()
        return loss.item()

    def skipped(self, case: Case) -> str | None:
        """Why it cannot be measured here."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return "not installed"
        return "not measured: it needs a GPU" if self.needs_gpu and case.device == "cpu" else None


@torch.no_grad()
def floor(inputs: Inputs, case: Case) -> None:
    """The four products that no exact way can do without, in chunks, and nothing else.

    Logits are laid out (V, rows), which is how oneMKL computes them fastest: an eighth faster than (rows, V).
    """
    states, teacher_states = inputs.states, inputs.teacher_states
    student, teacher = (torch.empty(case.vocabulary * case.rows).to(states) for _ in range(2))
    of_states, of_head = torch.empty_like(states), torch.zeros_like(inputs.head)
    for start in range(0, case.tokens, case.rows):
        chunk = slice(start, min(start + case.rows, case.tokens))
        rows = chunk.stop - start
        z, u = (each[: case.vocabulary * rows].view(case.vocabulary, rows) for each in (student, teacher))
        torch.mm(inputs.head, states[chunk].t(), out=z)
        torch.mm(inputs.teacher_head, teacher_states[chunk].t(), out=u)
        torch.mm(z.t(), inputs.head, out=of_states[chunk])
        of_head.addmm_(z, states[chunk])


def ours(inputs: Inputs, case: Case) -> Tensor:
    return fused_lm_distillation_loss(
        inputs.hidden, inputs.head, inputs.teacher_hidden, inputs.teacher_head, inputs.labels,
        alpha=case.alpha, temperature=case.temperature, memory=case.memory,
    ).total  # fmt: skip


def full_logits(inputs: Inputs, case: Case) -> Tensor:
    with torch.no_grad():
        teacher = inputs.teacher_hidden @ inputs.teacher_head.t()
    student = inputs.hidden @ inputs.head.t()
    settings = {"alpha": case.alpha, "temperature": case.temperature}
    return lm_distillation_loss(student, teacher, inputs.labels, **settings).total


def plain(student: Tensor, teacher: Tensor, targets: Tensor, case: Case) -> Tensor:
    """The objective as a tutorial writes it, summed over tokens."""
    student, teacher = student.float(), teacher.float()
    soft = F.kl_div(
        F.log_softmax(student / case.temperature, -1), F.log_softmax(teacher / case.temperature, -1),
        reduction="sum", log_target=True,
    )  # fmt: skip
    hard = F.cross_entropy(student, targets, reduction="sum")
    return case.alpha * hard + (1 - case.alpha) * case.temperature**2 * soft


def checkpointed_chunks(inputs: Inputs, case: Case) -> Tensor:
    def of_chunk(states: Tensor, head: Tensor, teacher_states: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            teacher = teacher_states @ inputs.teacher_head.t()
        return plain(states @ head.t(), teacher, targets, case)

    pieces = zip(
        *(each.split(case.rows) for each in (inputs.states, inputs.teacher_states, inputs.targets)), strict=True
    )
    sums = [
        checkpoint(of_chunk, states, inputs.head, teacher_states, targets, use_reentrant=False)
        for states, teacher_states, targets in pieces
    ]
    return torch.stack(sums).sum() / case.tokens


def _liger(inputs: Inputs, case: Case, **options: Any) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        case.alpha, (1 - case.alpha) * case.temperature**2,  # it has no T² of its own
        beta=0.0, temperature=case.temperature, **options,
    )  # fmt: skip
    return loss(inputs.states, inputs.head, inputs.teacher_states, inputs.teacher_head, inputs.targets)


def liger(inputs: Inputs, case: Case) -> Tensor:
    return _liger(inputs, case, compiled=False)


def liger_compiled(inputs: Inputs, case: Case) -> Tensor:
    return _liger(inputs, case, compiled=True)


def liger_small(inputs: Inputs, case: Case) -> Tensor:
    return _liger(inputs, case, compiled=True, chunk_size=case.rows)


def liger_triton(inputs: Inputs, case: Case) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss
    from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

    soft = LigerFusedLinearJSD(jsd_beta=0.0, temperature=case.temperature)(
        inputs.states, inputs.head, inputs.teacher_states, inputs.teacher_head, inputs.targets
    )
    hard = LigerFusedLinearCrossEntropyLoss()(inputs.head, inputs.states, inputs.targets)
    return case.alpha * hard + (1 - case.alpha) * case.temperature**2 * soft


def trl_divergence(inputs: Inputs, case: Case) -> Tensor:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    student, teacher = inputs.logits()
    soft = GKDTrainer.generalized_jsd_loss(student, teacher, beta=0, temperature=case.temperature)
    hard = F.cross_entropy(student.float(), inputs.targets)
    return case.alpha * hard + (1 - case.alpha) * case.temperature**2 * soft


def trl_kernels(inputs: Inputs, case: Case) -> Tensor:
    """Tiles of the vocabulary, in Triton on a GPU and in PyTorch on a CPU; the labels' part is a kernel of its own."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    soft, _ = ChunkedDivergenceFunction.apply(
        inputs.states, inputs.head, None, inputs.teacher_states, inputs.teacher_head, None, 0.0, case.temperature
    )
    tile = 8192  # of the vocabulary, as its trainers have it
    log_probs, *_ = ChunkedLogProbFunction.apply(inputs.states, inputs.head, None, inputs.targets, 1.0, tile)
    return (-case.alpha * log_probs + (1 - case.alpha) * case.temperature**2 * soft).mean()


def torchdistill(inputs: Inputs, case: Case) -> Tensor:
    from torchdistill.losses.mid_level import KDLoss

    student, teacher = ({"head": {"output": logits}} for logits in inputs.logits())
    return KDLoss("head", "output", "head", "output", case.temperature, case.alpha)(student, teacher, inputs.targets)


def modelopt(inputs: Inputs, case: Case) -> Tensor:
    from modelopt.torch.distill.losses import LogitsDistillationLoss

    student, teacher = inputs.logits()
    soft = LogitsDistillationLoss(case.temperature, reduction="batchmean")(student, teacher)
    return case.alpha * F.cross_entropy(student.float(), inputs.targets) + (1 - case.alpha) * soft


WAYS = {
    "ours": Way("`fused_lm_distillation_loss`", ours),
    "full": Way("`lm_distillation_loss`, full logits", full_logits),
    "checkpointed": Way("checkpointed chunks, plain PyTorch", checkpointed_chunks),
    "liger": Way("Liger, chunks of 1,024", liger, "liger-kernel"),
    "liger_compiled": Way("Liger, the same compiled, as it comes", liger_compiled, "liger-kernel", compiles=True),
    "liger_small": Way("Liger, compiled, chunks of ours", liger_small, "liger-kernel", compiles=True),
    "liger_triton": Way("Liger, Triton", liger_triton, "liger-kernel", needs_gpu=True),
    "trl": Way("TRL, `generalized_jsd_loss`", trl_divergence, "trl"),
    "trl_kernels": Way("TRL, tiles of the vocabulary", trl_kernels, "trl"),
    "torchdistill": Way("torchdistill, `KDLoss`", torchdistill, "torchdistill"),
    "modelopt": Way("ModelOpt, `LogitsDistillationLoss`", modelopt, "nvidia-modelopt"),
}


def disagreement(way: Way, case: Case) -> dict[str, float]:
    """How far loss and gradients are off, relative to the same in float64 by a formula that is written out."""
    inputs = Inputs(case)
    exact = {name: tensor.detach().double().cpu() for name, tensor in vars(inputs).items() if name != "labels"}
    states, head = (exact[name].requires_grad_() for name in ("hidden", "head"))
    student = (states[0, :-1] @ head.t()) / case.temperature
    teacher = (exact["teacher_hidden"][0, :-1] @ exact["teacher_head"].t()) / case.temperature
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    hard = -(case.temperature * student).log_softmax(-1).gather(1, inputs.targets.cpu()[:, None])
    soft = case.temperature**2 * (q.exp() * (q - p)).sum(-1)
    expected = (case.alpha * hard.squeeze(1) + (1 - case.alpha) * soft).mean()
    gradients = torch.autograd.grad(expected, [states, head])
    loss = way.step(inputs, case)
    off = [(g.double().cpu() - e).abs().max() / e.abs().max() for g, e in zip(inputs.gradients, gradients, strict=True)]
    return {"loss_off": abs(loss / expected.item() - 1), "gradient_off": max(map(float, off))}


def seconds(work: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_of(way: Way, case: Case, rounds: int, floors: tuple[int, ...]) -> dict[str, Any]:
    """A way and the floor in turn, so that whatever else the machine does hits both; ratios are those of one round."""
    inputs = Inputs(case)
    first = seconds(lambda: way.step(inputs, case), case.device)
    runs: dict[int, list[float]] = {rows: [] for rows in floors}
    of_way = []
    for rows in floors:
        floor(inputs, replace(case, rows=rows))
    for _ in range(rounds):
        for rows in floors:
            runs[rows].append(seconds(lambda rows=rows: floor(inputs, replace(case, rows=rows)), case.device))
        of_way.append(seconds(lambda: way.step(inputs, case), case.device))
    best = min(floors, key=lambda rows: statistics.median(runs[rows]))
    return {
        "first_seconds": first,
        "seconds": of_way,
        "floor_seconds": runs[best],
        "floor_rows": best,
        "ratios": [own / least for own, least in zip(of_way, runs[best], strict=True)],
    }


def allocated(work: Callable[[], Any]) -> int:
    """The most bytes that PyTorch's allocator for the CPU has handed out at once, beyond those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def resident(name: str) -> int | None:
    """VmRSS or VmHWM of this process in bytes, where the system tells."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    return None


def memory_of(way: Way, case: Case) -> dict[str, Any]:
    """The most memory of a step beyond its inputs and their gradients, in bytes, by the system and by the allocator."""
    if case.device != "cpu":
        return {"allocated": _memory_on_gpu(way, case)}
    small = replace(TOY, dtype=case.dtype)
    way.step(Inputs(small), small)  # what is imported, and the threads
    inputs = Inputs(case)
    if way.compiles:
        way.step(inputs, case)  # the compiler's own memory is not the step's
        inputs.forget()
    gc.collect()
    gradients = [torch.ones_like(inputs.hidden), torch.ones_like(inputs.head)]
    room = sum(gradient.nbytes for gradient in gradients)
    before = resident("VmRSS")
    del gradients
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark begins anew
    way.step(inputs, case)
    after = resident("VmHWM")
    inputs.forget()
    return {
        "resident": None if before is None or after is None else after - before,
        "allocated": allocated(lambda: way.step(inputs, case)) - room,
    }


def _memory_on_gpu(way: Way, case: Case) -> int:
    inputs = Inputs(case)
    way.step(inputs, case)
    room = sum(gradient.nbytes for gradient in inputs.gradients)
    inputs.forget()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way.step(inputs, case)
    return torch.cuda.max_memory_allocated() - before - room


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What one process is asked: to compare a way with the reference, to measure its memory, or its time."""
    way, case = WAYS[question["way"]], Case(**question["case"])
    if skipped := way.skipped(case):
        return {"skipped": skipped}
    toy = replace(TOY, dtype=case.dtype, temperature=case.temperature, alpha=case.alpha, device=case.device)
    if question["measure"] != "memory":
        return time_of(way, case, question["rounds"], tuple(question["floors"]))
    return {**memory_of(way, case), **disagreement(way, toy)}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    try:
        told = answer(asked)
    except Exception as error:  # whatever others raise
        told = {"skipped": f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    print(json.dumps({**asked, "case": asdict(Case(**asked["case"])), **told}))
