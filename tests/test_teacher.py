"""Teacher logits: in the right order, and never handed to another teacher, tokenizer or dataset."""

import copy
from types import SimpleNamespace

import pytest
import torch
from shapes import make_model, make_rows, make_tokenizer

from kdcourse import cache, teacher
from kdcourse.cache import CacheMismatchError
from kdcourse.checks import MismatchError


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def sentences():
    """64 rows of uneven length, a third of them without a label."""
    return make_rows("gpt2-classifier", 64)


@pytest.fixture(scope="module")
def model():
    return make_model("gpt2-classifier", dropout=0.1)


@pytest.fixture
def stored(tmp_path, model, tokenizer, sentences):
    """Logits of 64 sentences, written to a file."""
    path = tmp_path / "logits.safetensors"
    logits = teacher.score(model, tokenizer, sentences)
    cache.save_logits(path, {"train": logits}, {"train": cache.fingerprint(model, tokenizer, sentences)})
    return path, logits


def test_scores_stand_in_the_order_of_the_rows(model, tokenizer, sentences):
    """Rows are scored by length: put back wrongly, each sentence gets another one's targets (haitongli PR #16)."""
    together = teacher.score(model, tokenizer, sentences, batch_size=7)
    for index in (0, 13, 63):
        alone = teacher.score(model, tokenizer, sentences.select([index]))
        assert torch.allclose(together[index], alone[0], atol=1e-5)


def test_scoring_has_no_dropout_and_leaves_the_mode_alone(model, tokenizer, sentences):
    """A teacher in train mode answers differently each time."""
    model.train()
    first, second = (teacher.score(model, tokenizer, sentences) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


def test_a_cache_gives_back_what_was_stored(stored, model, tokenizer, sentences):
    """Rounding, or another split's rows."""
    path, logits = stored
    assert torch.equal(cache.load_logits(path, "train", cache.fingerprint(model, tokenizer, sentences)), logits)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_logits_make_their_own_folder(tmp_path):
    """A FileNotFoundError after hours of scoring."""
    path = tmp_path / "deep" / "down" / "logits.safetensors"
    cache.save_logits(path, {"train": torch.zeros(2, 3)}, {"train": {}})
    cache.save_logits(path, {"train": torch.ones(2, 3)}, {"train": {}})
    assert torch.equal(cache.load_logits(path, "train", {}), torch.ones(2, 3))


def test_other_weights_are_refused(stored, model, tokenizer, sentences):
    """A teacher that was trained on, with the answers that it gave before."""
    other = copy.deepcopy(model)
    other.score.weight.data[0, 0] += 1e-3
    with pytest.raises(CacheMismatchError, match="other teacher weights"):
        cache.load_logits(stored[0], "train", cache.fingerprint(other, tokenizer, sentences))


def test_other_rows_are_refused(stored, model, tokenizer, sentences):
    """The same sentences in another order: every target is right, and belongs to another sentence."""
    reordered = sentences.select([1, 0, *range(2, 64)])
    with pytest.raises(CacheMismatchError, match="other token ids"):
        cache.load_logits(stored[0], "train", cache.fingerprint(model, tokenizer, reordered))


def test_another_tokenizer_is_refused(stored, model, tokenizer, sentences):
    """Ids that mean other words."""
    expected = cache.fingerprint(model, tokenizer, sentences) | {"tokenizer": "0" * 64}
    with pytest.raises(CacheMismatchError, match="other tokenizer"):
        cache.load_logits(stored[0], "train", expected)


def test_an_unknown_name_and_a_damaged_file_are_refused_in_words(stored, model, tokenizer, sentences):
    """A SafetensorError from Rust."""
    expected = cache.fingerprint(model, tokenizer, sentences)
    with pytest.raises(CacheMismatchError, match="no logits named 'test'"):
        cache.load_logits(stored[0], "test", expected)
    stored[0].write_bytes(stored[0].read_bytes()[:-10])
    with pytest.raises(CacheMismatchError, match="is damaged"):
        cache.load_logits(stored[0], "train", expected)


def test_each_example_needs_its_own_logits(sentences):
    """One row too few, and all targets shifted."""
    with pytest.raises(ValueError, match="63 rows of logits for 64 examples"):
        teacher.add_logits(sentences, torch.zeros(63, 3))


def test_logits_become_a_column(sentences):
    """A column of another name, or the logits of one row in all."""
    logits = torch.arange(64 * 3.0).reshape(64, 3)
    with_logits = teacher.add_logits(sentences, logits)
    assert with_logits.column_names == [*sentences.column_names, "teacher_logits"]
    assert torch.equal(torch.tensor(with_logits["teacher_logits"][:]), logits)
    assert teacher.ColumnTeacher().logits({"teacher_logits": logits, "input_ids": logits}) is logits
    assert teacher.ColumnTeacher().logits({"input_ids": logits}) is None


def test_progress_is_shown_where_it_is_asked_for(model, tokenizer, sentences, capsys):
    """A bar in every notebook, or none for a night of scoring."""
    teacher.score(model, tokenizer, sentences)
    assert not capsys.readouterr().err
    teacher.score(model, tokenizer, sentences, progress=True)
    assert "teacher: 100%" in capsys.readouterr().err


def test_a_model_that_teaches_is_frozen_and_cut_to_the_shared_vocabulary(sentences):
    """A teacher that learns, or answers for ids that the student does not have."""
    source = teacher.ModelTeacher(make_model("gpt2-lm", dropout=0.1).train(), vocabulary=30)
    assert not any(weight.requires_grad for weight in source.model.parameters())
    inputs = {"input_ids": torch.tensor([[3, 4, 5]])}
    first = source.logits(inputs)
    assert tuple(first.shape) == (1, 3, 30)
    source.model.train()
    assert torch.equal(source.logits(inputs), first)
    assert not source.model.training
    assert teacher.ModelTeacher(make_model("gpt2-lm")).logits(inputs).shape[-1] == 40


def test_logits_are_found_by_their_name():
    """An output that is neither a dictionary nor a tuple; and what was given instead, by its class."""
    logits = torch.zeros(2, 3)
    assert teacher.logits_of(SimpleNamespace(logits=logits, other=torch.ones(1))) is logits
    with pytest.raises(TypeError) as refused:
        teacher.logits_of(SimpleNamespace(hidden=logits))
    assert str(refused.value) == (
        "The model gave SimpleNamespace, in which there are no logits; its forward has to return them as a tensor, "
        "under the name `logits`, or as the first of several."
    )


def test_a_teacher_without_room_is_called_one():
    """A student that is asked to cut its texts, where the teacher's positions end."""
    with pytest.raises(MismatchError, match=r"the teacher \(GPT2LMHeadModel\) has 32 positions"):
        teacher.ask(make_model("gpt2-lm"), {"input_ids": torch.ones(1, 33, dtype=torch.long)})
