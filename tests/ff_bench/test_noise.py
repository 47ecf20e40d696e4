"""Noise is named by prompt, seed, chunk and step, and by nothing else."""

from __future__ import annotations

import itertools

import torch

from ff_bench import noise

SHAPE = (3, 768, 8, 8)
NAMED = 7532159759786970289
DRAWN = [0.76779, 0.45145, 0.54785, -1.14606]


def test_a_draw_is_the_same_each_time_whatever_was_drawn_before() -> None:
    first = noise.draw("orbit", 0, chunk=3, step=0, shape=SHAPE)
    torch.manual_seed(5)
    noise.draw("orbit", 1, chunk=3, step=0, shape=SHAPE)
    state = torch.random.get_rng_state()
    assert torch.equal(noise.draw("orbit", 0, chunk=3, step=0, shape=SHAPE), first)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone
    assert first.dtype == torch.float32
    assert abs(float(first.mean())) < 0.02
    assert abs(float(first.std()) - 1) < 0.02


def test_every_part_of_the_name_counts() -> None:
    names = itertools.product(("orbit", "orbit "), (0, 1, 10), (0, 1, 11), (0, 1))
    seeds = [noise.noise_seed(prompt, seed, chunk=chunk, step=step) for prompt, seed, chunk, step in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_draws_of_this_version_stay() -> None:
    """Records are compared across versions: a change of the draws must be meant."""
    assert noise.noise_seed("orbit", 0, chunk=0, step=0) == NAMED
    drawn = noise.draw("orbit", 0, chunk=0, step=0, shape=(4,))
    torch.testing.assert_close(drawn, torch.tensor(DRAWN), atol=1e-4, rtol=0)
