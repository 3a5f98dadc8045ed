"""What a distillation of language models costs, before it is begun: FLOPs, bytes and seconds of each of its parts.

FLOPs are counted, not estimated. A model is built from its configuration without weights, on torch's meta device, and
torch's counter adds up the products of one pass over it, so that a 70B teacher is counted on a laptop within seconds.
A multiplication and an addition are two FLOPs. What is not a product of matrices (softmax, norms) is left out: it is
a matter of bytes moved, and of few percent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PretrainedConfig

from kdcourse.pieces import SMALL_VOCABULARY

BACKWARD = 2
"""A backward pass costs two forward passes: each product y = x · w has two in its gradient, for x and for w."""

ADAMW_BYTES = 8
"""The two moments of AdamW, in 32 bits each, for each parameter that is trained."""

LOGITS_AT_PEAK = 10.5
"""How often a loss of whole logits holds them at once: those of both models, and the log-probabilities and gradients
that it makes of them, in float32. Measured, and held by a test."""

FUSED_BYTES = 110 * 10**6
"""The fused loss takes no more than this instead, whatever the batch; see `kdcourse.fused`."""

FUSED_LOGITS = 2.5
"""And of a batch that is small enough for one piece, so many times its logits."""


@dataclass(frozen=True)
class ModelCosts:
    """A causal language model, in numbers."""

    parameters: int
    vocabulary: int
    """Columns of its logits."""
    length: int
    """Tokens in a text; attention's share grows with it."""
    forward_flops: int
    """Of one text of this length, logits included."""
    activation_bytes: int = 0
    """Of one text, in 32 bits: what its forward pass keeps for its backward pass, up to the last hidden states."""

    @property
    def training_flops(self) -> int:
        """Of one text, forward and backward; recomputing activations (gradient checkpointing) adds a forward pass."""
        return (1 + BACKWARD) * self.forward_flops

    def weight_bytes(self, bytes_each: int = 2) -> int:
        """For an answering model, in 16 bits if nothing else is said."""
        return self.parameters * bytes_each

    def training_bytes(self, bytes_each: int = 4) -> int:
        """Weights, gradients and AdamW's moments; activations, which depend on the batch, come on top."""
        return self.parameters * (2 * bytes_each + ADAMW_BYTES)

    def step_bytes(self, texts: int, *, fused: bool) -> int:
        """The most that a training step on so many texts holds at once, all in 32 bits; the teacher comes on top.

        That is when the loss is computed: weights, moments and the gradients of micro-batches before it, what the
        forward pass has kept, and logits, or the pieces of them that the fused loss makes.
        """
        logits = self.logits_bytes(texts * self.length)
        loss = min(FUSED_BYTES, round(FUSED_LOGITS * logits)) if fused else round(LOGITS_AT_PEAK * logits)
        return self.training_bytes() + texts * self.activation_bytes + loss

    def logits_bytes(self, tokens: int, bytes_each: int = 4) -> int:
        """The logits of so many tokens, which the fused loss never holds as a whole."""
        return tokens * self.vocabulary * bytes_each


def model_costs(config: PretrainedConfig, length: int) -> ModelCosts:
    """Count a causal language model by its configuration alone.

    Args:
        config: of any causal language model that transformers builds; nothing is downloaded.
        length: tokens in a text.

    Raises:
        ValueError: the model cannot be built, or cannot be run without data; the message says which.
    """
    if length < 1:
        raise ValueError(f"length is {length}, but a text has at least one token.")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config).eval()
            # A mask of four dimensions is taken as it is; about others a model asks questions that need data.
            ids, mask = torch.zeros(1, length, dtype=torch.long), torch.zeros(1, 1, length, length)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    except Exception as error:
        raise ValueError(
            f"{type(config).__name__} cannot be counted without weights: {type(error).__name__}: {error}"
        ) from error
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCosts(parameters, logits.shape[-1], length, counter.get_total_flops(), _kept_bytes(config, length))


def _kept_bytes(config: PretrainedConfig, length: int) -> int:
    """What a forward pass of one text keeps, by tensors that have sizes and no content.

    They say that they are on a CPU, so that attention takes the kernel that keeps no (L, L) probabilities, as on a GPU.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
        ids, mask = torch.zeros(1, length, dtype=torch.long), torch.zeros(1, 1, length, length)
        with saved_tensors_hooks(note, lambda tensor: tensor):
            states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)  # kept until all is counted
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    del states
    return sum(size for storage, size in kept.items() if storage not in weights)


REST_BYTES = 4
"""What the classes that are not kept weigh together, for each token."""


def cached_bytes_per_token(vocabulary: int, k: int | None = None, bytes_each: int = 2) -> int:
    """What `kdcourse.teacher.cache_logits` keeps of a token; seals and names, some 500 bytes a file, come on top.

    Args:
        vocabulary: columns of the logits.
        k: how many are kept, largest or drawn; None keeps all.
        bytes_each: 2 for 16 bits, 4 for 32.

    Raises:
        ValueError: k is not between 1 and the vocabulary.
    """
    if k is None:
        return vocabulary * bytes_each
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k is {k}, but of {vocabulary:,} classes between 1 and {vocabulary:,} can be kept.")
    return k * (bytes_each + (2 if vocabulary <= SMALL_VOCABULARY else 4)) + REST_BYTES


@dataclass(frozen=True)
class Part:
    """A row of the sheet."""

    name: str
    flops: int
    seconds: float
    memory: int
    """Bytes at once, on the machine that does this part."""
    disk: int = 0
    """Bytes that are kept."""


def cost_sheet(
    teacher: ModelCosts,
    student: ModelCosts,
    *,
    tokens: int,
    epochs: int = 1,
    flops_per_second: float,
    cached_bytes_per_token: float = 0.0,
) -> list[Part]:
    """What scoring, caching and training cost, each as a row.

    Args:
        teacher, student: of one length and one vocabulary.
        tokens: in the transfer set.
        epochs: rounds that the student makes over it.
        flops_per_second: what the machine reaches in practice, mostly 30 to 50% of what is printed on it; time a few
            batches and divide.
        cached_bytes_per_token: what the cache keeps of each token; 0 if the teacher answers again in each epoch.

    Returns:
        The teacher's answers, the student's training, and both together.

    Raises:
        ValueError: teacher and student were counted at two lengths, or a number is not positive.
    """
    if teacher.length != student.length:
        raise ValueError(
            f"The teacher was counted with texts of {teacher.length} tokens and the student with {student.length}; "
            "count both at the length that you will train with."
        )
    for name, value in {"tokens": tokens, "epochs": epochs, "flops_per_second": flops_per_second}.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}, but it has to be above 0.")
    texts = tokens / teacher.length
    rounds = 1 if cached_bytes_per_token else epochs
    answers = round(rounds * texts * teacher.forward_flops)
    training = round(epochs * texts * student.training_flops)
    is_together = not cached_bytes_per_token
    scoring = Part(
        "the teacher answers" + (f" {rounds} times" if rounds > 1 else " once"), answers, answers / flops_per_second,
        teacher.weight_bytes(), round(tokens * cached_bytes_per_token),
    )  # fmt: skip
    learning = Part("the student learns", training, training / flops_per_second, student.training_bytes())
    memory = (scoring.memory + learning.memory) if is_together else max(scoring.memory, learning.memory)
    total = Part("in all", answers + training, scoring.seconds + learning.seconds, memory, scoring.disk)
    return [scoring, learning, total]
