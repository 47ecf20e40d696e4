"""Reads a member of the Wan family from its configuration: every field checked, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import prod
from typing import Any

from ff_bench import checks
from ff_bench.errors import UsageError, out_of_range, shown
from ff_bench.models.facts import SOURCE, ModelFacts, Native, Need
from ff_bench.models.wan import embeddings
from ff_bench.models.wan.files import command, digest_of, joined, locate
from ff_bench.models.wan.member import PATCH, SPATIAL_STRIDE, TEMPORAL_STRIDE, Checkpoint, Member, Source

FIELDS = (
    "name", "architecture", "layers", "heads", "head_dim", "height", "width", "fps", "chunk_frames",
    "first_chunk_frames", "window_frames", "passes", "steps", "first_steps", "shift", "warp", "clean_step",
    "recache_frames", "recache_sink", "text_tokens", "native", "weights", "text_encoder", "tokenizer", "vae",
    "offload", "decoder", "preview",
)  # fmt: skip
WHOLE = {
    "layers": (1, 256), "heads": (1, 256), "head_dim": (8, 512), "fps": (1, 240), "chunk_frames": (1, 256),
    "window_frames": (1, 4096), "recache_frames": (0, 4096), "text_tokens": (1, 4096),
}  # fmt: skip
"""Fields that are whole numbers, with their smallest and largest value."""
CHECKPOINT = (*SOURCE, "key", "ema", "lora")
NATIVE = ("rule", "policy", "fields", "budget", "protocol")
NOT_FRAMES = (
    "name", "native", "checkpoint", "text_encoder", "tokenizer", "vae", "preview", "fps",
    "layers", "heads", "head_dim", "offload",
)  # fmt: skip
"""Attributes of a member that change no frame, or that the digests of its files stand for."""
TOP_STEP = 1000.0
CORE_FLOPS = 5e10
"""Multiply-adds counted as two, per second of one CPU core in float32, about."""


def read(fields: Mapping[str, Any]) -> Member:
    """Check the fields of a member's file.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    checks.keys("model", fields, FIELDS)
    whole = {key: checks.whole(f"model.{key}", fields[key], low=a, high=b) for key, (a, b) in WHOLE.items()}
    if whole["head_dim"] % 2:
        raise out_of_range("model.head_dim", whole["head_dim"], "even: positions rotate pairs of channels")
    first = fields["first_chunk_frames"]
    first_steps = fields["first_steps"]
    member = Member(
        name=checks.text("model.name", fields["name"]), **whole,
        height=_side("height", fields["height"]), width=_side("width", fields["width"]),
        first_chunk_frames=whole["chunk_frames"]
        if first is None
        else checks.whole("model.first_chunk_frames", first, low=1, high=256),
        passes=checks.choice("model.passes", fields["passes"], ("chunkwise", "rolling")),
        steps=_steps("steps", fields["steps"]),
        first_steps=None if first_steps is None else _steps("first_steps", first_steps),
        shift=_number("shift", fields["shift"], low=0.01, high=100.0),
        warp=checks.flag("model.warp", fields["warp"]),
        clean_step=_number("clean_step", fields["clean_step"], low=0.0, high=TOP_STEP),
        recache_sink=checks.flag("model.recache_sink", fields["recache_sink"]),
        native=_native(fields["native"]), checkpoint=_checkpoint(fields["weights"]),
        text_encoder=_source("text_encoder", fields["text_encoder"]),
        tokenizer=_source("tokenizer", fields["tokenizer"]), vae=_source("vae", fields["vae"]),
        offload=checks.flag("model.offload", fields["offload"]),
        decoder=checks.choice("model.decoder", fields["decoder"], ("vae", "taehv")),
        preview=_source("preview", fields["preview"]),
    )  # fmt: skip
    _check_together(member)
    return member


def describe(fields: Mapping[str, Any]) -> ModelFacts:
    """Return the sizes of the member that the fields describe.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    return of_member(read(fields))


def of_member(member: Member) -> ModelFacts:
    """Return the sizes of a member; its files are found when they are loaded, so `weights` is empty."""
    return ModelFacts(
        name=member.name, architecture="wan", layers=member.layers, heads=member.heads,
        head_dim=member.head_dim, rows=member.rows, columns=member.columns,
        chunk_frames=member.chunk_frames, first_chunk_frames=member.first_chunk_frames,
        window_frames=member.window_frames, fps=member.fps, temporal_stride=TEMPORAL_STRIDE, first_stride=1,
        height=member.height, width=member.width, steps=len(member.steps), dtype="bfloat16", weights=(),
        position="contiguous", prompt_sets=(), default_prompts="scenes", prefix="none", native=member.native,
        chunk_seconds_cpu=_chunk_seconds(member), latent_record=True,
        latent_values=prod(member.latent_shape), has_own_steps=True,
        takes_start=member.passes == "chunkwise",
    )  # fmt: skip


def identity(member: Member) -> dict[str, object]:
    """Return the fields that change frames: sizes, steps, warp, passes, which weights of a file; no paths."""
    plain = {key: value for key, value in asdict(member).items() if key not in NOT_FRAMES}
    plain |= {"key": member.checkpoint.key, "ema": member.checkpoint.ema}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def digests(member: Member, *, prompts: Sequence[str], dtype: str) -> dict[str, str]:
    """Return sha256 of transformer (`checkpoint`), text encoder, VAE and, where it is used, preview decoder.

    One whose file is not here is 'absent'. A low-rank update counts with its base, a tokenizer with its
    encoder; an encoder that is not here is known by the embeddings of the prompts that it left.
    """
    checkpoint = member.checkpoint
    parts = [digest_of(source) for source in (checkpoint.source, checkpoint.lora) if source is not None]
    found = {"checkpoint": joined(parts), "vae": digest_of(member.vae)}
    found["text_encoder"] = _encoder(member, prompts, dtype)
    return {**found, "preview": digest_of(member.preview)} if member.decoder == "taehv" else found


def needs(member: Member) -> list[Need]:
    """List its weights, then the files that members share."""
    checkpoint = member.checkpoint
    own = {f"{member.name} weights": checkpoint.source, f"{member.name} low-rank weights": checkpoint.lora}
    shared = {**readers(member), "VAE weights": member.vae, "preview decoder weights": member.preview}
    sources = {**own, **{f"Wan {what}": source for what, source in shared.items()}}
    return [Need(what, _found(source), command(source)) for what, source in sources.items() if source]


def _found(source: Source) -> str:
    try:
        return locate(source, what="files").name
    except (FileNotFoundError, UsageError):
        return ""


def missing(member: Member, *, prompts: Sequence[str], dtype: str) -> str:
    """Say which file is not here and the command that gets it; empty if all are.

    The text encoder is asked for only where a prompt was not encoded before.

    Raises:
        UsageError: where a library is missing.
    """
    try:
        for what, source in files(member).items():
            locate(source, what=f"{what} of {member.name}")
        if embeddings.missing(prompts, member, dtype=dtype):
            for what, source in readers(member).items():
                locate(source, what=f"{what} of {member.name}")
    except FileNotFoundError as error:
        return str(error)
    return ""


def files(member: Member) -> dict[str, Source]:
    """Return the files that every video needs, by what they hold."""
    named = {"weights": member.checkpoint.source}
    if member.checkpoint.lora is not None:
        named["low-rank weights"] = member.checkpoint.lora
    named["VAE weights"] = member.vae
    return {**named, "preview decoder weights": member.preview} if member.decoder == "taehv" else named


def readers(member: Member) -> dict[str, Source]:
    """Return the files that new prompts need, by what they hold."""
    return {"text encoder weights": member.text_encoder, "tokenizer files": member.tokenizer}


def _encoder(member: Member, prompts: Sequence[str], dtype: str) -> str:
    found = embeddings.encoder_sha256(member)
    if found != "absent":
        return found
    tokens = member.text_tokens
    try:
        left = [embeddings.entry(text, found, tokens=tokens, dtype=dtype) for text in prompts]
    except UsageError:
        return found
    names = {"absent" if path is None else path.stem for path in left}
    return names.pop() if len(names) == 1 else found


def _check_together(member: Member) -> None:
    steps = (*member.steps, *(member.first_steps or ()))
    if member.warp and any(step != int(step) for step in steps):
        raise UsageError(
            f"model.steps={shown(member.steps)} and model.first_steps={shown(member.first_steps)} are not "
            "allowed with model.warp=true: warped steps are whole numbers"
        )
    if member.passes == "rolling" and member.first_steps is not None:
        raise UsageError(
            "model.first_steps is not allowed with model.passes=rolling: chunks share their passes, "
            "allowed is null"
        )
    if member.passes == "rolling" and member.first_chunk_frames != member.chunk_frames:
        raise UsageError(
            f"model.first_chunk_frames={member.first_chunk_frames} is not allowed with model.passes=rolling: "
            f"allowed is {member.chunk_frames}, the size of a chunk"
        )


def _side(key: str, value: object) -> int:
    """Check a side of the picture: tokens are 16 pixels wide and high."""
    cell = SPATIAL_STRIDE * PATCH
    side = checks.whole(f"model.{key}", value, low=cell, high=4096)
    if side % cell:
        raise out_of_range(f"model.{key}", value, f"a multiple of {cell} from {cell} to 4096")
    return side


def _number(key: str, value: object, *, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise out_of_range(f"model.{key}", value, f"a number from {low:g} to {high:g}")
    return float(value)


def _steps(key: str, value: object) -> tuple[float, ...]:
    allowed = f"a list of time steps from {TOP_STEP:g} down to 0, each below the one before"
    if not isinstance(value, list | tuple) or not value:
        raise out_of_range(f"model.{key}", value, allowed)
    if any(isinstance(step, bool) or not isinstance(step, int | float) for step in value):
        raise out_of_range(f"model.{key}", value, allowed)
    steps = tuple(float(step) for step in value)
    falls = all(later < earlier for earlier, later in pairwise(steps))
    if not falls or not 0 <= steps[-1] <= steps[0] <= TOP_STEP:
        raise out_of_range(f"model.{key}", value, allowed)
    return steps


def _source(key: str, value: object, *, known: Sequence[str] = SOURCE) -> Source:
    """Check where a file is: a path of this machine, or a repository of the hub and a file in it."""
    where = f"model.{key}"
    if not isinstance(value, Mapping):
        raise out_of_range(where, value, f"fields {', '.join(known)}")
    checks.keys(where, value, known)
    path = value["path"]
    return Source(
        path=None if path is None else checks.text(f"{where}.path", path),
        repo=_word(f"{where}.repo", value["repo"]),
        file=_word(f"{where}.file", value["file"]),
        licence=checks.text(f"{where}.licence", value["licence"]),
    )


def _word(field: str, value: object) -> str:
    """Check a name that may be empty: no repository, or the whole of it."""
    return "" if value == "" else checks.text(field, value)


def _checkpoint(value: object) -> Checkpoint:
    source = _source("weights", value, known=CHECKPOINT)
    assert isinstance(value, Mapping), value
    key, lora = value["key"], value["lora"]
    return Checkpoint(
        source=source,
        key=None if key is None else checks.text("model.weights.key", key),
        ema=checks.flag("model.weights.ema", value["ema"]),
        lora=None if lora is None else _source("weights.lora", lora),
    )


def _native(value: object) -> Native:
    if not isinstance(value, Mapping):
        raise out_of_range("model.native", value, f"fields {', '.join(NATIVE)}")
    checks.keys("model.native", value, NATIVE)
    for key in ("fields", "protocol"):
        if not isinstance(value[key], Mapping):
            raise out_of_range(f"model.native.{key}", value[key], "fields and their values, or {}")
    return Native(
        rule=checks.text("model.native.rule", value["rule"]),
        policy=checks.text("model.native.policy", value["policy"]),
        fields=dict(value["fields"]), budget=str(value["budget"]), protocol=dict(value["protocol"]),
    )  # fmt: skip


def _chunk_seconds(member: Member) -> float:
    """Estimate seconds of one CPU core per chunk at a small budget: weights times tokens times passes."""
    dim = member.heads * member.head_dim
    weights = member.layers * 20 * dim**2
    tokens = member.chunk_frames * member.rows * member.columns
    attention = member.layers * 4 * tokens * 3 * tokens * dim
    return (2 * weights * tokens + attention) * (len(member.steps) + 1) / CORE_FLOPS
