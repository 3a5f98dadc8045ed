"""Hidden states and head in the place of a language model's logits, where that is the same (lesson 06).

A model is called as it always is: through what wraps it, with its own arguments, router and all. Only its head stands
aside meanwhile: it keeps the hidden states that it is given, and answers with one number per token in the place of V.

Which module the head is, the model says (`get_output_embeddings`). What becomes of its logits afterwards, a scale
(Cohere, Granite), a soft-cap (Gemma 2) or something that nobody has thought of, is not read from the names of settings:
it is tried once, in value and in gradient. A model whose logits are anything else than `kdcourse.fused.Head` makes of
the hidden states is asked for its logits as before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from kdcourse.columns import unwrapped
from kdcourse.fused import Head, fused_lm_distillation_loss
from kdcourse.loss import DistillationLoss
from kdcourse.teacher import logits_of
from kdcourse.topk import Logits

logger = logging.getLogger(__name__)

SPREAD = ("FullyShardedDataParallel", "DeepSpeedEngine", "DataParallel")
"""What wraps a model and keeps its weights elsewhere, or in pieces."""

FEW_ROWS, FEW_TOKENS = 2, 3
"""Of a first batch, to try a head on."""

SMALL, LARGE = 2.0**-10, 1e6
"""Logits so small that no soft-cap bends them, and so large that every one holds them."""

CLOSE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Relative errors that rounding explains, by the precision of the logits."""

CLOSE_IN_16_BITS = 3e-2


class HiddenHeadError(Exception):
    """Why a model's logits cannot be told from its hidden states, as the end of a sentence that begins with "since"."""


@dataclass(frozen=True)
class ImplicitLogits:
    """Logits (B, T, V) that nobody has computed: hidden states, and the head that would.

    They have the logits' shape, and rows are taken by an index.
    """

    hidden: Tensor
    """(B, T, H)."""
    head: Head

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.hidden.shape[:-1], len(self.head.weight))

    @property
    def device(self) -> torch.device:
        return self.hidden.device

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: Any) -> ImplicitLogits:
        return replace(self, hidden=self.hidden[rows])

    def to(self, device: torch.device) -> ImplicitLogits:
        bias = None if self.head.bias is None else self.head.bias.to(device)
        return ImplicitLogits(self.hidden.to(device), replace(self.head, weight=self.head.weight.to(device), bias=bias))


def cut(logits: Tensor | ImplicitLogits, vocabulary: int | None) -> Any:
    """The logits of the first token ids, as many as two models share; all of them where nobody has counted."""
    if isinstance(logits, Tensor):
        return logits[..., :vocabulary]
    head = logits.head
    bias = None if head.bias is None else head.bias[:vocabulary]
    return replace(logits, head=replace(head, weight=head.weight[:vocabulary], bias=bias))


def implicit_lm_distillation_loss(
    student: ImplicitLogits, teacher: ImplicitLogits | Logits, labels: Tensor, **settings: Any
) -> DistillationLoss:
    """`fused_lm_distillation_loss`, whichever form the teacher's answer has."""
    if isinstance(teacher, ImplicitLogits):
        return fused_lm_distillation_loss(
            student.hidden, student.head, teacher.hidden, teacher.head, labels, **settings
        )
    return fused_lm_distillation_loss(
        student.hidden, student.head, None, None, labels, teacher_logits=teacher, **settings
    )


class HeadAside:
    """Asks a model for hidden states and head, if a first look has shown that they are enough; else for its logits.

    Args:
        role: "student" or "teacher".
    """

    def __init__(self, role: str) -> None:
        self.role = role
        self.reason = ""
        """Why logits are computed whole; empty while they are not."""
        self._seen: SeenHead | None = None

    @property
    def is_seen(self) -> bool:
        return self._seen is not None

    def ask(self, model: nn.Module, features: Mapping[str, Any]) -> tuple[Any, Tensor | ImplicitLogits]:
        """The model's outputs, and its logits, implicit or whole."""
        if not self.reason:
            try:
                if self._seen is None or not self._seen.is_still_that_of(model):
                    self._seen = look(model, features)
                return self._seen.ask(model, features)
            except HiddenHeadError as error:
                self._give_up(model, str(error))
        outputs = model(**features)
        return outputs, logits_of(outputs)

    def _give_up(self, model: nn.Module, reason: str) -> None:
        self._seen, self.reason = None, reason
        logger.warning(
            "The logits of the %s (%s) are computed whole, since %s.",
            self.role, type(unwrapped(model)).__name__, reason,
        )  # fmt: skip


@dataclass(frozen=True)
class SeenHead:
    """A head that is known: cap(scale · module(hidden)) are the model's logits."""

    module: nn.Module
    scale: float
    softcap: float | None

    def is_still_that_of(self, model: nn.Module) -> bool:
        """
        Raises:
            HiddenHeadError: it was, but the model has been spread or compiled since.
        """
        return _output_layer(_undistributed(model)) is self.module

    def ask(self, model: nn.Module, features: Mapping[str, Any]) -> tuple[Any, ImplicitLogits]:
        """One forward pass of the model, but for its head.

        Raises:
            HiddenHeadError: the weight of the head is no longer whole.
        """
        head = self.head()
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        with _in_the_place_of(self.module, lambda hidden: _Nothing.apply(hidden, *weights)) as given:
            outputs = model(**features)
        (hidden,) = given
        return outputs, ImplicitLogits(_Joined.apply(hidden, logits_of(outputs)), head)

    def head(self) -> Head:
        """As it is now; an adapter's weights change at each step."""
        with torch.autocast(next(self.module.parameters()).device.type, enabled=False):
            weight, bias = weight_and_bias(self.module)
        if not torch.is_grad_enabled():  # else a gradient would be computed for nobody
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return Head(weight, bias, self.scale, self.softcap)


class _Nothing(torch.autograd.Function):
    """Zeros (B, T, 1) in the place of logits. A wrapper that looks through the graph of a model's outputs for weights
    that have no part in them (DDP with `find_unused_parameters`) finds the head's there, as it would behind logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, *weights: Tensor) -> Tensor:
        ctx.number = 1 + len(weights)
        return hidden.new_zeros(*hidden.shape[:-1], 1)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.number


class _Joined(torch.autograd.Function):
    """Hidden states as they are, so that a backward pass from them begins at the model's outputs, as a wrapper expects
    (DDP with `static_graph`).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, nothing: Tensor) -> Tensor:
        ctx.save_for_backward(nothing)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (nothing,) = ctx.saved_tensors
        return gradient, torch.zeros_like(nothing)


@contextmanager
def _in_the_place_of(module: nn.Module, answer: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Calls of the module are answered by `answer`; what they are given is kept."""
    given: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        given.append(hidden)
        return answer(hidden)

    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield given
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def look(model: nn.Module, features: Mapping[str, Any]) -> SeenHead:
    """Find a model's head, and try what it does and what becomes of its logits, on a few rows of a batch.

    Nothing remains of it: neither gradients nor a draw of random numbers.

    Raises:
        HiddenHeadError: its logits are something else than a `Head` makes of the hidden states, or it cannot be told.
    """
    model = _undistributed(model)
    module = _output_layer(model)
    try:
        weight, _ = weight_and_bias(module)
        devices = [weight.device] if weight.is_cuda else []
        with torch.enable_grad(), torch.random.fork_rng(devices):
            features = _few(features)
            _require_linear(module)
            seen = SeenHead(module, *_what_follows(model, module, features))
            seen.ask(model, features)
    except HiddenHeadError:
        raise
    except Exception as error:
        raise HiddenHeadError(f"trying its head failed ({type(error).__name__}: {error})") from error
    return seen


def _undistributed(model: nn.Module) -> nn.Module:
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise HiddenHeadError("it is compiled, head and all")
    if type(model).__name__ in SPREAD:
        raise HiddenHeadError(f"{type(model).__name__} spreads its weights")
    return model


def _output_layer(model: nn.Module) -> nn.Module:
    inside = unwrapped(model)
    module = inside.get_output_embeddings() if hasattr(inside, "get_output_embeddings") else None
    if module is None:
        raise HiddenHeadError("it names no head (get_output_embeddings)")
    if module._forward_hooks or module._forward_pre_hooks:
        raise HiddenHeadError("somebody has put hooks on its head")
    return module


def weight_and_bias(module: Any) -> tuple[Tensor, Tensor | None]:
    """Those with which a head multiplies, with what an adapter of peft adds to them; its gradient flows on.

    Raises:
        HiddenHeadError: there is no such matrix, or it is not whole here.
    """
    if isinstance(copies := getattr(module, "modules_to_save", None), nn.ModuleDict):  # peft trains a copy of the head
        active = _active(module)
        return weight_and_bias(copies[active[0]] if active else module.original_module)
    if hasattr(module, "get_base_layer"):  # peft adds a product of two thin matrices
        frozen, bias = weight_and_bias(module.get_base_layer())
        return sum(map(module.get_delta_weight, _active(module)), frozen), bias
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():  # noqa: PLR2004
        raise HiddenHeadError(f"its head ({type(module).__name__}) has no weight (V, H)")
    if weight.is_meta or hasattr(weight, "device_mesh") or not weight.numel():
        raise HiddenHeadError("the weight of its head is not whole in the memory of this device")
    return weight, bias


def _active(adapted: Any) -> list[str]:
    """The adapters that have a say in what a module of peft answers, and are not part of its weight yet."""
    if adapted.disable_adapters or getattr(adapted, "merged", False):
        return []
    names = adapted.active_adapters
    return [name for name in ([names] if isinstance(names, str) else names) if _has(adapted, name)]


def _has(adapted: Any, name: str) -> bool:
    return any(name in getattr(adapted, part, ()) for part in ("modules_to_save", "lora_A"))


def _few(features: Mapping[str, Any]) -> dict[str, Any]:
    """Its first rows, if each of its columns has as many rows."""
    columns = {name: value for name, value in features.items() if isinstance(value, Tensor) and value.ndim}
    if len({len(column) for column in columns.values()}) != 1:
        return dict(features)
    return {**features, **{name: column[:FEW_ROWS] for name, column in columns.items()}}


def _require_linear(module: nn.Module) -> None:
    """A head is hidden · weightᵀ + bias, and each of its parameters learns as it would by that formula."""
    if type(module) is nn.Linear and "forward" not in vars(module):
        return
    if any(isinstance(each, nn.Dropout) and each.p > 0 for each in module.modules()):
        raise HiddenHeadError("there is dropout in its head")
    weight, _ = weight_and_bias(module)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, FEW_TOKENS, weight.shape[1], generator=generator).to(weight).requires_grad_()
    theirs = module(hidden)
    ours = F.linear(hidden, *weight_and_bias(module))
    _require_close(theirs, ours, "its head is no product with a weight alone")
    direction = torch.randn(theirs.shape, generator=generator).to(theirs)
    leaves = [hidden, *(each for each in module.parameters() if each.requires_grad)]
    gradients = [
        torch.autograd.grad(logits, leaves, direction.to(logits), allow_unused=True, materialize_grads=True)
        for logits in (theirs, ours)
    ]
    for by_them, by_us in zip(*gradients, strict=True):
        _require_close(by_them, by_us, "its head learns otherwise than a weight")


def _what_follows(model: nn.Module, module: nn.Module, features: Mapping[str, Any]) -> tuple[float, float | None]:
    """The scale and the soft-cap that a model's logits go through behind its head."""
    vocabulary = len(weight_and_bias(module)[0])
    ladders: list[Tensor] = []

    def ladder(hidden: Tensor) -> Tensor:
        if hidden.ndim != 3:  # noqa: PLR2004  (texts, tokens, width)
            raise HiddenHeadError("its head is given something else than one state for each token")
        ladders.append(_ladder(hidden, vocabulary).requires_grad_())
        return ladders[0].clone()  # which may be changed in place

    with _in_the_place_of(module, ladder):
        theirs = logits_of(model(**features))
    if len(ladders) != 1:
        raise HiddenHeadError("its logits do not come from one call of its head")
    (given,) = ladders
    if theirs.shape != given.shape:
        raise HiddenHeadError("its logits have another shape than what its head gives")
    small, large = theirs[0, 0, :2].tolist()
    scale = small / SMALL
    softcap = None if abs(large - scale * LARGE) <= CLOSE[torch.float32] * abs(large) else large
    ours = scale * given if softcap is None else softcap * torch.tanh(scale * given / softcap)
    what = "its logits are no scaled and capped ones of its head"
    _require_close(theirs, ours, what, each=True)
    others = [weight for weight in model.parameters() if weight.requires_grad]
    by_them, *by_others = torch.autograd.grad(theirs.sum(), [given, *others], allow_unused=True)
    if any(gradient is not None for gradient in by_others):
        raise HiddenHeadError("its logits depend on weights behind its head, or beside it")
    _require_close(by_them, torch.autograd.grad(ours.sum(), given)[0], what)
    return scale, softcap


def _ladder(hidden: Tensor, vocabulary: int) -> Tensor:
    """Made-up logits of a few tokens, of every size and both signs; the first two are SMALL and LARGE."""
    generator = torch.Generator().manual_seed(0)
    shape = (*hidden.shape[:-2], min(FEW_TOKENS, hidden.shape[-2]), vocabulary)
    sizes = 10 ** (6 * torch.rand(shape, generator=generator, dtype=torch.float32) - 3)
    logits = sizes * torch.randint(0, 2, shape, generator=generator).mul(2).sub(1)
    logits[0, 0, :2] = torch.tensor([SMALL, LARGE])
    return logits.to(hidden.device)


def _require_close(theirs: Tensor, ours: Tensor, otherwise: str, *, each: bool = False) -> None:
    """Within rounding: of each number, or of the largest one."""
    close = CLOSE.get(theirs.dtype, CLOSE_IN_16_BITS)
    theirs, ours = theirs.detach().float(), ours.detach().float()
    size = ours.abs() if each else ours.abs().max()
    if not ((theirs - ours).abs() <= close * size + torch.finfo(torch.float32).tiny).all():
        raise HiddenHeadError(otherwise)
