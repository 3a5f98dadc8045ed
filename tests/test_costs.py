"""The cost sheet against what is measured: FLOPs by hand, bytes of real tensors."""

import re

import pytest
import torch
from docs.pages import ROOT, blocks_of
from shapes import WORDS, make_model, make_rows, make_tokenizer
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, T5Config

from kdcourse import fused, fused_lm_distillation_loss, lm_distillation_loss
from kdcourse.costs import FUSED_BYTES, ModelCosts, cached_bytes_per_token, cost_sheet, model_costs
from kdcourse.teacher import cache_logits

TINY = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=100, n_positions=64)
LLAMA_70B = LlamaConfig(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    vocab_size=128256,
)  # fmt: skip


@pytest.mark.parametrize(("config", "length"), [(TINY, 48), (GPT2Config(), 1024)], ids=["tiny", "GPT-2"])
def test_flops_are_those_of_the_formula(config, length):
    """A backward pass counted twice, a head left out, attention that does not grow with the text."""
    width, layers = config.n_embd, config.n_layer
    by_hand = layers * (2 * length * 12 * width**2 + 4 * length**2 * width) + 2 * length * width * config.vocab_size
    assert model_costs(config, length).forward_flops == by_hand


def test_a_large_teacher_is_counted_without_its_weights():
    """140 GB to learn that there are 70 billion parameters; two FLOPs per parameter and token, and a little."""
    costs = model_costs(LLAMA_70B, 1024)
    assert costs.parameters == 70_553_706_496
    assert costs.forward_flops / 1024 / costs.parameters == pytest.approx(2, rel=0.01)
    assert costs.weight_bytes() == 2 * 70_553_706_496


def test_the_bytes_of_a_training_are_those_of_its_tensors():
    """Gradients or moments forgotten."""
    model = AutoModelForCausalLM.from_config(TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    weights = [tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad)]
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    measured = sum(tensor.numel() * tensor.element_size() for tensor in weights + moments)
    assert model_costs(TINY, 8).training_bytes() == pytest.approx(measured, rel=0.1)


def test_a_step_trains_for_three_forward_passes():
    """A backward pass that is taken for one forward pass."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(TINY)
        inputs = {"input_ids": torch.zeros(1, 48, dtype=torch.long), "attention_mask": torch.zeros(1, 1, 48, 48)}
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False).logits.sum().backward()
    assert model_costs(TINY, 48).training_flops == pytest.approx(counter.get_total_flops(), rel=0.1)


SMALL = {
    "llama": LlamaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=5000,
    ),
    "llama-wide": LlamaConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=9000,
    ),
    "gpt2": GPT2Config(
        n_layer=4, n_head=4, n_embd=128, vocab_size=3000, n_positions=256, bos_token_id=0, eos_token_id=0
    ),
}  # fmt: skip


def at_the_peak(config, texts, length, is_fused):
    """Bytes of all tensors, by torch's own tracker, when there are most of them in the second step of a training."""
    models = [AutoModelForCausalLM.from_config(config) for _ in range(2)]
    student, teacher = models
    optimizer = torch.optim.AdamW(student.parameters(), foreach=False)
    ids = torch.randint(0, config.vocab_size, (texts, length))
    settings = {"alpha": 0.5, "temperature": 2.0}

    def step():
        asked = {"input_ids": ids, "use_cache": False}
        with torch.no_grad():
            taught = teacher.base_model(**asked).last_hidden_state if is_fused else teacher(**asked).logits
        if is_fused:
            states = student.base_model(**asked).last_hidden_state
            heads = [model.get_output_embeddings().weight for model in models]
            loss = fused_lm_distillation_loss(states, heads[0], taught, heads[1], ids, **settings)
        else:
            loss = lm_distillation_loss(student(**asked).logits, taught, ids, **settings)
        loss.total.backward()
        optimizer.step()

    step()
    tracker = MemTracker()
    tracker.track_external(student, teacher, optimizer)
    with tracker:
        step()
    (device,) = tracker.get_tracker_snapshot("peak").values()
    return next(size for kind, size in device.items() if getattr(kind, "value", kind) == "Total")


@pytest.mark.parametrize("is_fused", [False, True], ids=["logits", "fused"])
@pytest.mark.parametrize("name", SMALL)
def test_the_most_that_a_step_holds_is_what_it_holds(name, is_fused):
    """Logits counted once although a loss makes ten of them; activations forgotten; attention's probabilities, which no
    kernel keeps; a small batch charged with the fused loss's whole allowance."""
    texts, length = 4, 96
    costs = model_costs(SMALL[name], length)
    measured = at_the_peak(SMALL[name], texts, length, is_fused) - costs.weight_bytes(4)  # of the teacher
    assert costs.step_bytes(texts, fused=is_fused) == pytest.approx(measured, rel=0.1)


def test_the_fused_loss_allows_itself_what_the_sheet_says():
    """A sheet of another version of the loss."""
    assert fused.MEMORY == FUSED_BYTES


def test_activations_of_a_large_student_are_counted_without_them():
    """A count that grows with the square of a text, or that needs the weights. By hand, a layer of Llama keeps what
    goes into and out of its products, two norms, a rotation and a gate: 12 to 20 widths, and 3 to 6 inner ones."""
    sizes = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = LlamaConfig(intermediate_size=8192, vocab_size=128256, tie_word_embeddings=True, **sizes)
    kept = [model_costs(config, length).activation_bytes for length in (512, 1024)]
    assert kept[1] / kept[0] == pytest.approx(2, rel=0.01)
    assert 4 * 16 * 1024 * (12 * 2048 + 3 * 8192) < kept[1] < 4 * 16 * 1024 * (20 * 2048 + 6 * 8192)


def test_logits_of_a_thousand_tokens_take_what_they_take():
    """Sixteen bits where the loss computes in 32."""
    costs = ModelCosts(parameters=1, vocabulary=50_257, length=1, forward_flops=1)
    assert costs.logits_bytes(1000) == torch.zeros(1000, 50_257).untyped_storage().nbytes()


def test_a_model_on_disk_takes_the_bytes_of_its_weights(tmp_path):
    """Tied weights that are counted twice, buffers that are forgotten."""
    config = GPT2Config(n_layer=2, n_head=2, n_embd=128, vocab_size=3000, n_positions=64)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert model_costs(config, 8).weight_bytes(2) == pytest.approx(on_disk, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "k", "bytes_each"),
    [
        ({}, None, 4),
        ({"dtype": torch.float16}, None, 2),
        ({"k": 20, "temperature": 1.0}, 20, 4),
        ({"k": 20, "temperature": 1.0, "dtype": torch.float16}, 20, 2),
        ({"k": 20, "temperature": 1.0, "sampled": True, "dtype": torch.bfloat16}, 20, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("vocabulary", [WORDS, 70_000])
def test_a_cache_takes_as_many_bytes_as_was_said(tmp_path, settings, k, bytes_each, vocabulary):
    """Ids that are forgotten, and take as much as the logits; a vocabulary whose ids take four bytes."""
    rows = make_rows("llama-lm", 200 if vocabulary == WORDS else 20 if k else 2)
    cached = cache_logits(
        tmp_path / "cache", make_model("llama-lm", vocab_size=vocabulary), make_tokenizer(), rows, **settings
    )
    tokens = sum(map(len, rows["input_ids"]))
    on_disk = sum(path.stat().st_size for path in cached.cache.folder.iterdir())
    assert cached_bytes_per_token(vocabulary, k, bytes_each) * tokens == pytest.approx(on_disk, rel=0.1)


def names_of_the_page():
    """What the sheet's block in docs/scaling.md defines."""
    (found,) = (each.text for each in blocks_of(ROOT / "docs" / "scaling.md") if "cost_sheet(" in each.text)
    names = {}
    exec(compile(found, "docs/scaling.md", "exec"), names)  # noqa: S102  (a page of this repository)
    return names


def table_of_the_page():
    """The sheet, computed anew."""
    names = names_of_the_page()
    lines = [
        "| teacher → student | its answers | parts | FLOPs | hours | GB at once | GB kept |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    pairs = {
        "GPT-2 → half of it": (names["gpt2"], names["half_gpt2"]),
        "1B → half of it": (names["one_b"], names["half_b"]),
        "70B → 1B": (names["seventy_b"], names["one_b"]),
    }
    for pair, (teacher, student) in pairs.items():
        cached = cached_bytes_per_token(teacher.vocabulary, k=50)
        for answers, kept in (("asked each time", 0), ("top 50, cached", cached)):
            for part in cost_sheet(teacher, student, cached_bytes_per_token=kept, **names["settings"]):
                numbers = [f"{part.flops:.2g}", f"{part.seconds / 3600:,.1f}", f"{part.memory / 1e9:,.1f}"]
                disk = f"{part.disk / 1e9:,.0f}" if part.disk else "–"
                lines.append(f"| {pair} | {answers} | {part.name} | {' | '.join(numbers)} | {disk} |")
    return "\n".join(lines)


def test_the_sheet_of_the_page_is_what_is_computed():
    """A table that was right for the version before."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- table: costs -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert shown == table_of_the_page()


def test_the_prose_beside_the_sheet_is_what_is_computed():
    """257 TB, a hundred hours, that nobody has added up."""
    names = names_of_the_page()
    assert round(cached_bytes_per_token(128_256) * 1e9 / 1e12) == 257
    once, thrice = (
        cost_sheet(names["seventy_b"], names["one_b"], cached_bytes_per_token=kept, **names["settings"])[0]
        for kept in (names["top_50"], 0)
    )
    assert once.seconds / 3600 == pytest.approx(100, rel=0.05)
    assert thrice.seconds / 3600 == pytest.approx(300, rel=0.05)


def sheet(**changes):
    teacher = ModelCosts(parameters=1000, vocabulary=10, length=8, forward_flops=16_000)
    student = ModelCosts(parameters=100, vocabulary=10, length=8, forward_flops=1600)
    settings = {"tokens": 80, "epochs": 3, "flops_per_second": 1e6} | changes
    return cost_sheet(teacher, settings.pop("student", student), **settings)


def test_a_cache_pays_the_teacher_once():
    """A teacher that is paid in each epoch although its answers are kept, or that must fit beside the student."""
    online, cached = sheet(), sheet(cached_bytes_per_token=60.0)
    assert [part.flops for part in online] == [480_000, 144_000, 624_000]
    assert [part.flops for part in cached] == [160_000, 144_000, 304_000]
    assert [part.seconds for part in cached] == pytest.approx([0.16, 0.144, 0.304])
    assert [part.memory for part in online] == [2000, 1600, 3600]
    assert [part.memory for part in cached] == [2000, 1600, 2000]
    assert [part.disk for part in cached] == [4800, 0, 4800]
    assert [part.name for part in online] == ["the teacher answers 3 times", "the student learns", "in all"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda: model_costs(TINY, 0), "at least one token"),
        (lambda: model_costs(T5Config(), 8), "T5Config cannot be counted without weights"),
        (lambda: sheet(tokens=0), "tokens is 0"),
        (lambda: cached_bytes_per_token(10, k=11), "of 10 classes between 1 and 10"),
        (lambda: sheet(flops_per_second=-1), "flops_per_second is -1"),
        (lambda: sheet(student=ModelCosts(1, 1, 4, 1)), "texts of 8 tokens and the student with 4"),
    ],
)
def test_what_cannot_be_counted_is_said(broken, words):
    """A sheet of nonsense; torch's own error about meta tensors."""
    with pytest.raises(ValueError, match=words):
        broken()
