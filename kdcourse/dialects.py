"""How inference servers are asked for a text's likeliest tokens, and what their answers mean; nothing is sent here.

A chat endpoint is no help: what OpenAI's returns are log-probabilities of the reply, and the prompt is one that the
server's template has written. What is needed are those of the text itself, given as token ids, and each server has a
way of its own. `DIALECTS` holds them, as their documentation and code say it in 2026:

- vLLM's `prompt_logprobs`, by id (`--max-logprobs` allows 20 unless it is raised);
- SGLang's own `/generate`, by id;
- `/v1/completions` with `echo` and `logprobs`, OpenAI's old way, by word: two tokens that read alike cannot be told
  apart there, so that vLLM is asked for `token_id:…` in the place of words;
- llama.cpp, which refuses `echo`: one question for each token, about the text before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdcourse.hashing import hash_json
from kdcourse.served import require_served

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Name = int | str
"""A token as a server calls it: its id, or its word."""

Place = Mapping[Name, Any]
"""The log-probabilities of the likeliest tokens in one place."""

ID = "token_id:"
"""What vLLM puts before a token's id where others have its word."""

UNREADABLE = "\ufffd"
"""What stands for bytes that are no text by themselves, as a part of an emoji is."""


class AnswerError(ValueError):
    """A server's answer is none to what it was asked; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What a server says of a text, before it is believed."""

    places: Sequence[Place | None]
    """For each token; None for the first."""
    words: Mapping[int, str] = field(default_factory=dict)
    """How it reads the ids that it names, as far as it says so."""


@dataclass(frozen=True)
class Dialect:
    """A server's way of being asked."""

    path: str
    """From the root of the server."""
    questions: Callable[[str, list[int], int], list[dict[str, Any]]]
    """(model, tokens, k) → the bodies of its requests."""
    read: Callable[[list[Any], list[int]], Answer]
    """(their answers as JSON, tokens) → what they say. What is missing in them may raise whatever it likes."""


def questions_of_vllm(model: str, tokens: list[int], k: int) -> list[dict[str, Any]]:
    asked = {"prompt_logprobs": k, "return_token_ids": True}
    return [{"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 1.0, **asked}]


def read_vllm(answers: list[Any], tokens: list[int]) -> Answer:
    """Each place also has the text's own token, likely or not."""
    choice = _only_choice(answers)
    stated = choice.get("prompt_token_ids")
    if stated is not None:
        _require_own(stated, tokens)
    places: list[Place | None] = []
    words: dict[int, str] = {}
    for number, place in enumerate(choice["prompt_logprobs"]):
        if place is None:
            places.append(None)
            continue
        named: Place = {int(name): said["logprob"] for name, said in place.items()}
        places.append(named)
        words |= {int(name): word for name, said in place.items() if (word := said.get("decoded_token")) is not None}
        if number < len(tokens) and tokens[number] not in named:
            raise AnswerError(f"it does not name token {number} of the text, id {tokens[number]}, in its own place")
    return Answer(places, words)


def questions_of_completions(model: str, tokens: list[int], k: int) -> list[dict[str, Any]]:
    asked = {"echo": True, "logprobs": k, "return_tokens_as_token_ids": True}
    return [{"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 1.0, **asked}]


def read_completions(answers: list[Any], tokens: list[int]) -> Answer:
    """The text, and one token that the server has added to it."""
    said = _only_choice(answers)["logprobs"]
    own = [_named(name) for name in said["tokens"]]
    if not len(tokens) <= len(own) <= len(tokens) + 1:
        raise AnswerError(f"it has {len(own)} tokens for a text of {len(tokens)} and one more; does it know `echo`?")
    if len(own) != len(said["top_logprobs"]):
        raise AnswerError(f"it has {len(own)} tokens, and speaks of {len(said['top_logprobs'])}")
    if all(isinstance(name, int) for name in own):
        _require_own(own[: len(tokens)], tokens)
    places: list[Place | None] = [
        place if place is None else {_named(name): log_prob for name, log_prob in place.items()}
        for place in said["top_logprobs"][: len(tokens)]
    ]
    if len({type(name) for names in (own, *filter(None, places)) for name in names}) > 1:
        raise AnswerError("it names some tokens by their ids, and others by their words")
    return Answer(places)


def questions_of_sglang(model: str, tokens: list[int], k: int) -> list[dict[str, Any]]:
    asked = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": k, "return_text_in_logprobs": True}
    return [{"input_ids": tokens, "sampling_params": {"max_new_tokens": 1, "temperature": 1.0}, **asked}]


def read_sglang(answers: list[Any], tokens: list[int]) -> Answer:
    said = answers[0]["meta_info"]
    _require_own([own for _, own, _ in said["input_token_logprobs"]], tokens)
    entries = [place for place in said["input_top_logprobs"] if place is not None]
    places: list[Place | None] = [
        place if place is None else _once((_whole(name), log_prob) for log_prob, name, _ in place)
        for place in said["input_top_logprobs"]
    ]
    return Answer(places, {name: word for place in entries for _, name, word in place if word is not None})


def questions_of_llama_cpp(model: str, tokens: list[int], k: int) -> list[dict[str, Any]]:
    asked = {"n_predict": 1, "n_probs": k, "post_sampling_probs": False, "temperature": 1.0, "cache_prompt": True}
    return [{"model": model, "prompt": tokens[:place], **asked} for place in range(1, len(tokens))]


def read_llama_cpp(answers: list[Any], tokens: list[int]) -> Answer:
    places: list[Place | None] = [None]
    words: dict[int, str] = {}
    for place, answer in enumerate(answers, start=1):
        if (read := answer.get("tokens_evaluated", place)) != place:
            raise AnswerError(f"it has read {read} tokens of a text that begins with {place}")
        entries = answer["completion_probabilities"][0]["top_logprobs"]
        places.append(_once((_whole(entry["id"]), entry["logprob"]) for entry in entries))
        words |= {entry["id"]: entry["token"] for entry in entries if "token" in entry}
    return Answer(places, words)


DIALECTS = {
    "vllm": Dialect("/v1/completions", questions_of_vllm, read_vllm),
    "sglang": Dialect("/generate", questions_of_sglang, read_sglang),
    "completions": Dialect("/v1/completions", questions_of_completions, read_completions),
    "llama.cpp": Dialect("/completion", questions_of_llama_cpp, read_llama_cpp),
}


def read(dialect: Dialect, answers: list[Any], model: str, tokens: list[int]) -> Answer:
    """What a server's JSON says of a text.

    Raises:
        AnswerError: it has not the form of this dialect, is another model's, or of another text.
    """
    for answer in answers:
        if isinstance(answer, dict) and answer.get("model", model) != model:
            raise AnswerError(f"it is by the model {answer['model']!r}, and {model!r} was asked")
    try:
        said = dialect.read(answers, tokens)
    except AnswerError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        shown = f"{type(error).__name__}: {error}"
        raise AnswerError(f"it has not the form that {dialect.path} gives ({shown})") from error
    return said


class Vocabulary:
    """The student's tokenizer, to which a server's names for tokens are held."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.size = len(tokenizer)
        every = list(range(self.size))
        self._read = tokenizer.batch_decode(
            [[each] for each in every], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        self._written = [str(each) for each in tokenizer.convert_ids_to_tokens(every)]
        self.digest = hash_json(self._written)
        self._ids: dict[str, set[int]] = {}
        for forms in (self._read, self._written):
            for each, form in enumerate(forms):
                self._ids.setdefault(form, set()).add(each)

    def id_of(self, name: Name) -> int:
        """The id of a token by its id or its word.

        Raises:
            AnswerError: several tokens have this word, or none.
        """
        if isinstance(name, int):
            return name
        found = sorted(self._ids.get(name, ()))
        if len(found) == 1:
            return found[0]
        if not found:
            raise AnswerError(f"it names the token {name!r}, and the student's tokenizer has none that reads so")
        raise AnswerError(
            f"it names the token {name!r}, and {len(found)} tokens read so (ids {', '.join(map(str, found[:5]))}): "
            "words cannot tell them apart. Take a server that gives ids (vLLM, SGLang or llama.cpp), in its own dialect"
        )

    def require_words(self, words: Mapping[int, str]) -> None:
        """The server reads these ids as the student's tokenizer does.

        Raises:
            AnswerError: it reads one as another word.
        """
        for each, word in words.items():
            if not isinstance(word, str):
                raise AnswerError(f"it says {word!r} where the word of id {each} belongs")
            if not 0 <= each < self.size or not word or UNREADABLE in word or UNREADABLE in self._read[each]:
                continue
            if word.strip() not in (self._read[each].strip(), self._written[each].strip()):
                raise AnswerError(
                    f"id {each} is {word!r} to the server, and {self._read[each]!r} to the student's tokenizer: they "
                    "have two vocabularies"
                )


def entries_of(
    answer: Answer, tokens: list[int], k: int, vocabulary: Vocabulary
) -> tuple[list[list[int]], list[list[float]]]:
    """The k likeliest tokens in the place of each token, likeliest first, and their log-probabilities.

    Ids beyond the tokenizer's are left to the rest, since a model's vocabulary may be padded. So is the text's own
    token, where it is not among the k.

    Raises:
        AnswerError: entries are missing, or are no log-probabilities.
    """
    if len(answer.places) != len(tokens):
        raise AnswerError(f"it speaks of {len(answer.places)} tokens, and the text has {len(tokens)}")
    vocabulary.require_words(answer.words)
    ids: list[list[int]] = []
    log_probs: list[list[float]] = []
    for number, place in enumerate(answer.places):
        if number and not place:
            raise AnswerError(f"it says nothing of token {number}")
        named = _once((vocabulary.id_of(name), log_prob) for name, log_prob in (place or {}).items())
        for each, log_prob in named.items():
            if not _is_number(log_prob):
                raise AnswerError(f"the log-probability of id {each} for token {number} is {log_prob!r}, and no number")
        if number and len(named) < min(k, vocabulary.size):
            raise AnswerError(
                f"it names {len(named)} tokens in the place of token {number}, and {k} were asked for; ask for as many "
                "as it gives, or raise its limit (vLLM: --max-logprobs)"
            )
        kept = sorted(named.items(), key=lambda entry: (-entry[1], entry[0]))[:k]
        ids.append([each for each, _ in kept if each < vocabulary.size])
        log_probs.append([float(log_prob) for each, log_prob in kept if each < vocabulary.size])
    try:
        require_served("the text", ids, log_probs, tokens, vocabulary=vocabulary.size)
    except ValueError as error:
        raise AnswerError(str(error).removesuffix(".")) from error
    return ids, log_probs


def _only_choice(answers: list[Any]) -> Any:
    (choice,) = answers[0]["choices"]
    return choice


def _require_own(read: Sequence[Any], tokens: list[int]) -> None:
    """The server has read the tokens that it was sent: it has added no beginning, and cut no end."""
    if list(read) != tokens:
        place = next((at for at, (one, other) in enumerate(zip(read, tokens, strict=False)) if one != other), None)
        where = "" if place is None else f": token {place} was {read[place]!r} to it, and {tokens[place]} was sent"
        raise AnswerError(f"it has read {len(read)} tokens, and {len(tokens)} were sent{where}")


def _is_number(value: Any) -> bool:
    """In JSON's sense, and one that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def _whole(name: Any) -> int:
    """
    Raises:
        TypeError: a word where an id belongs, which would be taken for the id of that word.
    """
    if isinstance(name, bool) or not isinstance(name, int):
        raise TypeError(f"an id is {name!r}")
    return name


def _named(name: str) -> Name:
    return int(name.removeprefix(ID)) if name.startswith(ID) else name


def _once(entries: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """As a dictionary.

    Raises:
        AnswerError: a token is there twice.
    """
    found: dict[Any, Any] = {}
    for name, log_prob in entries:
        if name in found:
            raise AnswerError(f"it names the token {name!r} twice in one place")
        found[name] = log_prob
    return found
