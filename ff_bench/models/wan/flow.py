"""Noise levels of the family: the table of 1000 time steps, x0 from the flow, fresh noise on x0.

A level is a time step over 1000. Which sigma belongs to it is looked up, nearest entry first, as the released
models were trained: the least entry is not 0, so that a pass at level 0 takes sigma 0.00498 at shift 5.

Source: guandeh17/Self-Forcing@33593df3 utils/scheduler.py, utils/wan_wrapper.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 1000
"""Entries of the table, and the largest time step."""


class FlowSchedule:
    """Levels of a rectified flow whose time is warped by `shift`."""

    def __init__(self, shift: float) -> None:
        """Make the table.

        Args:
            shift: of the warp s(u) = shift * u / (1 + (shift - 1) * u), above 0.

        Raises:
            ValueError: where `shift` is 0 or less.
        """
        if shift <= 0:
            raise ValueError(f"model.shift is {shift}; allowed: above 0 (5 for most members)")
        self.shift = shift
        even = torch.linspace(1, 0, STEPS + 1)[:-1]
        self.sigmas = shift * even / (1 + (shift - 1) * even)
        self.times = self.sigmas * STEPS
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def warped(self, nominal: Sequence[float]) -> tuple[float, ...]:
        """Warp nominal time steps.

        Args:
            nominal: whole numbers in [0, 1000].

        Returns:
            Time steps in [0, 1000]; 0 stays 0.

        Raises:
            ValueError: naming the first step that is no entry of the table.
        """
        for step in nominal:
            if step != int(step) or not 0 <= step <= STEPS:
                raise ValueError(f"model.steps holds {step}; allowed: whole numbers from 0 to {STEPS}")
        times = [*self.times.tolist(), 0.0]
        return tuple(times[STEPS - int(step)] for step in nominal)

    def time(self, level: Tensor) -> Tensor:
        """Return time steps (...) fp32 in [0, 1000] of levels (...); the product is rounded once."""
        return (level.double() * STEPS).float()

    def sigma(self, level: Tensor | float) -> Tensor:
        """Return the sigma of the entry nearest to a level, fp32 of its shape, without a wait for the device.

        Args:
            level: in [0, 1].
        """
        level = torch.as_tensor(level, dtype=torch.float64) if isinstance(level, float | int) else level
        times, sigmas = self._table(level.device)
        nearest = (times - self.time(level)[..., None]).abs().argmin(-1)
        return sigmas[nearest]

    def x0(self, latent: Tensor, flow: Tensor, level: Tensor) -> Tensor:
        """Remove the noise that the flow points to, in fp64.

        Args:
            latent: (B, F, C, h, w).
            flow: (B, F, C, h, w), noise minus picture.
            level: (B, F) of `latent`.

        Returns:
            (B, F, C, h, w) in the format of `flow`.
        """
        sigma = self.sigma(level).double()[:, :, None, None, None]
        return (latent.double() - sigma * flow.double()).to(flow.dtype)

    def renoise(self, x0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Bring clean latents to a level; products in fp32, the sum in the format of `noise`.

        Args:
            x0: (B, F, C, h, w).
            noise: (B, F, C, h, w) standard normal.
            level: (B, F) to reach.
        """
        sigma = self.sigma(level)[:, :, None, None, None]
        return ((1 - sigma) * x0 + sigma * noise).to(noise.dtype)

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return times and sigmas on a device, copied there once."""
        if device not in self._tables:
            self._tables[device] = (self.times.to(device), self.sigmas.to(device))
        return self._tables[device]
