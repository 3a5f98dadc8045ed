"""Execute one notebook with papermill, say which cell begins, and say in words what stopped it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
import zmq
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from kdcourse.course.ledger import Ledger
from kdcourse.course.text import writable
from kdcourse.files import says_full

# Code and outputs go over a local port, where other users of the machine can listen. Kernels warn of that whenever they
# start, unless the connection is encrypted.
ENCRYPTION = "auto" if zmq.has("curve") else "disabled"

OnCell = Callable[[str, int, int], None]
"""Told of each code cell that begins: its id, its place among the code cells from 1, and how many there are."""


def execute(
    source: Path, executed: Path, parameters: Mapping[str, Any], *, folder: Path, cell_seconds: int, on_cell: OnCell
) -> str:
    """Run one notebook into `executed`, with a kernel that starts in `folder`.

    The answer says what stopped it, or nothing.
    """
    try:
        papermill.execute_notebook(
            _as_template(source),
            _as_template(executed),
            parameters=dict(parameters),
            engine_name=LessonEngine.NAME,
            kernel_name="python3",
            cwd=folder,
            progress_bar=False,
            cell_seconds=cell_seconds,
            on_cell=on_cell,
        )
    except PapermillExecutionError as error:
        if says_full(error.evalue):
            return "The disk is full: a cell could not write."
        return f"It raised {error.ename}: {error.evalue}"
    except CellTimeoutError:
        return f"A cell took longer than {cell_seconds} s."
    except DeadKernelError:
        return "The kernel died; a process that runs out of memory looks like this."
    except RuntimeError as error:  # jupyter_client has no class of its own for a kernel that does not start
        return f"The kernel did not start ({error}); `kdcourse doctor` looks at it."
    return ""


def _as_template(path: Path) -> str:
    """The path for papermill, which fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


class QuietKernelManager(AsyncKernelManager):
    """Does not interrupt a kernel that is about to be shut down.

    Jupyter's own does, and the kernel prints an error although its lesson is over, or the traceback of its cell.
    """

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


class LessonClient(PapermillNotebookClient):  # type: ignore[misc]  # papermill has no annotations
    """Papermill's client, which after Ctrl-C does not wait for its kernel, and keeps the claims that a cell hides."""

    def __init__(self, nb_man: NotebookExecutionManager, ledger: Ledger, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self._ledger = ledger

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options: Any) -> NotebookNode:
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self._ledger.keep_hidden(self.nb.cells[cell_index])

    def process_message(self, msg: dict[str, Any], *place: Any) -> Any:
        return super().process_message(msg | {"content": writable(msg["content"])}, *place)

    @contextmanager
    def setup_kernel(self, **options: Any) -> Iterator[None]:
        try:
            with super().setup_kernel(**options):
                try:
                    yield
                except KeyboardInterrupt:
                    self.shutdown_kernel = "immediate"
                    raise
        except KeyboardInterrupt:
            if self.km is not None:  # nbclient leaves a kernel alone that was just starting
                self.shutdown_kernel = "immediate"
                self._cleanup_kernel()
            raise


class LessonEngine(Engine):  # type: ignore[misc]
    """Runs a notebook with `LessonClient`."""

    NAME = "kdcourse"

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        cell_seconds: int,
        on_cell: OnCell,
        start_timeout: int,
        **_: Any,
    ) -> None:
        names = [cell.id for cell in nb_man.nb.cells if cell.cell_type == "code"]
        with tempfile.TemporaryDirectory(prefix="kdcourse-") as folder:
            ledger = Ledger(Path(folder))
            client = LessonClient(
                nb_man,
                ledger,
                kernel_manager_class=QuietKernelManager,
                kernel_name=kernel_name,
                timeout=cell_seconds,
                startup_timeout=start_timeout,
                config=Config(KernelManager={"transport_encryption": ENCRYPTION}),
                on_cell_execute=lambda cell, cell_index: on_cell(cell.id, names.index(cell.id) + 1, len(names)),
            )
            try:
                client.execute(env=os.environ | ledger.environment)
            finally:
                if nb_man.nb.cells:  # a thread may outlive its cell
                    ledger.keep_hidden(nb_man.nb.cells[-1])


papermill_engines.register(LessonEngine.NAME, LessonEngine)
