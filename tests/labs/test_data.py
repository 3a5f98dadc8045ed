"""The datasets: the same rows in the same splits on every machine, and nothing of the test set in training."""

import numpy as np
import pytest

from kdcourse.collators import collator
from kdcourse.hashing import hash_columns
from kdcourse.labs import data

FINGERPRINTS = {
    "train": "ee6c4fdbb3fbb395f6a2e24ad340f552a1b6d883f1179eb2a53b38a5c7059f71",
    "validation": "27a223806bd6368975a8586d03894e0548ee5a65abc52d045d94357b1f94a2c1",
    "test": "c48db66e8c9b8c75e5a9be133defdd1c2d790e495bbefce9b8ffc232c1751610",
    "transfer": "ea3a6e72e99a4a7be148c2b89019c8ddacd402010acce5c406029575fcaad826",
}
"""Text and label of every row, in order; written down when the course was made."""

MOVIE_TEXTS = {
    "train": "148c1ba7e1fa5cbe30e9df8cf42ad2320229c4edf9bdeb20d93a7761d8af7b0b",
    "validation": "8f92554416a01fdbf8ff33c01036c6cacb16189fedaa9895bc482ba8f78b07b8",
    "test": "6b22812a0edd70ac9779b811640995f0a652219ef553d862e8fd63ba8f9d56cd",
}
"""The text of every row, in order."""


@pytest.fixture(scope="module")
def transfer():
    return data.load_transfer()


def test_the_splits_are_fixed(reviews):
    """A split that moves with a library, a platform or a seed, and test sentences that were trained on last week."""
    assert {name: len(split) for name, split in reviews.items()} == {"train": 8103, "validation": 1000, "test": 1500}
    for name, split in reviews.items():
        assert hash_columns(split, ["text", "label"]) == FINGERPRINTS[name]


def test_the_transfer_sentences_are_fixed(transfer):
    """Cached logits that belong to other sentences."""
    assert hash_columns(transfer) == FINGERPRINTS["transfer"]


def test_no_sentence_is_in_two_places(reviews, transfer):
    """A leak: 2 sentences appear twice in the source, and IMDb quotes one of the reviews."""
    texts = [text for split in reviews.values() for text in split["text"]] + transfer["text"][:]
    assert len(texts) == len(set(texts)) == 10_603 + 20_000


def test_a_label_is_the_sign_of_its_mean_rating(reviews):
    """Labels and ratings that were read out of step."""
    for split in reviews.values():
        votes = np.array(split["votes"][:])
        means = votes @ np.arange(-4, 5) / votes.sum(axis=1)
        assert np.allclose(means, split["rating"][:], atol=1e-6)
        assert ((means > 0) == np.array(split["label"][:])).all()


def test_the_raters_are_those_of_the_paper(reviews):
    """Facts about the data that the lesson tells: 15 to 29 raters, 44% of the sentences unanimous."""
    votes = np.concatenate([split["votes"][:] for split in reviews.values()])
    raters = votes.sum(axis=1)
    assert (raters.min(), raters.max()) == (15, 29)
    unanimous = (votes[:, :5].sum(axis=1) == 0) | (votes[:, 4:].sum(axis=1) == 0)
    assert unanimous.mean() == pytest.approx(0.44, abs=0.01)


DOMAINS = {"products": (3697, 2977), "editorials": (5119, 2930), "tweets": (4200, 3432)}
"""Distinct sentences, and those on which people are not neutral; counted in the source with other code."""


@pytest.mark.parametrize("name", DOMAINS)
def test_each_domain_is_fixed_and_its_labels_are_those_of_its_raters(name):
    """Ratings of another sentence: in one of the sources the two files are not in the same order."""
    everything, clear = data.load_domain(name), data.load_domain(name, clear=True)
    assert (len(everything), len(clear)) == DOMAINS[name]
    assert set(clear["text"]) <= set(everything["text"])
    votes = np.array(everything["votes"][:])
    means = votes @ np.arange(-4, 5) / votes.sum(axis=1)
    assert ((means > 0) == np.array(everything["label"][:])).all()
    assert np.abs(clear["rating"][:]).min() >= 0.5 - 1e-6


def test_a_sentence_gets_the_ratings_of_its_id():
    """Line by line, this one gets the votes of another product: there the two files are in another order."""
    rows = {row["text"]: row for row in data.load_domain("products")}
    row = rows["i made the mistake of thinking i could easily manage my mp3 library with this device."]
    assert row["votes"] == [0, 3, 11, 5, 1, 0, 0, 0, 0]


def test_an_unknown_domain_is_named():
    """A KeyError."""
    with pytest.raises(ValueError, match="no domain 'films'; there are products, editorials, tweets"):
        data.load_domain("films")


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1]),
        ([3, 0, 0, 0, 2, 0, 0, 0, 3], [0.5, 0.5]),
        ([4, 0, 0, 0, 4, 0, 0, 0, 0], [0.75, 0.25]),
    ],
)
def test_the_raters_as_a_soft_label(votes, expected):
    """Neutral votes that are lost, or given to one side."""
    assert data.human_distribution(votes) == pytest.approx(expected)


def test_a_smaller_transfer_set_begins_the_larger(transfer):
    """Two sizes that cannot be compared because they hold different sentences."""
    assert data.load_transfer(100)["text"][:] == transfer["text"][:100]


def test_more_transfer_sentences_than_there_are(monkeypatch):
    """A short dataset that is taken for a long one."""
    monkeypatch.setattr(data, "_read_imdb", lambda _: ["This is one single sentence."])
    with pytest.raises(ValueError, match="hold 1 usable"):
        data.load_transfer(2)


def test_sentences_lose_their_markup_and_extremes():
    """`<br />` among the training tokens."""
    review = "Too short. This one has just enough words.<br /><br />And so has this one! " + "word " * 41
    assert list(data.split_sentences(review)) == ["This one has just enough words.", "And so has this one!"]


def test_tokens_come_without_token_types(sentences):
    """GPT-2 would add the embedding of word 0 to every token (token_type_ids are looked up in its word embeddings)."""
    assert "token_type_ids" not in sentences.column_names
    assert max(len(ids) for ids in sentences["input_ids"]) <= data.MAX_LENGTH


def test_a_batch_is_padded_to_its_longest_sentence(sentences, tokenizer):
    """Every batch padded to the maximum, or a label column under a name that no model reads."""
    rows = sentences.select_columns(["input_ids", "attention_mask", "label"])
    batch = collator(tokenizer)([rows[0], rows[1]])
    lengths = [len(rows[index]["input_ids"]) for index in (0, 1)]
    assert batch["input_ids"].shape == (2, max(lengths))
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["labels"].tolist() == rows["label"][:2]


def test_a_fingerprint_knows_order_and_column(reviews):
    """Two datasets that hold the same rows in another order, and logits that are handed to the wrong ones."""
    rows = reviews["test"].select(range(3))
    assert hash_columns(rows) != hash_columns(rows.select([1, 0, 2]))
    assert hash_columns(rows, ["text"]) != hash_columns(rows, ["text", "label"])


@pytest.fixture(scope="module")
def movies():
    return data.load_movie_texts()


def test_movie_texts_are_fixed_and_each_is_in_one_split(movies):
    """A test text that was trained on: the source has 98 reviews twice."""
    assert {name: len(split) for name, split in movies.items()} == {"train": 21_902, "validation": 1000, "test": 2000}
    texts = [text for split in movies.values() for text in split["text"]]
    assert len(set(texts)) == len(texts)
    assert not any("<br" in text or "\n" in text or "  " in text for text in texts)
    assert {name: hash_columns(split) for name, split in movies.items()} == MOVIE_TEXTS


def test_texts_of_a_domain_are_whole():
    """Sentences in the order of another text, or 1, 10, 11, 2."""
    editorials = data.load_domain_texts("editorials")["text"][:]
    assert len(editorials) == 498
    begins = "On Dec. 19, around noon, New York City's Union Square Business Improvement District plans the First Santa"
    (text,) = [text for text in editorials if text.startswith(begins)]
    assert "a toy sack relay. It's mainly a holiday celebration" in text
    assert text.split()[-4:] != begins.split()[-4:]
    assert len(data.load_domain_texts("products")) == 300
    assert sum(len(text) for text in editorials) > len(" ".join(data.load_domain("editorials")["text"]))


def test_there_are_no_texts_of_single_sentences():
    """Tweets joined to one text of 4,200 sentences."""
    with pytest.raises(ValueError, match="no texts of 'tweets'; there are those of products, editorials"):
        data.load_domain_texts("tweets")


def test_blocks_are_one_per_text_and_of_equal_length(tokenizer):
    """Padding that is counted, or several rows of one text that pass for independent ones."""
    texts = [
        "one two three four five six",
        "too short",
        "seven eight nine ten eleven twelve",
        "more more more more more",
    ]
    rows = data.first_blocks(texts, tokenizer, 5, 2)["input_ids"][:]
    assert rows == [tokenizer(texts[place])["input_ids"][:5] for place in (0, 2)]
    with pytest.raises(ValueError, match="5 texts of 5 tokens are wanted, and there are 3"):
        data.first_blocks(texts, tokenizer, 5, 5)
