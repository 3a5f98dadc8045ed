"""The pages of the documentation: every Markdown file that a reader may open, cut into prose, code and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "notebooks/*.md", "tests/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)

FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
NOT_RUN = "no-run"
"""In the info string of a Python block that is not run; an HTML comment above it says why."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, the line that it begins on, and what is directly above it."""

    page: Path
    line: int
    info: str
    text: str
    above: str

    @property
    def language(self) -> str:
        """Blocks without one are commands for a shell."""
        return (self.info.split() or ["shell"])[0]

    @property
    def is_run(self) -> bool:
        return self.language == "python" and NOT_RUN not in self.info.split()


def name_of(page):
    """A page's path from the root, for messages and ids."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page):
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page, text.count("\n", 0, found.start()) + 1, found["info"], found["text"], text[: found.start()].rstrip()
        )
        for found in FENCE.finditer(text)
    ]


def prose_of(page):
    """A page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links_of(page):
    """The targets of a page's links and pictures."""
    return [found["target"] for found in LINK.finditer(prose_of(page))]


def anchors_of(page):
    """What a code host lets a link to a page end in: its headings in small letters, with hyphens, without signs."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
