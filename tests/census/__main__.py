"""Take the census anew, and write it to docs/ (`make census`); or that of some tasks, beside what is kept of others:
`python -m census "masked language model"`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

import transformers
from tqdm import tqdm

from census import record
from census.apart import judge_all
from census.architectures import REGISTERS, Architecture, all_architectures
from census.judging import Verdict


def main() -> int:
    tasks = sys.argv[1:] or list(REGISTERS)
    architectures = [each for each in all_architectures() if each.task in tasks]
    verdicts = kept_of_others(tasks)
    with tqdm(total=len(architectures), desc="architectures") as progress:
        for architecture, verdict in judge_all(architectures, processes=os.cpu_count() or 1):
            verdicts[architecture] = verdict
            progress.update()
            if verdict.verdict not in record.VERDICTS:
                progress.write(f"{architecture.name}: {verdict.verdict}: {verdict.reason}")
    record.save(verdicts)
    print(dict(Counter(each.verdict for each in verdicts.values())), "→", record.RECORD)
    return 0 if all(each.verdict in record.VERDICTS for each in verdicts.values()) else 1


def kept_of_others(tasks: list[str]) -> dict[Architecture, Verdict]:
    others = {each for each in all_architectures() if each.task not in tasks}
    version, stored = record.load()
    if others and (version != transformers.__version__ or not others <= set(stored)):
        raise SystemExit(f"{record.RECORD} is of another transformers, {version}; take the whole census.")
    return {each: stored[each] for each in others}


if __name__ == "__main__":
    sys.exit(main())
