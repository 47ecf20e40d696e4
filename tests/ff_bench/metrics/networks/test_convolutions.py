"""RAFT, AMT-S, MUSIQ and LPIPS: what they answer, what they leave out, and what happens where they miss.

Networks have their published layouts and seeded random weights, made so that RAFT follows what moves.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ff_bench import weights
from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import (
    amt,
    checkpoints,
    flow_network,
    musiq,
    noncommercial,
    raft,
    synthesis_convolutions,
    vision,
)
from ff_bench.metrics.networks.lpips import Lpips, distance

CPU = torch.device("cpu")
HEIGHT, WIDTH = 124, 130  # padded by 2 rows above and below, 3 columns left and right

try:
    for needed in ("torchvision", "lpips"):
        vision.library(needed)
except Unavailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

has_amt = pytest.mark.skipif(find_spec("vbench") is None, reason="vbench, which carries AMT, is not here")
has_musiq = pytest.mark.skipif(find_spec("pyiqa") is None, reason="pyiqa, which carries MUSIQ, is not here")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights of every network whose package is here, in a folder that the manifest points to."""
    made = tmp_path_factory.mktemp("weights")
    packages = {"amt_s": "vbench", "musiq_spaq": "pyiqa"}
    names = ["raft_things", "lpips_alexnet", *(name for name, one in packages.items() if find_spec(one))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.FOLDER, str(made))
        synthesis_convolutions.write(made, seed=0, names=names)
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> int:
    """Two refinements of flow in place of twenty."""
    monkeypatch.setattr(flow_network, "ITERATIONS", 2)
    return 2


def moving(frames: int, step: int) -> Tensor:
    """Smooth texture that goes to the right by `step` px a frame."""
    cells = torch.rand(1, 3, 9, 25, generator=torch.Generator().manual_seed(1))
    texture = functional.interpolate(cells, size=(HEIGHT, 3 * WIDTH), mode="bicubic").clamp(0, 1)[0]
    starts = [2 * WIDTH - step * frame for frame in range(frames)]
    return (torch.stack([texture[..., start : start + WIDTH] for start in starts]) * 255).to(torch.uint8)


def still(frames: int) -> Tensor:
    """One picture again and again."""
    return moving(1, 1).expand(frames, -1, -1, -1).contiguous()


# ---- the decision of dynamic degree


@given(st.lists(st.sampled_from([0.0, 2.0, 3.0, 3.1, 9.0]), max_size=40), st.randoms(use_true_random=False))
def test_stopping_early_decides_as_all_pairs_do(motion: list[float], chance) -> None:
    queue = list(range(len(motion)))
    chance.shuffle(queue)
    values, asked = torch.tensor(motion), []

    def measure(pairs: Sequence[int]) -> Tensor:
        asked.extend(pairs)
        return values[list(pairs)]

    found, known = raft.decide(measure, queue, limit=raft.threshold(128, 160))
    everything = torch.ones(len(motion), dtype=torch.bool)
    early = raft.is_dynamic(found, known, height=128, width=160)
    full = raft.is_dynamic(values, everything, height=128, width=160)
    moved = sum(one > 3.0 for one in motion)
    assert early == full == (len(motion) > 0 and moved >= round((len(motion) + 1) / 4))
    assert asked == queue[: len(asked)] and int(known.sum()) == len(asked)
    assert torch.equal(found, torch.where(known, values, 0.0))


@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_no_pair_is_measured_after_the_answer_is_settled(moves: list[bool]) -> None:
    values = torch.tensor([9.0 if one else 0.0 for one in moves])
    _, known = raft.decide(lambda pairs: values[list(pairs)], range(len(moves)), limit=3.0)
    seen = int(known.sum())
    assert seen == 0 or raft.unsettled(len(moves), seen=seen - 1, above=sum(moves[: seen - 1])) > 0


def test_a_clip_of_fifteen_pairs_takes_four_to_twelve() -> None:
    for motion, number in ((9.0, 4), (0.0, 12)):
        values = torch.full((15,), motion)
        _, known = raft.decide(lambda pairs, values=values: values[list(pairs)], range(15), limit=3.0)
        assert int(known.sum()) == number


def test_rules_of_vbench() -> None:
    assert [raft.needed(kept) for kept in (1, 2, 6, 10, 16, 480)] == [0, 0, 2, 2, 4, 120]  # half to even
    assert raft.threshold(480, 832) == 11.25
    assert [len(raft.kept(torch.zeros(24, 1), fps)) for fps in (4, 8, 11.9, 12.1, 16, 20, 24, 30)] == [
        24, 24, 24, 12, 12, 12, 8, 6
    ]  # fmt: skip
    one_pair, none = torch.zeros(1), torch.zeros(0)
    assert raft.is_dynamic(one_pair, one_pair > 1, height=128, width=128)  # two frames need no moving pair
    assert not raft.is_dynamic(none, none > 1, height=128, width=128)


def test_an_open_answer_is_no_answer() -> None:
    motion, known = torch.tensor([9.0] * 3 + [0.0] * 12), torch.arange(15) < 3
    with pytest.raises(ValueError, match="3 of 15 pairs, 3 of them moving, do not decide"):
        raft.is_dynamic(motion, known, height=128, width=160)


def test_pairs_that_change_most_come_first() -> None:
    levels = torch.tensor([0, 5, 5, 9, 0], dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4)
    assert raft.by_change(levels) == [3, 0, 2, 1]
    assert raft.by_change(levels[:1]) == []


# ---- RAFT


def test_flow_is_that_of_torchvision_pair_by_pair(quick: int) -> None:
    frames = moving(3, 6)
    file = weights.path("raft_things")
    model = vision.library("torchvision.models.optical_flow").raft_large(weights=None, progress=False)
    checkpoints.fill(model, flow_network.renamed(checkpoints.read(file)), file=file, device="cpu")
    images = functional.pad(frames.float(), (3, 3, 2, 2), mode="replicate") / 127.5 - 1
    with torch.inference_mode():
        flows = [model(images[:1], images[1:2], quick)[-1], model(images[1:2], images[2:], quick)[-1]]
    expected = torch.cat(flows).norm(dim=1).flatten(1).sort(dim=1, descending=True).values[:, :870].mean(1)
    found = raft.Flow(CPU).measure(frames, fps=8, prompt="")
    assert torch.allclose(found["motion"], expected, rtol=0, atol=1e-5)
    assert found["known"].all() and found["motion"].dtype == torch.float32


def test_what_moves_is_dynamic_and_the_early_answer_is_the_same() -> None:
    network, early = raft.Flow(CPU), raft.FlowDecision(CPU)
    for frames, is_dynamic in ((still(3), False), (moving(3, 24), True)):
        full, some = (one.measure(frames, fps=8, prompt="") for one in (network, early))
        assert bool((full["motion"] > raft.threshold(HEIGHT, WIDTH)).all()) == is_dynamic
        for one in (full, some):
            found = raft.is_dynamic(one["motion"], one["known"], height=HEIGHT, width=WIDTH)
            assert found == is_dynamic
        known = some["known"]
        assert int(known.sum()) == (1 if is_dynamic else 2)
        assert torch.allclose(some["motion"][known], full["motion"][known], rtol=0, atol=1e-5)


def test_batches_of_pairs_and_frames_do_not_matter(quick: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(3, 6)
    together = raft.Flow(CPU).measure(frames, fps=8, prompt="")["motion"]
    monkeypatch.setattr(raft, "CORRELATIONS", 1)
    monkeypatch.setattr(raft, "PIXELS", 1)
    one_by_one = raft.Flow(CPU).measure(frames, fps=8, prompt="")["motion"]
    assert torch.allclose(together, one_by_one, rtol=0, atol=1e-5)


def test_a_single_kept_frame_has_no_pairs() -> None:
    for signal in (raft.Flow(CPU), raft.FlowDecision(CPU)):
        found = signal.measure(still(2), fps=24, prompt="")
        assert found["motion"].shape == found["known"].shape == (0,)


def test_small_frames_are_refused_with_the_reason() -> None:
    small = torch.zeros(2, 3, 64, 120, dtype=torch.uint8)
    with pytest.raises(Unavailable, match="64x120 px are too small for RAFT, which needs more than 120 px"):
        raft.Flow(CPU).measure(small, fps=8, prompt="")
    with pytest.raises(Unavailable, match="12x30 px are too small for LPIPS, which needs 31 px"):
        distance(small[..., :12, :30], small[..., :12, :30])


# ---- AMT


class Mean(torch.nn.Module):
    """An interpolation that is the mean of both frames, in the form of AMT."""

    def forward(self, first: Tensor, second: Tensor, half: Tensor, **options: float) -> dict[str, Tensor]:
        assert half.shape == (len(first), 1, 1, 1) and options == {"scale_factor": 1.0, "eval": True}
        assert all(side % 16 == 0 for side in first.shape[-2:])
        return {"imgt_pred": first * (1 - half) + second * half}


def interpolation(network: torch.nn.Module) -> amt.Interpolation:
    built = object.__new__(amt.Interpolation)
    built._network = network
    return built


def test_errors_of_a_mean_are_exact_and_cut_to_whole_levels() -> None:
    levels = torch.tensor([10, 14, 21, 21, 21, 30], dtype=torch.uint8)  # means 15.5 and 21, cut to 15 and 21
    frames = levels[:, None, None, None].expand(6, 3, HEIGHT, WIDTH)
    found = interpolation(Mean()).measure(frames, fps=8, prompt="")
    assert found["errors"].tolist() == [1.0, 0.0]  # the last frame has one neighbour
    assert len(interpolation(Mean()).measure(frames[:2], fps=8, prompt="")["errors"]) == 0


def test_a_still_clip_is_predicted_without_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amt, "CORRELATIONS", 1)
    found = interpolation(Mean()).measure(still(9), fps=8, prompt="")["errors"]
    assert len(found) == 4
    assert float(found.max()) < 1  # 255 * (level / 255) falls below some levels, then cut to the one under it


@has_amt
def test_amt_predicts_pairs_alike_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, network = moving(5, 4), amt.Interpolation(CPU)  # two pairs
    together = network.measure(frames, fps=8, prompt="")["errors"]
    monkeypatch.setattr(amt, "CORRELATIONS", 1)
    assert torch.allclose(together, network.measure(frames, fps=8, prompt="")["errors"], rtol=0, atol=1e-3)
    assert float(together.min()) > 0.1
    with pytest.raises(Unavailable, match="too small for AMT, which needs more than 112 px a side"):
        network.measure(frames[..., :112, :], fps=8, prompt="")


def test_what_amt_weights_hold_beside_tensors_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "amt-s.pth"
    notes = {"best": np.float64(1.5), "options": argparse.Namespace(rate=1), "path": Path("a")}
    torch.save({"state_dict": {"a": torch.ones(2)}, **notes}, file)
    assert amt.state(file).keys() == {"a"}
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(Unavailable, match="cannot be read"):
        amt.state(file)


# ---- MUSIQ


@has_musiq
def test_musiq_scores_frames_one_by_one_as_the_package_does() -> None:
    frames = torch.cat((still(1), moving(1, 1).flip(-1)))
    network = musiq.untrained()
    network.load_state_dict(checkpoints.read(weights.path("musiq_spaq")))
    with torch.inference_mode():
        expected = network.eval()(frames[1:].float() / 255)[0]
    scores = musiq.Musiq(CPU).measure(frames, fps=8, prompt="")["scores"]
    assert scores.shape == (2,) and 0 < float(scores.min()) < float(scores.max()) < 100
    assert torch.allclose(scores[1:], expected, rtol=2e-6)


def test_musiq_shrinks_longer_sides_to_whole_pixels() -> None:
    assert musiq._shrunk(torch.zeros(1, 3, 480, 832)).shape[-2:] == (295, 512)
    assert musiq._shrunk(torch.zeros(1, 3, 500, 512)).shape[-2:] == (500, 512)


# ---- LPIPS


def test_lpips_is_zero_for_equal_frames_and_grows_with_the_difference() -> None:
    frames = moving(3, 2)
    assert distance(frames, frames).tolist() == [0.0] * 3
    near, far = distance(frames[:1], frames[1:2]), distance(frames[:1], 255 - frames[:1])
    assert 0 < float(near) < float(far)
    together = Lpips(CPU).distance(frames[:2], frames[1:])
    assert torch.allclose(together[:1], near, rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be compared"):
        distance(frames, frames[:2])


# ---- what is not here


@pytest.mark.parametrize(
    ("package", "licence"), [("vbench", "CC BY-NC 4.0"), ("pyiqa", "PolyForm Noncommercial License")]
)
def test_a_missing_package_is_named_with_its_licence(
    package: str, licence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noncommercial, "find_spec", lambda name: None)
    wanted = next(one for one in (noncommercial.AMT, noncommercial.MUSIQ) if one.name == package)
    with pytest.raises(Unavailable, match=f"pip install --no-deps {package}") as caught:
        noncommercial.module(wanted, f"{package}.network")
    assert licence in str(caught.value) and "no commercial use" in str(caught.value)


def test_loading_a_module_leaves_no_trace_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "carrier" / "parts"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("raise RuntimeError('start-up ran')")
    (inner / "network.py").write_text("from carrier.parts import other\nNAME = other.__name__\n")
    (inner / "other.py").write_text("import surely_not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    package = noncommercial.Package("carrier", "carrier", "no commercial use", ("carrier", "carrier.parts"))
    with pytest.raises(Unavailable, match="needs 'surely_not_installed_anywhere'"):
        noncommercial.module(package, "carrier.parts.network")
    (inner / "other.py").write_text("")
    assert noncommercial.module(package, "carrier.parts.network").NAME == "carrier.parts.other"
    assert not [name for name in sys.modules if name.startswith("carrier")]


@pytest.mark.parametrize(
    ("signal", "weight"),
    [(raft.Flow, "raft_things"), (raft.FlowDecision, "raft_things"), (amt.Interpolation, "amt_s"),
     (musiq.Musiq, "musiq_spaq"), (Lpips, "lpips_alexnet")],
)  # fmt: skip
def test_missing_weights_are_named(
    signal: Callable[[torch.device], object], weight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(Unavailable, match=f"ff-bench weights fetch {weight}"):
        signal(CPU)


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    names = ["raft_things", "lpips_alexnet"]
    paths = [synthesis_convolutions.write(tmp_path / str(seed), seed=seed, names=names)[0] for seed in (0, 1)]
    alone = synthesis_convolutions.write(tmp_path / "alone", seed=0, names=names[:1])[0]
    first, other, again = (torch.load(path, weights_only=True) for path in (*paths, alone))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["module.fnet.conv1.weight"], other["module.fnet.conv1.weight"])
    with pytest.raises(ValueError, match="no layout of nothing"):
        synthesis_convolutions.write(tmp_path, seed=0, names=["nothing"])
