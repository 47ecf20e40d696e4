"""Synthesised files: every layout loads and decodes to pictures; the printed words point to the files."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from ff_bench.compose import compose
from ff_bench.models.wan import backbone, layouts, synthesis
from ff_bench.models.wan.member import Member
from ff_bench.models.wan.preview import TaeHV
from ff_bench.models.wan.text import encode_prompts
from ff_bench.models.wan.vae import WanVAE

SCRIPT = Path(__file__).parents[4] / "scripts" / "synthesise_wan.py"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))


def member_of(*words: str) -> Member:
    found = compose(list(words)).config.model.fields
    assert isinstance(found, Member)
    return found


@pytest.mark.parametrize(
    ("name", "diffusers"),
    [
        ("self_forcing", False), ("self_forcing", True), ("causvid", False), ("longlive", False),
        ("infinite_forcing", False), ("krea_14b", False),
    ],
)  # fmt: skip
def test_every_layout_loads(tmp_path, name: str, diffusers: bool) -> None:
    words = synthesis.write(tmp_path, member_of(f"model={name}"), synthesis.TINY, diffusers=diffusers)
    member = member_of(*words)
    assert member == synthesis.resized(member_of(f"model={name}"), words)
    model = backbone.load(member, device="cpu", dtype=torch.float32)
    embeddings = encode_prompts(["a fox"], member, device="cpu", dtype=torch.float32)
    assert len(model.encode(["a fox"]).text_kv) == 2
    assert embeddings.shape == (1, 512, synthesis.TINY.network.text_dim)
    latents = torch.randn(1, 2, *member.latent_shape, generator=torch.Generator().manual_seed(0))
    decoders = (model.decoder(), TaeHV.load(Path(member.preview.path), "cpu", torch.float32).decoder())
    for decode in decoders:
        pictures = decode(latents)
        assert pictures.shape == (1, 5, member.height, member.width, 3)
        assert pictures.float().std() > 10


def test_layouts_are_those_of_the_released_files() -> None:
    found = {name: synthesis.layout(member_of(f"model={name}")) for name in (
        "self_forcing", "causal_forcing", "longlive", "infinite_forcing", "krea_14b", "rolling_forcing"
    )}  # fmt: skip
    assert found == {
        "self_forcing": "generator_ema", "causal_forcing": "generator", "longlive": "generator",
        "infinite_forcing": "generator_ema_fsdp", "krea_14b": "safetensors_model",
        "rolling_forcing": "generator_ema",
    }  # fmt: skip
    assert set(found.values()) <= set(layouts.LAYOUTS)


def test_the_same_seed_gives_the_same_files(tmp_path) -> None:
    member = member_of("model=self_forcing")
    for seed, folder in ((0, "one"), (0, "two"), (1, "three")):
        synthesis.write(tmp_path / folder, member, synthesis.TINY, seed=seed)
    name = "Wan2.1-T2V-1.3B/Wan2.1_VAE.pth"
    first, same, other = (
        torch.load(tmp_path / folder / name, weights_only=True)["conv2.weight"]
        for folder in ("one", "two", "three")
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_true_sizes_are_those_of_the_released_models() -> None:
    for name, parameters in (("self_forcing", 1_418_996_800), ("krea_14b", 14_288_491_584)):
        sizes = synthesis.true_sizes(member_of(f"model={name}"))
        with torch.device("meta"):
            network = backbone.WanNetwork(sizes.network)
        assert sum(weight.numel() for weight in network.parameters()) == parameters
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes.text))
    assert sum(weight.numel() for weight in encoder.parameters()) == 5_680_910_336


@pytest.mark.slow
def test_a_random_vae_of_the_true_size_decodes_to_pictures(tmp_path) -> None:
    synthesis.write_vae(tmp_path / "Wan2.1_VAE.pth", 96)
    vae = WanVAE.load(tmp_path / "Wan2.1_VAE.pth", "cpu", torch.float32)
    assert sum(weight.numel() for weight in vae.network.parameters()) == 126_892_531
    pictures = vae.decoder()(torch.randn(1, 2, 16, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert pictures.float().std() > 5


def test_the_script(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "self_forcing", str(tmp_path / "out"), "--tiny"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    words = capsys.readouterr().out.split()
    assert all(Path(word.split("=")[1]).exists() for word in words if ".path=" in word)
    assert member_of(*words).layers == 2
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "mini", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "no member of the Wan family" in capsys.readouterr().err
