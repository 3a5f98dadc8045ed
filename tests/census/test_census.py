"""The census of architectures, held against its record: a new transformers moves a verdict knowingly or not at all."""

import gc
import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
import transformers

import kdcourse.decoders
import kdcourse.heads
import kdcourse.teacher
import kdcourse.trainer
from census import record
from census.apart import judge_all
from census.architectures import LANGUAGE, MASKED, TEXT_TO_TEXT, TEXTS, TOKENS, Architecture, all_architectures
from census.judging import CRASHED, DIFFERENT, EQUAL, NOT_BUILT, REFUSED, SEEN, judge

README = Path(__file__).parents[2] / "README.md"

SAMPLE = 6

MENDED = {
    "bert-generation", "canary", "canine", "codegen", "cohere_asr", "cpmant", "ctrl", "dbrx", "fsmt", "gemma3",
    "gpt_neox", "gptj", "ibert", "jetmoe", "moss_transcribe_diarize", "mpt", "musicgen", "nemotron3_diarization",
    "nystromformer", "pvt", "qwen3_5", "reformer", "tapas",
}  # fmt: skip
"""Model types that were trained wrongly, refused wrongly or crashed once."""

VERSION, STORED = record.load()


def by_hash(architecture):
    return hashlib.sha256(" ".join(architecture).encode()).hexdigest()


def sample():
    """The same ones everywhere, as far as this version of transformers has them: some, and one of each mended type."""
    known = sorted(set(STORED) & set(all_architectures()), key=by_hash)
    mended = {each.model_type: each for each in known if each.model_type in MENDED}
    return list(dict.fromkeys([*known[:SAMPLE], *mended.values()]))


def moved(architectures):
    """What a verdict was and is, for those that are not as they are kept. Of another version, only what is wrong."""
    lines = []
    for architecture, now in judge_all(architectures, processes=os.cpu_count() or 1):
        before = STORED[architecture]
        is_wrong = now.verdict in (DIFFERENT, CRASHED)
        is_moved = (now.verdict, now.reads) != (before.verdict, before.reads)
        if is_wrong or (now != before and transformers.__version__ == VERSION):
            lines.append(f"{architecture.name} was {before.verdict} and is {now.verdict}: {now.reason or now.reads}")
        elif is_moved:
            print(f"{architecture.name}, {VERSION}: {before}; {transformers.__version__}: {now}")
    return lines


def require_nothing_moved(architectures):
    if lines := sorted(moved(architectures)):
        pytest.fail(
            f"{len(lines)} of {len(architectures)} architectures are not as docs/census.json has them (transformers "
            f"{VERSION} there, {transformers.__version__} here); look at each, and if it is right, run `make census` "
            "and commit what it writes:\n" + "\n".join(lines)
        )


@pytest.mark.slow
def test_a_sample_of_architectures_is_as_it_was():
    """A change here, or a new transformers, that trains some architecture wrongly without a word."""
    require_nothing_moved(sample())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KDCOURSE_DEEP"), reason="minutes; make test-deep")
def test_every_architecture_is_as_it_was():
    """The same, outside the sample."""
    require_nothing_moved(sorted(set(STORED) & set(all_architectures())))


def test_the_readme_says_what_the_census_found():
    """A front door that promises what was true of another version."""
    found = Counter(each.verdict for each in STORED.values())
    said = (
        f"of {len(STORED)} architectures: {found[EQUAL]} take the right step, {found[REFUSED]} are refused in words, "
        f"{found[NOT_BUILT]} not built."
    )
    assert said in README.read_text(encoding="utf-8")


@pytest.mark.skipif(transformers.__version__ != VERSION, reason="the record is of another version of transformers")
def test_no_architecture_is_left_out():
    """A class that a new transformers registers, and nobody has looked at."""
    assert set(all_architectures()) == set(STORED)


def test_the_record_holds_no_crash_and_no_difference():
    """A census that is made to pass by storing what is wrong, or by building nothing."""
    verdicts = [verdict.verdict for verdict in STORED.values()]
    assert set(verdicts) <= set(record.VERDICTS)
    assert verdicts.count(NOT_BUILT) < 0.05 * len(verdicts)
    assert all(verdict.reason for verdict in STORED.values() if verdict.verdict != EQUAL)


def test_the_record_says_of_each_language_model_whether_its_head_is_seen():
    """A way without logits that hardly anybody takes, or a model that nobody has looked at."""
    heads = [verdict.head for each, verdict in STORED.items() if each.task == LANGUAGE and verdict.verdict == EQUAL]
    assert all(heads)
    assert heads.count(SEEN) > 0.9 * len(heads)
    assert not any(verdict.head for each, verdict in STORED.items() if each.task != LANGUAGE)


def test_the_page_is_made_of_the_record():
    """A table that says something else than the JSON beside it."""
    assert record.page() == record.PAGE.read_text(encoding="utf-8")


features = kdcourse.teacher.teacher_features


def without_segments(batch, model):
    return {name: value for name, value in features(batch, model).items() if name != "token_type_ids"}


BERT = Architecture(TEXTS, "bert", "BertForSequenceClassification")
TAGGER = Architecture(TOKENS, "bert", "BertForTokenClassification")
MASKS = Architecture(MASKED, "bert", "BertForMaskedLM")
BART = Architecture(TEXT_TO_TEXT, "bart", "BartForConditionalGeneration")
GPT2 = Architecture(LANGUAGE, "gpt2", "GPT2LMHeadModel")
COHERE = Architecture(LANGUAGE, "cohere", "CohereForCausalLM")
GEMMA2 = Architecture(LANGUAGE, "gemma2", "Gemma2ForCausalLM")
MIXTRAL = Architecture(LANGUAGE, "mixtral", "MixtralForCausalLM", "output_router_logits=True")

FAULTS = {
    "segments": (BERT, kdcourse.teacher, "teacher_features", without_segments),
    "mask": (BERT, kdcourse.trainer, "student_features", lambda batch, _: {"input_ids": batch["input_ids"]}),
    "shifted": (TAGGER, kdcourse.trainer, "task_of", lambda _: "language model"),
    "not shifted": (
        GPT2, kdcourse.trainer, "OBJECTIVES", {"language model": kdcourse.trainer.OBJECTIVES["token classifier"]},
    ),
    "masked and shifted": (
        MASKS, kdcourse.trainer, "OBJECTIVES",
        {"masked language model": kdcourse.trainer.OBJECTIVES["language model"]},
    ),
    "a decoder that reads its answers": (
        BART, kdcourse.decoders, "decoder_ids", lambda labels, _: labels.clamp(min=0),
    ),
    "too long": (GPT2, kdcourse.trainer, "require_room", lambda *_: None),
    "router": (MIXTRAL, kdcourse.trainer, "balance_weight", lambda _: 0.0),
    "scale": (COHERE, kdcourse.heads, "_what_follows", lambda *_: (1.0, None)),
    "soft-cap": (GEMMA2, kdcourse.heads, "_what_follows", lambda *_: (1.0, None)),
}  # fmt: skip


@pytest.fixture
def quick_collection():
    """The Trainer collects garbage after each training: what was there before is none."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_collection")
@pytest.mark.parametrize(("architecture", "module", "name", "wrong"), FAULTS.values(), ids=FAULTS)
# The models warn of settings of their own.
@pytest.mark.filterwarnings("ignore")
def test_the_census_finds_what_is_wrong(architecture, module, name, wrong, monkeypatch):
    """A census that calls everything equal."""
    assert STORED[architecture].verdict == EQUAL
    monkeypatch.setattr(module, name, wrong)
    assert judge(architecture).verdict in (DIFFERENT, CRASHED)
