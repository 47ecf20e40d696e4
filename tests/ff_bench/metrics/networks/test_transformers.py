"""Transformers of VBench-Long: what they see, what they return, and what happens with files that do not fit.

Networks have their true layouts and forward passes, but few and narrow blocks and seeded random weights.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ff_bench import weights
from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import (
    checkpoints,
    clip,
    dino,
    dreamsim,
    pixels,
    synthesis_transformers,
    viclip,
    vision,
)
from ff_bench.metrics.signals import Signal, kind

CPU = torch.device("cpu")
FEATURES = ("dino", "dinov2", "clip_b32", "dreamsim")
ALL = (*FEATURES, "aesthetic", "viclip")

try:
    for needed in ("timm", "open_clip"):
        vision.library(needed)
except Unavailable as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights of small networks, in a folder that the manifest points to."""
    made = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dino, "VITB16", dino.Shape(patch=16, side=224, width=64, depth=2, heads=2))
        patch.setattr(dino, "VITB14", dino.Shape(14, 518, width=64, depth=2, heads=2, is_scaled=True))
        patch.setattr(clip, "B32", clip.Tower(patch=32, width=128, layers=2, features=64))
        patch.setattr(clip, "L14", clip.Tower(patch=14, width=64, layers=2, features=64))
        video = clip.Tower(patch=14, width=64, layers=1, features=64)
        patch.setattr(viclip, "FLT", dataclasses.replace(viclip.FLT, video=video, width=64, layers=2))
        known = {name: dataclasses.replace(one, bytes=None) for name, one in weights.manifest().items()}
        patch.setattr(weights, "manifest", lambda: known)  # small files are not of the published sizes
        patch.setenv(weights.FOLDER, str(made))
        synthesis_transformers.write(made, seed=0)
        yield made


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Smooth random pictures, (4, 3, 90, 150) uint8, each unlike the others."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(4, 3, 7, 9, generator=generator)
    smooth = functional.interpolate(coarse, size=(90, 150), mode="bicubic")
    return (smooth * 255).clamp(0, 255).to(torch.uint8)


def measured(name: str, frames: Tensor, prompt: str = "a cat") -> Tensor:
    signal: Signal = kind(name)(CPU)
    (values,) = signal.measure(frames, fps=16.0, prompt=prompt).values()
    return values


# --- pixels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height_and_width", [(90, 150), (151, 97), (300, 301), (56, 56)])
def test_pixels_are_torchvisions(
    height_and_width: tuple[int, int], mode: str, antialias: bool, dtype: torch.dtype
) -> None:
    transforms = vision.library("torchvision.transforms.functional")
    modes = vision.library("torchvision.transforms").InterpolationMode
    images = torch.randint(0, 256, (2, 3, *height_and_width), generator=torch.Generator().manual_seed(0))
    images = images.to(dtype)
    theirs = transforms.resize(images, 56, modes(mode), antialias=antialias)
    ours = pixels.resize(images, pixels.shorter_side(images, 56), mode=mode, antialias=antialias)
    assert torch.equal(ours, theirs)
    assert torch.equal(pixels.crop(ours, 51), transforms.center_crop(theirs, [51, 51]))
    normalised = transforms.normalize(theirs.float() / 255, *pixels.CLIP)
    assert torch.equal(pixels.normalise(ours, pixels.CLIP), normalised)


def test_shorter_side_is_exact_and_the_longer_is_cut() -> None:
    assert pixels.shorter_side(torch.empty(1, 3, 480, 832), 224) == (224, 388)  # 388.27
    assert pixels.shorter_side(torch.empty(1, 3, 832, 480), 224) == (388, 224)
    assert pixels.shorter_side(torch.empty(1, 3, 224, 224), 224) == (224, 224)


def test_eight_bit_frames_stay_in_their_range_and_floating_ones_do_not() -> None:
    stripes = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    stripes[..., 150:] = 255
    mean, deviation = (torch.tensor(values)[:, None, None] for values in pixels.CLIP)
    levels = (clip.prepare(stripes) * deviation + mean) * 255
    assert levels.min() > -1e-3 and levels.max() < 255.001
    assert (levels - levels.round()).abs().max() < 1e-3
    overshooting = (clip.prepare(stripes.float()) * deviation + mean) * 255
    assert overshooting.min() < -1 and overshooting.max() > 256


# --- positions -------------------------------------------------------------------------------------------


def test_positions_are_the_learned_ones_at_the_size_of_training() -> None:
    learned = torch.randn(1, 197, 8)
    assert dino.positions(learned, 224, 224, 16) is learned


@pytest.mark.parametrize(("height", "width"), [(224, 388), (391, 224), (224, 231), (448, 448)])
def test_positions_are_sampled_a_tenth_of_a_patch_too_densely(height: int, width: int) -> None:
    rows, columns = height // 16, width // 16
    learned = torch.randn(1, 197, 5, generator=torch.Generator().manual_seed(0))
    down, right = _bicubic(14, rows), _bicubic(14, columns)
    expected = torch.einsum("ai,bj,ijc->abc", down, right, learned[0, 1:].reshape(14, 14, 5).double())
    found = dino.positions(learned, height, width, 16)
    assert torch.equal(found[:, 0], learned[:, 0])
    assert torch.allclose(found[0, 1:], expected.reshape(-1, 5).float(), atol=1e-5)


def _bicubic(learned: int, wanted: int) -> Tensor:
    """Weights of the learned samples in the wanted ones, by the cubic kernel of torch (a = -0.75)."""
    places = (torch.arange(wanted, dtype=torch.float64) + 0.5) * learned / (wanted + 0.1) - 0.5
    matrix = torch.zeros(wanted, learned, dtype=torch.float64)
    for tap in range(-1, 3):
        source = places.floor() + tap
        gap = (places - source).abs()
        near = (1.25 * gap - 2.25) * gap**2 + 1
        far = -0.75 * (gap**3 - 5 * gap**2 + 8 * gap - 4)
        index = source.clamp(0, learned - 1).long()[:, None]
        matrix.scatter_add_(1, index, torch.where(gap <= 1, near, far)[:, None])
    return matrix


# --- signals ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ALL)
def test_signals_say_what_they_are(name: str) -> None:
    signal = kind(name)
    assert signal.name == name
    assert set(signal.weights) <= set(weights.manifest())
    assert all(vision.library(library) for library in signal.libraries)
    assert signal.reads_prompt == (name == "viclip")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "width"), [("dino", 64), ("dinov2", 64), ("clip_b32", 64), ("dreamsim", 64 + 512 + 512)]
)
def test_features_have_unit_length_and_tell_frames_apart(name: str, width: int, frames: Tensor) -> None:
    features = measured(name, frames)
    assert features.shape == (4, width) and features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=-1), torch.ones(4), atol=1e-6)
    others = (features @ features.T)[~torch.eye(4, dtype=torch.bool)]
    assert others.max() < 0.98
    assert not features.requires_grad


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [*FEATURES, "aesthetic"])
def test_a_frame_does_not_depend_on_its_neighbours(
    name: str, frames: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = measured(name, frames)
    monkeypatch.setattr(pixels.batched, "__defaults__", (3,))
    assert torch.allclose(measured(name, frames), together, atol=1e-6)
    assert torch.allclose(measured(name, frames[2:3]), together[2:3], atol=1e-6)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "is_seen"), [("dino", True), ("dreamsim", True), ("clip_b32", False)])
def test_the_edges_of_wide_frames(name: str, is_seen: bool, frames: Tensor) -> None:
    changed = frames.clone()
    changed[..., :20] = 255 - changed[..., :20]
    assert (not torch.equal(measured(name, changed), measured(name, frames))) == is_seen


@pytest.mark.usefixtures("folder")
def test_aesthetic_score_is_a_tenth_of_the_heads(frames: Tensor) -> None:
    head = checkpoints.read(weights.path("aesthetic_linear"))
    tower = clip.tower(clip.L14)
    state = checkpoints.read(weights.path("clip_vitl14"))
    own = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    checkpoints.fill(tower, own, file=Path("tower"), device="cpu")
    features = functional.normalize(tower(clip.prepare(frames.float())), dim=-1)
    expected = (features @ head["weight"].T + head["bias"])[:, 0] / 10
    assert torch.allclose(measured("aesthetic", frames), expected, atol=1e-6)


# --- ViCLIP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (32, [1, 5, 9, 13, 17, 21, 25, 29]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (20, [0, 3, 5, 8, 10, 13, 15, 18]),
        (3, [0, 1, 2, 2, 2, 2, 2, 2]),
        (1, [0] * 8),
    ],
)
def test_middles(length: int, expected: list[int]) -> None:
    assert viclip.middles(length, 8) == expected


def test_texts_are_cut_at_32_tokens() -> None:
    short = viclip.words("A  cat\n", 32)
    assert short[0, :4].tolist() == [49406, 320, 2368, 49407] and not short[0, 4:].any()
    long = viclip.words("a cat " * 40, 32)
    assert long.shape == (1, 32) and long[0, -1] == 49407
    assert torch.equal(long, viclip.words("a cat " * 15 + "and a dog", 32))


@pytest.mark.usefixtures("folder")
def test_viclip_needs_a_prompt_and_reads_each_once(frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = viclip.ViClip(CPU)
    with pytest.raises(Unavailable, match="no prompt"):
        signal.measure(frames, fps=16.0, prompt=" ")
    read: list[str] = []
    encode = viclip.words
    monkeypatch.setattr(viclip, "words", lambda text, length: read.append(text) or encode(text, length))
    first = signal.measure(frames, fps=16.0, prompt="a cat")["similarity"]
    again = signal.measure(frames, fps=16.0, prompt="a cat")["similarity"]
    other = signal.measure(frames, fps=16.0, prompt="two dogs")["similarity"]
    assert read == ["a cat", "two dogs"]
    assert torch.equal(first, again) and first.shape == (1,) and abs(float(first)) <= 1
    assert not torch.equal(first, other)


@pytest.mark.usefixtures("folder")
def test_viclip_sees_the_order_of_frames(frames: Tensor) -> None:
    assert not torch.allclose(measured("viclip", frames), measured("viclip", frames.flip(0)), atol=1e-5)


# --- DreamSim --------------------------------------------------------------------------------------------


def test_adapters_are_added_once_with_their_share() -> None:
    weight, down, up = torch.randn(6, 4), torch.randn(2, 4), torch.randn(6, 2)
    name = "base_model.model.extractor_list.1.model.blocks.0.attn.qkv"
    adapter = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    states = [{}, {"blocks.0.attn.qkv.weight": weight.clone()}, {}]
    changed = dreamsim.merged(states, adapter, alpha=0.5)[1]["blocks.0.attn.qkv.weight"]
    given = torch.randn(4)
    assert torch.allclose(changed @ given, weight @ given + 0.25 * (up @ (down @ given)), atol=1e-5)
    with pytest.raises(KeyError):
        dreamsim.merged([{}, {}, {}], adapter, alpha=0.5)
    with pytest.raises(ValueError, match="changes nothing"):
        dreamsim.merged(states, {}, alpha=0.5)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_missing_files_are_unavailable(
    name: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(Unavailable, match="weights fetch"):
        kind(name)(CPU)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_damaged_files_are_named(
    name: str, damage: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    own, *others = (weights.manifest()[weight].file for weight in kind(name).weights)
    for file in others:
        (tmp_path / file).symlink_to(folder / file)
    content = (folder / own).read_bytes()
    if damage == "other":
        torch.save({"model": {"weight": torch.ones(2)}, "weight": torch.ones(2)}, tmp_path / own)
    else:
        (tmp_path / own).write_bytes(content[: len(content) // 2] if damage == "cut" else b"not found" * 9)
    with pytest.raises(Unavailable, match=own):
        kind(name)(CPU)


def test_networks_are_loaded_once_until_their_file_changes(folder: Path, frames: Tensor) -> None:
    first = dino.Dino(CPU)
    assert dino.Dino(CPU)._network is first._network
    file = weights.path("dino_vitb16")
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))
    assert dino.Dino(CPU)._network is not first._network


def test_random_weights_are_those_of_their_seed(folder: Path, tmp_path: Path) -> None:
    names = ["aesthetic_linear", "dino_vitb16"]
    files = synthesis_transformers.write(tmp_path / "again", seed=0, names=names)
    others = synthesis_transformers.write(tmp_path / "other", seed=1, names=names)
    assert [file.name for file in files] == ["dino_vitbase16_pretrain.pth", "sa_0_4_vit_l_14_linear.pth"]
    for file, other in zip(files, others, strict=True):
        state, expected = checkpoints.read(file), checkpoints.read(folder / file.name)
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert not all(torch.equal(state[name], value) for name, value in checkpoints.read(other).items())
