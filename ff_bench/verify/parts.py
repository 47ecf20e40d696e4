"""Checks of the files of a member, of its text encoder and of its VAE, each alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ff_bench.models.wan import embeddings, facts
from ff_bench.models.wan.files import digest, locate
from ff_bench.models.wan.member import TEMPORAL_STRIDE, Member
from ff_bench.models.wan.text import encode_prompts
from ff_bench.models.wan.vae import WanVAE, as_bytes
from ff_bench.plan import size
from ff_bench.verify.finding import Finding, judged

PROMPTS = ("A red fox runs over fresh snow.", "Waves break on a rocky shore at dusk.")
LATENTS = 5
SHA256 = re.compile(r"[0-9a-f]{64}")


def check_files(member: Member) -> Iterator[Finding]:
    """Find every file, and digest it.

    A file that the hub's cache names by its digest, as it does with weights, is compared with that name.
    """
    sources = {**facts.files(member), **facts.readers(member)}
    for what, source in sources.items():
        try:
            path = locate(source, what=f"{what} of {member.name}")
        except FileNotFoundError as error:
            yield Finding(what, "FAIL", str(error))
            continue
        found, named = digest(path), path.resolve().name
        is_named = path.is_file() and SHA256.fullmatch(named) is not None
        agrees = ", as the hub names it" if is_named and named == found else ""
        differs = f" but the hub names it {named[:12]}: get it again" if is_named and named != found else ""
        yield judged(
            what, not differs, f"sha256 {found[:16]}{agrees or differs}, {size(_bytes(path))}, {path.name}"
        )


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_text(member: Member, *, device: str, dtype: torch.dtype) -> Iterator[Finding]:
    """Encode two prompts with the encoder itself, then read them back from disk.

    Raises:
        FileNotFoundError: where the encoder or its tokenizer is missing, whatever was encoded before.
    """
    name = str(dtype).removeprefix("torch.")
    for what, source in facts.readers(member).items():
        locate(source, what=f"{what} of {member.name}")
    encoder = embeddings.encoder_sha256(member)
    for prompt in PROMPTS:  # forgotten, so that the encoder itself is asked
        path = embeddings.entry(prompt, encoder, tokens=member.text_tokens, dtype=name)
        assert path is not None, encoder
        path.unlink(missing_ok=True)
    began = time.perf_counter()
    first = encode_prompts(PROMPTS, member, device=device, dtype=dtype)
    seconds = time.perf_counter() - began
    again = encode_prompts(PROMPTS, member, device=device, dtype=dtype)
    used = [int(rows.any(-1).sum()) for rows in first]
    problems = [
        *(["not finite"] if not bool(first.isfinite().all()) else []),
        *(["both prompts give the same"] if torch.equal(first[0], first[1]) else []),
        *(["rows behind a prompt are not zeros"] if any(not _ends(rows) for rows in first) else []),
        *(["another embedding from disk"] if not torch.equal(first, again) else []),
    ]
    shape = " x ".join(map(str, first.shape[1:]))
    seen = f"{shape} in {name}, {used[0]} and {used[1]} rows in use, spread {first[0, : used[0]].std():.3f}"
    yield judged("text encoder", not problems, ", ".join(problems) or f"{seen}, {seconds:.1f} s")


def _ends(rows: Tensor) -> bool:
    """Say whether a prompt is a run of rows in use, some and not all, followed by zeros."""
    used = rows.any(-1)
    count = int(used.sum())
    return 0 < count < len(rows) and bool(used[:count].all())


def check_vae(member: Member, *, device: str, dtype: torch.dtype) -> Iterator[Finding]:
    """Decode chunk by chunk and at once, and encode and decode pictures."""
    vae = WanVAE.load(locate(member.vae, what=f"VAE weights of {member.name}"), device, dtype)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(LATENTS, *member.latent_shape, generator=generator)
    yield from _check_streaming(vae, latents)
    yield from _check_round_trip(vae, member)


@torch.no_grad()
def _check_streaming(vae: WanVAE, latents: Tensor) -> Iterator[Finding]:
    state = vae.begin()
    parts = torch.cat([vae.decode_next(part, state) for part in latents.split((1, 3, 1))], 1)
    raw = latents.to(device=vae.device, dtype=vae.dtype).transpose(0, 1) / vae.inverse_std + vae.mean
    whole = vae.network.decode(raw[None]).sample[0]
    apart = float((as_bytes(parts).float() - as_bytes(whole).float()).abs().max())
    exact = float((parts.float() - whole.float()).abs().max())
    is_finite = bool(parts.isfinite().all())
    told = "finite" if is_finite else "not finite"
    frames = f"{len(latents)} latent frames as {parts.shape[1]} pictures, {told}"
    yield judged(
        "VAE chunk by chunk", is_finite and apart <= 1,
        f"{frames}, largest difference to one call {exact:.2g} ({apart:.0f} of 255), "
        f"state {size(state.nbytes)}",
    )  # fmt: skip


def _check_round_trip(vae: WanVAE, member: Member) -> Iterator[Finding]:
    pictures = painted(1 + TEMPORAL_STRIDE * 2, member.height, member.width)
    latents = vae.encode(torch.from_numpy(pictures))
    decoded = vae.decoder()(latents[None])[0].cpu().numpy()
    is_finite = bool(latents.isfinite().all())
    spread = f"latents {float(latents.mean()):+.2f} on average, spread {float(latents.std()):.2f}"
    yield judged(
        "VAE there and back", is_finite and decoded.shape == pictures.shape,
        f"PSNR {psnr(decoded, pictures):.1f} dB (trained weights give more than 25), {spread}",
    )  # fmt: skip


def painted(count: int, height: int, width: int) -> np.ndarray:
    """Paint a disc that moves over soft colours, (T, H, W, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    ground = np.stack([0.3 + 0.4 * columns, 0.6 - 0.3 * rows, 0.5 + 0.2 * np.sin(6 * columns)], -1)
    pictures = []
    for number in range(count):
        reach = (columns - 0.3 - 0.02 * number) ** 2 + (rows - 0.25) ** 2
        disc = 0.5 - 0.5 * np.tanh((reach - 0.01) * 1000)[..., None]
        pictures.append(ground * (1 - disc) + np.array([0.9, 0.5, 0.1]) * disc)
    return (np.stack(pictures) * 255).round().astype(np.uint8)


def psnr(made: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 videos of one shape, in dB; 100 where equal."""
    pairs = zip(made, wanted, strict=True)
    total = sum(float(np.square(one.astype(np.float64) - other).sum()) for one, other in pairs)
    return 100.0 if total == 0 else float(10 * np.log10(255**2 * made.size / total))
