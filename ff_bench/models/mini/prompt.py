"""The prompts of the embedded model: one line of text that fixes camera, sprite path and event times.

A prompt names a world and a few keys, e.g. ``orbit palette=3 speed=-2 sprite=disc hue=teal path=7``. It
parses, prints back (`text`) and is its own id. It says how things move and when they change; what they look
like comes from the noise. This module imports no torch, so that prompts are checked before anything heavy is
loaded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

RING = 384
"""Columns of the cyclic panorama, in pixels."""
SECTORS = 12
"""Sectors of the panorama; each has its own plot of ground and its own landmark, and changes as a whole."""
EVENTS = 5
"""Most changes that a place can undergo: its version runs from 0 to EVENTS."""
FRAMES_PER_LATENT = 4
CHUNK_FRAMES = 3
PREFIX_STEP = 4 * CHUNK_FRAMES
"""Prefixes are whole multiples of this many latent frames (3 s), so that videos can run side by side."""
PALETTES = 8
SPEEDS = (-4, -3, -2, -1, 1, 2, 3, 4)
PATHS = 1000
WORLDS = ("orbit", "pendulum", "cut", "occlusion", "change")
SPRITES = ("disc", "box", "diamond", "triangle")
HUES = ("red", "amber", "lime", "green", "teal", "azure", "violet", "magenta")
KEYS = ("palette", "speed", "sprite", "hue", "path")
NEVER = 1e9
"""A time that no video reaches, in pixel frames."""


@dataclass(frozen=True)
class MotionParameters:
    """Everything that moves, as plain numbers. Times in pixel frames, lengths in pixels, angles in radians.

    Camera column at time t: ``start + velocity t + swing sin(2 pi t / swing_period + swing_phase)`` and the
    same for wobble. Sprite: a Lissajous path around the view centre; away from view outside its visits
    (`visit_*`). A sector's version at time t is the number of events k with ``t >= event_start + k
    event_gap`` whose bit ``event_sectors[k][sector]`` is set.
    """

    start: float
    velocity: float
    swing: float
    swing_period: float
    swing_phase: float
    wobble: float
    wobble_period: float
    wobble_phase: float
    sprite_radius: float
    sprite_reach_x: float
    sprite_period_x: float
    sprite_phase_x: float
    sprite_reach_y: float
    sprite_period_y: float
    sprite_phase_y: float
    visit_start: float
    visit_length: float
    visit_period: float
    event_start: float
    event_gap: float
    event_sectors: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class MiniPrompt:
    """One prompt of the embedded model.

    Attributes:
        world: which kind of world (`WORLDS`).
        palette: colour family of the scene, 0 to 7.
        speed: peak camera speed in pixels per frame, 1 to 4 either way.
        sprite: shape of the sprite; None where the world does not tell (`occlusion`).
        hue: name of the sprite's main colour; None likewise.
        path: number, 0 to 999, that fixes start, sprite path and event times.
    """

    world: str
    palette: int = 0
    speed: int = 2
    sprite: str | None = "disc"
    hue: str | None = "teal"
    path: int = 0

    def __post_init__(self) -> None:
        """Reject values outside the allowed sets."""
        _check("world", self.world, WORLDS)
        _check("palette", self.palette, range(PALETTES))
        _check("speed", self.speed, SPEEDS)
        _check("path", self.path, range(PATHS))
        if self.world == "occlusion":
            for key, told in (("sprite", self.sprite), ("hue", self.hue)):
                if told is not None:
                    raise ValueError(
                        f"prompt: '{key}={told}' must be left out in the world occlusion, "
                        "which does not tell what its sprite looks like"
                    )
            return
        _check("sprite", self.sprite, SPRITES)
        _check("hue", self.hue, HUES)

    @classmethod
    def parse(cls, text: str) -> MiniPrompt:
        """Read a prompt.

        Args:
            text: a line such as ``orbit palette=3 speed=-2 sprite=disc hue=teal path=7``; missing keys take
                defaults.

        Raises:
            ValueError: with the word at fault, what is allowed and the nearest match.
        """
        world, given = _words(text)
        hidden = world == "occlusion"
        return cls(
            world=world,
            palette=_integer("palette", given.get("palette", "0")),
            speed=_integer("speed", given.get("speed", "1" if hidden else "2")),
            sprite=given.get("sprite", None if hidden else "disc"),
            hue=given.get("hue", None if hidden else "teal"),
            path=_integer("path", given.get("path", "0")),
        )

    @property
    def text(self) -> str:
        """The canonical line; `parse(text)` gives this prompt back."""
        look = "" if self.sprite is None else f" sprite={self.sprite} hue={self.hue}"
        return f"{self.world} palette={self.palette} speed={self.speed}{look} path={self.path}"

    @property
    def id(self) -> str:
        """A name fit for files: letters, digits, '-' and '_' only."""
        way = f"{'m' if self.speed < 0 else 'p'}{abs(self.speed)}"
        look = "" if self.sprite is None else f"-{self.sprite}-{self.hue}"
        return f"{self.world}-{self.palette}-{way}{look}-{self.path}"

    def palette_of(self, version: int) -> int:
        """Return the colour family of a scene version: each cut moves on by three."""
        return (self.palette + 3 * version) % PALETTES if self.world == "cut" else self.palette

    def motion(self) -> MotionParameters:
        """Derive every number of the motion from the text alone."""
        return _motion(self)

    def prefix_frames(self) -> int:
        """Return the latent frames, in steps of 3 s, until the first lap, swing or visit of the sprite ends.

        Every place of `orbit` and `change` was seen then; a later, wider swing of `pendulum` and `cut` may
        show some more, whose first view then is under the budget.
        """
        motion = self.motion()
        if self.world in ("orbit", "change"):
            seen = RING / abs(motion.velocity)
        elif self.world == "pendulum":
            seen = 0.55 * motion.swing_period
        elif self.world == "cut":
            seen = motion.swing_period
        else:
            seen = motion.visit_start + motion.visit_length
        return PREFIX_STEP * math.ceil(seen / FRAMES_PER_LATENT / PREFIX_STEP)

    def _camera(self, draw: random.Random, direction: float) -> dict[str, float]:
        start = float(draw.randrange(RING))
        turns = self.world in ("orbit", "change")
        low, high = {"pendulum": (90.0, 130.0), "cut": (36.0, 56.0), "occlusion": (18.0, 30.0)}.get(
            self.world, (0.0, 0.0)
        )
        swing = draw.uniform(low, high)
        period = NEVER if turns else 2 * math.pi * swing / abs(self.speed)
        return {
            "start": start,
            "velocity": float(self.speed) if turns else 0.0,
            "swing": direction * swing,
            "swing_period": period,
            "swing_phase": -math.pi / 2,
            "wobble": 0.0 if turns else direction * 0.12 * swing,
            "wobble_period": NEVER if turns else period * draw.uniform(0.33, 0.43),
            "wobble_phase": draw.uniform(0, 2 * math.pi),
        }

    def _sprite(self, draw: random.Random) -> dict[str, float]:
        hidden = self.world == "occlusion"
        return {
            "sprite_radius": draw.uniform(8.5, 11.0),
            "sprite_reach_x": draw.uniform(14.0, 20.0) if hidden else draw.uniform(50.0, 90.0),
            "sprite_period_x": draw.uniform(64.0, 192.0),
            "sprite_phase_x": draw.uniform(0, 2 * math.pi),
            "sprite_reach_y": draw.uniform(6.0, 16.0),
            "sprite_period_y": draw.uniform(48.0, 160.0),
            "sprite_phase_y": draw.uniform(0, 2 * math.pi),
            "visit_start": draw.uniform(14.0, 30.0) if hidden else -NEVER,
            "visit_length": draw.uniform(56.0, 80.0) if hidden else 4 * NEVER,
            "visit_period": draw.uniform(208.0, 304.0) if hidden else 8 * NEVER,
        }

    def _events(self, draw: random.Random, camera: dict[str, float]) -> dict[str, Any]:
        never = tuple((False,) * SECTORS for _ in range(EVENTS))
        if self.world == "cut":
            first, gap = camera["swing_period"] + draw.uniform(48.0, 96.0), draw.uniform(144.0, 176.0)
            return {
                "event_start": first,
                "event_gap": gap,
                "event_sectors": tuple((True,) * SECTORS for _ in range(EVENTS)),
            }
        if self.world == "change":
            lap = RING / abs(camera["velocity"])
            first, gap = lap + draw.uniform(16.0, 48.0), lap * draw.uniform(1.3, 1.7)
            halves = tuple(_half(draw) for _ in range(EVENTS))
            return {"event_start": first, "event_gap": gap, "event_sectors": halves}
        return {"event_start": NEVER, "event_gap": NEVER, "event_sectors": never}


@lru_cache(maxsize=4096)
def _motion(prompt: MiniPrompt) -> MotionParameters:
    draw = random.Random(f"ff-bench mini {prompt.world} {prompt.path}")
    camera = prompt._camera(draw, 1.0 if prompt.speed > 0 else -1.0)
    numbers: dict[str, Any] = {**camera, **prompt._sprite(draw), **prompt._events(draw, camera)}
    return MotionParameters(**numbers)


def _words(text: str) -> tuple[str, dict[str, str]]:
    """Split a prompt into its world and its keys."""
    words = text.split()
    if not words:
        raise ValueError(
            f"prompt: empty; the embedded model reads a world ({', '.join(WORLDS)}) "
            f"and keys ({', '.join(KEYS)})"
        )
    _check("world", words[0], WORLDS)
    given: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(f"prompt: '{word}' is not of the form key=value; keys are {', '.join(KEYS)}")
        _check("key", key, KEYS)
        if key in given:
            raise ValueError(f"prompt: key '{key}' is given twice, the second time as '{word}'")
        given[key] = value
    return words[0], given


def _half(draw: random.Random) -> tuple[bool, ...]:
    chosen = set(draw.sample(range(SECTORS), SECTORS // 2))
    return tuple(sector in chosen for sector in range(SECTORS))


def _integer(field: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"prompt: {field} '{value}' is not a whole number") from None


def _check(field: str, value: object, allowed: Iterable[object]) -> None:
    choices = list(allowed)
    if value in choices:
        return
    near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    told = f"{choices[0]} to {choices[-1]}" if isinstance(allowed, range) else ", ".join(map(str, choices))
    hint = f"; nearest is '{near[0]}'" if near and isinstance(value, str) else ""
    raise ValueError(f"prompt: {field} '{value}' is not one of {told}{hint}")
