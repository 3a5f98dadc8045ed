"""Answers of servers, spoilt anywhere: refused in words, or true in every entry that is believed."""

import copy
import itertools
import json
import math

import pytest
import torch
from servers.local_server import LocalServer
from shapes import WORDS, make_model, make_tokenizer

from kdcourse.dialects import DIALECTS, AnswerError, Vocabulary, entries_of, read

K = 4
TOKENS = [5, 9, 3, 30, 9]
LOCAL = LocalServer(make_model("llama-lm", 1), make_tokenizer())
VOCABULARY = Vocabulary(make_tokenizer())
JUNK = [
    None, True, False, "", "x", "w3", "token_id:-3", "token_id:x", [], {}, [[]], math.nan, math.inf, 0.5, 10**400,
    10**9, 2.5, 7, b"bytes".hex(), "nan", [None], {"logprob": "x"},
]  # fmt: skip
"""What is a legal log-probability is not among them: nobody can know it for another one."""


def answers_of(dialect):
    questions = DIALECTS[dialect].questions("teacher", TOKENS, K)
    return json.loads(json.dumps([LOCAL.answer(DIALECTS[dialect].path, each) for each in questions]))


def believed(dialect, answers):
    said = read(DIALECTS[dialect], answers, "teacher", TOKENS)
    return entries_of(said, TOKENS, K, VOCABULARY)


def places_in(answer, before=()):
    """The path of each node of a JSON."""
    nodes = answer.items() if isinstance(answer, dict) else enumerate(answer) if isinstance(answer, list) else ()
    for key, inner in nodes:
        yield (*before, key)
        yield from places_in(inner, (*before, key))


def spoilt(answers, path, how, junk):
    """A copy in which one node is another, gone, there twice, or has another name."""
    answers = copy.deepcopy(answers)
    inner = answers
    for key in path[:-1]:
        inner = inner[key]
    key = path[-1]
    if how == "another":
        inner[key] = junk
    elif how == "gone":
        del inner[key]
    elif how == "twice" and isinstance(inner, list):
        inner.insert(key, inner[key])
    elif how == "cut" and isinstance(inner, list):
        del inner[key:]
    elif how == "renamed" and isinstance(inner, dict):
        inner[str(junk)] = inner.pop(key)
    return answers


TRUTH = LOCAL.log_probs(TOKENS)
ANSWERS = {dialect: answers_of(dialect) for dialect in DIALECTS}
PATHS = {dialect: [path for path in places_in(answers) if len(path) > 1] for dialect, answers in ANSWERS.items()}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_as_it_should_be_is_believed(dialect):
    """A check that refuses everything."""
    ids, log_probs = believed(dialect, ANSWERS[dialect])
    top = TRUTH[:-1].topk(K)
    assert ids == [[], *top.indices.tolist()]
    assert log_probs[0] == []
    torch.testing.assert_close(torch.tensor(log_probs[1:], dtype=torch.float64), top.values)


WAYS = {"another": JUNK, "renamed": JUNK, "gone": [None], "twice": [None], "cut": [None]}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_believed_of_a_spoilt_answer_is_true(dialect):
    """A shape that nobody thought of: an error without words, or an entry that teaches what the server has not said.

    Each node of an answer is spoilt in each way, one at a time.
    """
    refused = 0
    for path, (how, junks) in itertools.product(PATHS[dialect], WAYS.items()):
        for junk in junks:
            try:
                ids, log_probs = believed(dialect, spoilt(ANSWERS[dialect], path, how, junk))
            except AnswerError as error:
                refused += 1
                assert len(str(error)) > 20
                continue
            where = (path, how, junk)
            assert len(ids) == len(log_probs) == len(TOKENS), where
            for row, of_row, theirs in zip(TRUTH.tolist(), ids[1:], log_probs[1:], strict=False):
                assert K - 1 <= len(of_row) == len(set(of_row)) <= K, where
                assert set(of_row) <= set(range(WORDS)), where
                assert theirs == pytest.approx([row[each] for each in of_row], rel=1e-5), where
    assert refused > 1000
