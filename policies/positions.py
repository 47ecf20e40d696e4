"""Time index of every cached slot and of the chunk, one pure function per question.

A position mode says where in time a key stands as seen from the chunk that is being generated; rows and
columns never change. All times are int64 latent frames.

- ``absolute``: the frame as generated.
- ``contiguous``: slot number divided by the tokens of a frame; the chunk follows.
- ``frame_rank``: rank of the frame among the distinct frames of its head; the chunk follows.
- ``clamped``: absolute, but never further than window - 1 frames before the chunk's last frame.
- ``sink_shifted``: absolute, with the sink slots moved to where they would stand if the context were
  contiguous with the chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 2**31 - 1
"""Token index of a slot that holds nothing: behind every other."""
MODES = ("absolute", "contiguous", "frame_rank", "clamped", "sink_shifted")


def time_indices(
    tokens: Tensor,
    mode: str,
    *,
    first_frame: int,
    frames: int,
    frame_tokens: int,
    window: int,
    sink: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the time index of the context slots and of the chunk's frames.

    Args:
        tokens: Absolute token index per slot, (B, H, S), increasing along S.
        mode: One of ``MODES``.
        first_frame: First absolute latent frame of the chunk.
        frames: Latent frames of the chunk.
        frame_tokens: Tokens of one latent frame.
        window: Training window of the model, latent frames.
        sink: Protected slots at the start, tokens.

    Returns:
        Times of the context, (S,) or (B, H, S), and of the chunk, (F,) or (B, H, F).
    """
    slots, steps = tokens.shape[-1], torch.arange(frames, device=tokens.device)
    held = -(-slots // frame_tokens)  # latent frames that the context fills, rounded up
    if mode == "contiguous":
        return torch.arange(slots, device=tokens.device) // frame_tokens, held + steps
    source = tokens.long() // frame_tokens  # (B, H, S)
    if mode in ("absolute", "clamped"):
        nearest = first_frame + frames - window if mode == "clamped" else 0
        return source.clamp(min=nearest), first_frame + steps
    if mode == "sink_shifted":
        is_sink = torch.arange(slots, device=tokens.device) < sink
        return source + is_sink * max(0, first_frame - held), first_frame + steps
    if mode == "frame_rank":
        is_new = torch.ones_like(source)
        is_new[..., 1:] = (source[..., 1:] != source[..., :-1]).long()
        is_new *= tokens < NOTHING
        return is_new.cumsum(-1) - 1, is_new.sum(-1, keepdim=True) + steps
    raise ValueError(f"protocol.position is '{mode}'; allowed: {', '.join(MODES)}")


def distances(context: Tensor, chunk: Tensor, *, frame_tokens: int, window: int) -> tuple[Tensor, Tensor]:
    """Return the largest relative time distance in use and the share of keys beyond the training window.

    Distances are taken from the chunk's last frame; the keys are those of the context and of the chunk. Both
    results are 0-d tensors on the device (fp32), so that nothing waits for them here.
    """
    last = chunk[..., -1:]
    far = (last - context).float()
    own = float(chunk.shape[-1] - 1)
    if far.numel() == 0:
        return torch.full((), own, device=far.device), far.new_zeros(())
    rows = far.numel() // far.shape[-1]
    keys = rows * (far.shape[-1] + chunk.shape[-1] * frame_tokens)
    return far.max().clamp(min=own), (far >= window).sum() / keys
