"""The motion of a prompt as plain numbers, for a network that is told it once and not token by token.

`motion.token_features` tells every token where it looks; a text-to-video model is told by its prompt alone.
These numbers are that prompt: all that the text fixes of the motion, seen from the moment at which the clip
begins. Phases stand as sine and cosine, times as the frames until they come, cut off where they are far.
"""

from __future__ import annotations

import math

from ff_bench.models.mini.prompt import EVENTS, RING, SECTORS, MiniPrompt, MotionParameters

FAR = 200.0
"""Pixel frames from which on a time counts as far off: more than twice a window of 21 latent frames."""
TURNS = (1, 2, 4, 8)
"""Harmonics of the ring coordinate at which the clip begins."""
CAMERA = 2 * len(TURNS) + 1 + 2 * 4
SPRITE = 1 + 2 * 4
VISITS = 5
CHANGES = 2 + EVENTS * SECTORS
MOTION_NUMBERS = CAMERA + SPRITE + VISITS + CHANGES


def motion_numbers(prompt: MiniPrompt, start: float = 0.0) -> list[float]:
    """Return `MOTION_NUMBERS` numbers of about unit size.

    Args:
        prompt: whose text fixes the motion.
        start: pixel frame of the world at which the clip begins; a rollout begins at 0.
    """
    motion = prompt.motion()
    return [
        *_camera(motion, start),
        *_sprite(motion, start),
        *_visits(motion, start),
        *_changes(motion, start),
    ]


def events_begun(motion: MotionParameters, time: float) -> int:
    """Return how many events have begun at `time`, in pixel frames."""
    return min(EVENTS, max(0, math.floor((time - motion.event_start) / motion.event_gap) + 1))


def _camera(motion: MotionParameters, start: float) -> list[float]:
    """Where it is, how fast it turns, its swing and its wobble."""
    swing = _swing(motion.swing, motion.swing_period, motion.swing_phase, start)
    wobble = _swing(motion.wobble, motion.wobble_period, motion.wobble_phase, start)
    column = motion.start + motion.velocity * start + swing[1] + wobble[1]
    angles = [2 * math.pi * turn * column / RING for turn in TURNS]
    ring = [part for angle in angles for part in (math.sin(angle), math.cos(angle))]
    return [*ring, motion.velocity / 4, *_scaled(swing, 100), *_scaled(wobble, 10)]


def _sprite(motion: MotionParameters, start: float) -> list[float]:
    """Its size and its path around the centre of the view."""
    across = _swing(motion.sprite_reach_x, motion.sprite_period_x, motion.sprite_phase_x, start)
    along = _swing(motion.sprite_reach_y, motion.sprite_period_y, motion.sprite_phase_y, start)
    return [motion.sprite_radius / 10, *_scaled(across, 80), *_scaled(along, 16)]


def _visits(motion: MotionParameters, start: float) -> list[float]:
    """Whether the sprite is there, when it comes, when it leaves, for how long and how often."""
    since = start - motion.visit_start
    phase = since % motion.visit_period if since >= 0 else since
    is_inside = 0 <= phase < motion.visit_length
    comes = motion.visit_period - phase if since >= 0 else -since
    leaves = motion.visit_length - phase if is_inside else comes + motion.visit_length
    times = [_until(time) for time in (comes, leaves, motion.visit_length, motion.visit_period / 2)]
    return [float(is_inside), *times]


def _changes(motion: MotionParameters, start: float) -> list[float]:
    """When the next event comes, how far apart events are, which sectors each one to come repaints."""
    begun = events_begun(motion, start)
    following = motion.event_start + begun * motion.event_gap - start if begun < EVENTS else FAR
    sectors = [float(bit) for event in motion.event_sectors[begun:] for bit in event]
    gone = [0.0] * (begun * SECTORS)
    return [_until(following), _until(motion.event_gap / 2), *sectors, *gone]


def _swing(reach: float, period: float, phase: float, start: float) -> tuple[float, float, float, float]:
    """Return a sine's reach, its value and its quadrature at `start`, and its rate in radians per frame."""
    rate = 2 * math.pi / period
    angle = rate * start + phase
    return reach, reach * math.sin(angle), reach * math.cos(angle), rate


def _scaled(swing: tuple[float, float, float, float], length: float) -> list[float]:
    """Bring lengths and the rate to about unit size."""
    return [*(part / length for part in swing[:3]), 10 * swing[3]]


def _until(frames: float) -> float:
    """Return a time to come over 100 frames, cut off where it is far."""
    return min(max(frames, 0.0), FAR) / 100
