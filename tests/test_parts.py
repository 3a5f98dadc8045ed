"""A dataset scored in parts by several processes: put together, it is the cache of one, or it is refused."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from docs.pages import ROOT
from shapes import make_model, make_rows, make_tokenizer

from kdcourse import teacher as scoring
from kdcourse.cache import CacheMismatchError
from kdcourse.parts import merge_parts, rows_of_part
from kdcourse.teacher import CachedTeacher, cache_logits

SHAPE = "llama-lm"
KINDS = {
    "all logits": {},
    "16 bits": {"dtype": torch.float16},
    "top k": {"k": 4, "temperature": 2.0},
    "drawn": {"k": 4, "temperature": 2.0, "sampled": True, "seed": 3},
}


def scored(folder, *, part=None, rows=None, shape=SHAPE, seed=1, **settings):
    # One text at a time: among others, the last bit of a logit may differ.
    return cache_logits(
        folder, make_model(shape, seed), make_tokenizer(), rows or make_rows(shape, 11), part=part, rows_per_file=2,
        batch_size=1, **settings,
    )  # fmt: skip


def in_parts(folder, parts=3, **settings):
    for number in range(parts):
        scored(folder, part=(number, parts), **settings)


def require_same_rows(merged, whole):
    assert len(merged) == len(whole)
    for row in range(len(whole)):
        one, other = merged[row], whole[row]
        for name in ("logits", "classes", "rest") if hasattr(other, "rest") else (None,):
            assert torch.equal(getattr(one, name) if name else one, getattr(other, name) if name else other)


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 101])
def test_parts_are_all_rows_once(rows):
    """A row that is scored by nobody, or by two."""
    for parts in range(1, min(rows, 12) + 1):
        cut = [rows_of_part((number, parts), rows) for number in range(parts)]
        assert [row for part in cut for row in part] == list(range(rows))
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize(
    ("part", "words"), [((3, 3), "from 0 to 2"), ((-1, 3), "from 0 to 2"), ((0, 12), "11 rows for")]
)
def test_a_part_that_is_none_is_refused(tmp_path, part, words):
    """A Slurm array that counts from 1, and leaves out the first rows."""
    with pytest.raises(ValueError, match=words):
        scored(tmp_path / "cache", part=part)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_together_are_the_cache_of_one_process(tmp_path, kind, monkeypatch):
    """Draws that depend on where a part begins; 16 bits that become 32; rows in another order."""
    whole = scored(tmp_path / "whole", **KINDS[kind]).cache
    in_parts(tmp_path / "cache", **KINDS[kind])
    merged = merge_parts(tmp_path / "cache")
    require_same_rows(merged, whole)
    largest = [max(path.stat().st_size for path in each.folder.iterdir()) for each in (merged, whole)]
    assert largest[0] <= 1.1 * largest[1]
    monkeypatch.setattr(scoring, "_score_rows", None)  # nothing is left to be scored, and all of it fits
    assert len(scored(tmp_path / "cache", **KINDS[kind]).cache) == 11
    assert "teacher_row" in CachedTeacher(merged).add_rows(make_rows(SHAPE, 11)).column_names


def test_a_classifier_is_scored_in_parts(tmp_path):
    """Parts for language models alone."""
    whole = scored(tmp_path / "whole", shape="bert-classifier").cache
    in_parts(tmp_path / "cache", 2, shape="bert-classifier")
    require_same_rows(merge_parts(tmp_path / "cache"), whole)


def part_of(folder, number, parts=3):
    return folder.with_name(f"{folder.name}.part-{number}-of-{parts}")


def lost(folder):
    shutil.rmtree(part_of(folder, 1))


def copied(folder):
    lost(folder)
    shutil.copytree(part_of(folder, 0), part_of(folder, 1))


def of_another_division(folder):
    scored(folder, part=(0, 2))


def too_many(folder):
    shutil.copytree(part_of(folder, 0), part_of(folder, 3))


def unfinished(folder):
    sorted(part_of(folder, 2).iterdir())[-1].unlink()


def not_begun(folder):
    for path in part_of(folder, 2).iterdir():
        path.unlink()


def by_another_teacher(folder):
    lost(folder)
    scored(folder, part=(1, 3), seed=2)


def kept_otherwise(folder):
    lost(folder)
    scored(folder, part=(1, 3), k=3, temperature=1.0)


def of_a_dataset_that_has_grown(folder):
    lost(folder)
    scored(folder, part=(1, 3), rows=make_rows(SHAPE, 12))


def no_part(folder):
    lost(folder)
    scored(part_of(folder, 1), rows=make_rows(SHAPE, 11).select(range(3, 7)))


def damaged(folder):
    path = sorted(part_of(folder, 2).iterdir())[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def merged_elsewhere(folder):
    scored(folder, rows=make_rows(SHAPE, 11, seed=5))


WRONG = {
    lost: r"Of 3 parts of .*, these are missing: 1; 2 are there",
    copied: r"is called part 1 of 3, and holds 0 of 3, rows 0 to 2 of 11",
    of_another_division: r"there are those of 2 and 3",
    too_many: r"missing: none; 4 are there",
    unfinished: r"holds 2 of the 4 rows of its part; run it again",
    not_begun: r"is called part 2 of 3, and holds nothing: it is unfinished",
    by_another_teacher: r"scored with other teacher weights than .*part-0",
    kept_otherwise: r"scored with other settings than",
    of_a_dataset_that_has_grown: r"scored with other dataset's length than",
    no_part: r"is called part 1 of 3, and holds no part at all",
    damaged: r"is damaged",
    merged_elsewhere: r"holds rows .* already, and others than",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_belong_together_is_refused(tmp_path, wrong):
    """A cache with a hole, with rows of somebody else, or with the same rows twice."""
    folder = tmp_path / "cache"
    in_parts(folder)
    wrong(folder)
    with pytest.raises(CacheMismatchError, match=WRONG[wrong]):
        merge_parts(folder)


def test_no_parts_at_all_are_refused(tmp_path):
    """A misspelt folder, and an empty cache."""
    with pytest.raises(CacheMismatchError, match="there are those of none; score them with cache_logits"):
        merge_parts(tmp_path / "cache")


def test_another_dataset_under_the_same_length_is_found_by_its_rows(tmp_path):
    """Parts of two datasets, which only the dataset itself can tell."""
    folder = tmp_path / "cache"
    in_parts(folder)
    lost(folder)
    scored(folder, part=(1, 3), rows=make_rows(SHAPE, 11, seed=5))
    merged = merge_parts(folder)
    with pytest.raises(CacheMismatchError, match="other token ids"):
        CachedTeacher(merged).add_rows(make_rows(SHAPE, 11))


def test_a_merge_that_was_interrupted_goes_on(tmp_path):
    """Half a cache that has to be deleted by hand."""
    folder = tmp_path / "cache"
    in_parts(folder)
    whole = merge_parts(folder)
    first = sorted(folder.iterdir())[0].stat().st_mtime_ns
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    require_same_rows(merge_parts(folder), whole)
    assert sorted(folder.iterdir())[0].stat().st_mtime_ns == first


@pytest.mark.parametrize("seed", range(12))
def test_any_byte_that_flips_is_found_or_does_not_matter(tmp_path, seed):
    """A merge that seals damaged logits anew."""
    folder, drawn = tmp_path / "cache", random.Random(seed)
    in_parts(folder, 2)
    whole = scored(tmp_path / "whole").cache
    path = drawn.choice([path for number in range(2) for path in sorted(part_of(folder, number, 2).iterdir())])
    content = bytearray(path.read_bytes())
    content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)
    try:
        require_same_rows(merge_parts(folder), whole)
    except CacheMismatchError as error:
        assert len(str(error)) > 20


SCRIPT = """
import sys
from pathlib import Path
from test_parts import scored
scored(Path(sys.argv[1]), part=(int(sys.argv[2]), 2))
"""


@pytest.mark.slow
def test_two_processes_at_once_fill_a_cache(tmp_path):
    """Two writers that wait for one another, or overwrite each other."""
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([str(Path(tests).parent), tests])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), str(number)], env=os.environ | {"PYTHONPATH": path}
        )
        for number in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    require_same_rows(merge_parts(tmp_path / "cache"), scored(tmp_path / "whole").cache)


OVER_PROCESSES = """
import sys
from pathlib import Path
from datasets import Dataset
from test_parts import scored
PARTS = 2
def score_part(number):
    scored(Path(sys.argv[1]), part=(number, PARTS))
    return {"scored": number}
if __name__ == "__main__":
    """


@pytest.mark.slow
def test_the_line_of_the_page_scores_over_processes(tmp_path):
    """A command in the documentation that nobody has run."""
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\| one machine with several processes \| `(.*)` \|$", page, re.MULTILINE)
    script = tmp_path / "score.py"
    script.write_text(OVER_PROCESSES + line, encoding="utf-8")
    tests = Path(__file__).parent
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "cache")], check=True, timeout=200,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    require_same_rows(merge_parts(tmp_path / "cache"), scored(tmp_path / "whole").cache)
