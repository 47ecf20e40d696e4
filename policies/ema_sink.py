"""EMA sink: the first frames stay and take in a little of every frame that leaves the window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest

_DTYPES = ("model", "float32")


@dataclass
class EmaSink(Policy):
    """First in, first out behind a moving average as sink: sink = decay * sink + (1 - decay) * evicted.

    Keys are averaged un-rotated and normalised, values as they are, slot by slot, when as many slots leave as
    the sink has.

    Source: Reward-Forcing, arXiv 2512.04678; JaydenLyh/Reward-Forcing@4317f5a0, wan/modules/causal_model.py.
    Deviates: where another number of slots leaves, the sink stays as it is (the original overwrites it).

    Args:
        decay: Weight of the sink against what leaves (released: 0.999).
        dtype: ``model`` averages in the number format of the cache, as released: in bfloat16 0.999 x rounds
            to x and the sink hardly moves. ``float32`` is the average that the formula means.
    """

    decay: float = 0.999
    dtype: str = "model"

    name: ClassVar[str] = "ema_sink"
    source: ClassVar[str] = "arXiv 2512.04678; JaydenLyh/Reward-Forcing@4317f5a0"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "1c", "position": "contiguous"})
    is_positional: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if not 0 <= self.decay <= 1:
            raise ValueError(f"policy.decay is {self.decay}; allowed: 0 to 1")
        if self.dtype not in _DTYPES:
            raise ValueError(f"policy.dtype is '{self.dtype}'; allowed: {', '.join(_DTYPES)}")

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S); the sink is protected by the budget."""
        return newest(cache)

    def absorb(self, cache: LayerCache, start: int, count: int) -> None:
        """Move the sink towards the slots [start, start + count) that are about to go."""
        if count != start:
            return
        for name, rows in (("sink_keys", cache.keys), ("sink_values", cache.values)):
            sink, leaving = rows[:, :, :start], rows[:, :, start : start + count]
            if self.dtype == "float32":
                wide = cache.stats.get(name)
                sink_now = wide if isinstance(wide, Tensor) else sink.float()
                cache.stats[name] = average = self.decay * sink_now + (1 - self.decay) * leaving.float()
            else:
                average = self.decay * sink + (1 - self.decay) * leaving
            sink.copy_(average)
        cache.rotate_again(start)
