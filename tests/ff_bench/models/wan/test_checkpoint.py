"""Files of the transformer: every layout back and forth, and one sentence for whatever is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ff_bench.errors import UsageError
from ff_bench.models.wan import layouts, lora
from ff_bench.models.wan.checkpoint import load_network, read_weights, write_checkpoint
from ff_bench.models.wan.lora import LowRank
from ff_bench.models.wan.member import Checkpoint, Member
from ff_bench.models.wan.network import Size, WanNetwork
from ff_bench.models.wan.seeded import random_weights, shapes
from tests.ff_bench.models.wan.tiny import SIZE, tiny_member, tiny_network, tiny_source

WEIGHTS = random_weights(SIZE, 0)
BIG = Size(96, 3, 32, 30, 192, 32, 40)


def member(*, key: str | None = None, ema: bool = True, **changes: Any) -> Member:
    return tiny_member(checkpoint=Checkpoint(tiny_source(), key=key, ema=ema), **changes)


def load(
    path: Path, *, update: Path | None = None, dtype: torch.dtype = torch.float32, **told: Any
) -> WanNetwork:
    return load_network(member(**told), path, update, device="cpu", dtype=dtype)


def refused(path: Path, **told: Any) -> str:
    """Return the sentence with which a file is refused."""
    with pytest.raises(UsageError) as caught:
        load(path, **told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(folder: Path, weights: dict[str, Tensor], name: str = "weights.safetensors") -> Path:
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    return folder / name


# -- layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_comes_back_to_the_last_bit(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    network = tiny_network(dtype=dtype)
    kind = layouts.LAYOUTS[layout]
    path = tmp_path / ("weights.pt" if kind.container == "pt" else "weights.safetensors")
    path = tmp_path if kind.container == "folder" else path
    write_checkpoint(path, network, layout=layout)
    found = load(path, dtype=dtype)
    assert found.size == SIZE
    assert not any(parameter.requires_grad for parameter in found.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
        assert found.state_dict()[name].dtype == dtype


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_names_can_be_undone(layout: str) -> None:
    names = shapes(BIG)
    there = [layouts.LAYOUTS[layout].name(name) for name in names]
    assert len(set(there)) == len(names) == 825
    assert set(layouts.original_names(dict.fromkeys(there))) == set(names)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("generator_ema", "model.blocks.1.self_attn.q.weight"),
        (
            "generator_ema_fsdp",
            "model._fsdp_wrapped_module.blocks.1._fsdp_wrapped_module.self_attn.q.weight",
        ),
        ("safetensors", "blocks.1.self_attn.q.weight"),
        ("safetensors_model", "model.blocks.1.self_attn.q.weight"),
        ("diffusers", "blocks.1.attn1.to_q.weight"),
    ],
)
def test_names_are_those_of_the_released_files(layout: str, name: str) -> None:
    assert layouts.LAYOUTS[layout].name("blocks.1.self_attn.q.weight") == name


def test_names_of_diffusers_are_those_of_the_library() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=3, attention_head_dim=32, ffn_dim=192, num_layers=2, in_channels=16,
        out_channels=16, text_dim=40, freq_dim=32, patch_size=(1, 2, 2), qk_norm="rms_norm_across_heads",
        cross_attn_norm=True,
    ).state_dict()  # fmt: skip
    ours = {layouts.to_diffusers(name): shape for name, shape in shapes(SIZE).items()}
    assert ours == {name: tuple(value.shape) for name, value in theirs.items()}


def test_fusing_can_be_undone() -> None:
    fused = layouts.fused(WEIGHTS)
    assert set(fused) == set(tiny_network().state_dict())
    again = layouts.split(fused)
    assert again.keys() == WEIGHTS.keys()
    assert all(torch.equal(again[name], value) for name, value in WEIGHTS.items())


def test_a_file_with_fused_projections_is_read(tmp_path: Path) -> None:
    """Some ports save q, k and v as one."""
    weights = dict(WEIGHTS)
    for block in range(SIZE.layers):
        for leaf in ("weight", "bias"):
            three = [weights.pop(f"blocks.{block}.self_attn.{part}.{leaf}") for part in "qkv"]
            weights[f"blocks.{block}.self_attn.to_qkv.{leaf}"] = torch.cat(three)
    found = load(saved(tmp_path, weights))
    assert all(torch.equal(found.state_dict()[name], value) for name, value in layouts.fused(WEIGHTS).items())


# -- which entry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "entry"),
    [
        ({"ema": True}, "generator_ema"),
        ({"ema": False}, "generator"),
        ({"key": "critic"}, "critic"),
    ],
)
def test_the_entry_that_is_meant_is_read(tmp_path: Path, told: dict[str, Any], entry: str) -> None:
    entries = {"critic": 1, "generator": 2, "generator_ema": 3}
    torch.save({name: random_weights(SIZE, seed) for name, seed in entries.items()}, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt", member(**told).checkpoint)
    expected = random_weights(SIZE, entries[entry])
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("key", ["generator", "model", "state_dict", "generator_ema"])
@pytest.mark.parametrize("ema", [True, False])
def test_a_usual_entry_is_found_whatever_was_asked(tmp_path: Path, key: str, ema: bool) -> None:
    torch.save({key: WEIGHTS, "step": 3}, tmp_path / "a.pt")
    assert load(tmp_path / "a.pt", ema=ema).size == SIZE


def test_an_entry_that_is_not_there_is_told_the_others(tmp_path: Path) -> None:
    torch.save({"generator": WEIGHTS, "step": 3}, tmp_path / "a.pt")
    told = refused(tmp_path / "a.pt", key="generatr")
    assert told.startswith("model.weights.key=generatr is no entry of ")
    assert told.endswith("it has generator, step")
    assert "model.weights.key=step holds no tensors" in refused(tmp_path / "a.pt", key="step")


def test_a_file_without_a_usual_entry_is_told_its_own(tmp_path: Path) -> None:
    torch.save({"net": WEIGHTS}, tmp_path / "a.pt")
    assert "but net: name one as model.weights.key" in refused(tmp_path / "a.pt")
    assert load(tmp_path / "a.pt", key="net").size == SIZE


# -- damaged, foreign, of another size ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["generator_ema", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_damaged(tmp_path: Path, layout: str, share: float) -> None:
    path = tmp_path / ("a.pt" if layout == "generator_ema" else "a.safetensors")
    write_checkpoint(path, tiny_network(), layout=layout)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refused(path).endswith(f"is damaged or cut short ({path.stat().st_size} bytes): get it again")


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html>", b"\x80\x02garbage", b"version https://git-lfs.github.com"]
)
def test_what_a_download_may_leave_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    assert "a.pt is damaged or cut short" in refused(tmp_path / "a.pt")


class Sneaky:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, ("exit 3",)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"generator": Sneaky()}, tmp_path / "a.pt")
    assert "a.pt wants to run code when it is opened and is not read" in refused(tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.pt") == f"there is no file {tmp_path / 'a.pt'}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"blocks.1.ffn.0.bias": None},
            "is incomplete: 1 of 69 tensors are missing, the first is blocks.1.ffn.0.bias",
        ),
        (
            {"blocks.0.ffn.0.weight": None},
            "is incomplete: there is no tensor blocks.0.ffn.0.weight",
        ),
        (
            {"img_emb.proj.0.bias": torch.zeros(3), "fps_embedding.weight": torch.zeros(3)},
            "2 of its tensors are not of the network, the first is fps_embedding.weight",
        ),
        (
            {"blocks.1.ffn.0.bias": torch.zeros(7)},
            "1 tensors are of another shape, the first is blocks.1.ffn.0.bias, expected (192,), found (7,)",
        ),
        (
            {"patch_embedding.weight": torch.zeros(100, 16, 1, 2, 2)},
            "its patch_embedding.weight is (100, 16, 1, 2, 2), while heads of model=tiny have 32 channels",
        ),
        (
            {"patch_embedding.weight": torch.zeros(96, 48, 1, 2, 2)},
            "its latents have 48 channels, those of model=tiny 16",
        ),
        (
            {"patch_embedding.weight": None},
            "holds no transformer of this family, but blocks.0.cross_attn.k.bias",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Tensor | None], told: str
) -> None:
    weights = {**WEIGHTS, **change}
    path = saved(tmp_path, {name: value for name, value in weights.items() if value is not None})
    assert told in refused(path)


def test_a_file_of_another_size_is_told_its_model(tmp_path: Path) -> None:
    """The names and counts of the 14B file, its tensors empty of numbers but for the one that is read."""
    size = Size(40 * 8, 40, 8, 40, 16, 32, 40)
    path = saved(tmp_path, {name: torch.zeros(shape) for name, shape in shapes(size).items()})
    told = refused(path, name="self_forcing", layers=30, heads=12, head_dim=8)
    assert told == (
        f"{path} holds 40 layers x 40 heads (14B); model=self_forcing is declared with 30 x 12: "
        "choose model=krea_14b or another file"
    )
    assert "declared with 7 x 40: choose model=krea_14b" in refused(path, layers=7, heads=40, head_dim=8)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("encoder.conv1.weight", "decoder.conv1.weight"), "it looks like a VAE (model.vae)"),
        (("token_embedding.weight", "blocks.0.attn.q.weight"), "a text encoder (model.text_encoder)"),
        (("base_model.model.blocks.0.self_attn.q.lora_A.weight",), "a low-rank update (model.weights.lora)"),
        (("unet.conv_in.weight",), "but unet.conv_in.weight ..."),
    ],
)
def test_weights_of_something_else_are_recognised(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    path = saved(tmp_path, {name: torch.zeros(3) for name in names})
    sentence = refused(path)
    assert "holds no transformer of this family" in sentence
    assert told in sentence


def test_a_folder_without_a_shard_is_incomplete(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_network(), layout="diffusers", shards=3)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) == 3
    shards[1].unlink()
    assert f"is incomplete: its index names {shards[1].name}" in refused(tmp_path)
    next(tmp_path.glob("*.json")).write_text("{")
    assert "index.json is damaged" in refused(tmp_path)


def test_a_folder_is_read_without_an_index_and_as_a_repository(tmp_path: Path) -> None:
    inner = tmp_path / "transformer"
    write_checkpoint(inner, tiny_network(), layout="diffusers")
    next(inner.glob("*.json")).unlink()
    (tmp_path / "model_index.json").write_text(json.dumps({}))
    assert load(tmp_path).size == load(inner).size == SIZE
    (tmp_path / "empty").mkdir()
    assert "holds no .safetensors file" in refused(tmp_path / "empty")


def test_a_file_is_not_read_twice_into_memory(tmp_path: Path) -> None:
    """Tensors of the network lie in memory of their own: the mapped file may go."""
    path = saved(tmp_path, WEIGHTS)
    network = load(path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# -- low-rank updates ---------------------------------------------------------------------------------------


def updates(rank: int = 4) -> dict[str, LowRank]:
    """Update every linear of every block, as the released one does."""
    generator = torch.Generator().manual_seed(5)
    linears = {
        name: value.shape for name, value in WEIGHTS.items() if name.startswith("blocks.") and value.ndim == 2
    }
    assert len(linears) == 10 * SIZE.layers
    return {
        name: LowRank(
            torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator), 1.0
        )
        for name, (rows, columns) in linears.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_is_added_to_every_weight(tmp_path: Path, dtype: torch.dtype) -> None:
    base = saved(tmp_path, WEIGHTS)
    added = updates()
    lora.write(tmp_path / "lora.pt", added)
    found = layouts.split(load(base, update=tmp_path / "lora.pt", dtype=dtype).state_dict())
    for name, value in WEIGHTS.items():
        if name in added:
            expected = value + added[name].up @ added[name].down
            torch.testing.assert_close(found[name], expected.to(dtype))
        assert (name in added) != torch.equal(found[name], value.to(dtype)), name


def test_alpha_scales_an_update(tmp_path: Path) -> None:
    name = "blocks.0.self_attn.q"
    front = f"base_model.model.{name}"
    down, up = torch.randn(4, 96), torch.randn(96, 4)
    held = {f"{front}.lora_A.default.weight": down, f"{front}.lora_B.default.weight": up}
    torch.save({**held, f"{front}.alpha": torch.tensor(2.0)}, tmp_path / "lora.pt")
    (found,) = lora.read(tmp_path / "lora.pt").items()
    assert found[0] == f"{name}.weight"
    assert found[1].scale == 0.5
    expected = torch.zeros(96, 96) + 0.5 * up @ down
    torch.testing.assert_close(found[1].added_to(torch.zeros(96, 96)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("foreign", "it updates blocks.9.self_attn.q.weight, which the transformer does not have"),
        ("shape", "its update of blocks.0.self_attn.q.weight is (96, 97), the weight (96, 96)"),
        ("lonely", "1 low-rank pairs do not fit, the first is blocks.0.self_attn.q.weight"),
        ("nothing", "holds no low-rank update, but blocks.0.cross_attn.k.bias"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(tmp_path: Path, change: str, told: str) -> None:
    front = f"base_model.model.blocks.{9 if change == 'foreign' else 0}.self_attn.q"
    held = {
        f"{front}.lora_A.weight": torch.zeros(4, 97 if change == "shape" else 96),
        f"{front}.lora_B.weight": torch.zeros(96, 4),
    }
    if change == "lonely":
        del held[f"{front}.lora_B.weight"]
    torch.save(WEIGHTS if change == "nothing" else {"generator_lora": held}, tmp_path / "lora.pt")
    assert told in refused(saved(tmp_path, WEIGHTS), update=tmp_path / "lora.pt")


def test_shards_hold_every_tensor_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_network(), layout="diffusers", shards=3)
    index = json.loads(next(tmp_path.glob("*.index.json")).read_text())
    held = [name for file in tmp_path.glob("*.safetensors") for name in load_file(file)]
    assert sorted(held) == sorted(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in WEIGHTS.values())
