"""Train a checkpoint of the embedded model on its procedural worlds and write its weights.

One GPU:      python scripts/train_mini.py --seconds 3600 --out weights
Controls:     add --model mini_b (another seed) or --model mini_short (short clips, no features)
Several:      torchrun --standalone --nproc-per-node 4 scripts/train_mini.py --seconds 1100 --out weights
In pieces:    add --until 550 --state DIR; the same command with --until 1100 goes on from DIR.
On a CPU:     python scripts/train_mini.py --tiny --seconds 60 --out /tmp/weights   (checks the code)

`--seconds` is the whole schedule (learning rates follow the clock), without compilation. The weights are the
exponential average, in float16, as two safetensors shards. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ff_bench.models.mini import doubled
from ff_bench.models.mini import training as data
from ff_bench.models.mini.doubled import Inputs, spread, token_angles
from ff_bench.models.mini.network import MiniNetwork, Size, patchify
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.models.mini.prompt_indices import PromptIndices
from ff_bench.models.mini.recipe import RECIPES

TINY = Size(dim=96, depth=2, heads=2, head_dim=64, mlp=192, cross=32)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=1100.0, help="length of the whole schedule")
    add("--until", type=float, default=float("inf"), help="stop here and save the state")
    add("--model", choices=RECIPES, default="mini", help="the recipe, see ff_bench.models.mini.recipe")
    add("--batch", type=int, default=None, help="sequences per GPU, else the recipe's")
    add("--rate", type=float, default=2e-3, help="AdamW's rate for embeddings, norms and heads")
    add("--muon-rate", type=float, default=2e-2, help="Muon's rate for the matrices of the blocks")
    add("--own-context-from", type=float, default=0.55,
        help="share of the schedule after which the model sees its own frames")  # fmt: skip
    add("--seed", type=int, default=None, help="else the recipe's")
    add("--state", type=Path, default=None, help="folder for the state between pieces")
    add("--out", type=Path, default=Path("weights"))
    add("--tiny", action="store_true", help="a network of 0.5 M parameters")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("batch", "seed") if getattr(options, name) is not None}
    options.recipe = replace(RECIPES[options.model], **given)
    return options


class Trainer:
    """The loop and everything that it carries from step to step."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Make the network, its optimisers and its average, or take them from the last piece."""
        self.options, self.recipe = options, options.recipe
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device(f"cuda:{self.rank}" if torch.cuda.is_available() else "cpu")
        self.tokens = self.recipe.chunks * data.CHUNK_TOKENS
        torch.manual_seed(self.recipe.seed)
        size = TINY if options.tiny else Size()
        self.network = MiniNetwork(size, has_features=self.recipe.has_features).to(self.device)
        matrices = [
            p
            for name, p in self.network.named_parameters()
            if name.startswith("blocks.") and p.ndim == 2 and "table" not in name
        ]
        chosen = {id(p) for p in matrices}
        self.rest = [p for p in self.network.parameters() if id(p) not in chosen]
        self.muon = torch.optim.Muon(matrices, lr=options.muon_rate, momentum=0.95, weight_decay=0.01)
        self.adam = torch.optim.AdamW(self.rest, lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.average = [p.detach().clone() for p in self.network.parameters()]
        self.step, self.elapsed = 0, 0.0
        self.resume()
        seed = self.recipe.seed * 7919 + 104729 * self.rank + self.step
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.prompt_generator = torch.Generator().manual_seed(seed)
        is_cuda = self.device.type == "cuda"
        self.attention = (
            doubled.flex_attention_of(self.tokens, self.device)
            if is_cuda
            else doubled.dense_attention_of(self.tokens)
        )
        self.forward = torch.compile(self.plain_forward, dynamic=False) if is_cuda else self.plain_forward

    def plain_forward(self, features: Tensor | None, *inputs: Tensor) -> Tensor:
        """Predict x0 of the noisy half, see `doubled.predict`."""
        return doubled.predict(self.network, self.attention, features, *inputs)

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict x0 of the noisy half under bfloat16 autocast on a GPU, float32 out."""
        told = (inputs.clean, inputs.noisy, inputs.level)
        seen = (inputs.angles, inputs.keep, inputs.recent)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prompt = self.network.prompt_tokens(inputs.indices)
            return self.forward(inputs.features, *told, *seen, prompt).float()

    def draw(self) -> tuple[data.Batch, PromptIndices]:
        """Draw the next batch and what the network is told of it."""
        prompts = data.draw_prompts(self.recipe.batch, self.prompt_generator)
        if self.recipe.is_spread:
            return self.render(prompts, data.draw_chunks(len(prompts), self.recipe.chunks, self.generator))
        return self.render(prompts, self.contiguous())

    def contiguous(self) -> Tensor:
        """Chunk numbers (B, C) of one run from 0."""
        return torch.arange(self.recipe.chunks, device=self.device).expand(self.recipe.batch, -1)

    def render(self, prompts: list[MiniPrompt], numbers: Tensor) -> tuple[data.Batch, PromptIndices]:
        """Render chunks `numbers` (B, C) of prompts; clips begin anywhere in their world."""
        starts = None if self.recipe.is_spread else data.draw_starts(len(prompts), self.prompt_generator)
        batch = data.draw_batch(prompts, numbers, self.generator, starts)
        return batch, self.network.read(prompts, self.device, starts)

    def loss(self, progress: float) -> Tensor:
        """One batch forward, with the model's own predictions as context late in training."""
        with torch.no_grad():
            (batch, indices), generator = self.draw(), self.generator
            size, chunks = self.recipe.batch, self.recipe.chunks
            target, clean = patchify(batch.video), patchify(data.corrupt(batch.video, generator))
            angles = token_angles(batch.latent_frames)
            keep, recent = data.draw_visibility(size, chunks, generator)
            keep = keep if self.recipe.drops_context else torch.ones_like(keep)
            level = data.draw_noise_levels(size, chunks, generator)
            noise = torch.randn(target.shape, generator=generator, device=self.device)
            noisy = torch.lerp(target, noise, spread(level)[..., None])
        features = batch.features if self.recipe.has_features else None
        inputs = Inputs(clean, noisy, features, level, indices, angles, keep, recent)
        if progress > self.options.own_context_from and self.step % 2 == 0:
            inputs = replace(inputs, clean=self.own_context(inputs, target, noise))
        return data.objective(self.predict(inputs), target, spread(level))

    def own_context(self, inputs: Inputs, target: Tensor, noise: Tensor) -> Tensor:
        """Replace 60 % of the context chunks by the model's one-step predictions."""
        shape = (self.recipe.batch, self.recipe.chunks)
        level = 0.25 + 0.5 * torch.rand(shape, generator=self.generator, device=self.device)
        noisy = torch.lerp(target, noise, spread(level)[..., None])
        own = self.predict(replace(inputs, noisy=noisy, level=level)).detach()
        chosen = torch.rand(shape, generator=self.generator, device=self.device) < 0.6
        return torch.where(spread(chosen)[..., None], own, inputs.clean)

    def train(self) -> None:
        """Run until the schedule or this piece of it ends."""
        end = min(self.options.seconds, self.options.until)
        losses: list[Tensor] = []
        started, began, base = None, time.time(), self.elapsed
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
                count = sum(p.numel() for p in self.network.parameters())
                self.say({"first_step_seconds": round(started - began, 1), "parameters": count})
            if self.step % 100 == 0:
                mean = round(torch.stack(losses).mean().item(), 5)
                pace = round((time.time() - started) / len(losses), 4)
                self.say({"step": self.step, "elapsed": round(self.elapsed, 1), "loss": mean, "s/step": pace})
                losses, started, base = [], time.time(), self.elapsed

    def share_gradients(self, elapsed: float) -> float:
        """Average gradients and the clock over all processes, so that all stop at the same step."""
        if self.world == 1:
            return elapsed
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
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
        decline = 1.0 if progress < 0.35 else max(0.02, (1 - progress) / 0.65)
        factor = min(1.0, (self.step + 1) / 60) * decline
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
        """Measure the squared error of x0 from noise level 0.9, by kind of token and by what is known.

        `others` tells every video the prompt of another one: what its error adds is what the prompt gives.
        """
        self.generator = torch.Generator(self.device).manual_seed(5)
        self.prompt_generator = torch.Generator().manual_seed(5)
        prompts = data.draw_prompts(self.recipe.batch, self.prompt_generator)
        batch, indices = self.render(prompts, self.contiguous())
        target = patchify(batch.video)
        level = torch.full((len(target), self.recipe.chunks), 0.9, device=self.device)
        noise = torch.randn(target.shape, generator=self.generator, device=self.device)
        noisy, angles = torch.lerp(target, noise, 0.9), token_angles(batch.latent_frames)
        kinds = data.classes(batch)
        features = batch.features if self.recipe.has_features else None
        out: dict[str, float] = {}
        others = indices.rolled()
        told = {"all": (indices, True, 99), "one chunk": (indices, False, 1), "others": (others, True, 99)}
        for name, (prompt, keep, recent) in told.items():
            mask = torch.full((len(target), self.tokens), keep, device=self.device)
            window = torch.full((len(target),), recent, device=self.device)
            inputs = Inputs(target, noisy, features, level, prompt, angles, mask, window)
            with torch.enable_grad():  # the compiled graph of training
                error = (self.predict(inputs).detach() - target).square().mean(-1)
            for kind, chosen in kinds.items():
                if chosen.any():
                    out[f"{name}: {kind}"] = round(error[chosen].mean().item(), 5)
        return out

    def finish(self) -> None:
        """Save the state for the next piece, validate the average, write the weights."""
        if self.options.state is not None and self.rank == 0:
            self.options.state.mkdir(parents=True, exist_ok=True)
            parts = {
                "network": self.network.state_dict(),
                "average": self.average,
                "muon": self.muon.state_dict(),
                "adam": self.adam.state_dict(),
            }
            torch.save(parts | {"step": self.step, "elapsed": self.elapsed}, self.options.state / "state.pt")
        with torch.no_grad():
            for parameter, average in zip(self.network.parameters(), self.average, strict=True):
                parameter.copy_(average)
        errors = self.validate()
        if self.rank == 0:
            data.write_shards(self.network, self.options.out, self.recipe.name)
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

    def say(self, record: dict[str, Any]) -> None:
        """Print one JSON line from the first process."""
        if self.rank == 0:
            print(json.dumps(record), flush=True)


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
