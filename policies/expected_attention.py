"""Expected attention: keep what queries drawn like those seen so far would read from the next frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policies import statistics
from policies.base import Pass, Policy, Shape
from policies.cache import LayerCache
from policies.proxy import Ahead

_AVERAGES = ("outside", "inside")
_MEAN, _COVARIANCE = "query_mean", "query_covariance"


@dataclass
class ExpectedAttention(Policy):
    """Share of the expected exponential logits of a Gaussian query at future positions, times the value norm.

    A query at position t is R_t (mean + noise), so that E exp(q k / sqrt(D)) = exp(m k / sqrt(D) +
    k C k / 2D) with m = R_t mean and C = R_t covariance R_t^T. Positions are ``phases`` places (row, column)
    in each of the ``horizon`` frames after the chunk; other frames take other places.

    Source: arXiv 2510.00636; NVIDIA/kvpress@8bb29b9, expected_attention_press.py.
    Deviates: ``average=outside`` takes the mean over positions of the softmaxes (kvpress: of the rotations,
        which wipes out fast frequencies; ``inside`` does so). Positions are frames and places, not the next
        512 tokens. Mean and covariance run over all queries of the observed passes so far (kvpress: of the
        prefix behind its sink). Sinks are those of the protocol and take part in the softmax. Published
        results add epsilon 0.01, budgets per head (AdaKV) and the norm behind the output projection.

    Args:
        horizon: Future latent frames (ours: 6; kvpress: 512 tokens).
        phases: Places of each future frame, at most its tokens (ours).
        average: ``outside`` the exponential, or ``inside``.
        covariance: Whether the spread of the queries counts (kvpress: true).
        value_norm: Whether scores are multiplied by the norm of the value (kvpress: true).
        epsilon: Added to the expected attention before that (kvpress: 0).
    """

    horizon: int = 6
    phases: int = 4
    average: str = "outside"
    covariance: bool = True
    value_norm: bool = True
    epsilon: float = 0.0

    name: ClassVar[str] = "expected_attention"
    source: ClassVar[str] = "arXiv 2510.00636; NVIDIA/kvpress@8bb29b9"

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.average not in _AVERAGES:
            raise ValueError(f"policy.average is '{self.average}'; allowed: {', '.join(_AVERAGES)}")
        for field in ("horizon", "phases"):
            if getattr(self, field) < 1:
                raise ValueError(f"policy.{field} is {getattr(self, field)}; allowed: 1 or more")
        if self.epsilon < 0:
            raise ValueError(f"policy.epsilon is {self.epsilon}; allowed: 0 or more")

    def begin(self) -> None:
        """Begin a rollout; angles are shared by its layers."""
        self._ahead = Ahead()

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of mean and covariance."""
        channels = shape.head_dim * (1 + shape.head_dim * self.covariance)
        return 4 * batch * shape.layers * shape.query_heads * channels

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Update mean and covariance of the un-rotated queries."""
        if self.budget.tokens is None:
            return
        rows = statistics.observed(step, self.protocol)
        share = statistics.counted(cache, rows.shape[2])
        moved = statistics.update_mean(cache, _MEAN, rows, share)
        if self.covariance:
            statistics.update_covariance(cache, _COVARIANCE, rows, share, moved)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return (expected attention + epsilon) x value norm, (B, H, S)."""
        stride = -(-self.shape.frame_tokens // self.phases)
        turn = self._ahead.turn(step.times, self.shape, horizon=self.horizon, stride=stride)
        cos, sin = (part.flatten(-3, -2) for part in turn)  # ([B, Hq,] positions, D/2)
        if self.average == "inside":
            cos, sin = cos.mean(-2, keepdim=True), sin.mean(-2, keepdim=True)
        keys, bias = cache.rotated.float(), cache.bias
        attention = torch.zeros((), device=cache.device)
        for at in range(cos.shape[-2]):
            logits = self._logits(cache, keys, cos[..., at, :], sin[..., at, :])  # (B, H, G, S)
            if bias is not None:
                logits = logits + bias[:, :, None]
            attention = attention + logits.softmax(-1).mean(2)
        expected: Tensor = attention / cos.shape[-2]
        if self.value_norm:
            expected = (expected + self.epsilon) * cache.values.float().norm(dim=-1)
        return expected

    def _logits(self, cache: LayerCache, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the logarithm of the expected exponential logit at one position, (B, H, G, S) fp32."""
        rope, dim, groups = self.shape.rope, self.shape.head_dim, (cache.heads, -1)
        mean = rope.turn(statistics.statistic(cache, _MEAN), cos, sin).unflatten(1, groups)  # (B, H, G, D)
        logits: Tensor = mean @ keys.mT / dim**0.5
        if not self.covariance:
            return logits
        by_row = (cos[..., None, :], sin[..., None, :])
        spread = rope.turn(statistics.statistic(cache, _COVARIANCE), *by_row).mT  # R C, as C is symmetric
        spread = rope.turn(spread, *by_row).unflatten(1, groups)  # R C R^T, (B, H, G, D, D)
        wide = keys[:, :, None]  # (B, H, 1, S, D)
        logits += (wide @ spread * wide).sum(-1) / (2 * dim)
        return logits
