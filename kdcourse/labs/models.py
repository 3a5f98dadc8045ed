"""The models of the course: a MiniLM teacher with the adapter that this project trained, and GPT-2-shaped students; and
SmolLM2, from whose own layers students are cut (lab 08).
"""

from __future__ import annotations

import copy
import importlib.resources
import itertools
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcourse.hashing import hash_bytes
from kdcourse.labs import assets
from kdcourse.labs.data import LABEL_NAMES

if TYPE_CHECKING:
    from transformers import GPT2ForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

TEACHER_FOLDER = Path(str(importlib.resources.files("kdcourse.labs"))) / "resources" / "reviews_teacher"
"""The low-rank adapter, pooler and head of the review teacher; `make teacher` trains them anew."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

TEACHER_LOGITS = TEACHER_FOLDER / "logits.safetensors"
"""What the teacher says of every sentence: `train`, `validation`, `test` and `transfer`, each with its fingerprint."""

_LABEL_CONFIG: dict[str, Any] = {
    "num_labels": len(LABEL_NAMES),
    "id2label": dict(enumerate(LABEL_NAMES)),
    "label2id": {name: index for index, name in enumerate(LABEL_NAMES)},
}


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The WordPiece tokenizer that teacher and students share: 30,522 tokens, lower case, right padding."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.locate("minilm"))


def load_student_tokenizer() -> PreTrainedTokenizerBase:
    """The same tokenizer without `token_type_ids`, also after it was saved and loaded, for a student to travel with.

    A pipeline hands a model whatever its tokenizer makes, and GPT-2 looks token types up in its word embeddings.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.locate("minilm"), model_input_names=["input_ids", "attention_mask"])


def load_untrained_teacher() -> PreTrainedModel:
    """MiniLM with a new classification head: an encoder that knows English and nothing of reviews."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(assets.locate("minilm"), **_LABEL_CONFIG)


def load_teacher(adapter: Path = TEACHER_FOLDER) -> PreTrainedModel:
    """MiniLM with the review adapter merged into its weights: a plain classifier in eval mode, 22.7M parameters."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft reads a property that transformers has renamed; both names mean the same until transformers 6.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        merged = PeftModel.from_pretrained(load_untrained_teacher(), str(adapter)).merge_and_unload()
    return merged.eval().requires_grad_(False)


def teacher_digest(adapter: Path = TEACHER_FOLDER) -> str:
    """SHA-256 that stands for the weights and the configuration of `load_teacher`.

    It is taken over the files: merging an adapter rounds differently on different machines, so the merged weights are
    not the same everywhere to the last bit.
    """
    encoder = assets.catalogue()["minilm"].files
    files = [encoder[file].encode() for file in ("config.json", "model.safetensors")]
    return hash_bytes(*files, *((adapter / file).read_bytes() for file in ADAPTER_FILES))


def gpt2_student(
    tokenizer: PreTrainedTokenizerBase, *, layers: int = 2, width: int = 128, seed: int = 0
) -> GPT2ForSequenceClassification:
    """A GPT-2-shaped classifier with random weights: `layers` blocks of `width`, one attention head per 64 dimensions.

    It reads `tokenizer`'s ids, and has the pad token that GPT-2 lacks, so that it finds the last real token of a
    padded sentence. The same `seed` gives the same weights.
    """
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 64),
        activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's gelu_new, in one kernel
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_LABEL_CONFIG,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2ForSequenceClassification(config)


def load_gpt2(name: str, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0) -> GPT2ForSequenceClassification:
    """`gpt2` or `gpt2-medium` from the hub, as a classifier: its head is new, random by `seed`, and knows nothing yet.

    It is told the pad token that GPT-2 lacks, without which it refuses any batch of two sentences.
    """
    from transformers import GPT2ForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2ForSequenceClassification.from_pretrained(
            assets.locate_on_hub(name), pad_token_id=tokenizer.pad_token_id, dtype=torch.float32, **_LABEL_CONFIG
        )


def load_gpt2_tokenizer() -> PreTrainedTokenizerBase:
    """The byte-pair tokenizer of all GPT-2 models, with the end-of-text token as the pad token that it lacks."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets.locate_on_hub("gpt2"))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_smollm2() -> PreTrainedModel:
    """SmolLM2-135M-Instruct in float32 and in eval mode; `kdcourse assets smollm2` fetches it.

    Raises:
        AssetError: it was not fetched.
    """
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(assets.locate("smollm2"), dtype=torch.float32).eval()


def load_smollm2_tokenizer() -> PreTrainedTokenizerBase:
    """Its tokenizer: 49,152 byte pairs, digits one by one, nothing added at the beginning or the end."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.locate("smollm2"))


def load_language_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model of the hub by its name, in float32 and in eval mode, and its tokenizer.

    Code that comes with a model is not run, and weights are read from safetensors alone.

    Raises:
        AssetError: it is not there, or the hub profile is not chosen.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = assets.locate_by_name(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # rows of equal length are never padded, but a collator asks
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval(), tokenizer


def cut_student(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A copy of a language model that has only these of its layers, in this order; all else is the teacher's.

    Embeddings, head and the norm before it are copied as they are, tied where they are tied. The student shares no
    memory with its teacher, every weight of it can learn, and it is in training mode.

    Raises:
        ValueError: there is no such layer, or none is kept; or the model's layers are not one list of modules.
    """
    name, stack = layer_stack(teacher)
    if not layers or not all(0 <= layer < len(stack) for layer in layers):
        raise ValueError(f"layers is {list(layers)}, but the teacher has the layers 0 to {len(stack) - 1}.")
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    if kinds := getattr(config, "layer_types", None):  # models whose layers attend in several ways
        config.layer_types = [kinds[layer] for layer in layers]
    weights = {key: weight for key, weight in teacher.state_dict().items() if not key.startswith(f"{name}.")}
    for new, old in enumerate(layers):
        weights |= {f"{name}.{new}.{key}": weight for key, weight in stack[old].state_dict().items()}
    with torch.random.fork_rng(), torch.device(teacher.device):
        student: Any = type(teacher)(config)
    student = student.to(teacher.dtype)
    student.load_state_dict(weights)  # which copies
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.requires_grad_(True).train()


def layer_stack(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """A model's list of layers, and its name there.

    Raises:
        ValueError: it has no list of as many modules as its configuration counts, or several.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if len(stacks) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(stacks)} lists of {count} layers; a student is cut from a model that has "
            "one."
        )
    return stacks[0]


@torch.inference_mode()
def residual_change(model: PreTrainedModel, input_ids: Tensor) -> list[float]:
    """How much each layer turns the residual stream on these tokens (B, T): 1 − cosine(before, after), a mean.

    Small is a layer that may be left out: ShortGPT's block influence (Men et al., 2024).
    """
    _, stack = layer_stack(model)
    # The last state is taken behind the final norm, which scales each channel; so the last layer is asked itself.
    last: list[Tensor] = []
    hook = stack[-1].register_forward_hook(lambda _, __, out: last.append(out[0] if isinstance(out, tuple) else out))
    try:
        states = model(input_ids=input_ids, output_hidden_states=True, use_cache=False).hidden_states
    finally:
        hook.remove()
    states = [*states[:-1], last[0]]
    return [
        1 - float(torch.nn.functional.cosine_similarity(before, after, dim=-1).mean())
        for before, after in itertools.pairwise(states)
    ]


def ways_to_cut(count: int, changes: Sequence[float]) -> dict[str, list[int]]:
    """Which layers may be kept if `count` are, by the name of the rule; `changes` are those of `residual_change`.

    Raises:
        ValueError: fewer than two are kept, or more than there are.
    """
    total = len(changes)
    if not 2 <= count <= total:  # noqa: PLR2004  (the first and the last)
        raise ValueError(f"count is {count}; from 2 to {total} layers can be kept.")
    head = -(-count // 2)
    most = sorted(range(total), key=lambda layer: -changes[layer])[:count]
    return {
        "first": list(range(count)),
        "last": list(range(total - count, total)),
        "every k-th": [round(step * (total - 1) / (count - 1)) for step in range(count)],
        "first and last": [*range(head), *range(total - count + head, total)],
        "largest change": sorted(most),
    }


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters, a shared one counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def latency(model: PreTrainedModel, inputs: Mapping[str, Tensor], repeats: int = 30) -> float:
    """Milliseconds for one forward pass over `inputs`: the median of `repeats`, after a warm-up."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    seconds = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        model(**inputs).logits.cpu()  # waits for a GPU, too
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[3:])
