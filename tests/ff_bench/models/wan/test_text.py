"""The text encoder against its description, both layouts, and embeddings that are remembered."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.errors import UsageError
from ff_bench.models.facts import Native
from ff_bench.models.wan import embeddings, synthesis, text
from ff_bench.models.wan.member import Checkpoint, Member, Source

TOKENS = 40
SIZES = dict(synthesis.TINY.text)
HEADS = SIZES["num_heads"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def member(tmp_path) -> Member:
    torch.manual_seed(0)
    encoder, words = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth", tmp_path / "umt5-xxl"
    synthesis.write_text_encoder(encoder, SIZES)
    synthesis.write_tokenizer(words, words=SIZES["vocab_size"])
    nowhere = Source(path=None, repo="", file="", licence="MIT")
    return Member(
        name="small", layers=1, heads=1, head_dim=16, height=16, width=16, fps=16, chunk_frames=3,
        first_chunk_frames=3, window_frames=21, passes="chunkwise", steps=(1000.0,), first_steps=None,
        shift=5.0, warp=True, clean_step=0.0, recache_frames=0, recache_sink=False, text_tokens=TOKENS,
        native=Native("full", "full"), checkpoint=Checkpoint(nowhere, None, ema=True),
        text_encoder=replace(nowhere, path=str(encoder)), tokenizer=replace(nowhere, path=str(words)),
        vae=nowhere, offload=False, decoder="vae", preview=nowhere,
    )  # fmt: skip


def encode(member: Member, *prompts: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return text.encode_prompts(prompts, member, device="cpu", dtype=dtype)


def described(weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Run the encoder by its description, with the names of the original file, on a prompt without padding.

    Padding is masked as a key, so that it cannot change the rows of the prompt.
    """
    weights = {name: value.float() for name, value in weights.items()}
    x = weights["token_embedding.weight"][torch.tensor(ids)]
    apart = torch.arange(len(ids))[None] - torch.arange(len(ids))[:, None]
    buckets = torch.tensor([[bucket(int(distance)) for distance in row] for row in apart])
    for layer in range(SIZES["num_layers"]):
        start = f"blocks.{layer}."
        block = {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
        y = norm(x, block["norm1.weight"])
        q, k, v = (
            (y @ block[f"attn.{part}.weight"].T).unflatten(1, (HEADS, -1)).transpose(0, 1) for part in "qkv"
        )
        bias = block["pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        attended = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v
        x = x + attended.transpose(0, 1).flatten(1) @ block["attn.o.weight"].T
        y = norm(x, block["norm2.weight"])
        gate = functional.gelu(y @ block["ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (gate * (y @ block["ffn.fc1.weight"].T)) @ block["ffn.fc2.weight"].T
    return norm(x, weights["norm.weight"])


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def bucket(distance: int) -> int:
    """32 buckets, 16 a side: the first 8 of a side exact, the others in powers up to a distance of 128."""
    side = 16 if distance > 0 else 0
    far = abs(distance)
    if far < 8:
        return side + far
    return side + min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8))


def test_rows_are_those_of_the_description(member) -> None:
    prompt = "a red fox runs over snow."
    found = encode(member, prompt)[0]
    words = text.load_tokenizer(Path(member.tokenizer.path))
    ids = words.encode(prompt).ids
    assert ids[-1] == 1
    weights = torch.load(member.text_encoder.path, weights_only=True)
    wanted = described(weights, ids)
    assert found.shape == (TOKENS, SIZES["d_model"])
    assert (found[: len(ids)] - wanted).abs().max() < 2e-5
    assert not found[len(ids) :].any()
    assert wanted.std() > 0.1


def test_the_layout_of_diffusers_gives_the_same(member, tmp_path) -> None:
    wanted = encode(member, "a fox")
    torch.manual_seed(0)
    synthesis.write_text_encoder(tmp_path / "text_encoder", SIZES)
    other = replace(member, text_encoder=replace(member.text_encoder, path=str(tmp_path / "text_encoder")))
    assert torch.equal(encode(other, "a fox"), wanted)


def test_long_prompts_are_cut_behind_their_end_token(member) -> None:
    found = encode(member, "a" * 200)[0]
    assert found[-1].any()
    words = text.load_tokenizer(Path(member.tokenizer.path))
    words.enable_truncation(TOKENS)
    assert (len(words.encode("a" * 200).ids), words.encode("a" * 200).ids[-1]) == (TOKENS, 1)


def test_a_prompt_does_not_depend_on_its_neighbours(member, cache) -> None:
    together = encode(member, "a fox", "a much longer prompt about a hare", "a fox")
    assert torch.equal(together[0], together[2])
    for path in cache.rglob("*.safetensors"):
        path.unlink()
    assert torch.equal(encode(member, "a fox")[0], together[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_remembered_prompt_needs_no_encoder(member, cache, monkeypatch, dtype: torch.dtype) -> None:
    first = encode(member, "a fox", "a hare", dtype=dtype)
    stored = list((cache / "prompts").rglob("*.safetensors"))
    assert len(stored) == 2
    assert all(path.stat().st_size < 40 * SIZES["d_model"] * 4 for path in stored)  # no padding
    with monkeypatch.context() as patched:
        patched.setattr(text.TextEncoder, "load", lambda *_, **__: pytest.fail("loaded"))
        assert torch.equal(encode(member, "a  fox ", "a hare", dtype=dtype), first)
        Path(member.text_encoder.path).unlink()
        assert torch.equal(encode(member, "a fox", dtype=dtype), first[:1])
        name = str(dtype).removeprefix("torch.")
        assert embeddings.missing(["a fox", "an owl"], member, dtype=name) == ["an owl"]
    with pytest.raises(FileNotFoundError, match="the text encoder's weights of small are missing"):
        encode(member, "an owl", dtype=dtype)


def test_a_run_loads_the_encoder_once(member, monkeypatch) -> None:
    loaded = []
    load = text.TextEncoder.load
    monkeypatch.setattr(text.TextEncoder, "load", lambda *a, **k: loaded.append(1) or load(*a, **k))
    options = {"device": "cpu", "dtype": torch.float32}
    assert text.remember(["a fox", "a hare", "a fox"], member, **options) == 2
    assert text.remember(["a fox", "a hare"], member, **options) == 0
    encode(member, "a hare")
    assert text.remember(["a fox", "an owl"], member, **options) == 1
    assert len(loaded) == 2


def test_every_number_format_and_encoder_is_remembered_apart(member, cache, tmp_path) -> None:
    exact, rounded = encode(member, "a fox"), encode(member, "a fox", dtype=torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (exact - rounded.float()).abs().max() < 0.2
    torch.manual_seed(1)
    synthesis.write_text_encoder(tmp_path / "other.pth", SIZES)
    other = replace(member, text_encoder=replace(member.text_encoder, path=str(tmp_path / "other.pth")))
    assert not torch.equal(encode(other, "a fox"), exact)
    assert torch.equal(encode(member, "a fox"), exact)
    away = replace(member, text_encoder=replace(member.text_encoder, path=None))
    with pytest.raises(UsageError, match="remembered from 2 text encoders"):
        encode(away, "a fox")


def test_a_damaged_memory_is_made_again(member, cache) -> None:
    first = encode(member, "a fox")
    (stored,) = (cache / "prompts").rglob("*.safetensors")
    stored.write_bytes(stored.read_bytes()[:50])
    assert torch.equal(encode(member, "a fox"), first)
    assert embeddings.read(stored) is not None


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("  a\tfox\n runs ", "a fox runs"),
        ("rock &amp;amp; roll", "rock & roll"),
        ("&lt;b&gt;", "<b>"),
        ("cafÃ©", "café"),
        ("“quoted”", '"quoted"'),
    ],
)
def test_cleaning(written: str, cleaned: str) -> None:
    assert embeddings.cleaned(written) == cleaned


def test_without_the_library(member, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UsageError, match=r"'ftfy', which is not installed: pip install 'ff-bench\[wan\]'"):
        encode(member, "a fox")


def test_refuses_other_files(member, tmp_path) -> None:
    weights = torch.load(member.text_encoder.path, weights_only=True)
    lost = {name: value for name, value in weights.items() if name != "blocks.1.attn.o.weight"}
    for content, sentence in (
        (lost, "1 tensors differ, the first is 'encoder.block.1.layer.0.SelfAttention.o.weight'"),
        ({"conv.weight": torch.zeros(2)}, "holds no UMT5 encoder: there is no tensor 'shared.weight'"),
    ):
        torch.save(content, member.text_encoder.path)
        with pytest.raises(ValueError, match=sentence):
            encode(member, "a fox")
    torch.save(weights, member.text_encoder.path)
    file = Path(member.tokenizer.path, "tokenizer.json")
    file.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer.json is damaged"):
        encode(member, "a fox")
    file.unlink()
    with pytest.raises(ValueError, match=r"there is no tokenizer\.json"):
        encode(member, "a fox")


def test_names_of_the_original_file_cover_the_encoder() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        network = transformers.UMT5EncoderModel(transformers.UMT5Config(**SIZES))
    names = set(network.state_dict()) - {text.TIED}
    assert set(text.original_names(SIZES["num_layers"]).values()) == names


def test_a_home_that_cannot_be_written_costs_time_only(member, tmp_path, monkeypatch, caplog) -> None:
    wanted = encode(member, "a fox")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "file" / "below"))
    assert torch.equal(encode(member, "a fox"), wanted)
    assert "a prompt is not remembered" in caplog.text


def test_what_another_process_encoded_meanwhile_is_taken(member, monkeypatch) -> None:
    wanted, asked = encode(member, "a fox"), []
    real = text._remembered

    def late(prompts, *rest):
        asked.append(prompts)
        return real(prompts, *rest) if len(asked) > 1 else {}

    monkeypatch.setattr(text, "_remembered", late)
    monkeypatch.setattr(text.TextEncoder, "load", lambda *_, **__: pytest.fail("loaded"))
    assert torch.equal(encode(member, "a fox"), wanted)
    assert asked == [["a fox"], ["a fox"]]
