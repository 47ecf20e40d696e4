"""Forcing-KV: heads that look at their neighbourhood keep a frame, the others what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies import head_types
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest

_SIMILARITY = "similarity"


@dataclass
class ForcingKV(Policy):
    """Static heads keep sink and newest frame, dynamic heads patches that the next frame does not repeat.

    Heads are told apart in the first clean pass above the budget: static are those with the largest share of
    their attention behind the first ``skipped_frames`` on the last ``near_frames`` (the chunk among them). A
    slot's score in dynamic heads is minus the cosine of its rotated key to that of the next frame at the same
    place, all heads joined to one vector, mean over a patch (a run of tokens of a frame).

    Source: arXiv 2605.09681; zju-jiyicheng/Forcing-KV@50ac1f4, wan/modules/causal_model_forcingkv.py and
        configs_head.
    Deviates: the same number of static heads in every layer but the first, each video its own (the original:
        a file per model made offline, share of attention at least 0.8, 134 of 360 heads for Self-Forcing);
        the first layer keeps the budget, not everything; similarity is each layer's (the original: layer 1's
        for all, the first video's) and stays with the slot, which can be kept for more than one chunk;
        patches differ by a token where they do not divide a frame; caching of steps and fp8 are not part
        of it.

    Args:
        static: Share of a layer's heads that are static, 0 to 0.5 (134 of 360 in the released file).
        near_frames: Newest latent frames whose attention makes a head static (released: 4).
        skipped_frames: First latent frames that do not count (released: 3).
        patches: Patches of a frame (released: 6).
    """

    static: float = 0.37
    near_frames: int = 4
    skipped_frames: int = 3
    patches: int = 6

    name: ClassVar[str] = "forcing_kv"
    source: ClassVar[str] = "arXiv 2605.09681; zju-jiyicheng/Forcing-KV@50ac1f4"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": "1f", "recent": "1f", "unit": "token", "share": "head", "position": "absolute"}
    )
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_SIMILARITY: -1.0})
    reads_attention: ClassVar[bool] = True
    widest_head: ClassVar[float] = head_types.WIDEST

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        head_types.check_share("static", self.static)
        for field, value, least in (
            ("near_frames", self.near_frames, 1),
            ("skipped_frames", self.skipped_frames, 0),
            ("patches", self.patches, 1),
        ):
            if value < least:
                raise ValueError(f"policy.{field} is {value}; allowed: {least} or more")

    def begin(self) -> None:
        """Check that a frame has as many tokens as patches.

        Raises:
            ValueError: If it has not.
        """
        if self.patches > self.shape.frame_tokens:
            raise ValueError(
                f"policy.patches is {self.patches}; allowed: 1 to the {self.shape.frame_tokens} tokens of a "
                "latent frame"
            )

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return sink and recent for static heads, what that leaves for the others; layer 0 is not split."""
        return head_types.plan(self, caches, share=self.static, narrow=0, whole_layers=1)

    def ranks(self, cache: LayerCache) -> Tensor | None:
        """Return the place of each head by its attention to what is not near, (B, H)."""
        return head_types.ranks(cache)

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note how much each frame is like the next; tell the heads apart once."""
        tokens = self.budget.tokens
        if tokens is None or not step.commit:
            return
        self._compare(cache, step)
        if head_types.ranks(cache) is None and cache.size + step.keys.shape[2] > tokens:
            mass = head_types.received(cache, step, self.protocol.query_stride)
            frame = self.shape.frame_tokens
            near = mass[..., -self.near_frames * frame :].sum(-1)
            counted = mass[..., self.skipped_frames * frame :].sum(-1)
            head_types.note_ranks(cache, -near / counted.clamp(min=1e-12))

    def _compare(self, cache: LayerCache, step: Pass) -> None:
        """Write the similarity of the chunk's frames but the last, and of the frame before the chunk."""
        frame, state = self.shape.frame_tokens, cache.staged_state(_SIMILARITY)
        chunk = cache.staged_keys[:, :, cache.size :].unflatten(2, (-1, frame))  # (B, H, F, P, D)
        found = self._similarity(chunk[:, :, :-1], chunk[:, :, 1:])  # (B, F - 1, P)
        state[:, :, cache.size : -frame] = found.flatten(1)[:, None]
        if self.budget.recent < frame or cache.size < frame:
            return  # the frame before the chunk may have holes
        slots = torch.arange(-frame, 0, device=cache.device).expand(cache.batch, cache.heads, -1)
        slots = slots + (cache.size if cache.lengths is None else cache.lengths[..., None])
        before = cache.rotated.gather(2, slots[..., None].expand(-1, -1, -1, self.shape.head_dim))
        likeness = self._similarity(before[:, :, None], chunk[:, :, :1])  # (B, 1, P)
        state.scatter_(2, slots, likeness.expand(-1, cache.heads, -1))

    def _similarity(self, keys: Tensor, following: Tensor) -> Tensor:
        """Return the mean cosine over a patch at each of its tokens, (B, H, F, P, D) to (B, F, P) fp32."""
        one, other = (x.float().permute(0, 2, 3, 1, 4).flatten(3) for x in (keys, following))
        cosine = functional.cosine_similarity(one, other, dim=-1)
        parts = cosine.tensor_split(self.patches, -1)
        return torch.cat([part.mean(-1, keepdim=True).expand_as(part) for part in parts], -1)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return minus the similarity to the next frame; in static heads the slot number, (B, H, S)."""
        count = 0 if cache.layer == 0 else head_types.few(self, self.static)
        is_static = head_types.is_narrow(cache, count)
        return torch.where(is_static, newest(cache), -cache.slot_state(_SIMILARITY))
