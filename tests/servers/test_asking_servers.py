"""A teacher on another machine: what a server answers is what a local cache holds, however the server behaves."""

import json
import logging
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from docs.pages import ROOT, blocks_of
from servers.local_server import LocalServer
from shapes import WORDS, make_model, make_rows, make_tokenizer

from kdcourse.columns import TOPK_IDS_COLUMN, TOPK_LOG_PROBS_COLUMN
from kdcourse.dialects import DIALECTS
from kdcourse.servers import PROBE, Server, ServerError, ask_top_k
from kdcourse.teacher import cache_logits

K = 5
KEY = "sk-very-secret-0123456789"


def rows_of(number=6, seed=0):
    return make_rows("llama-lm", number, seed)


def server_of(local, dialect="vllm", **settings):
    return Server(local.url, "teacher", dialect, **{"pause": 0.002, "timeout": 20.0, "attempts": 12} | settings)


def make_server(**settings):
    return LocalServer(make_model("llama-lm", 1), make_tokenizer(), **settings)


def asked(local, folder, rows=None, *, k=K, tokenizer=None, **settings):
    return ask_top_k(server_of(local, **settings), rows or rows_of(), tokenizer or make_tokenizer(), folder, k=k)


def scored_here(folder, rows, k=K):
    """[(ids, log-probabilities)] of each row, from the cache of the same model, where the logits stand."""
    cached = cache_logits(folder, make_model("llama-lm", 1), make_tokenizer(), rows, k=k, temperature=1.0)
    found = []
    for row in range(len(rows)):
        kept = cached.cache[row]
        total = torch.cat([kept.logits, kept.rest[:, None]], 1).double().logsumexp(1, keepdim=True)
        found.append((kept.classes[:-1].tolist(), (kept.logits.double() - total)[:-1]))
    return found


def require_equal(taught, folder, rows, k=K, tolerance=1e-5):
    """What was asked is what is scored here, one place further on."""
    for row, (ids, log_probs) in zip(taught, scored_here(folder, rows, k), strict=True):
        theirs, said = row[TOPK_IDS_COLUMN], row[TOPK_LOG_PROBS_COLUMN]
        assert theirs[0] == said[0] == []
        assert theirs[1:] == ids
        torch.testing.assert_close(
            torch.tensor(said[1:], dtype=torch.float64).view_as(log_probs), log_probs, rtol=tolerance, atol=tolerance
        )


def flaky(seed=0, share=0.3):
    """Troubles of a share of the questions, drawn."""
    drawn = random.Random(seed)
    return lambda number, tokens: (
        drawn.choice([500, 502, 503, 429, "hang up", (429, b"Later", {"Retry-After": "0.01"})])
        if drawn.random() < share
        else None
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unreliable_server_gives_what_a_local_cache_holds(tmp_path, dialect):
    """Answers that are given to another text because they come in another order; a failure that ends hours of work."""
    rows = rows_of(12)
    with make_server(troubles=flaky(), seconds=0.02) as local:
        taught = asked(local, tmp_path / "asked", rows, dialect=dialect)
        assert local.questions > len(local.answered)
        assert 1 < local.most_under_way <= 8
        assert dialect == "llama.cpp" or local.answered != [tuple(row) for row in rows["input_ids"] if len(row) > 1]
    require_equal(taught, tmp_path / "scored", rows)


def test_an_answer_in_16_bits_is_as_near_as_16_bits_are(tmp_path):
    """Rounded probabilities that add up to a little more than 1, and are refused."""
    rows = rows_of()
    with make_server(rounded=torch.float16) as local:
        taught = asked(local, tmp_path / "asked", rows, k=1)
    require_equal(taught, tmp_path / "scored", rows, k=1, tolerance=2**-11)


def test_all_of_a_small_vocabulary_can_be_asked_for(tmp_path):
    """A k that is as large as the vocabulary, and a text's own token counted twice."""
    rows = rows_of(3)
    with make_server() as local:
        require_equal(asked(local, tmp_path / "asked", rows, k=WORDS), tmp_path / "scored", rows, k=WORDS)


def test_padding_of_the_teachers_vocabulary_belongs_to_the_rest(tmp_path):
    """Ids that the tokenizer does not have, in a student's batch."""
    rows = rows_of()
    with LocalServer(make_model("llama-lm", 1, vocab_size=WORDS + 24), make_tokenizer()) as local:
        taught = asked(local, tmp_path, rows, k=20)
        sums = [sum(map(math.exp, place)) for row in taught[TOPK_LOG_PROBS_COLUMN] for place in row[1:]]
    assert max(each for row in taught[TOPK_IDS_COLUMN] for place in row for each in place) < WORDS
    assert min(len(place) for row in taught[TOPK_IDS_COLUMN] for place in row[1:]) < 20
    assert max(sums) < 1


def answered_texts(local):
    return sorted(local.answered)


def test_a_server_that_dies_is_gone_on_with_and_nothing_is_asked_twice(tmp_path):
    """A night's answers that are lost with the connection; texts that are paid for again."""
    rows = rows_of(16)
    texts = sorted({tuple(row) for row in rows["input_ids"] if len(row) > 1})
    with make_server(troubles=lambda number, tokens: "hang up" if number >= 7 else None) as local:
        with pytest.raises(ServerError, match="gave no answer to /v1/completions for text") as refused:
            asked(local, tmp_path / "asked", rows, concurrency=3, attempts=2)
        first = answered_texts(local)
    assert any("kept in" in note for note in refused.value.__notes__)
    assert len(first) == 7 == len(list(tmp_path.rglob("*.safetensors")))
    with pytest.raises(ServerError, match=r"gave no answer to /v1/models .* in 2 attempts.*ConnectError"):
        asked(local, tmp_path / "asked", rows, attempts=2)  # nobody is there any more
    with make_server(troubles=flaky(1)) as local:
        taught = asked(local, tmp_path / "asked", rows)
        assert sorted([*first, *local.answered]) == texts
    require_equal(taught, tmp_path / "scored", rows)
    with make_server() as local:
        asked(local, tmp_path / "asked", rows)
        assert local.headers == []  # all is there: not even the models are asked for
    assert not list(tmp_path.rglob("*.unfinished"))


SCRIPT = """
import sys
from pathlib import Path
from servers.test_asking_servers import make_tokenizer, rows_of
from kdcourse.servers import Server, ask_top_k
ask_top_k(Server(sys.argv[1], "teacher", concurrency=2), rows_of(16), make_tokenizer(), Path(sys.argv[2]), k=5)
"""


@pytest.mark.slow
def test_whoever_asks_no_server_loads_no_client():
    """An HTTP library for everybody who wants a cache."""
    code = "import sys, {0}; print(sorted(name for name in sys.modules if name.split('.')[0] in ('httpx', 'httpx2')))"
    loaded = [
        subprocess.run(
            [sys.executable, "-c", code.format(name)], capture_output=True, text=True, timeout=120, check=True
        ).stdout.splitlines()[-1]
        for name in ("kdcourse.teacher", "kdcourse.servers")
    ]
    assert loaded[0] == loaded[1]


@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_with(tmp_path):
    """A file that is half written, and believed; answers that were kept in memory until the end."""
    rows = rows_of(16)
    with make_server(seconds=0.3) as local:
        tests = str(Path(__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, local.url, str(tmp_path / "asked")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(tests).parent), tests])},
        )
        until = time.monotonic() + 60
        while len(list(tmp_path.rglob("*.safetensors"))) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait(30)
        time.sleep(0.5)  # what the server still had to say
        kept, before = len(list(tmp_path.rglob("*.safetensors"))), len(local.answered)
        assert 5 <= kept < 14
        taught = asked(local, tmp_path / "asked", rows)
        texts = {tuple(row) for row in rows["input_ids"] if len(row) > 1}
        assert len(local.answered) - before == len(texts) - kept
    require_equal(taught, tmp_path / "scored", rows)


def test_the_server_says_when(tmp_path):
    """A client that hammers on an overloaded server."""
    troubles = {0: (429, b"Later", {"Retry-After": "0.3"})}
    with make_server(troubles=lambda number, tokens: troubles.get(number)) as local:
        started = time.monotonic()
        asked(local, tmp_path, rows_of(1), concurrency=1)
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("code", [400, 401, 404, 413, 301])
def test_what_asking_again_cannot_mend_is_asked_once(tmp_path, code):
    """Hours of asking for a model that is not there, or for a text that is too long."""
    reply = (code, json.dumps({"error": {"message": "too long: 5000 tokens"}}).encode())
    with make_server(troubles=lambda number, tokens: reply) as local:
        with pytest.raises(
            ServerError, match=rf"refuses /v1/completions for text \d+ \({code} .*too long: 5000 tokens"
        ):
            asked(local, tmp_path, rows_of(1))
        assert local.questions == 1


def test_another_question_is_another_answer(tmp_path):
    """Answers of another model, or another k, taken for these."""
    rows = rows_of(4)
    with make_server() as local:
        for number, changes in enumerate([{}, {"k": 3}, {"revision": "of May"}, {"k": 3, "revision": "of May"}], 1):
            asked(local, tmp_path, rows, **changes)
            assert local.questions == 4 * number
    with make_server(name="teacher-2") as local:
        ask_top_k(Server(local.url, "teacher-2"), rows, make_tokenizer(), tmp_path, k=K)
        assert local.questions == 4


def test_answers_for_another_vocabulary_are_not_taken(tmp_path):
    """A second student, with another tokenizer, that is never compared because all answers are there."""
    rows = Dataset.from_dict({"input_ids": [[3, 4, 3]]})
    with make_server() as local:
        asked(local, tmp_path, rows)
        with pytest.raises(ServerError, match="into other tokens"):
            asked(local, tmp_path, rows, tokenizer=make_tokenizer(swap=(3, 9)))


def test_the_first_error_is_told_and_not_its_consequence(tmp_path):
    """A text that is refused, hidden behind an attempt at another one that was given up for it."""
    rows = rows_of(8)
    bad = next(row for row in rows["input_ids"] if len(row) > 3)

    def troubles(number, tokens):
        return (400, b"This text is bad") if tokens == bad and time.sleep(0.1) is None else 503

    with make_server(troubles=troubles) as local:
        with pytest.raises(ServerError, match="This text is bad") as refused:
            asked(local, tmp_path, rows, pause=5.0, timeout=20.0)
        assert refused.value.__notes__


def test_what_was_damaged_is_asked_for_again(tmp_path):
    """A bit that has flipped on a disk, and teaches."""
    rows = rows_of(4)
    with make_server() as local:
        whole = asked(local, tmp_path, rows)
        one, two, *_ = sorted(tmp_path.rglob("*.safetensors"))
        one.write_bytes(one.read_bytes()[:-1] + b"?")
        two.write_bytes(two.read_bytes()[:50])
        assert asked(local, tmp_path, rows).to_dict() == whole.to_dict()
        assert local.questions == 6
        one.write_bytes(two.read_bytes())  # somebody else's answer under this name
        assert asked(local, tmp_path, rows).to_dict() == whole.to_dict()
        assert local.questions == 7


def test_texts_that_nothing_predicts_are_not_asked_about(tmp_path):
    """A server that refuses an empty text; two same texts that are asked about twice."""
    rows = Dataset.from_dict({"input_ids": [[], [3], [4, 5], [4, 5]]})
    with make_server() as local:
        taught = asked(local, tmp_path, rows)
        assert local.answered == [(4, 5)]
    assert [len(row) for row in taught[TOPK_IDS_COLUMN]] == [0, 1, 2, 2]
    assert taught[2] == taught[3]


class OneSpoilt:
    """Spoils the answers about one text, and no other."""

    def __init__(self, tokens, change):
        self.tokens, self.change = list(tokens), change

    def __call__(self, answer, tokens):
        return self.change(answer) if tokens == self.tokens else answer


def in_choice(change):
    """A change of vLLM's places."""

    def changed(answer):
        change(answer["choices"][0]["prompt_logprobs"])
        return answer

    return changed


def set_first(value):
    """Another log-probability for the first id of token 1."""

    def change(places):
        next(iter(places[1].values()))["logprob"] = value

    return in_choice(change)


def without(*keys):
    def changed(answer):
        inner = answer
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return answer

    return changed


HTML = b"<!doctype html><html><body><h1>Welcome to the gateway</h1></body></html>"
BAD = {
    "not a number": (set_first(math.nan), "the log-probability of id .* for token 1 is nan, and no number"),
    "a word": (set_first("-1.5"), "is '-1.5', and no number"),
    "nothing": (set_first(None), "is None, and no number"),
    "a truth": (set_first(True), "is True, and no number"),
    "larger than a float": (set_first(-(10**400)), "and no number"),
    "a positive logarithm": (set_first(0.5), "is 0.5, but a probability is at most 1"),
    "probabilities": (set_first(0.0), "add up to 1.*, but those of all ids are 1 together"),
    "infinite": (set_first(math.inf), "is inf, but a probability is at most 1"),
    "a token missing": (in_choice(lambda places: places.pop()), r"it speaks of \d+ tokens, and the text has"),
    "a token too many": (in_choice(lambda places: places.append({})), r"it speaks of \d+ tokens, and the text has"),
    "nothing of a token": (in_choice(lambda places: places.__setitem__(2, None)), "it says nothing of token 2"),
    "shifted": (
        in_choice(lambda places: places.append(places.pop(0))),
        "does not name token 0 of the text, id .*, in its own place|ids for its first token",
    ),
    "fewer than k": (
        in_choice(lambda places: [places[1].popitem() for _ in range(3)]),
        r"names \d tokens in the place of token 1, and 5 were asked for.*--max-logprobs",
    ),
    "a negative id": (
        in_choice(lambda places: places[1].update({"-7": {"logprob": -0.001}})),
        "-7 is no token id|add up to",
    ),
    "another text": (
        lambda answer: answer["choices"][0]["prompt_token_ids"].reverse() or answer,
        r"token \d+ was \d+ to it",
    ),
    "a text that was cut": (
        lambda answer: answer["choices"][0]["prompt_token_ids"].pop() and answer,
        r"has read \d+ tokens, and \d+ were sent",
    ),
    "another model": (lambda answer: answer | {"model": "gpt-2"}, "is by the model 'gpt-2', and 'teacher' was asked"),
    "no choice": (lambda answer: answer | {"choices": []}, "has not the form"),
    "no prompt": (without("choices", 0, "prompt_logprobs"), "has not the form .*KeyError: 'prompt_logprobs'"),
    "an error with code 200": (lambda answer: {"error": {"message": "no memory"}}, "has not the form.*no memory"),
    "a list": (lambda answer: [answer], "has not the form"),
    "a number": (lambda answer: 7, "has not the form"),
    "a page": (lambda answer: HTML, "not in JSON.*Welcome to the gateway"),
    "half": (lambda answer: json.dumps(answer).encode()[:-40], "not in JSON, or not to its end"),
    "an abyss": (lambda answer: b"[" * 200_000, "not in JSON"),
    "bytes": (lambda answer: b"\xff\xfe\x00", "not in JSON"),
    "empty": (lambda answer: b"", "not in JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_refused_in_words_and_nothing_is_lost(tmp_path, kind):
    """A student that learns from an error page; answers of others that are thrown away with the bad one."""
    change, words = BAD[kind]
    rows = rows_of(6)
    texts = [row for row in rows["input_ids"] if len(row) > 3]
    with make_server(spoil=OneSpoilt(texts[-1], change), seconds=0.005) as local:
        with pytest.raises(ServerError, match=words) as refused:
            asked(local, tmp_path / "asked", rows, concurrency=2)
        assert local.url in str(refused.value)
        assert f"text {rows['input_ids'].index(texts[-1])}" in str(refused.value)
        kept, before = len(list((tmp_path / "asked").rglob("*.safetensors"))), len(local.answered)
        assert kept == before - 1
        local.spoil = lambda answer, tokens: answer
        taught = asked(local, tmp_path / "asked", rows)
        assert len(local.answered) == before + len({tuple(row) for row in rows["input_ids"]}) - kept
    require_equal(taught, tmp_path / "scored", rows)


@pytest.mark.parametrize("dialect", ["sglang", "completions", "llama.cpp"])
def test_each_dialect_refuses_what_has_another_form(tmp_path, dialect):
    """The one dialect that was tested."""
    with make_server(spoil=lambda answer, tokens: {"choices": [{"text": "Hello"}]}) as local:
        with pytest.raises(ServerError, match="has not the form"):
            asked(local, tmp_path, dialect=dialect)
        local.spoil = lambda answer, tokens: HTML
        with pytest.raises(ServerError, match="not in JSON"):
            asked(local, tmp_path, dialect=dialect)


def test_a_server_that_is_too_slow_is_asked_again_and_then_said_to_be(tmp_path):
    """A client that waits for ever."""
    with make_server(troubles=lambda number, tokens: time.sleep(0.4)) as local:
        with pytest.raises(ServerError, match=r"in 2 attempts; the last ended with ReadTimeout"):
            asked(local, tmp_path, rows_of(1), timeout=0.1, attempts=2)
        assert local.questions == 2


def test_another_model_on_the_server_is_refused_before_anything_is_asked(tmp_path):
    """A thousand answers of the wrong teacher."""
    with make_server(name="gpt-2") as local:
        with pytest.raises(ServerError, match="has no model 'teacher'; it has 'gpt-2'"):
            asked(local, tmp_path)
        assert local.questions == 0


@pytest.mark.parametrize("has", [("/tokenize", "/v1/models"), ("/v1/models",), ("/tokenize",), ()])
def test_servers_without_all_paths_are_asked_as_far_as_they_have_them(tmp_path, has):
    """A server of another maker that is refused although it can answer."""
    with make_server(has=has) as local:
        require_equal(asked(local, tmp_path / "asked"), tmp_path / "scored", rows_of())


@pytest.mark.parametrize(
    ("theirs", "has", "words"),
    [
        ({"swap": (5, 6)}, ("/tokenize",), "cuts the text .* into other tokens"),
        ({"words": 20}, ("/tokenize",), "cuts the text .* into other tokens"),
    ],
)
def test_another_tokenizer_is_refused_before_anything_is_asked(tmp_path, theirs, has, words):
    """Ids that mean other words."""
    with LocalServer(make_model("llama-lm", 1), make_tokenizer(**theirs), has=has) as local:
        with pytest.raises(ServerError, match=words):
            asked(local, tmp_path)
        assert local.questions == 0


def test_a_text_that_the_server_counts_otherwise_is_refused(tmp_path):
    """A server that only counts."""

    class Twice:
        """Cuts each word into two."""

        def __init__(self, tokenizer):
            self.decode = tokenizer.decode
            self.tokenizer = tokenizer

        def __call__(self, text, **settings):
            return {"input_ids": [each for each in self.tokenizer(text)["input_ids"] for _ in range(2)]}

    words = r"it says \d+ tokens, and here it is \d+ tokens"
    local = LocalServer(make_model("llama-lm", 1), Twice(make_tokenizer()), has=())
    with local, pytest.raises(ServerError, match=words):
        asked(local, tmp_path)


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp"])
def test_an_id_that_is_another_word_to_the_server_is_refused(tmp_path, dialect):
    """Two tokenizers that cut the sampled texts alike and differ in what a top k names."""
    rows = Dataset.from_dict({"input_ids": [[3, 4, 3], [4, 3, 4, 3]]})
    local = LocalServer(make_model("llama-lm", 1), make_tokenizer(swap=(20, 21)))
    with local, pytest.raises(ServerError, match=r"id 2[01] is 'w2[01]' to the server, and 'w2[01]' to the student's"):
        asked(local, tmp_path, rows, k=WORDS, dialect=dialect)


def test_words_are_ids_where_each_is_one(tmp_path):
    """A server that knows no ids, refused although its words are unique."""
    with make_server(names="words") as local:
        require_equal(asked(local, tmp_path / "asked", dialect="completions"), tmp_path / "scored", rows_of())


class WithTwoAlike:
    """A tokenizer to which ids 7 and 8 read alike."""

    def __init__(self):
        self.tokenizer = make_tokenizer()

    def __len__(self):
        return len(self.tokenizer)

    def __call__(self, text, **settings):
        return self.tokenizer(text, **settings)

    def decode(self, ids, **settings):
        return self.tokenizer.decode([7 if each == 8 else each for each in ids])

    def batch_decode(self, rows, **settings):
        return [self.decode(row) for row in rows]

    def convert_ids_to_tokens(self, ids):
        return [f"<{each}>" for each in ids]


def test_a_word_of_two_tokens_is_refused(tmp_path):
    """The first token that reads so, taken for the other."""
    with (
        LocalServer(make_model("llama-lm", 1), WithTwoAlike(), names="words") as local,
        pytest.raises(ServerError, match=r"names the token 'w7', and 2 tokens read so \(ids 7, 8\).*Take a server"),
    ):
        asked(local, tmp_path, k=WORDS, tokenizer=WithTwoAlike(), dialect="completions")


def test_a_word_that_no_token_reads_as_is_refused(tmp_path):
    """A token left out without a word, whose probability is then anybody's."""
    rows = Dataset.from_dict({"input_ids": [[3, 4, 3]]})
    local = LocalServer(make_model("llama-lm", 1), make_tokenizer(WORDS + 1, swap=(9, WORDS)), names="words", has=())
    with local, pytest.raises(ServerError, match=r"names the token 'w40', and the student's tokenizer has none"):
        asked(local, tmp_path, rows, k=WORDS, dialect="completions")


def test_the_key_is_sent_and_nowhere_else(tmp_path, monkeypatch, caplog):
    """A key in a file that is shared, in a log, or in an error that somebody posts."""
    monkeypatch.setenv("TEACHERS_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    reply = (401, f"Incorrect API key provided: {KEY}.".encode())
    with make_server(troubles=lambda number, tokens: reply if number >= 3 else None) as local:
        server = server_of(local, key_variable="TEACHERS_KEY", concurrency=1)
        with pytest.raises(ServerError, match=r"401 .*Incorrect API key provided: \(the key\)") as refused:
            ask_top_k(server, rows_of(), make_tokenizer(), tmp_path, k=K)
        assert all(each["Authorization"] == f"Bearer {KEY}" for each in local.headers)
    shown = [str(refused.value), repr(refused.value), repr(server), caplog.text, *map(str, tmp_path.rglob("*"))]
    assert not any(KEY in each for each in shown)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_redirect_is_not_followed(tmp_path, monkeypatch):
    """A key that is handed to another host."""
    monkeypatch.setenv("TEACHERS_KEY", KEY)
    with make_server() as other, make_server() as local:
        local.troubles = lambda number, tokens: (307, b"", {"Location": other.url + "/v1/completions"})
        with pytest.raises(ServerError, match=r"refuses .*307"):
            asked(local, tmp_path, key_variable="TEACHERS_KEY")
        assert other.headers == []


@pytest.mark.parametrize("key", ["", "  ", "two words", "sk-é"])
def test_what_is_no_key_is_not_shown(monkeypatch, tmp_path, key):
    """A key with a line break, shown by the library that refuses it."""
    monkeypatch.setenv("TEACHERS_KEY", key)
    with make_server() as local, pytest.raises(ValueError, match="TEACHERS_KEY") as refused:
        asked(local, tmp_path, key_variable="TEACHERS_KEY")
    assert not key.strip() or key not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "localhost:8000"}, "no address"),
        ({"url": "file:///etc/passwd"}, "no address"),
        ({"url": f"http://me:{KEY}@localhost"}, "key_variable"),
        ({"url": f"http://localhost?key={KEY}"}, "key_variable"),
        ({"dialect": "chat"}, "there are vllm, sglang, completions, llama.cpp"),
        ({"model": ""}, "model is empty"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"attempts": 0}, "attempts is 0"),
        ({"timeout": math.nan}, "timeout is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    """An address with a key in it, shown in every error."""
    with pytest.raises(ValueError, match=words) as refused:
        Server(**{"url": "http://localhost:8000/v1", "model": "teacher"} | settings)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("k", [0, WORDS + 1])
def test_a_k_that_is_none_is_refused(tmp_path, k):
    """More tokens than there are."""
    with pytest.raises(ValueError, match=f"k is {k}, but of 40 tokens between 1 and 40"):
        ask_top_k(Server("http://localhost", "teacher"), rows_of(), make_tokenizer(), tmp_path, k=k)


def test_the_address_may_end_in_v1():
    """Half of all documentation gives it so."""
    assert Server("http://localhost:8000/v1/", "teacher").root == "http://localhost:8000"


def test_the_block_of_the_page_runs(tmp_path, monkeypatch):
    """An example that needs a server, and that nobody has run."""
    (code,) = (each.text for each in blocks_of(ROOT / "docs" / "scaling.md") if "ask_top_k(" in each.text)
    monkeypatch.setenv("TEACHERS_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    names = {"texts": rows_of(), "tokenizer": make_tokenizer()}
    with make_server(name="Qwen/Qwen3-8B") as local:
        exec(code.replace("http://localhost:8000", local.url), names)  # noqa: S102  (a page of this repository)
    require_equal(names["taught"], tmp_path / "scored", rows_of(), k=20)


def test_the_probe_reaches_the_servers_tokenizer(tmp_path):
    """Signs of other scripts that are lost on their way, and compared with nothing."""
    with make_server() as local:
        seen = []
        tokenizer = local.tokenizer
        local.tokenizer = type("Tokenizer", (), {
            "decode": staticmethod(tokenizer.decode),
            "__call__": lambda self, text, **settings: seen.append(text) or tokenizer(text, **settings),
        })()  # fmt: skip
        asked(local, tmp_path)
        assert PROBE in seen
