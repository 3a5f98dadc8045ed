"""What lab 10 works on: a step that two processes make, a launcher that must not be called, a server that can fail."""

import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from docs.pages import ROOT, blocks_of
from settings.by_hand import objective

from kdcourse.collators import LanguageModelCollator
from kdcourse.labs import lab10
from kdcourse.labs.local_server import LocalServer
from kdcourse.servers import Server, ServerError, ask_top_k

SECONDS = 20
"""Far more than a launcher needs that does not wait for ever."""


def step_by_hand():
    """In float64, on all sentences at once."""
    student, teacher = lab10.make_student().double(), lab10.make_teacher().double()
    batch = LanguageModelCollator(lab10.make_tokenizer())(list(lab10.make_texts()))
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        taught = teacher(**asked).logits
    objective(student(**asked).logits, taught, batch["labels"], "llama-lm", alpha=0.5, temperature=2.0).total.backward()
    return torch.cat([(weight - 0.1 * weight.grad).detach().flatten() for weight in student.parameters()])


@pytest.mark.slow
def test_two_processes_make_the_step_by_hand():
    """A lab that shows two wrong steps to be equal; a teacher of which nobody holds a part, or everybody all."""
    found = lab10.in_two_processes()
    by_hand = step_by_hand()
    assert found["processes"] == 2
    for name in ("trainer", "pieces"):
        torch.testing.assert_close(found[name].double(), by_hand, rtol=0, atol=1e-6)
    start = lab10.weights_of(lab10.make_student()).double()
    assert (found["means"] - by_hand).norm() > (by_hand - start).norm()
    bytes_of_all = 4 * sum(weight.numel() for weight in lab10.make_teacher().parameters())
    assert found["teacher"]["before"] == bytes_of_all == found["teacher"]["after"].sum()
    assert found["teacher"]["moved"] == 0
    assert "not whole" in found["teacher"]["refused"]


def test_two_processes_are_given_up_in_time():
    """A notebook that stands still until somebody looks."""
    with pytest.raises(RuntimeError, match=r"not done after 0\.3 seconds, and are stopped"):
        lab10.in_two_processes(seconds=0.3)


FORKED = """
import sys
import torch
from accelerate import notebook_launcher
from kdcourse.labs.lab10 import free_port

def product():
    return torch.ones(900, 900) @ torch.ones(900, 900)

torch.set_num_threads(int(sys.argv[1]))
product()
print("ready", flush=True)
notebook_launcher(product, num_processes=2, use_port=free_port())
"""


def is_done_in_time(threads):
    """Whether accelerate's launcher comes back after so many threads have computed."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED, str(threads)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    try:
        return process.wait(SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the launcher does not fork, or torch has other threads")
def test_a_launcher_that_forks_waits_for_ever_once_threads_have_worked():
    """A reason, given in the lab, that is no reason any more: then the notebook itself can call the launcher."""
    assert is_done_in_time(threads=1)
    assert not is_done_in_time(threads=2)


def test_the_configurations_are_those_of_the_documentation():
    """Two files for one thing, of which somebody mends the one."""
    pages = [block.text for block in blocks_of(ROOT / "docs" / "scaling.md") if block.language == "yaml"]
    files = [(lab10.CONFIGURATIONS / f"{name}.yaml").read_text(encoding="utf-8") for name in ("fsdp", "deepspeed")]
    assert len(pages) == len(files)
    assert [yaml.safe_load(page) for page in pages] == [yaml.safe_load(file) for file in files]


def test_no_text_is_there_twice():
    """A server that seems to be asked less often than there are texts."""
    texts = [tuple(ids) for ids in lab10.make_texts(copies=5)["input_ids"]]
    assert len(set(texts)) == len(texts) > 30
    assert lab10.make_texts()["input_ids"] == lab10.make_texts(copies=5)["input_ids"][:8]


def ask(local, folder, **settings):
    server = Server(local.url, **{"model": "teacher", "concurrency": 3, "pause": 0.002, "attempts": 12} | settings)
    return ask_top_k(server, lab10.make_texts(copies=2), lab10.make_tokenizer(), folder, k=3)


def test_a_server_says_what_its_model_says(tmp_path):
    """A lab whose equality is one of two mistakes; a text that gets the answer to another."""
    teacher = lab10.make_teacher()
    with LocalServer(teacher, lab10.make_tokenizer(), fails=0.3) as local:
        taught = ask(local, tmp_path)
        assert local.answered == len(taught) < local.asked
    for row in taught:
        with torch.no_grad():
            log_probs = teacher.double()(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        assert row["teacher_topk_ids"][1:] == log_probs.topk(3).indices[:-1].tolist()
        said = torch.tensor(row["teacher_topk_log_probs"][1:], dtype=torch.float64)
        torch.testing.assert_close(said, log_probs.topk(3).values[:-1], rtol=1e-4, atol=1e-4)


def test_a_server_dies_when_it_should_and_what_came_is_kept(tmp_path):
    """A server that answers one question more each time, and a claim that counts them."""
    with LocalServer(lab10.make_teacher(), lab10.make_tokenizer(), dies_after=5) as local:
        with pytest.raises(ServerError, match="gave no answer"):
            ask(local, tmp_path, attempts=2)
        assert local.answered == len(list(tmp_path.rglob("*.safetensors"))) == 5
        local.dies_after = None
        taught = ask(local, tmp_path)
        assert local.answered == len(taught)


def test_a_server_has_one_model(tmp_path):
    """Answers of a teacher that was not asked for."""
    with (
        LocalServer(lab10.make_teacher(), lab10.make_tokenizer()) as local,
        pytest.raises(ServerError, match="has no model 'other'; it has 'teacher'"),
    ):
        ask(local, tmp_path, model="other")
