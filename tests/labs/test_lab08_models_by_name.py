"""Lab 08 with models by name: a student that is another model than its teacher, from a hub's cache that is laid out."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdcourse import MismatchError
from kdcourse.labs import assets, lab08, models
from kdcourse.labs.lab08 import Plan, Task

END = "<|endoftext|>"
TEXTS = [
    f"A film of {number} parts, and number {number * 7} of them is the best one that I have seen."
    for number in range(99)
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SETS = ("train", "healing", "transfer", "validation", "test", "editorials", "products")
PLAN = Plan(
    layers=(0, 29), steps=4, tried=(2, 4), length=12, opening=3, batch_size=4, learning_rate=1e-2, warmup=1, healing=2,
    seeds=1, texts=dict.fromkeys(SETS, 4),
)  # fmt: skip


def make_tokenizer(texts=TEXTS, size=300):
    """Byte pairs, and nothing to pad with, as many models of the hub have it."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END)


def llama(layers, width=320):
    """A few more columns than there are tokens."""
    torch.manual_seed(layers)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=width, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
            initializer_range=0.3,
        )
    )  # fmt: skip


def gpt2(width=304):
    torch.manual_seed(9)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=width, bos_token_id=0, eos_token_id=0, **sizes))


def lay_out(cache, name, model, tokenizer):
    """As the hub's client keeps a model: its newest commit by name, and the files under the commit."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="ascii")
    model.save_pretrained(folder / "snapshots" / COMMIT)
    tokenizer.save_pretrained(folder / "snapshots" / COMMIT)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub profile, in whose cache are a teacher, two students and a stranger; and texts of ours for all sets."""
    tokenizer = make_tokenizer()
    lay_out(tmp_path, "tiny/teacher", llama(5), tokenizer)
    lay_out(tmp_path, "tiny/student", gpt2(), tokenizer)
    lay_out(tmp_path, "tiny/stranger", llama(2), make_tokenizer([text[::-1] for text in TEXTS]))
    monkeypatch.setenv(assets.SOURCE_VARIABLE, "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rows = Dataset.from_dict({"text": TEXTS})
    monkeypatch.setattr(lab08.data, "load_movie_texts", lambda: DatasetDict(train=rows, validation=rows, test=rows))
    monkeypatch.setattr(lab08.data, "load_domain_texts", lambda name: rows)
    return tmp_path


def test_a_student_by_name_is_that_model_and_learns(hub):
    """A student that is cut from the teacher after all, or begins where another run has ended."""
    task = lab08.load_task(hub / "lab", PLAN, teacher="tiny/teacher", student="tiny/student")
    stored = load_file(hub / "models--tiny--student" / "snapshots" / COMMIT / "model.safetensors")
    for student in (task.new_student(), task.new_student()):
        assert isinstance(student, GPT2LMHeadModel) and student.training
        own = dict(student.named_parameters())
        assert all(weight.requires_grad for weight in own.values())
        assert torch.equal(own["transformer.h.0.attn.c_attn.weight"], stored["transformer.h.0.attn.c_attn.weight"])
        with torch.no_grad():
            own["transformer.h.0.attn.c_attn.weight"].zero_()
    results = lab08.run_all(task, ["labels", "forward KL"], say=lambda _: None)
    assert results.losses("forward KL").shape == (1, 4)
    assert not (results.losses("forward KL") == results.losses("labels")).any()
    healed = task.healed(0)
    assert isinstance(healed, GPT2LMHeadModel)
    ids = task.texts["test"]
    with torch.no_grad():
        logits = healed.eval()(input_ids=ids).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    assert results.losses("healed").mean() == pytest.approx(expected, rel=1e-4)


def test_columns_behind_the_last_token_have_no_say(hub):
    """Two widths of one vocabulary, 304 and 320, in one loss; a softmax over ids that are no tokens."""
    task = lab08.load_task(hub / "lab", PLAN, teacher="tiny/teacher", student="tiny/student")
    shared = len(make_tokenizer())
    assert len(task.head.weight) == task.new_student().config.vocab_size == shared
    ids = task.texts["train"]
    with torch.no_grad():
        whole = llama(5).eval()(input_ids=ids).logits[..., :shared].log_softmax(-1)
    own = lab08.read(task.teacher, ids)
    assert torch.allclose((own.hidden @ own.head.weight.t()).log_softmax(-1), whole, atol=1e-5)


def test_a_student_of_another_tokenizer_is_refused(hub):
    """Ids that mean another token to each, compared number by number."""
    with pytest.raises(MismatchError, match="token"):
        lab08.load_task(hub / "lab", PLAN, teacher="tiny/teacher", student="tiny/stranger")


def test_a_student_is_cut_from_a_teacher_of_any_depth(hub):
    """Layer 29 of a teacher that has five."""
    task = lab08.load_task(hub / "lab", PLAN, teacher="tiny/teacher")
    assert task.plan.layers == (0, 4)
    assert task.new_student().config.num_hidden_layers == 2
    assert task.tokenizer.pad_token == END
    deeper = lab08.fitted(lab08.FULL, task.teacher)
    assert deeper.layers == (0, 1, 2, 3, 4)
    assert lab08.fitted(lab08.FULL, llama(30)) is lab08.FULL
    assert lab08.fitted(lab08.QUICK, llama(30)) is lab08.QUICK
    lab08.try_cuts(task, steps=1, say=lambda _: None)


def test_another_student_is_another_run_and_a_cut_one_is_as_before(tmp_path):
    """Results of one student under the name of another; a finished experiment that no longer finds its runs."""
    texts = {"train": torch.ones(2, 4, dtype=torch.long)}
    teacher = llama(2)
    cut = Task(tmp_path, PLAN, make_tokenizer(), teacher, texts)
    named, other = (Task(tmp_path, PLAN, cut.tokenizer, teacher, texts, make) for make in (gpt2, lambda: llama(1)))
    digests = [lab08._digest(task, "labels", 0) for task in (cut, named, other)]
    assert len(set(digests)) == 3
    by_hand = {
        "plan": {key: value for key, value in vars(PLAN).items() if key not in ("seeds", "rates", "trial", "cutting")},
        "arm": {"alpha": 1.0, "divergence": "forward_kl", "reads": "train"}, "seed": 0,
        "teacher": lab08.hash_weights(teacher), "texts": lab08.hash_tensors(texts), "versions": lab08.versions(),
    }  # fmt: skip
    assert digests[0] == lab08.hash_json(json.loads(json.dumps(by_hand)))


@pytest.mark.parametrize(("source", "name", "said"), [
    ("embedded", "tiny/teacher", "is not 'hub'"),
    ("hub", "tiny/absent", "could not be had from the hub"),
    ("hub", "not a name/at all", "could not be had from the hub"),
])  # fmt: skip
def test_a_model_that_is_not_there_is_named(hub, monkeypatch, source, name, said):
    """A stack of the hub client's errors in the place of a sentence."""
    monkeypatch.setenv(assets.SOURCE_VARIABLE, source)
    with pytest.raises(assets.AssetError, match=said):
        models.load_language_model(name)


def test_only_safe_files_are_asked_for(monkeypatch):
    """A pickle that is downloaded and run."""
    asked = {}
    monkeypatch.setenv(assets.SOURCE_VARIABLE, "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **given: asked.update(given) or "there")
    assert assets.locate_by_name("tiny/teacher") == Path("there")
    assert not [each for each in asked["allow_patterns"] if each.endswith((".bin", ".pt", ".pth", ".py", "*"))]
