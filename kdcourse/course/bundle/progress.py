"""Who in the room has fetched how much of a file, by address: there are no names, and nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_ADDRESSES, MOST_RANGES = 1000, 1000
"""What is kept in memory, whatever somebody asks for."""


@dataclass
class Fetched:
    """What one address has of a file of `size` bytes."""

    address: str
    size: int
    last: float = 0.0
    """When it last got something, in seconds of the room's clock."""
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """From byte to byte, apart from each other: what was sent twice counts once."""

    def add(self, begin: int, end: int) -> None:
        """Bytes `begin` to `end` (exclusive) have been sent."""
        apart = []
        for each in self.ranges:
            if each[1] < begin or each[0] > end:
                apart.append(each)
            else:
                begin, end = min(begin, each[0]), max(end, each[1])
        if len(apart) < MOST_RANGES:
            self.ranges = [*apart, (begin, end)]

    @property
    def bytes(self) -> int:
        return sum(end - begin for begin, end in self.ranges)

    @property
    def share(self) -> float:
        return self.bytes / self.size if self.size else 1.0

    @property
    def finished(self) -> bool:
        return self.bytes >= self.size


class Room:
    """All addresses that have fetched something of a file of `size` bytes."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self._clock = clock
        self._fetched: dict[str, Fetched] = {}

    def add(self, address: str, begin: int, end: int) -> None:
        """Bytes `begin` to `end` (exclusive) have been sent to this address."""
        if address in self._fetched or len(self._fetched) < MOST_ADDRESSES:
            fetched = self._fetched.setdefault(address, Fetched(address, self.size))
            fetched.add(begin, end)
            fetched.last = self._clock()

    def rows(self) -> list[Fetched]:
        """Those that lack most first: that is who needs help."""
        return sorted(self._fetched.values(), key=lambda each: (each.bytes, len(each.address), each.address))

    def silent(self, fetched: Fetched) -> int:
        """Seconds since the last byte."""
        return int(self._clock() - fetched.last)
