"""The table of noise levels, and what is computed with it."""

from __future__ import annotations

import pytest
import torch

from ff_bench.models.wan.flow import FlowSchedule

FLOW = FlowSchedule(5.0)


@pytest.mark.parametrize(
    ("nominal", "shift", "expected"),
    [
        ((1000, 750, 500, 250), 5, (1000, 937.5, 833.3333, 625)),
        ((1000, 800, 600, 400, 200), 5, (1000, 952.381, 882.353, 769.231, 555.556)),
        ((1000, 500), 5, (1000, 833.333)),
        ((1000, 750, 500, 250, 0), 5, (1000, 937.5, 833.3333, 625, 0)),
        ((1000, 750, 500, 250), 8, (1000, 960, 888.889, 727.273)),
        ((1000, 757, 522), 1, (1000, 757, 522)),
    ],
)
def test_nominal_steps_are_warped_as_published(
    nominal: tuple[float, ...], shift: float, expected: tuple[float, ...]
) -> None:
    assert FlowSchedule(shift).warped(nominal) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("step", [1000.5, 1001, -1])
def test_a_step_outside_of_the_table_is_named(step: float) -> None:
    with pytest.raises(ValueError, match=rf"model.steps holds {step}; allowed: whole numbers from 0 to 1000"):
        FLOW.warped([1000, step])


def test_a_shift_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.shift is 0; allowed: above 0"):
        FlowSchedule(0)


def test_every_step_survives_as_a_level_in_float32() -> None:
    """Levels travel as fp32 fractions; a time step that moved by a rounding would move its embedding."""
    times = FLOW.times[(FLOW.times < 500) & (FLOW.times >= 256) | (FLOW.times >= 512)]
    levels = torch.tensor([time / 1000 for time in times.tolist()])
    assert levels.dtype == torch.float32
    assert torch.equal(FLOW.time(levels), times)


@pytest.mark.parametrize(("level", "sigma"), [(1.0, 1.0), (0.9375, 0.9375), (0.625, 0.625), (0.0, 0.0049801)])
def test_sigma_is_that_of_the_nearest_entry(level: float, sigma: float) -> None:
    assert FLOW.sigma(level).item() == pytest.approx(sigma, abs=1e-6)
    assert FLOW.sigma(torch.full((2, 3), level)).tolist() == [[pytest.approx(sigma, abs=1e-6)] * 3] * 2


def test_x0_undoes_what_noise_did_frame_by_frame() -> None:
    picture, noise = torch.randn(2, 3, 16, 6, 8), torch.randn(2, 3, 16, 6, 8)
    level = torch.tensor([[1.0, 0.9375, 0.625], [0.625, 1.0, 0.8333333]])
    latent = FLOW.renoise(picture, noise, level)
    for video in range(2):
        for frame in range(3):
            alone = level[video : video + 1, frame : frame + 1]
            part = slice(video, video + 1), slice(frame, frame + 1)
            assert torch.equal(FLOW.renoise(picture[part], noise[part], alone), latent[part])
    torch.testing.assert_close(FLOW.x0(latent, noise - picture, level), picture, atol=1e-5, rtol=0)
    assert torch.equal(latent[0, 0], noise[0, 0])


def test_products_are_wider_than_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, flow = (torch.randn(1, 3, 16, 6, 8, generator=generator).bfloat16() for _ in range(2))
    level = torch.full((1, 3), 0.8333333)
    sigma = FLOW.sigma(0.8333333)
    x0 = FLOW.x0(latent, flow, level)
    assert x0.dtype == torch.bfloat16
    assert torch.equal(x0, (latent.double() - sigma.double() * flow.double()).bfloat16())
    assert not torch.equal(x0, latent - sigma.bfloat16() * flow)
    noised = FLOW.renoise(latent, flow, level)
    assert noised.dtype == torch.bfloat16
    assert torch.equal(noised, ((1 - sigma) * latent.float() + sigma * flow.float()).bfloat16())
