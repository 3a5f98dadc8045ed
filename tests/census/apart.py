"""Each architecture is judged in a process of its own: one that crashes or hangs is one line of the census."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection

from census.architectures import Architecture
from census.judging import CRASHED, Verdict, judge

SECONDS = 300
"""The most that one architecture may take, on a machine that has other things to do."""


def judge_all(architectures: list[Architecture], processes: int) -> Iterator[tuple[Architecture, Verdict]]:
    """Verdicts as they come."""
    with ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(judge_apart, architecture): architecture for architecture in architectures}
        for future in as_completed(running):
            yield running[future], future.result()


def judge_apart(architecture: Architecture) -> Verdict:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_tell, args=(architecture, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            return Verdict(CRASHED, f"It was not done after {SECONDS} seconds.")
        return ours.recv()
    except EOFError:
        process.join()
        return Verdict(CRASHED, f"Its process ended with exit code {process.exitcode}.")
    finally:
        process.kill()
        process.join()
        ours.close()


def _context():
    """Processes that begin with everything imported, where the system can do that."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["census.judging"])
    return context


def _tell(architecture: Architecture, answer: Connection) -> None:
    import torch
    import transformers

    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    gc.freeze()  # the Trainer collects garbage after each training: what was imported is none
    answer.send(judge(architecture))
