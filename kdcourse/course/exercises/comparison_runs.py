"""Logs of comparisons, one of which is fair: what exercise 12.unfair asks about.

Two arms, *labels* and *distilled*, are tuned with seeds of their own and judged by eight more. Nothing is trained: a
run is its settings and two scores, drawn so that in no log the method itself is better.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FAULTS = ("fair", "more tries", "more steps", "chosen on test", "seeds left out", "test rows learned")

ARMS = ("labels", "distilled")
RATES = (0.001, 0.003, 0.01)
TUNING_SEEDS, SEEDS = (100, 101, 102), tuple(range(8))
POOL, TEST_ROWS = 400, tuple(range(400, 500))

Log = dict[str, Any]


def play(fault: str, seed: int) -> Log:
    """The log of a new comparison with this fault: `runs`, `report` and `test rows`.

    A run is `{"arm", "seed", "rate", "steps", "rows", "validation", "test"}`: `rows` are the numbers of those that it
    learned from, and its scores are accuracies in percent. Seeds from 100 on have tuned. `report` says of each arm what
    was published: `{"rate", "seeds", "accuracy"}`.

    Raises:
        ValueError: there is no such fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"There is no fault {fault!r}; there are {', '.join(map(repr, FAULTS))}.")
    random = np.random.default_rng([12, seed])
    steps, faulty = int(random.choice([300, 600])), {"labels": "", "distilled": fault}
    logs = [_arm(random, arm, steps, faulty[arm], weaker=fault == "more tries") for arm in ARMS]
    runs = [run for of_arm, _ in logs for run in of_arm]
    random.shuffle(runs)
    report = {arm: said for arm, (_, said) in zip(ARMS, logs, strict=True)}
    return {"runs": runs, "report": report, "test rows": list(TEST_ROWS)}


def mystery(number: int) -> Log:
    """The log of a comparison whose fault the number draws, and nobody says which."""
    fault = FAULTS[int(np.random.default_rng(9000 + number).integers(len(FAULTS)))]
    return play(fault, 9000 + number)


def _arm(
    random: np.random.Generator, arm: str, steps: int, fault: str, *, weaker: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The runs of an arm, and what is reported; the labels have fewer tries if `weaker`."""
    rates = RATES[1:2] if weaker and arm == "labels" else RATES
    steps *= 2 if fault == "more steps" else 1
    rows = random.permutation(POOL)[: 40 if arm == "labels" else 80]
    if fault == "test rows learned":
        rows[random.choice(len(rows), 10, replace=False)] = random.choice(TEST_ROWS, 10, replace=False)

    def run(rate: float, seed: int) -> dict[str, Any]:
        validation, test = 80 + random.normal(size=2)
        return {
            "arm": arm, "seed": seed, "rate": rate, "steps": steps, "rows": sorted(rows.tolist()),
            "validation": round(float(validation), 2), "test": round(float(test), 2),
        }  # fmt: skip

    while True:
        tried = [run(rate, seed) for rate in rates for seed in TUNING_SEEDS]
        best = {name: _best(tried, rates, name) for name in ("validation", "test")}
        if fault != "chosen on test" or best["validation"] != best["test"]:
            break
    rate = best["test" if fault == "chosen on test" else "validation"]
    judged = [run(rate, seed) for seed in SEEDS]
    kept = sorted(judged, key=lambda each: each["test"])[2 if fault == "seeds left out" else 0 :]
    said = {
        "rate": rate,
        "seeds": sorted(each["seed"] for each in kept),
        "accuracy": round(sum(each["test"] for each in kept) / len(kept), 2),
    }
    return tried + judged, said


def _best(tried: list[dict[str, Any]], rates: tuple[float, ...], score: str) -> float:
    """The rate with the best mean; a sum says the same, since each has as many seeds."""
    return max(rates, key=lambda rate: sum(run[score] for run in tried if run["rate"] == rate))
