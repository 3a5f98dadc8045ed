"""A dataset that is scored in parts, by processes that know nothing of one another, and put together afterwards.

Part i of n, counted from 0, is a run of rows in the dataset's order. Each part is a cache of its own beside the folder
that will hold all of them, and says of itself which part it is: one that is missing, there twice under another name,
not yet whole, or of another teacher is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from kdcourse.cache import LogitsCache, file_of, locked
from kdcourse.pieces import (
    CONTENT,
    ROWS,
    SEAL,
    CacheMismatchError,
    read_tensors,
    require_content,
    rows_in_words,
    sealed,
    write_tensors,
)
from kdcourse.provenance import PART, same_for_all_rows

Part = tuple[int, int]
"""(i, n): the i-th of n, counted from 0."""

_NAME = re.compile(r"\.part-(\d+)-of-(\d+)")
_SAID = re.compile(r"(\d+) of (\d+), rows (\d+) to (\d+) of (\d+)")


def rows_of_part(part: Part, rows: int) -> range:
    """Which of a dataset's rows are a part; parts differ in length by one row at most.

    Raises:
        ValueError: there is no such part, or fewer rows than parts.
    """
    number, parts = part
    if not 0 <= number < parts:
        raise ValueError(f"part is {part}, but of {parts} parts there are those from 0 to {parts - 1}.")
    if rows < parts:
        raise ValueError(f"There are {rows:,} rows for {parts:,} parts, and each holds at least one; take fewer parts.")
    return range(rows * number // parts, rows * (number + 1) // parts)


def folder_of_part(folder: Path, part: Part) -> Path:
    """Beside the folder of the whole."""
    number, parts = part
    return folder.with_name(f"{folder.name}.part-{number}-of-{parts}")


def part_in_words(part: Part, rows: int) -> str:
    number, parts = part
    return f"{number} of {parts}, rows {rows_in_words(rows_of_part(part, rows))} of {rows}"


def merge_parts(folder: Path) -> LogitsCache:
    """Put the parts beside `folder` together in it: the cache that one process would have filled.

    Every bit is looked at on its way. The parts stay; delete them when you like. A merge that was interrupted goes on.
    `CachedTeacher(merge_parts(folder)).add_rows(dataset)` holds the rows to the dataset, and `cache_logits` with the
    same folder to the teacher, too.

    Raises:
        CacheMismatchError: parts are missing, unfinished, foreign, of two divisions, damaged, or `folder` holds
            something else; it says which.
        OSError: a file cannot be read or written.
    """
    parts = _parts_beside(folder)
    caches = [LogitsCache(path, {}) for path in parts]
    rows_by_part = [
        _rows_said(path, cache, number, len(parts))
        for number, (path, cache) in enumerate(zip(parts, caches, strict=True))
    ]
    common = _require_one_source(parts, caches)
    with locked(folder):
        whole = LogitsCache(folder, common)
        there = {rows: about[CONTENT] for rows, about in whole.pieces()}
        for path, cache, rows in zip(parts, caches, rows_by_part, strict=True):
            for own, about in cache.pieces():
                start = rows.start + own.start
                at = range(start, start + len(own))
                if (found := there.pop(at, None)) == about[CONTENT]:
                    continue
                if found is not None or start < len(whole):
                    raise CacheMismatchError(
                        f"{folder} holds rows {rows_in_words(at)} already, and others than {path}; merge into a folder "
                        "that is not there yet."
                    )
                tensors, stored = read_tensors(file_of(path, own.start))
                require_content(str(path), tensors, stored)
                said = {key: value for key, value in stored.items() if key not in (PART, CONTENT, SEAL)}
                write_tensors(file_of(folder, start), tensors, sealed(tensors, said | {ROWS: rows_in_words(at)}))
        if there:
            raise CacheMismatchError(f"{folder} holds more rows than its parts; merge into a folder that is not there.")
        return LogitsCache(folder, common)


def _parts_beside(folder: Path) -> list[Path]:
    """The folders of all parts, in order."""
    found: dict[Part, Path] = {}
    for path in folder.parent.glob(f"{folder.name}.part-*"):
        if name := _NAME.fullmatch(path.name.removeprefix(folder.name)):
            found[int(name[1]), int(name[2])] = path
    divisions = sorted({parts for _, parts in found})
    if len(divisions) != 1:
        there = " and ".join(map(str, divisions)) or "none"
        raise CacheMismatchError(
            f"Beside {folder} there should be the parts of one division, {folder.name}.part-0-of-n and so on, and "
            f"there are those of {there}; score them with cache_logits(..., part=(i, n)), and delete those of others."
        )
    missing = [number for number in range(divisions[0]) if (number, divisions[0]) not in found]
    if missing or len(found) != divisions[0]:
        raise CacheMismatchError(
            f"Of {divisions[0]} parts of {folder}, these are missing: {', '.join(map(str, missing)) or 'none'}; "
            f"{len(found)} are there. Score what is missing, and merge again."
        )
    return [found[number, divisions[0]] for number in range(divisions[0])]


def _rows_said(path: Path, cache: LogitsCache, number: int, parts: int) -> range:
    """The rows of the whole that a part holds, by its own words.

    Raises:
        CacheMismatchError: it is another part than its name says, none at all, or not finished.
    """
    said = {about.get(PART, "no part at all") for _, about in cache.pieces()} or {"nothing"}
    words = _SAID.fullmatch(next(iter(said))) if len(said) == 1 else None
    if words is None or (int(words[1]), int(words[2])) != (number, parts):
        raise CacheMismatchError(
            f"{path} is called part {number} of {parts}, and holds {'; '.join(sorted(said))}: it is unfinished, or a "
            "copy of another. Delete it, and score that part."
        )
    rows = rows_of_part((number, parts), int(words[5]))
    if len(cache) != len(rows):
        raise CacheMismatchError(
            f"{path} holds {len(cache):,} of the {len(rows):,} rows of its part; run it again, and it goes on there."
        )
    return rows


def _require_one_source(parts: list[Path], caches: list[LogitsCache]) -> dict[str, str]:
    """What all parts depend on.

    Raises:
        CacheMismatchError: one differs from the first; it says in what.
    """
    first, *others = [
        same_for_all_rows(about) | {"dataset's length": about[PART].rpartition(" ")[2]}
        for cache in caches
        for _, about in cache.pieces()[:1]
    ]
    for path, other in zip(parts[1:], others, strict=True):
        differs = sorted(field for field in first.keys() | other.keys() if first.get(field) != other.get(field))
        if differs:
            raise CacheMismatchError(
                f"{path} was scored with other {', '.join(differs)} than {parts[0]}; delete the one that is foreign, "
                "and score that part with this teacher, data and settings."
            )
    return {field: value for field, value in first.items() if field != "dataset's length"}
