"""Progress: nowhere, or bars on the terminal, one per stage, as stages run side by side."""

from __future__ import annotations

from typing import NoReturn, Protocol

from tqdm import tqdm

UNITS = {"generate": "latent frame", "score": "video"}


class Progress(Protocol):
    """Where progress goes: a bar on a terminal, or nowhere."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps: latent frames of `generate`, videos of `score`."""

    def advance(self, stage: str, steps: int) -> None:
        """Say that steps of a stage are done, or, below zero, that they were done in vain."""


class Silent:
    """Progress that goes nowhere."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""

    def advance(self, stage: str, steps: int) -> None:
        """Say that steps are done."""


class Bars:
    """Bars with the time left; silent where standard error is no terminal."""

    def __init__(self) -> None:
        """Start without a bar."""
        self._bars: dict[str, tqdm[NoReturn]] = {}

    def start(self, stage: str, total: int) -> None:
        """Open the bar of a stage below those that are open."""
        self._bars[stage] = tqdm(
            total=total, desc=stage, unit=f" {UNITS.get(stage, 'step')}", disable=None, dynamic_ncols=True,
            smoothing=0.05, position=len(self._bars),
        )  # fmt: skip

    def advance(self, stage: str, steps: int) -> None:
        """Move the bar of a stage; a stage without one is not shown."""
        if stage in self._bars and steps:
            self._bars[stage].update(steps)

    def close(self) -> None:
        """Close the bars, the lowest first."""
        for bar in reversed(self._bars.values()):
            bar.close()
        self._bars.clear()
