"""Take the census anew, and write it to docs/ (`make census`)."""

from __future__ import annotations

import os
import sys
from collections import Counter

from tqdm import tqdm

from census import record
from census.apart import judge_all
from census.architectures import all_architectures


def main() -> int:
    architectures, verdicts = all_architectures(), {}
    with tqdm(total=len(architectures), desc="architectures") as progress:
        for architecture, verdict in judge_all(architectures, processes=os.cpu_count() or 1):
            verdicts[architecture] = verdict
            progress.update()
            if verdict.verdict not in record.VERDICTS:
                progress.write(f"{architecture.name}: {verdict.verdict}: {verdict.reason}")
    record.save(verdicts)
    print(dict(Counter(each.verdict for each in verdicts.values())), "→", record.RECORD)
    return 0 if all(each.verdict in record.VERDICTS for each in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
