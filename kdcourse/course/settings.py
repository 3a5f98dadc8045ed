"""What can be chosen for a run: the words that the command line offers, and that a run obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Profile = Literal["quick", "full"]
Device = Literal["auto", "cpu", "cuda"]

PROFILES: tuple[Profile, ...] = get_args(Profile)
DEVICES: tuple[Device, ...] = get_args(Device)
CELL_SECONDS = 900
LARGEST_SEED = 2**31
"""NumPy takes seeds below 2 ** 32, and lessons count on from the first."""


@dataclass(frozen=True)
class Settings:
    """What can be chosen for a run.

    Attributes:
        profile: `quick` (two CPU cores, no GPU) or `full` (more seeds and data); the notebooks' parameter PROFILE.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        seed: the first seed of every training; the parameter SEED of the lessons that train.
        parameters: more of the notebooks' parameters, by name; each lesson gets those that it knows.
        cell_seconds: the most that one cell may take.
    """

    profile: Profile = PROFILES[0]
    device: Device = DEVICES[0]
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cell_seconds: int = CELL_SECONDS

    @property
    def all_parameters(self) -> dict[str, Any]:
        """What a lesson is run with, as far as it knows the names."""
        return {"PROFILE": self.profile, "SEED": self.seed, **self.parameters}
