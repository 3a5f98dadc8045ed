"""A teacher on another machine: the likeliest tokens of texts, asked of an inference server and kept.

Each answer is a file of its own, written whole or not at all, under a digest of what it depends on: the model's name,
k, the tokens, and the vocabulary that it was held to. A run that is interrupted, or that a server's death has ended,
goes on with what is missing, and nothing is asked twice. Several texts are asked about at once, by threads: a notebook
has an event loop of its own already.

A server's weights cannot be hashed from here. Its name for a model is all that is known, so give a `revision` of your
own where one name has meant two models.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import torch
from tqdm.auto import tqdm

from kdcourse.dialects import DIALECTS, AnswerError, Vocabulary, entries_of, read
from kdcourse.hashing import hash_json
from kdcourse.pieces import (
    CacheMismatchError,
    read_tensors,
    require_content,
    require_same,
    require_seal,
    sealed,
    write_tensors,
)
from kdcourse.teacher import add_top_k

if TYPE_CHECKING:
    from datasets import Dataset
    from httpx2 import Client
    from transformers import PreTrainedTokenizerBase

Item = TypeVar("Item")

TOO_MANY, NOT_THERE, NOT_SO, BROKEN = 429, 404, 405, 500
"""Codes of HTTP. From BROKEN on, and TOO_MANY, another attempt may go better."""

LONGEST_PAUSE = 60.0
"""Seconds between two attempts."""

QUOTED = 200
"""Characters of a server's own words in an error."""

PROBE = "The naïve café’s 3 films cost 12,50 €: “schön”, 電影 и кино, a+b=ab_c  \n\tif x == 'y': return 0 🎬"
"""Accents, digits, other scripts, code and blanks, which tokenizers cut in different ways."""

TEXTS_COMPARED = 8
"""Texts of the dataset that both tokenizers have to cut alike, beside the probe."""


class ServerError(RuntimeError):
    """A server could not be asked, or its answer is none; the message says which, and of which text."""


@dataclass(frozen=True)
class Server:
    """Where the teacher is, and how it is asked.

    Raises:
        ValueError: a setting that makes no sense.
    """

    url: str
    """Its root, such as http://localhost:8000; a /v1 at the end is left out."""
    model: str
    """As the server calls it."""
    dialect: str = "vllm"
    """One of `kdcourse.dialects.DIALECTS`."""
    revision: str = ""
    """Of the model, in your own words, where its name does not say enough; a part of what answers are kept under."""
    key_variable: str | None = None
    """The *name* of the environment variable that holds the key, if one is needed. The key itself is in no file, no log
    and no error."""
    concurrency: int = 8
    """Questions under way at once."""
    attempts: int = 6
    """For one question, as long as the server is overloaded (429), broken (5xx) or not to be reached."""
    pause: float = 1.0
    """Seconds before the second attempt, and about twice as many before each further one; a server's own Retry-After
    counts more."""
    timeout: float = 300.0
    """Seconds of silence after which an attempt is given up."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url is no address of a server, which looks like http://localhost:8000.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("url holds more than an address; a key goes into an environment variable (key_variable).")
        if self.dialect not in DIALECTS:
            raise ValueError(f"dialect is {self.dialect!r}; there are {', '.join(DIALECTS)}.")
        if not self.model:
            raise ValueError("model is empty; give the name under which the server knows the teacher.")
        for name, least in {"concurrency": 1, "attempts": 1, "pause": 0, "timeout": 0}.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}, but it is at least {least}.")

    @property
    def root(self) -> str:
        return self.url.rstrip("/").removesuffix("/v1")


def ask_top_k(
    server: Server,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    k: int,
    progress: bool = False,
) -> Dataset:
    """The dataset with a server's k likeliest tokens beside each token, as `kdcourse.teacher.add_top_k` has them.

    Args:
        server: at temperature 1, whatever it generates with.
        dataset: with `input_ids`, which are sent as they are. A text's first token has no entries.
        tokenizer: the student's. Server and student have to cut texts alike, which is tried on a few, and to read alike
            each id that an answer names, as far as the server gives words for them.
        folder: where answers are kept, a file for each text; ask again after an interruption, and only what is missing
            is asked for. Several datasets may share one.
        k: how many; a server has a limit of its own (vLLM: `--max-logprobs`, 20).

    Raises:
        ServerError: the server cannot be reached, has another model or another tokenizer, or an answer is none. What
            was under way then is finished, and all answers that came are kept.
        ValueError: k is not between 1 and the size of the vocabulary.
        OSError: an answer cannot be written.
    """
    vocabulary = Vocabulary(tokenizer)
    if not 1 <= k <= vocabulary.size:
        raise ValueError(f"k is {k}, but of {vocabulary.size:,} tokens between 1 and {vocabulary.size:,} can be named.")
    texts = [list(map(int, row)) for row in dataset["input_ids"]]
    paths = [_path_of(folder, server, k, tokens, vocabulary) for tokens in texts]
    missing = {
        path: number
        for number, (path, tokens) in enumerate(zip(paths, texts, strict=True))
        if len(tokens) > 1 and _kept(path) is None  # nothing predicts a first token
    }
    if missing:
        with _Line(server) as line:
            _require_model(line)
            _require_tokenizer(line, tokenizer, [texts[number] for number in list(missing.values())[:TEXTS_COMPARED]])

            def ask(entry: tuple[Path, int]) -> None:
                path, number = entry
                _keep(path, _answer(line, number, texts[number], k, vocabulary))

            items = tqdm(missing.items(), desc="server", disable=not progress)
            _in_parallel(ask, items, server.concurrency, line.stop, folder)
    kept = [_entries(path, len(tokens)) for path, tokens in zip(paths, texts, strict=True)]
    return add_top_k(dataset, [ids for ids, _ in kept], [log_probs for _, log_probs in kept])


def _answer(
    line: _Line, number: int, tokens: list[int], k: int, vocabulary: Vocabulary
) -> tuple[list[list[int]], list[list[float]]]:
    """What the server says of a text, after it was looked at."""
    dialect = DIALECTS[line.server.dialect]
    where = f"text {number}"
    answers = [
        line.send("POST", dialect.path, where, body)
        for body in dialect.questions(line.server.model, tokens, k)
    ]  # fmt: skip
    try:
        said = read(dialect, answers, line.server.model, tokens)
        return entries_of(said, tokens, k, vocabulary)
    except AnswerError as error:
        raise ServerError(
            f"The answer of {line.server.root} about {where} is refused: {line.without_key(str(error))}. It begins "
            f"with {line.quoted(json.dumps(answers[0]))}."
        ) from None


def _require_model(line: _Line) -> None:
    """
    Raises:
        ServerError: the server lists its models, and this one is not among them.
    """
    listed = line.send("GET", "/v1/models", "its models", may_lack=True)
    try:
        names = None if listed is None else [str(model["id"]) for model in listed["data"]]
    except (KeyError, TypeError) as error:
        raise ServerError(
            f"{line.server.root} does not list its models as an OpenAI-compatible server does; it says "
            f"{line.quoted(json.dumps(listed))}. Is this its address?"
        ) from error
    if names is not None and line.server.model not in names:
        has = ", ".join(map(repr, names)) or "none"
        raise ServerError(f"{line.server.root} has no model {line.server.model!r}; it has {has}.")


def _require_tokenizer(line: _Line, tokenizer: PreTrainedTokenizerBase, texts: Iterable[list[int]]) -> None:
    """The server cuts texts into the same ids as the student's tokenizer; where it only counts, into as many.

    Raises:
        ServerError: it does not, or does not tell.
    """
    words = [str(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in texts]
    for text in filter(None, [*dict.fromkeys(words), PROBE]):
        ours = tokenizer(text, add_special_tokens=False)["input_ids"]
        said = line.send("POST", "/tokenize", "a text", _to_tokenize(line.server.model, text), may_lack=True)
        if said is not None:
            theirs = said.get("tokens") if isinstance(said, dict) else None
            is_same, shown = theirs == ours, f"{theirs}"
        else:
            body = {"model": line.server.model, "prompt": text, "max_tokens": 1}
            counted = line.send("POST", "/v1/completions", "a text", body)
            usage = counted.get("usage") if isinstance(counted, dict) else None
            count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
            # Some servers put the special tokens of a text's beginning into this count.
            is_same, shown = count in (len(ours), len(tokenizer(text)["input_ids"])), f"{count} tokens"
        if not is_same:
            raise ServerError(
                f"{line.server.root} cuts the text {text[:60]!r} into other tokens than the student's tokenizer: it "
                f"says {shown[:QUOTED]}, and here it is {len(ours)} tokens, {str(ours)[:QUOTED]}. Ids would mean other "
                "words; take a teacher with the student's tokenizer."
            )


def _to_tokenize(model: str, text: str) -> dict[str, Any]:
    """As vLLM and SGLang, and as llama.cpp, call the text and the wish for no special tokens."""
    return {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "add_special": False}


class _Line:
    """A connection to a server, which asks again where that may help."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stop = Event()
        """Set when nobody waits for an answer any more."""
        self._key = _key_of(server)
        self._client = _client(server, self._key)

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, method: str, path: str, where: str, body: Any = None, *, may_lack: bool = False) -> Any:
        """A request's answer as JSON; None if the server has no such path, and `may_lack` it.

        Raises:
            ServerError: there is none, after all attempts.
        """
        http, said, wished = _http(), "", 0.0
        for attempt in range(self.server.attempts):
            if attempt and self.stop.wait(max(wished, self._pause(attempt))):
                break
            try:
                response = self._client.request(method, self.server.root + path, json=body)
            except http.RequestError as error:
                said, wished = f"{type(error).__name__} {error}".strip(), 0.0
                continue
            if response.status_code != TOO_MANY and response.status_code < BROKEN:
                return self._read(response, f"{path} for {where}", may_lack)
            said, wished = self._shown(response), _seconds(response.headers.get("retry-after"))
        raise ServerError(
            f"{self.server.root} gave no answer to {path} for {where} in {self.server.attempts} attempts; the last "
            f"ended with {self.without_key(said)}."
        )

    def _pause(self, attempt: int) -> float:
        """Seconds before another attempt: about twice as many each time, so that many who ask do not ask together."""
        return min(self.server.pause * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311

    def _read(self, response: Any, asked: str, may_lack: bool) -> Any:
        if may_lack and response.status_code in (NOT_THERE, NOT_SO):
            return None
        if not response.is_success:
            raise ServerError(f"{self.server.root} refuses {asked} ({self._shown(response)}).")
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            raise ServerError(
                f"{self.server.root} answers {asked}, but not in JSON, or not to its end ({self._shown(response)})."
            ) from None

    def _shown(self, response: Any) -> str:
        return f"{response.status_code} {response.reason_phrase}: {self.quoted(response.text)}"

    def quoted(self, text: str) -> str:
        """The beginning of a server's words, in one line."""
        words = " ".join(self.without_key(text).split())
        return repr(words if len(words) <= QUOTED else words[:QUOTED] + "…")

    def without_key(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if self._key else text


def _key_of(server: Server) -> str:
    """
    Raises:
        ValueError: the variable is not set, or holds what cannot be a key; it is not shown.
    """
    if server.key_variable is None:
        return ""
    key = os.environ.get(server.key_variable, "").strip()
    if not key:
        raise ValueError(f"The environment variable {server.key_variable} is not set, or empty; it holds the key.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"What {server.key_variable} holds cannot be a key: it has blanks or other signs in it.")
    return key


def _http() -> Any:
    """The HTTP client that huggingface_hub brings: httpx2 from its version 2 on, and httpx before."""
    try:
        import httpx2
    except ImportError:
        import httpx

        return httpx
    return httpx2


def _client(server: Server, key: str) -> Client:
    """It follows no redirect: another host would be handed the key."""
    http = _http()
    return http.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=server.timeout,
        limits=http.Limits(max_connections=server.concurrency),
    )


def _seconds(retry_after: str | None) -> float:
    """What a server wishes; a date, which the standard allows too, is left alone."""
    try:
        return min(max(float(retry_after or 0), 0.0), LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _in_parallel(act: Callable[[Item], None], items: Iterable[Item], threads: int, stop: Event, folder: Path) -> None:
    """`act` on each item, on several at once. After the first error no other is begun, and those begun are finished.

    Raises:
        Exception: the first error, in time: those that follow may be its consequence.
    """
    source, taking = iter(items), Lock()
    errors: list[Exception] = []

    def work() -> None:
        while not stop.is_set():
            with taking:
                item = next(source, None)
            if item is None:
                return
            try:
                act(item)
            except Exception as error:
                errors.append(error)
                stop.set()

    with ThreadPoolExecutor(threads, "server") as pool:
        try:
            for worker in [pool.submit(work) for _ in range(threads)]:
                worker.result()
        finally:
            stop.set()  # also where somebody has pressed Ctrl-C
    if errors:
        errors[0].add_note(f"The answers that came are kept in {folder}; call again to go on from there.")
        raise errors[0]


def _path_of(folder: Path, server: Server, k: int, tokens: list[int], vocabulary: Vocabulary) -> Path:
    """Where the answer about a text is kept."""
    asked = {"model": server.model, "revision": server.revision, "k": k, "tokens": tokens}
    digest = hash_json(asked | {"vocabulary": vocabulary.digest})
    return folder / digest[:2] / f"{digest}.safetensors"


def _keep(path: Path, entries: tuple[list[list[int]], list[list[float]]]) -> None:
    ids, log_probs = entries
    tensors = {
        "counts": torch.tensor([len(entry) for entry in ids], dtype=torch.int32),
        "ids": torch.tensor([each for entry in ids for each in entry], dtype=torch.int32),
        "log_probs": torch.tensor([each for entry in log_probs for each in entry], dtype=torch.float32),
    }
    write_tensors(path, tensors, sealed(tensors, {"answer": path.stem}))


def _kept(path: Path) -> Mapping[str, torch.Tensor] | None:
    """An answer; None if there is none, or a damaged one: it is asked for again."""
    try:
        tensors, stored = read_tensors(path)
        require_seal(str(path), stored)
        require_same(f"in {path}", stored, {"answer": path.stem})
        require_content(str(path), tensors, stored)
    except (CacheMismatchError, FileNotFoundError):
        return None
    return tensors


def _entries(path: Path, length: int) -> tuple[list[list[int]], list[list[float]]]:
    """For each token of a text, the ids and their log-probabilities."""
    if length < 2:  # noqa: PLR2004  (a first token has no entries)
        return [[]] * length, [[]] * length
    tensors = _kept(path)
    if tensors is None:
        raise ServerError(f"{path} was there a moment ago, and is gone or damaged; ask again.")
    return _split(tensors["ids"], tensors["counts"]), _split(tensors["log_probs"], tensors["counts"])


def _split(flat: torch.Tensor, counts: torch.Tensor) -> list[list[Any]]:
    parts: Iterator[torch.Tensor] = iter(flat.split(counts.tolist()))
    return [part.tolist() for part in parts]
