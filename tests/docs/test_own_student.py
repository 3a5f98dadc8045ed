"""`docs/own-student.md`, from two names to a saved student, with tiny models in the hub's cache."""

import logging
import re

import pytest
from datasets import Dataset
from own_models import PAGE, classifiers, language_models, lay_out, named_models
from pages import blocks_of
from test_code_blocks import HIDE, python_of, run_python

from kdcourse import DistillationArguments, DistillationTrainer, MismatchError
from kdcourse.columns import tokenize

FASTER = {"learning_rate=5e-5": "learning_rate=2e-2", "SEEDS = range(3)": "SEEDS = range(2)"}
"""What the tests change of the page: tiny models learn by larger steps, and two seeds run the same lines."""

LEARNED = """
def never(*_, **__):
    raise AssertionError("a finished training is trained again")


torch.optim.AdamW.step = never
again = trained(alpha=0.5, seed=0)
saved = AutoModelForCausalLM.from_pretrained("writer").state_dict()
assert all(torch.equal(saved[name], weight) for name, weight in again.model.state_dict().items())
assert teachers_loss < before and min(students) > -before and min(twins) > -before
"""

ALONE = """
assert [answer["label"] for answer in classify(["the film is good", "a very dull plot"])] == ["for", "against"]
said = writer.generate(**asked, max_new_tokens=8, do_sample=False)[0, asked["input_ids"].shape[1]:].tolist()
assert reader.decode(said[0]) == "was" and said[2:] == [reader.eos_token_id]
assert writer.dtype == torch.float32
"""


def code_of_the_page():
    code = python_of(PAGE)
    for theirs, ours in FASTER.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page was run from its first line to its last."""
    folder = tmp_path_factory.mktemp("own")
    lay_out(folder)
    assert run_python(code_of_the_page() + LEARNED, folder) == ""
    return folder


@pytest.mark.slow
def test_what_it_saves_needs_no_kdcourse(folder):
    """A student that only its trainer can load, that has learned nothing, or that never stops."""
    blocks = [
        block.text for block in blocks_of(PAGE) if re.search(r'model="student"|from_pretrained\("writer"\)', block.text)
    ]
    assert len(blocks) == 2
    hidden = HIDE.replace("{hidden!r}", repr({"kdcourse", "datasets", "scipy"}))
    assert run_python("import kdcourse", folder, hidden).endswith("'kdcourse'\n")
    assert run_python("import torch\n" + "\n".join(blocks) + ALONE, folder, hidden) == ""
    assert not list(folder.glob("student/*.bin")) and not list(folder.glob("writer/*.bin"))


def test_every_model_is_pinned():
    """A name that means another model tomorrow."""
    assert len({name for name, _ in named_models()}) == len({commit for _, commit in named_models()}) == 4
    code = python_of(PAGE)
    loads = re.findall(r"from_pretrained\(([^)]*)\)", code)
    assert [load for load in loads if "revision=commit" not in load and load != '"writer"'] == []


def symptoms():
    """What the page quotes of messages, in the order of its table."""
    table = PAGE.read_text(encoding="utf-8").partition("## What goes wrong most often")[2]
    return [
        quoted
        for row in table.splitlines()
        if row.startswith("|")
        for quoted in re.findall(r"`([^`]*…[^`]*)`", row.split("|")[1])
    ]


def is_said(quoted, message):
    return all(part.strip() in message for part in quoted.split("…"))


def test_the_symptoms_are_what_is_said(tmp_path, caplog):
    """A reader who looks for the words of a message in the table, and does not find them."""
    ids, short, whole = symptoms()
    (teacher, theirs), (_, ours) = classifiers()
    rows = tokenize(Dataset.from_dict({"text": ["good film", "bad plot"] * 2, "labels": [1, 0] * 2}), ours)
    settings = {"max_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    student = type(teacher)(teacher.config)
    trainer = DistillationTrainer(
        student, DistillationArguments(str(tmp_path), **settings), teacher=teacher, train_dataset=rows,
        processing_class=ours, teacher_processing_class=theirs,
    )  # fmt: skip
    with pytest.raises(MismatchError) as refused:
        trainer.train()
    assert is_said(ids, str(refused.value))

    (teacher, _), (student, tokenizer) = language_models()
    student.lm_head.register_forward_hook(lambda *_: None)
    texts = tokenize(Dataset.from_dict({"text": ["good film"] * 4}), tokenizer)
    trainer = DistillationTrainer(
        student, DistillationArguments(str(tmp_path), **settings), teacher=teacher, train_dataset=texts,
        processing_class=tokenizer, teacher_processing_class=tokenizer,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "kdcourse"):
        trainer.train()
    for quoted in (short, whole):
        assert any(is_said(quoted, record.getMessage()) for record in caplog.records)
