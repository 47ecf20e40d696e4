"""Files of weights that lie: one sentence, no code of theirs runs, no file outside their folder is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from ff_bench import models
from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.models.mini import backbone
from ff_bench.models.wan import lora
from ff_bench.models.wan.checkpoint import load_network, write_checkpoint
from ff_bench.models.wan.containers import opened
from tests.ff_bench.models.wan.tiny import tiny_member
from tests.ff_bench.models.wan.tiny import tiny_network as tiny_wan
from tests.ff_bench.test_trust import Bomb
from tests.ff_bench.tiny import tiny_network as tiny_mini


def mini(path: Path) -> object:
    return backbone.load([path], device="cpu")


def wan(path: Path) -> object:
    return load_network(tiny_member(), path, None, device="cpu", dtype=torch.float32)


Load = Callable[[Path], object]
WEIGHTS: dict[Load, tuple[str, dict[str, Tensor]]] = {
    mini: ("head.weight", {name: value.half() for name, value in tiny_mini().state_dict().items()}),
}
EITHER = pytest.mark.parametrize("load", [mini, wan])


@pytest.fixture(scope="module", autouse=True)
def wan_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("wan") / "a.safetensors"
    write_checkpoint(path, tiny_wan(), layout="safetensors")
    WEIGHTS[wan] = ("blocks.0.ffn.0.weight", load_file(path))


def refused(load: Load, path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@EITHER
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x * torch.nan, "1 tensors hold NaN or infinity, the first is"),
        (lambda x: x.float() * torch.inf, "1 tensors hold NaN or infinity, the first is"),
        (lambda x: x.int(), "holds int32, allowed are floating-point numbers"),
        (lambda x: x.bool(), "holds bool, allowed are floating-point numbers"),
        (lambda x: x.to(torch.complex64), "holds complex64"),
        (lambda x: x[:0], "has no number"),
    ],
)
def test_numbers_that_are_none_are_refused(
    tmp_path: Path, load: Load, change: Callable[[Tensor], Tensor], told: str
) -> None:
    name, weights = WEIGHTS[load]
    save_file({**weights, name: change(weights[name])}, tmp_path / "a.safetensors")
    assert told in refused(load, tmp_path / "a.safetensors")


@EITHER
def test_wide_numbers_are_rounded(tmp_path: Path, load: Load) -> None:
    name, weights = WEIGHTS[load]
    save_file({**weights, name: weights[name].double()}, tmp_path / "a.safetensors")
    load(tmp_path / "a.safetensors")


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def lying(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LIES = {
    "overlap": lying({"a": TENSOR, "b": {**TENSOR, "data_offsets": [4, 12]}}, bytes(12)),
    "long": lying({"a": TENSOR}, length=2**63),
    "longer": lying({"a": TENSOR}, length=90_000_000),
    "twice": lying(b'{"a":' + json.dumps(TENSOR).encode() + b',"a":' + json.dumps(TENSOR).encode() + b"}"),
    "other": lying(b"\x80\x04no json"),
    "list": lying([1]),
    "deep": lying(b'{"a":' + b"[" * 100_000),
    "vast": lying({"a": {**TENSOR, "shape": [2**62, 4]}}),
    "codes": lying({"a": {**TENSOR, "dtype": "F4", "shape": [16]}}),
    "odd": lying({"a": {**TENSOR, "dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, bytes(3)),
    "empty": b"",
}


@EITHER
@pytest.mark.parametrize("name", sorted(LIES))
def test_a_header_that_lies_is_one_sentence(tmp_path: Path, load: Load, name: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(LIES[name])
    refused(load, tmp_path / "a.safetensors")


@EITHER
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("is_new", [True, False])
def test_code_in_a_pickle_does_not_run_whatever_it_is_called(
    tmp_path: Path, load: Load, ending: str, is_new: bool
) -> None:
    held = {"generator": Bomb(tmp_path / "canary")}
    torch.save(held, tmp_path / f"a{ending}", _use_new_zipfile_serialization=is_new)
    refused(load, tmp_path / f"a{ending}")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "OUTSIDE", "..", "a/b", "a\\b", "", 3, None])
def test_an_index_leads_to_no_file_outside_of_its_folder(tmp_path: Path, name: object) -> None:
    inner, outside = tmp_path / "in", tmp_path / "outside.safetensors"
    save_file({"a": torch.zeros(2)}, outside)
    write_checkpoint(inner, tiny_wan(), layout="diffusers")
    (index,) = inner.glob("*.json")
    told = json.loads(index.read_text())
    told["weight_map"]["a"] = str(outside) if name == "OUTSIDE" else name
    index.write_text(json.dumps(told))
    assert "allowed are names of files beside it" in refused(wan, inner)


def test_a_shard_may_be_a_link_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "blob")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.safetensors").symlink_to(tmp_path / "blob")
    (tmp_path / "in" / "a.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    assert torch.equal(opened(tmp_path / "in")["a"], torch.ones(2))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    assert "x is in two of its files" in refused(opened, tmp_path)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(UsageError, match="x is in two files"):
        backbone.load(files, device="cpu")


def test_one_tensor_by_two_names_is_refused(tmp_path: Path) -> None:
    _, weights = WEIGHTS[wan]
    save_file({**weights, "model.head.head.bias": torch.zeros(64)}, tmp_path / "a.safetensors")
    assert "is there a second time by another name" in refused(wan, tmp_path / "a.safetensors")


def test_few_numbers_that_stand_for_many_are_refused(tmp_path: Path) -> None:
    name, weights = WEIGHTS[wan]
    torch.save({**weights, name: torch.zeros(1).expand(2**33, 96)}, tmp_path / "a.pt")
    assert "promises more numbers than the file has" in refused(wan, tmp_path / "a.pt")


def test_an_empty_size_asks_for_no_memory(tmp_path: Path) -> None:
    save_file({**WEIGHTS[mini][1], "blocks.0.up.weight": torch.zeros(0, 2**31)}, tmp_path / "a.safetensors")
    assert "has no number, its shape is (0, 2147483648)" in refused(mini, tmp_path / "a.safetensors")


def test_a_checkpoint_without_a_whole_layer_is_not_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["model=mini"]).config.model
    weights = {name: value for file in config.facts.weights for name, value in load_file(file).items()}
    kept = {name: value for name, value in weights.items() if not name.startswith("blocks.5.")}
    save_file(kept, tmp_path / "a.safetensors")
    original = backbone.load
    monkeypatch.setattr(
        backbone, "load", lambda files, **told: original([tmp_path / "a.safetensors"], **told)
    )
    with pytest.raises(
        UsageError, match="they have 5 layers of 4 heads of 64 channels, the model 6 of 4 of 64"
    ):
        models.load(config, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"A": torch.zeros(())}, "low-rank pairs do not fit"),
        ({"A": torch.zeros(2, 3, 4)}, "low-rank pairs do not fit"),
        ({"A": torch.zeros(2, 96).int()}, "holds int32"),
        ({"alpha": torch.zeros(3)}, "is more than one number"),
    ],
)
def test_a_wrong_update_is_refused(tmp_path: Path, change: dict[str, Tensor], told: str) -> None:
    front = "base_model.model.blocks.0.ffn.0"
    sound = {"A": torch.zeros(2, 96), "B": torch.zeros(192, 2), **change}
    held = {f"{front}.lora_{side}.weight": sound[side] for side in "AB"}
    held |= {f"{front}.alpha": sound["alpha"]} if "alpha" in sound else {}
    (tmp_path / "a.safetensors").write_bytes(save(held))
    assert told in refused(lora.read, tmp_path / "a.safetensors")
