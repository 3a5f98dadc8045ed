"""The hub profile of lab 08, from the first cell to the last, with no hub: its cache holds tiny models under names.

Once with SmolLM2's name, from which a student is cut; once with two other names, of models of two widths.
"""

import os
import shutil
import subprocess
import sys

import datasets
import nbformat
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdcourse.course.claims import claims_of
from kdcourse.course.lessons import find_lessons
from kdcourse.labs import assets

pytestmark = pytest.mark.slow

END = "<|endoftext|>"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMED = {"TEACHER": "tiny/teacher", "STUDENT": "tiny/student"}


def reviews(count):
    """Texts of more than 48 tokens, no two alike."""
    for number in range(count):
        yield f"Film number {number} is a film of {number * 7} scenes, and of these scenes {number // 2} are good. " * 3


def make_tokenizer():
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    settings = trainers.BpeTrainer(vocab_size=300, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(reviews(100), settings)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END)


def llama(layers, width):
    torch.manual_seed(layers)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=width, hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0,
            eos_token_id=0, initializer_range=0.3,
        )
    )  # fmt: skip


def gpt2(width):
    torch.manual_seed(9)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}
    return GPT2LMHeadModel(GPT2Config(vocab_size=width, bos_token_id=0, eos_token_id=0, **sizes))


def snapshot(cache, repo, revision, kind="model"):
    """The folder in which the hub client looks for a revision of a repository; it is the newest one, too."""
    folder = cache / f"{kind}s--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision, encoding="ascii")
    return folder / "snapshots" / revision


def lay_out(cache):
    """Everything that the hub profile asks the hub for."""
    datasets.disable_progress_bars()
    tokenizer, known = make_tokenizer(), assets.catalogue()
    smollm2 = known["smollm2"].hub
    for repo, revision, model in (
        (smollm2.repo, smollm2.revision, llama(8, 300)),
        (NAMED["TEACHER"], COMMIT, llama(3, 320)),
        (NAMED["STUDENT"], COMMIT, gpt2(304)),
    ):
        folder = snapshot(cache, repo, revision)
        model.save_pretrained(folder)
        tokenizer.pad_token = END if repo == smollm2.repo else None  # which many others lack
        tokenizer.save_pretrained(folder)
    texts = list(reviews(3100))
    imdb = snapshot_file(cache, known["imdb"].hub, known["imdb"].hub.files[0])
    Dataset.from_dict({"text": texts, "label": [1] * len(texts)}).to_parquet(str(imdb))


def snapshot_file(cache, hub, file):
    place = cache / f"{hub.kind}s--{hub.repo.replace('/', '--')}" / "snapshots" / hub.revision / file
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def run_lab(folder, **parameters):
    """`kdcourse run 08` in a folder of its own, so that nothing of this clone's build is used or left behind."""
    options = [option for name, value in parameters.items() for option in ("-p", f"{name}={value}")]
    out = folder / ("named" if parameters else "cut")
    done = subprocess.run(
        [sys.executable, "-m", "kdcourse", "run", "08", "--out", str(out), *options],
        env=os.environ | {
            assets.SOURCE_VARIABLE: "hub", "HF_HUB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "", "KDCOURSE_NOTEBOOKS": str(folder / "notebooks"),
        },
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return nbformat.read(out / "08_language_model_distillation.ipynb", as_version=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    (lesson,) = find_lessons(["08"])
    shutil.copy(lesson.path, folder / "notebooks")
    shutil.copytree(lesson.path.parent / "claims", folder / "notebooks" / "claims")
    lay_out(folder / "cache")
    return folder


def said_by(notebook):
    return {cell.id: str(cell.get("outputs", "")) for cell in notebook.cells}


def test_the_lab_runs_with_a_student_that_is_cut(folder):
    """A hub profile that was written, and never run; the record of SmolLM2 held against tiny models."""
    notebook = run_lab(folder)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    shown = {claim["name"] for claim in claims_of(notebook)}
    assert "loss by hand and by kdcourse, difference in nats" in shown
    assert "two texts of the record, asked again, difference in nats" not in shown
    assert "labels" in said_by(notebook)["live-both"] and "forward KL" in said_by(notebook)["live-both"]
    trained = {path.name[:6] for path in (folder / "build").rglob("*") if (path / "measured.safetensors").exists()}
    assert trained == {"labels", "forwar"}


def test_the_lab_runs_with_two_models_by_name(folder):
    """Two widths of one vocabulary; a student that is cut from its teacher though another was named."""
    notebook = run_lab(folder, **NAMED)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "no other experiment" in said_by(notebook)["own-models-code"]
