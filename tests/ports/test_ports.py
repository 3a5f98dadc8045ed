"""Three scripts that others wrote, and their ports: how much changes, and whether the first step is what it should be.

`before_….py` does, in its users' idiom, what the page or the example does that its head names; `after_….py` is the
port. A logged loss is held against the formula in float64 (`objective_reference`), on the logits that the models gave
in that step and on labels that the test knows from the data.
"""

import json
import os
import re
import subprocess
import sys
from typing import NamedTuple

import layout
import numpy as np
import pytest
import torch
from changes import HERE, SCRIPTS, removed, table, written
from objective_reference import lm_objective, objective
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PAGE = HERE.parents[1] / "docs" / "porting.md"
LINES = 5
SECONDS = 300
OFFLINE = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

CLOSE = {"rel": 1e-5}
"""The models compute in float32; the formula does not."""

deep = pytest.mark.skipif("KDCOURSE_DEEP" not in os.environ, reason="seven trainings, a process each: make test-deep")
TRL = "trl==1.16.0 --hash=sha256:c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"
"""Not among what the tests install: one test runs it, and it changes often."""


class Run(NamedTuple):
    """What a script said of its first step, and the log of it."""

    answers: dict[str, torch.Tensor]
    first: dict[str, float]

    def logits(self, role):
        return self.answers[f"{role}.logits"].double().numpy()


def run(script, folder, *arguments, **variables):
    """Run a script in a folder, as its user would; `variables` are added to its environment."""
    settings = OFFLINE | {"HF_HOME": str(folder / "cache")} | variables
    done = subprocess.run(
        [sys.executable, HERE / "watched.py", folder / script, HERE / f"{script}.py", *map(str, arguments)],
        cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    logs = json.loads((folder / f"{script}.json").read_text(encoding="utf-8"))
    return Run(load_file(folder / f"{script}.safetensors"), logs[0])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_port_is_five_lines(name):
    """A library that is a rewrite."""
    assert 0 < written(name) <= LINES
    if name != "image_distillation":  # from which a trainer of one's own goes
        assert removed(name) <= LINES


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_shows_the_ports_as_they_are(name):
    """Documentation of an older port: `python tests/ports/changes.py` prints the tables."""
    page = PAGE.read_text(encoding="utf-8")
    assert table(name) in page
    assert f"{written(name)} lines written, {removed(name)} removed" in page


def numbers_of_the_page(script):
    """Those in the row of a script, in the table of first losses."""
    (row,) = re.findall(rf"^\| {script}.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [float(number) for number in re.findall(r"\d\.\d{4}", row)]


def rounded(*losses):
    """As the page rounds them; the last digit may be another on another processor."""
    return pytest.approx(losses, abs=1.5e-4)


# GKD


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gkd")
    layout.lay_out_conversations(folder)
    return folder


@pytest.fixture(scope="module")
def distilled(conversations):
    return run("after_gkd", conversations, "student", "teacher", "data", "after")


@pytest.fixture(scope="module")
def trl(tmp_path_factory):
    """A folder that holds TRL alone; what it needs is here already."""
    folder = tmp_path_factory.mktemp("trl")
    (folder / "requirements.txt").write_text(TRL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--retries",
         "0", "--target", folder / "packages", "--requirement", folder / "requirements.txt"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"TRL cannot be had here: {done.stderr.strip()[-200:]}")
    return folder / "packages"


def labels_of_answers(answers, folder):
    """Of each row, the tokens of its last message and of its end; nothing is asked of the collator."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    ids, mask = answers["student.input_ids"], answers["student.attention_mask"].bool()
    labels = torch.full_like(ids, -100)
    for row, (its_ids, its_mask) in enumerate(zip(ids, mask, strict=True)):
        text = tokenizer.decode(its_ids[its_mask])
        answer = text.rpartition("<|im_start|>assistant\n")[2]
        count = len(tokenizer(answer, add_special_tokens=False)["input_ids"])
        places = its_mask.nonzero().flatten()[-count:]
        assert tokenizer.decode(its_ids[places]) == answer
        labels[row, places] = its_ids[places]
    return labels.numpy()


def texts_of(answers):
    """The ids of a batch without padding."""
    rows = zip(answers["student.input_ids"], answers["student.attention_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in rows]


@deep
@pytest.mark.slow
def test_gkd_is_the_generalised_divergence_over_the_answers(distilled, conversations):
    """Prompts in the loss, T² where TRL has none, beta at the wrong end, or positions that are off by one."""
    labels = labels_of_answers(distilled.answers, conversations)
    settings = {"alpha": 0, "temperature": 1.0, "divergence": "jensen_shannon"}
    models = distilled.logits("student"), distilled.logits("teacher")
    expected = lm_objective(*models, labels, beta=0.1, **settings)
    assert distilled.first["loss"] == pytest.approx(expected.soft.value, **CLOSE)
    assert distilled.first["hard_loss"] == pytest.approx(expected.hard.value, **CLOSE)
    assert distilled.first["loss"] != pytest.approx(
        lm_objective(*models, labels, beta=0.9, **settings).soft.value, rel=0.01
    )


@deep
@pytest.mark.slow
def test_gkd_logs_what_trl_logs(distilled, conversations, trl):
    """Another objective under the same name."""
    path = os.pathsep.join(filter(None, [str(trl), os.environ.get("PYTHONPATH")]))
    theirs = run("before_gkd", conversations, "student", "teacher", "data", "before", PYTHONPATH=path)
    # They pad on the left, whatever the tokenizer says.
    assert texts_of(theirs.answers) == texts_of(distilled.answers)
    assert distilled.first["loss"] == pytest.approx(theirs.first["loss"], **CLOSE)
    assert distilled.first["grad_norm"] == pytest.approx(theirs.first["grad_norm"], rel=1e-4)
    assert numbers_of_the_page("TRL, GKD") == rounded(theirs.first["loss"], distilled.first["loss"])


def require_first_losses(watched, expected):
    """The first step logs the objective, and both of its parts."""
    for name, term in zip(("loss", "hard_loss", "soft_loss"), expected, strict=True):
        assert watched.first[name] == pytest.approx(term.value, **CLOSE), name


# Hugging Face's vision guide


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    layout.lay_out_pictures(folder)
    layout.lay_out_metric(folder)
    return folder


@deep
@pytest.mark.slow
def test_the_vision_guide_is_half_labels_and_half_teacher(pictures):
    """lambda_param for alpha, T² that is lost, or a teacher that is asked about other pictures."""
    before = run("before_image_distillation", pictures, "teacher", "data", "before")
    after = run("after_image_distillation", pictures, "teacher", "data", "after")
    assert torch.equal(before.answers["student.pixel_values"], after.answers["student.pixel_values"])
    assert torch.equal(after.answers["teacher.pixel_values"], after.answers["student.pixel_values"])

    labels = after.answers["student.pixel_values"].mean(dim=(2, 3)).argmax(dim=1).numpy()
    assert np.bincount(labels).tolist() == [layout.ROWS // 3] * 3
    expected = objective(after.logits("student"), after.logits("teacher"), labels, alpha=0.5, temperature=5.0)
    require_first_losses(after, expected)
    assert after.first["loss"] == pytest.approx(before.first["loss"], **CLOSE)
    parts = after.first["hard_loss"], after.first["soft_loss"]
    assert numbers_of_the_page("Hugging Face") == rounded(before.first["loss"], after.first["loss"], *parts)


# run_glue


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The files, a DistilBERT that has learned nothing, and the BERT that the script as it was has trained on them."""
    folder = tmp_path_factory.mktemp("pairs")
    layout.lay_out_pairs(folder)
    layout.lay_out_metric(folder)
    run_glue("before_run_glue", folder, "bert", "teacher", "--learning_rate", "1e-3")
    return folder


@pytest.fixture(scope="module")
def undistilled(pairs):
    """The script as it was, with the same student."""
    return run_glue("before_run_glue", pairs, "distilbert", "before", "--tokenizer_name", "teacher")


def run_glue(script, folder, model, output, *more):
    files = [word for split in ("train", "validation", "test") for word in (f"--{split}_file", f"{split}.json")]
    return run(
        script, folder, "--model_name_or_path", model, "--output_dir", output, *files, "--do_train", "--do_eval",
        "--do_predict", "--per_device_train_batch_size", layout.ROWS, "--logging_steps", 1, "--report_to", "none",
        "--max_seq_length", 32, *more,
    )  # fmt: skip


@deep
@pytest.mark.slow
@pytest.mark.parametrize("padding", ["True", "False"])
def test_run_glue_asks_bert_about_both_sentences(padding, pairs, undistilled):
    """A teacher that reads zeros in the place of token types; labels that are lost; padding that has a say."""
    settings = ["--tokenizer_name", "teacher", "--teacher_name_or_path", "teacher", "--pad_to_max_length", padding]
    after = run_glue("after_run_glue", pairs, "distilbert", "after", *settings)

    tokenizer = AutoTokenizer.from_pretrained(pairs / "teacher")
    rows = [json.loads(line) for line in (pairs / "train.json").read_text(encoding="utf-8").splitlines()]
    known = {tuple(tokenizer(row["sentence1"], row["sentence2"])["input_ids"]): row for row in rows}
    asked = [known[tuple(ids)] for ids in texts_of(after.answers)]
    assert len(known) == len(asked) == layout.ROWS

    teacher = AutoModelForSequenceClassification.from_pretrained(pairs / "teacher").eval()
    sentences = [[row[name] for row in asked] for name in ("sentence1", "sentence2")]
    with torch.no_grad():
        logits = teacher(**tokenizer(*sentences, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(after.answers["teacher.logits"], logits, atol=1e-5, rtol=1e-5)
    assert "student.token_type_ids" not in after.answers

    labels = np.array([row["label"] for row in asked])
    expected = objective(after.logits("student"), after.logits("teacher"), labels, alpha=0.5, temperature=2.0)
    require_first_losses(after, expected)
    assert after.first["hard_loss"] == pytest.approx(undistilled.first["loss"], **CLOSE)
    parts = after.first["hard_loss"], after.first["soft_loss"]
    assert numbers_of_the_page("transformers") == rounded(undistilled.first["loss"], after.first["loss"], *parts)
    assert (
        len(re.findall(r"^\d\t[01]$", (pairs / "after" / "predict_results.txt").read_text("utf-8"), re.MULTILINE)) == 6
    )


@deep
@pytest.mark.slow
def test_run_glue_with_a_students_tokenizer_is_refused(pairs):
    """The same command without --tokenizer_name: it ran, and the teacher took two sentences for one."""
    with pytest.raises(AssertionError, match=r"no token_type_ids.*DistilBertTokenizer makes none"):
        run_glue("after_run_glue", pairs, "distilbert", "refused", "--teacher_name_or_path", "teacher")
