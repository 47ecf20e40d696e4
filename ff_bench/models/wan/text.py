"""Prompts as UMT5-xxl embeddings: read from disk where they were encoded before, else encoded all at once.

The encoder has 11 GB in bfloat16; it is loaded only where a prompt is new, and freed at once.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ff_bench.errors import UsageError, shown
from ff_bench.models.numbers import refuse_formats, refuse_infinite
from ff_bench.models.wan import embeddings
from ff_bench.models.wan.files import ABSENT, library, locate
from ff_bench.models.wan.tensors import json_object, read_tensors, refuse_differences, renamed

if TYPE_CHECKING:
    from ff_bench.models.wan.member import Member

PADDING = 0
"""Id of the padding token."""
TIED = "encoder.embed_tokens.weight"
"""A second name of the table of words; files hold it or not."""

BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
"""Tensors of a block: their names in the original file and in transformers."""


def original_names(layers: int) -> dict[str, str]:
    """Map the names of `models_t5_umt5-xxl-enc-bf16.pth` to those of transformers.

    Source: Wan-Video/Wan2.1 wan/modules/t5.py; transformers models/umt5/modeling_umt5.py.
    """
    names = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
    for layer in range(layers):
        names |= {f"blocks.{layer}.{own}": f"encoder.block.{layer}.{new}" for own, new in BLOCK.items()}
    return names


class TextEncoder:
    """UMT5 encoder with its tokenizer.

    Attributes:
        tokens: tokens of a prompt, padding included.
        width: channels of an embedding.
    """

    def __init__(self, network: Any, tokenizer: Any, tokens: int) -> None:
        """Wrap a network and a tokenizer of transformers.

        Args:
            network: a `UMT5EncoderModel`.
            tokenizer: of the library tokenizers, that ends prompts with the end token.
            tokens: tokens of a prompt, padding included.
        """
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.width = int(network.config.d_model)

    @classmethod
    def load(
        cls, encoder: Path, tokenizer: Path, *, tokens: int, device: torch.device | str, dtype: torch.dtype
    ) -> TextEncoder:
        """Load encoder and tokenizer.

        Args:
            encoder: a folder with `config.json` and safetensors, or the original `.pth` file.
            tokenizer: folder of the tokenizer.
            tokens: tokens of a prompt, padding included.
            device: where to.
            dtype: number format of the weights.

        Raises:
            UsageError: where the library transformers is missing.
            ValueError: where the weights are damaged or not those of this encoder.
        """
        weights = read_tensors(encoder)
        network = load_network(weights, encoder, device=device, dtype=dtype)
        return cls(network, load_tokenizer(tokenizer), tokens)

    @torch.no_grad()
    def rows(self, prompt: str) -> Tensor:
        """Encode one cleaned prompt.

        It is padded to `tokens` tokens, and padding is masked as a key. Prompts are encoded one by one, so
        that an embedding depends on nothing but its prompt.

        Returns:
            (tokens of the prompt, width), in the number format of the weights; the end token is the last row.
        """
        self.tokenizer.enable_truncation(self.tokens)
        taken = self.tokenizer.encode(prompt).ids
        ids = torch.full((1, self.tokens), PADDING, device=self.network.device)
        ids[0, : len(taken)] = torch.tensor(taken)
        mask = (torch.arange(self.tokens, device=ids.device) < len(taken)).long()[None]
        found: Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state[0, : len(taken)]
        return found


def encode_prompts(
    prompts: Sequence[str], member: Member, *, device: torch.device | str, dtype: torch.dtype
) -> Tensor:
    """Encode prompts, from disk where they were encoded before.

    Source: guandeh17/Self-Forcing@33593df utils/wan_wrapper.py: rows behind the prompt are zeros, and the
    transformer attends to all of them.

    Args:
        prompts: B prompts as the user wrote them.
        member: says where encoder and tokenizer are, and the number of tokens.
        device: where the encoder runs and the result lies.
        dtype: number format of the encoder and the result.

    Returns:
        (B, tokens, width).

    Raises:
        FileNotFoundError: where a prompt is new and the encoder or its tokenizer is missing.
        UsageError: where a library is missing.
        ValueError: where weights are damaged or not those of this encoder.
    """
    wanted = list(dict.fromkeys(prompts))
    known = _remembered(wanted, member, dtype)
    if len(known) < len(wanted):
        with embeddings.alone():
            known |= _remembered([prompt for prompt in wanted if prompt not in known], member, dtype)
            fresh = [prompt for prompt in wanted if prompt not in known]
            known |= _encode_fresh(fresh, member, device=device, dtype=dtype) if fresh else {}
    widest = next(iter(known.values())).shape[1]
    result = torch.zeros(len(prompts), member.text_tokens, widest, dtype=dtype, device=device)
    for row, prompt in zip(result, prompts, strict=True):
        row[: len(known[prompt])] = known[prompt].to(device=device, dtype=dtype)
    return result


def remember(
    prompts: Sequence[str], member: Member, *, device: torch.device | str, dtype: torch.dtype
) -> int:
    """Encode to disk the prompts that were never encoded, with the encoder loaded once for all of them.

    Args:
        prompts: texts of a whole run.
        member: says where encoder and tokenizer are, and the number of tokens.
        device: where the encoder runs; it is freed again.
        dtype: number format of the encoder and the result.

    Returns:
        How many were encoded.

    Raises:
        FileNotFoundError: where a prompt is new and the encoder or its tokenizer is missing.
        UsageError: where a library is missing, or weights are damaged or not those of this encoder.
    """
    if not embeddings.missing(prompts, member, dtype=_name(dtype)):
        return 0
    with embeddings.alone():
        fresh = embeddings.missing(dict.fromkeys(prompts), member, dtype=_name(dtype))
        return len(_encode_fresh(fresh, member, device=device, dtype=dtype)) if fresh else 0


def _remembered(prompts: Sequence[str], member: Member, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the rows of the prompts that were encoded before."""
    encoder, known = embeddings.encoder_sha256(member), {}
    for prompt in prompts:
        path = embeddings.entry(prompt, encoder, tokens=member.text_tokens, dtype=_name(dtype))
        rows = None if path is None else embeddings.read(path)
        if rows is not None:
            known[prompt] = rows
    return known


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _encode_fresh(
    prompts: Sequence[str], member: Member, *, device: torch.device | str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Load the encoder, encode, remember, free; rows lie on the CPU."""
    found = locate(member.text_encoder, what=f"the text encoder's weights of {member.name}")
    words = locate(member.tokenizer, what=f"the tokenizer's files of {member.name}")
    encoder = TextEncoder.load(found, words, tokens=member.text_tokens, device=device, dtype=dtype)
    digest, name = embeddings.encoder_sha256(member), _name(dtype)
    assert digest != ABSENT, found
    rows: dict[str, Tensor] = {}
    for prompt in prompts:
        rows[prompt] = encoder.rows(embeddings.cleaned(prompt)).cpu()
        if not bool(rows[prompt].isfinite().all()):
            raise ValueError(f"the text encoder in {found} gives numbers that are not finite in {name}")
        path = embeddings.entry(prompt, digest, tokens=member.text_tokens, dtype=name)
        assert path is not None, digest
        embeddings.write(path, rows[prompt])
    del encoder
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    return rows


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer as its file says, whatever transformers makes of its class.

    Args:
        folder: holds `tokenizer.json`.

    Raises:
        UsageError: where the library tokenizers is missing.
        ValueError: where the folder holds no such file, or a damaged one.
    """
    tokenizers = library("tokenizers", purpose="prompts of this model need")
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"the tokenizer in {folder} cannot be read: there is no tokenizer.json")
    try:
        words = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"the tokenizer {file} is damaged: {error}") from None
    words.no_padding()
    return words


def load_network(
    weights: dict[str, Tensor], path: Path, *, device: torch.device | str, dtype: torch.dtype
) -> Any:
    """Build the encoder of transformers around tensors of either layout, without holding them twice.

    Args:
        weights: by name, original or of transformers.
        path: where they came from; a folder's `config.json` says the sizes, else the tensors do.
        device: where to.
        dtype: number format.

    Raises:
        UsageError: where the library transformers is missing.
        ValueError: where names or shapes are not those of a UMT5 encoder.
    """
    transformers = library("transformers", purpose="the text encoder needs")
    refuse_formats(weights, path)
    if "token_embedding.weight" in weights:
        weights = renamed(weights, original_names(len(weights)))
    weights = {name: value for name, value in weights.items() if name != TIED}
    with torch.device("meta"):
        network = transformers.UMT5EncoderModel(_config(transformers, weights, path))
    expected = {name: value.shape for name, value in network.state_dict().items() if name != TIED}
    refuse_differences(expected, weights, path=path, what="UMT5 encoder")
    placed = {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
    refuse_infinite(placed, path)
    network.load_state_dict(placed, strict=False, assign=True)
    network.set_input_embeddings(network.shared)
    return network


def _config(transformers: Any, weights: dict[str, Tensor], path: Path) -> Any:
    """Sizes of the encoder are those of the tensors; the `config.json` of a folder must agree."""
    try:
        vocabulary, width = weights["shared.weight"].shape
        inner = weights["encoder.block.0.layer.0.SelfAttention.q.weight"].shape[0]
        hidden = weights["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0]
        buckets, heads = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].shape
    except KeyError as error:
        raise UsageError(f"{path} holds no UMT5 encoder: there is no tensor {error}") from None
    except ValueError:
        raise UsageError(f"{path} holds no UMT5 encoder: tensors of block 0 have other axes") from None
    layers = len({name.split(".")[2] for name in weights if name.startswith("encoder.block.")})
    sizes = {
        "vocab_size": vocabulary, "d_model": width, "d_kv": inner // heads, "d_ff": hidden,
        "num_layers": layers, "num_heads": heads, "relative_attention_num_buckets": buckets,
    }  # fmt: skip
    file = path / "config.json"
    told = json_object(file) if path.is_dir() and file.is_file() else {}
    for name, size in sizes.items():
        if told.get(name, size) != size:
            raise UsageError(
                f"{file} does not fit: its {name} is {shown(told[name])}, that of the tensors {size}"
            )
    try:
        return transformers.UMT5Config.from_dict({**told, **sizes, "attn_implementation": "eager"})
    except Exception as error:  # the library has a kind of its own for every field
        raise UsageError(f"{file} is damaged: {type(error).__name__}: {error}") from None
