"""Proxies of future queries: what the next frames will ask, told from what the last frames asked."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.attention import staggered
from policies.base import Pass, Protocol, Shape
from policies.cache import LayerCache


def note_queries(
    cache: LayerCache,
    step: Pass,
    protocol: Protocol,
    *,
    frame_tokens: int,
    window: int,
    horizon: int,
    takes_first: bool = False,
) -> None:
    """Update the position-wise mean of the last ``window`` frames' un-rotated queries.

    A chunk's queries are those of the clean pass, or where the protocol observes all passes their mean or,
    with ``takes_first``, those of the first alone. The mean goes to ``stats['proxy']``
    (B, Hq, 1 or horizon, R, D) fp32; frames that later chunks need go to ``past``. Under a stride, each frame
    of the horizon takes other R of the P tokens of a frame.
    """
    tokens = _tokens(frame_tokens, protocol.query_stride, horizon, step.queries.device)
    queries = step.queries.unflatten(2, (-1, frame_tokens))  # (B, Hq, F, P, D)
    frames = queries[:, :, :, tokens].float()  # (B, Hq, F, 1 or horizon, R, D)
    if protocol.passes == "all":
        earlier, passes = cache.stats.pop("query_sum", 0.0), cache.stats.pop("query_passes", 0.0)
        assert isinstance(passes, float), passes
        if takes_first and isinstance(earlier, Tensor):
            frames, passes = earlier, 0.0
        else:
            frames = frames + earlier
        if not step.commit:
            cache.stats["query_sum"], cache.stats["query_passes"] = frames, passes + 1.0
            return
        frames = frames / (passes + 1.0)
    chunk_frames = frames.shape[2]
    past = cache.stats.get("past")
    if isinstance(past, Tensor):
        frames = torch.cat([past, frames], 2)
    cache.stats["proxy"] = frames[:, :, -window:].mean(2)
    if window > chunk_frames:
        cache.stats["past"] = frames[:, :, chunk_frames - window :].clone()


class Ahead:
    """Angles of the frames behind a chunk, made once for all layers that share its times."""

    def __init__(self) -> None:
        """Start with none."""
        self._times: Tensor | None = None
        self._turn: tuple[Tensor, Tensor] | None = None

    def turn(self, times: Tensor, shape: Shape, *, horizon: int, stride: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines at every ``stride``-th token, ([B, Hq,] horizon, R, D/2).

        Args:
            times: Times of the chunk's frames, (F,) or (B, H, F).
            shape: The model.
            horizon: Latent frames ahead.
            stride: See ``Protocol.query_stride``.
        """
        if self._turn is None or self._times is not times:
            self._times, self._turn = times, _turn(times, shape, horizon=horizon, stride=stride)
        return self._turn


def _turn(times: Tensor, shape: Shape, *, horizon: int, stride: int) -> tuple[Tensor, Tensor]:
    token = _tokens(shape.frame_tokens, stride, horizon, times.device)  # (1 or horizon, R)
    # (horizon,) or (B, H, horizon)
    ahead = times[..., -1:] + torch.arange(1, horizon + 1, device=times.device)
    angles = shape.rope.angles(ahead[..., None], token // shape.columns, token % shape.columns)
    if times.ndim > 1:
        angles = angles.repeat_interleave(shape.query_heads // shape.heads, 1)
    return angles.cos(), angles.sin()


def future_queries(
    cache: LayerCache, step: Pass, shape: Shape, ahead: Ahead, *, horizon: int, stride: int
) -> Tensor:
    """Return the proxy rotated to the ``horizon`` frames after the chunk, (B, Hq, horizon, R, D).

    The proxy is used up. Time goes on from the chunk's last frame under the position mode in force; rows and
    columns are those of the proxy's own positions. The result has the dtype of the cache, as true queries
    would.
    """
    proxy = cache.stats.pop("proxy", None)
    assert isinstance(proxy, Tensor), "observe has not seen a committing pass"
    turn = ahead.turn(step.times, shape, horizon=horizon, stride=stride)
    return shape.rope.turn(proxy.expand(-1, -1, horizon, -1, -1), *turn).to(cache.dtype)


def _tokens(frame_tokens: int, stride: int, horizon: int, device: torch.device) -> Tensor:
    """Return the tokens of a frame that are looked at, (1, P) or, under a stride, (horizon, R)."""
    return staggered(frame_tokens, stride, 1 if stride == 1 else horizon, device)
