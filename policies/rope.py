"""Rotary position embedding over (time, row, column).

Knows angles and pairs of channels; knows nothing about caches or policies. A rotation turns channel pair i by
an angle; queries and keys turned by the angles of their own positions meet in a dot product that depends on
the difference of positions only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from policies import kernels

LAYOUTS = ("half", "interleaved")
_NEAR = 1024.0
"""Radians up to which an angle is rounded to fp32 as it is; further ones lose whole turns first."""


@lru_cache(maxsize=64)
def _frequencies(channels: int, base: float, device: torch.device) -> Tensor:
    """Return the pair frequencies of one axis, (channels / 2,) fp64."""
    return base ** (-torch.arange(0, channels, 2, device=device, dtype=torch.float64) / max(channels, 1))


@dataclass(frozen=True)
class Rope:
    """Three-axis rotary embedding.

    Args:
        dims: Real channels given to time, row and column; each even, their sum is the head dimension.
        bases: Base of the frequencies of each axis; pair i of an axis with d channels turns by base**(-2i/d).
        layout: ``half`` pairs channel i with i + D/2, ``interleaved`` pairs 2i with 2i + 1; in both the pairs
            are ordered time, row, column.
    """

    dims: tuple[int, int, int]
    bases: tuple[float, float, float]
    layout: str = "half"

    def __post_init__(self) -> None:
        """Reject odd channel counts and unknown layouts."""
        if self.layout not in LAYOUTS:
            raise ValueError(f"rope.layout is '{self.layout}'; allowed: {', '.join(LAYOUTS)}")
        if any(channels < 0 or channels % 2 for channels in self.dims):
            raise ValueError(
                f"rope.dims is {self.dims}; every axis needs an even number of channels, 0 or more"
            )

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return sum(self.dims)

    @property
    def time_pairs(self) -> int:
        """Channel pairs that carry time; they come first."""
        return self.dims[0] // 2

    def angles(self, time: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the angle of every pair, (..., D/2) fp32, for positions that broadcast to (...).

        Products are taken in fp64, and angles far out are brought back to one turn before they are rounded:
        fp32 knows an angle of 30 000 rad to 1e-3, and near frames late in a video would turn against each
        other. Near angles stay as they are, so that videos of any earlier version come out bit for bit.
        """
        grid = torch.zeros_like(time + row + column)
        positions = (time + grid, row + grid, column + grid)
        return torch.cat([self._axis_angles(axis, position) for axis, position in enumerate(positions)], -1)

    def _axis_angles(self, axis: int, position: Tensor) -> Tensor:
        frequencies = _frequencies(self.dims[axis], self.bases[axis], position.device)
        angles = position[..., None] * frequencies
        return torch.where(angles.abs() <= _NEAR, angles, angles.remainder(2 * math.pi)).float()

    def time_angles(self, time: Tensor) -> Tensor:
        """Return the angles of the time pairs alone, (..., time pairs) fp32."""
        return self._axis_angles(0, time)

    def rotate(self, x: Tensor, angles: Tensor) -> Tensor:
        """Turn x (..., D) by angles that broadcast to (..., D/2); the negative angles undo it."""
        return self.turn(x, angles.cos(), angles.sin())

    def turn_into(self, out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Write x (B, H, N, D) into out, turned by cosines and sines (N, D/2) or (B, H, N, D/2) fp32."""
        if out.is_cuda:
            kernels.turn(out, x, cos, sin, is_interleaved=self.layout == "interleaved")
        else:
            out.copy_(self.turn(x, cos, sin))

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn x (..., D) by angles given as fp32 cosines and sines that broadcast to (..., D/2)."""
        wide = x.float()
        if torch.is_grad_enabled() and x.requires_grad:  # training: no writing in place
            return self._joined(*self.pairs(wide), cos, sin).to(x.dtype)
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        _turn_pairs(self.pairs(wide), self.pairs(out), cos, sin)
        return out.to(x.dtype)

    def _joined(self, first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = (first * cos - second * sin, first * sin + second * cos)
        return torch.cat(turned, -1) if self.layout == "half" else torch.stack(turned, -1).flatten(-2)

    def rotate_time(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return x (..., D) with its time pairs turned by delta (...) latent frames."""
        out = x.clone()
        self.retime_(out, x, *self.time_turn(delta))
        return out

    def time_turn(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of the time pairs, each (..., time pairs) fp32."""
        angles = self.time_angles(time)
        return angles.cos(), angles.sin()

    def retime_(self, out: Tensor, keys: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Write the time pairs of keys (..., D), turned by `time_turn`, into those of out, and no others."""
        if out.is_cuda and out.ndim == 4:
            kernels.turn(out, keys, cos, sin, is_interleaved=self.layout == "interleaved")
            return
        count = self.time_pairs
        first, second = (part[..., :count] for part in self.pairs(keys))
        targets = tuple(part[..., :count] for part in self.pairs(out))
        if out.dtype == torch.float32:
            _turn_pairs((first, second), targets, cos, sin)
            return
        targets[0].copy_(first.float() * cos - second.float() * sin)
        targets[1].copy_(first.float() * sin + second.float() * cos)

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return views of the first and the second channel of every pair, each (..., D/2)."""
        if self.layout == "half":
            half = x.shape[-1] // 2
            return x[..., :half], x[..., half:]
        return x[..., 0::2], x[..., 1::2]


def _turn_pairs(source: tuple[Tensor, ...], target: tuple[Tensor, ...], cos: Tensor, sin: Tensor) -> None:
    """Write the turned fp32 pairs without temporaries; source and target must not share memory."""
    torch.mul(source[0], cos, out=target[0]).addcmul_(source[1], sin, value=-1)
    torch.mul(source[0], sin, out=target[1]).addcmul_(source[1], cos)
