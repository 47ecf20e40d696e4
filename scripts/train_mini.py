"""Train the embedded model on its procedural worlds and write its weights.

One GPU:      python scripts/train_mini.py --seconds 3600 --out weights
Several:      torchrun --standalone --nproc-per-node 4 scripts/train_mini.py --seconds 1100 --out weights
In pieces:    add --until 550 --state DIR; the same command with --until 1100 goes on from DIR.
On a CPU:     python scripts/train_mini.py --tiny --seconds 60 --out /tmp/weights   (a check of the code, not a model)

`--seconds` is the whole schedule (learning rates follow the clock), without compilation. The weights are the exponential
average, in float16, as two safetensors shards. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from ff_bench.models.mini import training as data
from ff_bench.models.mini.backbone import ROPE
from ff_bench.models.mini.network import MiniNetwork, PromptIndices, Size, patchify

TINY = Size(dim=96, depth=2, heads=2, head_dim=64, mlp=192, cross=32)
FORWARD_TILE = {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_warps": 4, "fwd_num_stages": 2}
"""FlexAttention's default forward tile is 25 times slower on sm_90 at head dim 64 with a score_mod."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1100.0, help="length of the whole schedule")
    parser.add_argument("--until", type=float, default=float("inf"), help="stop here and save the state")
    parser.add_argument("--batch", type=int, default=16, help="sequences per GPU")
    parser.add_argument("--chunks", type=int, default=20, help="chunks per sequence")
    parser.add_argument("--rate", type=float, default=2e-3, help="AdamW's rate for embeddings, norms and heads")
    parser.add_argument("--muon-rate", type=float, default=2e-2, help="Muon's rate for the matrices of the blocks")
    parser.add_argument("--own-context-from", type=float, default=0.55, help="share of the schedule after which the model sees its own frames")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path, default=None, help="folder for the state between pieces")
    parser.add_argument("--out", type=Path, default=Path("weights"))
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


class Trainer:
    """The loop and everything that it carries from step to step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device(f"cuda:{self.rank}" if torch.cuda.is_available() else "cpu")
        self.tokens = options.chunks * data.CHUNK_TOKENS
        torch.manual_seed(options.seed)
        self.network = MiniNetwork(TINY if options.tiny else Size()).to(self.device)
        matrices = [p for name, p in self.network.named_parameters() if name.startswith("blocks.") and p.ndim == 2 and "table" not in name]
        chosen = {id(p) for p in matrices}
        self.rest = [p for p in self.network.parameters() if id(p) not in chosen]
        self.muon = torch.optim.Muon(matrices, lr=options.muon_rate, momentum=0.95, weight_decay=0.01)
        self.adam = torch.optim.AdamW(self.rest, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.average = [p.detach().clone() for p in self.network.parameters()]
        self.step, self.elapsed = 0, 0.0
        self.resume()
        seed = options.seed * 7919 + 104729 * self.rank + self.step
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.prompt_generator = torch.Generator().manual_seed(seed)
        self.attention = flex_attention_of(self.tokens, self.device) if self.device.type == "cuda" else dense_attention_of(self.tokens)
        self.forward = torch.compile(self.plain_forward, dynamic=False) if self.device.type == "cuda" else self.plain_forward

    def plain_forward(
        self, clean: Tensor, noisy: Tensor, features: Tensor, level: Tensor, prompt: Tensor, angles: Tensor, keep: Tensor, recent: Tensor
    ) -> Tensor:
        """Predict x0 of the noisy half of the doubled sequence."""
        attend = self.attention(angles, keep, recent)
        doubled = torch.cat([clean, noisy], 1)
        levels = torch.cat([torch.zeros_like(level), level], 1)
        return self.network(doubled, torch.cat([features, features], 1), levels, prompt, attend)[:, self.tokens :]

    def predict(self, clean: Tensor, noisy: Tensor, features: Tensor, level: Tensor, indices: PromptIndices, *seen: Tensor) -> Tensor:
        """`forward` under bfloat16 autocast on a GPU, float32 out."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prompt = self.network.prompt_tokens(indices)
            return self.forward(clean, noisy, features, level, prompt, *seen).float()

    def draw(self) -> data.Batch:
        """Draw the next batch."""
        prompts = data.draw_prompts(self.options.batch, self.prompt_generator)
        return data.draw_batch(prompts, data.draw_chunks(len(prompts), self.options.chunks, self.generator), self.generator)

    def loss(self, progress: float) -> Tensor:
        """One batch forward, with the model's own predictions as context late in training."""
        with torch.no_grad():
            batch, generator = self.draw(), self.generator
            size, chunks = self.options.batch, self.options.chunks
            target, clean = patchify(batch.video), patchify(data.corrupt(batch.video, generator))
            angles = token_angles(batch.latent_frames)
            keep, recent = data.draw_visibility(size, chunks, generator)
            level = data.draw_noise_levels(size, chunks, generator)
            noise = torch.randn(target.shape, generator=generator, device=self.device)
            noisy = torch.lerp(target, noise, spread(level)[..., None])
        rest = (batch.features, level, batch.indices, angles, keep, recent)
        if progress > self.options.own_context_from and self.step % 2 == 0:
            clean = self.own_context(clean, target, noise, rest)
        return data.objective(self.predict(clean, noisy, *rest), target, spread(level))

    def own_context(self, clean: Tensor, target: Tensor, noise: Tensor, rest: tuple) -> Tensor:
        """Replace 60 % of the context chunks by the model's one-step predictions."""
        shape = (self.options.batch, self.options.chunks)
        level = 0.25 + 0.5 * torch.rand(shape, generator=self.generator, device=self.device)
        noisy = torch.lerp(target, noise, spread(level)[..., None])
        own = self.predict(clean, noisy, rest[0], level, *rest[2:]).detach()
        chosen = torch.rand(shape, generator=self.generator, device=self.device) < 0.6
        return torch.where(spread(chosen)[..., None], own, clean)

    def train(self) -> None:
        """Run until the schedule or this piece of it ends."""
        end = min(self.options.seconds, self.options.until)
        started, losses, compiled_at = None, [], time.time()
        base = self.elapsed
        while self.elapsed < end:
            loss = self.loss(self.elapsed / self.options.seconds)
            loss.backward()
            losses.append(loss.detach())
            now = base + (0.0 if started is None else time.time() - started)
            self.elapsed = self.share_gradients(now)
            self.update()
            if started is None:
                self.synchronise()
                started = time.time()
                self.say({"first_step_seconds": round(started - compiled_at, 1), "parameters": sum(p.numel() for p in self.network.parameters())})
            if self.step % 100 == 0:
                seconds = (time.time() - started) / max(1, len(losses))
                self.say({"step": self.step, "elapsed": round(self.elapsed, 1), "loss": round(torch.stack(losses).mean().item(), 5), "s/100": round(seconds, 4)})
                losses, started, base = [], time.time(), self.elapsed

    def share_gradients(self, elapsed: float) -> float:
        """Average gradients and the clock over all processes, so that all stop at the same step."""
        if self.world == 1:
            return elapsed
        gradients = [p.grad for p in self.network.parameters()]
        flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([elapsed], device=self.device)])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()
        return flat[-1].item()

    def update(self) -> None:
        """One step of both optimisers and of the average."""
        progress = self.elapsed / self.options.seconds
        factor = min(1.0, (self.step + 1) / 60) * (1.0 if progress < 0.35 else max(0.02, (1 - progress) / 0.65))
        for optimiser, rate in ((self.muon, self.options.muon_rate), (self.adam, self.options.rate)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        self.muon.step()
        self.adam.step()
        self.network.zero_grad(set_to_none=True)
        self.step += 1
        with torch.no_grad():
            decay = min(0.998, self.step / (self.step + 11))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.network.parameters()], 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Squared error of x0 from noise level 0.9 by kind of token, with the whole past and with one chunk of it."""
        generator = torch.Generator(self.device).manual_seed(5)
        prompts = data.draw_prompts(self.options.batch, torch.Generator().manual_seed(5))
        numbers = torch.arange(self.options.chunks, device=self.device).expand(len(prompts), -1)
        batch = data.draw_batch(prompts, numbers, generator)
        target, level = patchify(batch.video), torch.full(numbers.shape, 0.9, device=self.device)
        noise = torch.randn(target.shape, generator=generator, device=self.device)
        kinds, out = data.classes(batch), {}
        with torch.enable_grad():  # the compiled graph of training
            for name, keep, recent in (("all", True, 99), ("one chunk", False, 1)):
                mask = torch.full((len(prompts), self.tokens), keep, device=self.device)
                window = torch.full((len(prompts),), recent, device=self.device)
                inputs = (target, torch.lerp(target, noise, 0.9), batch.features, level, batch.indices, token_angles(batch.latent_frames), mask, window)
                error = (self.predict(*inputs).detach() - target).square().mean(-1)
                out |= {f"{name}: {kind}": round(error[chosen].mean().item(), 5) for kind, chosen in kinds.items() if chosen.any()}
        return out

    def finish(self) -> None:
        """Save the state for the next piece, validate the average, write the weights."""
        if self.options.state is not None and self.rank == 0:
            self.options.state.mkdir(parents=True, exist_ok=True)
            parts = {"network": self.network.state_dict(), "average": self.average, "muon": self.muon.state_dict(), "adam": self.adam.state_dict()}
            torch.save(parts | {"step": self.step, "elapsed": self.elapsed}, self.options.state / "state.pt")
        with torch.no_grad():
            for parameter, average in zip(self.network.parameters(), self.average, strict=True):
                parameter.copy_(average)
        errors = self.validate()
        if self.rank == 0:
            write_shards(self.network, self.options.out)
        self.say({"step": self.step, "elapsed": round(self.elapsed, 1), "validation": errors})

    def resume(self) -> None:
        """Go on from the state of the last piece, if there is one."""
        path = None if self.options.state is None else self.options.state / "state.pt"
        if path is None or not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.average = [average.to(self.device) for average in state["average"]]
        self.step, self.elapsed = state["step"], state["elapsed"]

    def synchronise(self) -> None:
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def say(self, record: dict) -> None:
        """Print one JSON line from the first process."""
        if self.rank == 0:
            print(json.dumps(record), flush=True)


def spread(per_chunk: Tensor) -> Tensor:
    """(B, C) -> (B, N)."""
    return per_chunk.repeat_interleave(data.CHUNK_TOKENS, 1)


def token_angles(latent_frames: Tensor) -> Tensor:
    """RoPE angles (B, N, head_dim / 2) of the tokens of `latent_frames` (B, F)."""
    time_index = latent_frames[..., None, None].expand(-1, -1, 8, 8).flatten(1)
    row = torch.arange(8, device=latent_frames.device)[:, None].expand(latent_frames.shape[1], 8, 8).flatten()
    column = torch.arange(8, device=latent_frames.device).expand(latent_frames.shape[1], 8, 8).flatten()
    return ROPE.angles(time_index, row.expand_as(time_index), column.expand_as(time_index))


def rotation_of(angles: Tensor):
    """A differentiable rotation of (B, H, 2N, D) by angles (B, N, D/2), for the clean and the noisy half alike."""
    doubled = torch.cat([angles, angles], 1)[:, None]
    cos, sin = doubled.cos(), doubled.sin()

    def turn(x: Tensor) -> Tensor:
        first, second = ROPE.pairs(x.float())  # layout half
        return torch.cat([first * cos - second * sin, first * sin + second * cos], -1).to(x.dtype)

    return turn


def flex_attention_of(tokens: int, device: torch.device):
    """FlexAttention over the doubled sequence; visibility enters as a score_mod, the structure as a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, q, k: data.visible(q, k, tokens), None, None, 2 * tokens, 2 * tokens, device=device)

    def make(angles: Tensor, keep: Tensor, recent: Tensor):
        turn = rotation_of(angles)

        def hide(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            distance = q % tokens // data.CHUNK_TOKENS - k % tokens // data.CHUNK_TOKENS
            return torch.where((k >= tokens) | (distance <= recent[b]) | keep[b, k % tokens], score, -float("inf"))

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return flex_attention(turn(queries), turn(keys), values, score_mod=hide, block_mask=mask, kernel_options=FORWARD_TILE)

        return attend

    return make


def dense_attention_of(tokens: int):
    """The same with a dense mask, for a CPU and short sequences."""
    index = torch.arange(2 * tokens)
    structure = data.visible(index[:, None], index[None], tokens)
    distance = index[:, None] % tokens // data.CHUNK_TOKENS - index[None] % tokens // data.CHUNK_TOKENS

    def make(angles: Tensor, keep: Tensor, recent: Tensor):
        turn = rotation_of(angles)
        seen = (index >= tokens) | (distance <= recent[:, None, None]) | torch.cat([keep, keep], 1)[:, None]
        mask = (structure & seen)[:, None]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(turn(queries), turn(keys), values, attn_mask=mask)

        return attend

    return make


def write_shards(network: nn.Module, folder: Path, parts: int = 2) -> None:
    """Write float16 weights as `parts` safetensors of about the same size."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().half().contiguous().cpu() for name, value in network.state_dict().items()}
    total, done = sum(value.numel() for value in weights.values()), 0
    shards: list[dict[str, Tensor]] = [{} for _ in range(parts)]
    for name, value in weights.items():
        shards[min(parts - 1, done * parts // total)][name] = value
        done += value.numel()
    for index, shard in enumerate(shards, 1):
        save_file(shard, folder / f"mini-{index:05d}-of-{parts:05d}.safetensors")


def main() -> None:
    """Train, validate, write."""
    options = arguments()
    if "RANK" in os.environ:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(options)
    trainer.train()
    trainer.finish()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
