"""Build the site without a network: `python docs/make_site.py` writes `build/site/index.html`.

What Sphinx reads is first laid out in a folder of its own (`coursesite.staging`), so that notebooks and pages stay as
they are for JupyterLab and code hosts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from coursesite.staging import stage, write_all_editions
from sphinx.cmd.build import main as sphinx_build

HERE = Path(__file__).parent
STRICT = ("-W", "--keep-going", "-q")
"""A warning is a failure, and all of them are shown."""


def main(arguments: list[str] | None = None) -> int:
    """Stage and build; returns Sphinx's exit code, which is not 0 if it warned of anything."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/site"), help="where the pages go")
    parser.add_argument(
        "--executed",
        type=Path,
        default=Path("build/course"),
        help="a folder that `kdcourse run` wrote: its outputs are shown where its lessons are those of today",
    )
    chosen = parser.parse_args(arguments)
    shutil.rmtree(chosen.out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1) as helper:
        editions = helper.submit(write_all_editions, chosen.out / "editions")  # half of the work, on another core
        source = Path(folder, "source")
        stage(source, chosen.executed)
        trees = str(Path(folder, "trees"))
        code = sphinx_build([*STRICT, "-b", "html", "-c", str(HERE), "-d", trees, str(source), str(chosen.out)])
        editions.result()
        return code


if __name__ == "__main__":
    sys.exit(main())
