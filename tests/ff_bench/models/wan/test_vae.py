"""The VAE: a chunk at a time gives what diffusers gives at once; both layouts; wrong files."""

import json

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

from ff_bench.models.wan import synthesis, vae, vae_names
from ff_bench.models.wan.vae import WanVAE

WIDTH = 8


def tiny(dtype: torch.dtype = torch.float32) -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(AutoencoderKLWan(base_dim=WIDTH, z_dim=16).to(dtype))


def latents(*, batch: int = 1, frames: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, 16, 4, 6, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def at_once(model: WanVAE, video: torch.Tensor) -> torch.Tensor:
    """(3, T, H, W) of diffusers' own loop over the whole video."""
    raw = video.to(model.dtype).transpose(0, 1) / model.inverse_std + model.mean
    return model.network.decode(raw[None]).sample[0]


@pytest.mark.parametrize("cuts", [(1, 3, 3), (3, 3, 1), (7,), (1,) * 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_decode_as_the_whole_video(cuts: tuple[int, ...], dtype: torch.dtype) -> None:
    model, video = tiny(dtype), latents()[0]
    state = model.begin()
    parts = [model.decode_next(part, state) for part in video.split(cuts)]
    assert [part.shape[1] for part in parts] == [4 * cut - 3 * (index == 0) for index, cut in enumerate(cuts)]
    assert torch.equal(torch.cat(parts, 1), at_once(model, video))


def test_the_state_matters() -> None:
    model, video = tiny(), latents()[0]
    kept, fresh = model.begin(), model.begin()
    model.decode_next(video[:3], kept)
    assert not torch.equal(
        model.decode_next(video[3:], kept)[:, -12:], model.decode_next(video[3:], fresh)[:, -12:]
    )


def test_videos_side_by_side_do_not_mix() -> None:
    model, videos = tiny(), latents(batch=3)
    decoder = model.decoder()
    together = torch.cat([decoder(part) for part in videos.split((1, 3, 3), 1)], 1)
    assert together.shape == (3, 25, 32, 48, 3)
    assert together.dtype == torch.uint8
    for video, pictures in zip(videos, together, strict=True):
        assert torch.equal(pictures, vae.as_bytes(at_once(model, video)))


def test_state_bytes_are_those_of_the_slots() -> None:
    model = tiny()
    decoder = model.decoder()
    assert decoder.state_nbytes == 0
    decoder(latents(batch=2, frames=2))
    after_two = decoder.state_nbytes
    decoder(latents(batch=2, frames=5))
    # 32 of 33 convolutions remember, two frames each; nothing grows with the video.
    slots = [slot for slot in decoder.states[0].slots if isinstance(slot, torch.Tensor)]
    assert (vae.convolutions(model.network.decoder), len(slots)) == (33, 32)
    assert decoder.state_nbytes == 2 * sum(slot.nbytes for slot in slots) >= after_two
    steady = decoder.state_nbytes
    decoder(latents(batch=2, frames=3))
    assert decoder.state_nbytes == steady


def test_state_at_true_size_is_known() -> None:
    """944,286,720 numbers at 480 x 832, counted from the shapes at a quarter of each side."""
    with torch.device("meta"):
        network = AutoencoderKLWan()
    slots: list[object] = [None] * vae.convolutions(network.decoder)
    for first in (True, False, False):
        frame = torch.empty(1, 16, 1, 15, 26, device="meta")
        network.decoder(network.post_quant_conv(frame), feat_cache=slots, feat_idx=[0], first_chunk=first)
    numbers = sum(slot.numel() for slot in slots if isinstance(slot, torch.Tensor))
    assert numbers * 16 == 944_286_720


@pytest.mark.parametrize("count", [1, 5, 9])
def test_encodes_as_diffusers_does(count: int) -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(256, (count, 32, 48, 3), dtype=torch.uint8, generator=generator)
    found = model.encode(frames)
    assert found.shape == ((count + 3) // 4, 16, 4, 6)
    assert found.dtype == torch.float32
    with torch.no_grad():
        video = frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        mode = model.network.encode(video).latent_dist.mode()[0]
    assert torch.equal(found, ((mode - model.mean) * model.inverse_std).transpose(0, 1))


@pytest.mark.parametrize("shape", [(4, 32, 48, 3), (5, 30, 48, 3), (5, 32, 44, 3)])
def test_refuses_pictures_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"they must be 1, 5, 9 and so on, of sides that are multiples of 8"):
        tiny().encode(torch.zeros(shape, dtype=torch.uint8))


def test_statistics_are_those_of_diffusers() -> None:
    with torch.device("meta"):
        config = AutoencoderKLWan().config
    assert tuple(config.latents_mean) == vae.MEAN
    assert tuple(config.latents_std) == vae.STD


def test_names_of_the_original_file_are_those_that_diffusers_converts() -> None:
    own = tiny().network.state_dict()
    back = {new: old for old, new in vae_names.original_names().items()}
    original = {back[name]: value for name, value in own.items()}
    assert len(original) == 194
    converted = convert_wan_vae_to_diffusers(dict(original))
    assert converted.keys() == own.keys()
    assert all(converted[name] is own[name] for name in own)


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "vae", "vae/diffusion_pytorch_model.safetensors"])
def test_loads_every_layout(tmp_path, name: str) -> None:
    torch.manual_seed(3)
    synthesis.write_vae(tmp_path / name.partition("/")[0], WIDTH)
    torch.manual_seed(3)
    same = WanVAE(AutoencoderKLWan(base_dim=WIDTH, z_dim=16))
    loaded = WanVAE.load(tmp_path / name, "cpu", torch.float32)
    assert torch.equal(loaded.decoder()(latents()), same.decoder()(latents()))
    assert WanVAE.load(tmp_path / name, "cpu", torch.bfloat16).dtype == torch.bfloat16


def test_refuses_other_files(tmp_path) -> None:
    torch.save({"decoder.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"holds no Wan2.1 VAE: there is no tensor 'encoder.conv_in.weight'"):
        WanVAE.load(tmp_path / "other.pth", "cpu", torch.float32)
    synthesis.write_vae(tmp_path / "short.pth", WIDTH)
    weights = torch.load(tmp_path / "short.pth", weights_only=True)
    del weights["decoder.head.2.bias"]
    torch.save(weights, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"1 tensors differ, the first is 'decoder.conv_out.bias'"):
        WanVAE.load(tmp_path / "short.pth", "cpu", torch.float32)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "short.pth").read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        WanVAE.load(tmp_path / "cut.pth", "cpu", torch.float32)


def test_refuses_other_statistics(tmp_path) -> None:
    synthesis.write_vae(tmp_path / "vae", WIDTH)
    config = tmp_path / "vae" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "latents_std": [1.0] * 16}))
    with pytest.raises(ValueError, match=r"another latents_std than the Wan2.1 VAE"):
        WanVAE.load(tmp_path / "vae", "cpu", torch.float32)
