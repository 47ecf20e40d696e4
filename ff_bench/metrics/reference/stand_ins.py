"""What today's libraries no longer have and what VBench would fetch, supplied before VBench is imported.

Imported by `runner.py` inside the environment of `make scorer-env`; knows nothing of ff_bench.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

DINOV2_GRID, DINOV2_TOKENS = 37, 16  # patches per side: of the checkpoint (518 px), of an image of 224 px


def libraries(threads: int, is_lossless: bool) -> list[Any]:
    """Make torchvision importable, give it back `write_video`, and name what VBench imports but never uses.

    Args:
        threads: Encoder threads for clips; 0 lets the encoder choose, as torchvision did.
        is_lossless: Whether clips keep their pixels instead of going through H.264 at CRF 23.

    Returns:
        Objects that must live as long as the process.
    """
    import torch

    held = []
    try:
        import_module("torchvision")
    except RuntimeError:  # a wheel for CUDA beside a torch for CPUs: its compiled operators are not there
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        held.append(library)
    _set(import_module("torchvision.io"), "write_video", _writer(threads, is_lossless))
    editor = types.ModuleType("moviepy.editor")
    _set(editor, "VideoFileClip", None)
    sys.modules.setdefault("moviepy", types.ModuleType("moviepy"))
    sys.modules.setdefault("moviepy.editor", editor)
    return held


class Inert:
    """Takes the place of what a file holds beside tensors, so that no code of the file runs."""

    def __init__(self, *values: object) -> None:
        """Forget the values."""

    def __setstate__(self, values: object) -> None:
        """Forget the values."""


def bare(source: Path, target: Path, key: str) -> bool:
    """Write a file's weights alone, where it holds objects that `torch.load` refuses by default.

    Args:
        source: What was published.
        target: Where VBench reads.
        key: Of the weights.

    Returns:
        Whether there were such objects; else nothing is written.
    """
    import torch

    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(source)
    if foreign:
        with torch.serialization.safe_globals([(Inert, name) for name in foreign]):
            state = torch.load(source, map_location="cpu", weights_only=True)[key]
        torch.save({key: state}, target)
    return bool(foreign)


def _set(holder: object, name: str, value: object) -> None:
    setattr(holder, name, value)


def _writer(threads: int, is_lossless: bool) -> Callable[[str, Any, float], None]:
    """Make the former `torchvision.io.write_video` as VBench-Long calls it: libx264 at its defaults."""
    import torch

    av = import_module("av")
    codec, pixels = ("libx264rgb", "rgb24") if is_lossless else ("libx264", "yuv420p")

    def write_video(filename: str, video_array: torch.Tensor, fps: float) -> None:
        frames = video_array.to(torch.uint8).numpy()
        with av.open(filename, mode="w") as container:
            stream = container.add_stream(codec, rate=round(fps), options={"qp": "0"} if is_lossless else {})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = threads
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    return write_video


def networks(checkpoints: Path, device: str, checkouts: dict[str, str]) -> list[str]:
    """Answer torch.hub from files that are here, and tell DreamSim the device: VBench-Long leaves it at CUDA.

    Args:
        checkpoints: Folder of the files that torch.hub would load.
        device: As torch names it.
        checkouts: Network to a local checkout of its repository, where there is one.

    Returns:
        A list that receives a sentence for each network that other code stands in for.
    """
    import torch

    substituted: list[str] = []
    load_from = torch.hub.load
    builders = {"dino_vitb16": _dino, "dinov2_vitb14": _dinov2}

    def load(repo_or_dir: str, model: str, source: str = "", path: str = "", read_frame: bool = False) -> Any:
        del repo_or_dir, source, path, read_frame
        if checkouts.get(model):
            return load_from(checkouts[model], model, source="local")  # type: ignore[no-untyped-call]
        network, sentence = builders[model](checkpoints)
        substituted.extend({sentence} - set(substituted))
        return network

    package = import_module("dreamsim")
    whole = package.__dict__["dreamsim"]

    def dreamsim(pretrained: bool, cache_dir: str) -> Any:
        return whole(pretrained=pretrained, device=device, cache_dir=cache_dir)

    _set(torch.hub, "load", load)
    _set(package, "dreamsim", dreamsim)
    return substituted


def _dino(checkpoints: Path) -> tuple[Any, str]:
    """Build DINO ViT-B/16 from the copy of its code that DreamSim carries."""
    import torch

    code = import_module("dreamsim.feature_extraction.vision_transformer")
    network = code.vit_base(patch_size=16, num_classes=0)
    file = checkpoints / "dino_vitbase16_pretrain.pth"
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval(), "dino_vitb16: the copy of facebookresearch/dino@4b96393 that DreamSim carries"


def _dinov2(checkpoints: Path) -> tuple[Any, str]:
    """Build DINOv2 ViT-B/14 from timm's blocks, whose names are the checkpoint's, for images of 224 px.

    The table of positions is resampled as DINOv2 does it (bicubic by the factor (16 + 0.1) / 37), not as timm
    would.
    """
    import torch

    state = torch.load(checkpoints / "dinov2_vitb14_pretrain.pth", map_location="cpu", weights_only=True)
    del state["mask_token"]
    table = state["pos_embed"].float()  # (1, 1 + 37 * 37, 768)
    grid = table[:, 1:].reshape(1, DINOV2_GRID, DINOV2_GRID, -1).permute(0, 3, 1, 2)
    scale = (DINOV2_TOKENS + 0.1) / DINOV2_GRID
    grid = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    state["pos_embed"] = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    network = import_module("timm").create_model("vit_base_patch14_dinov2", img_size=224, num_classes=0)
    network.load_state_dict(state)
    return network.eval(), "dinov2_vitb14: timm's vit_base_patch14_dinov2, positions resampled as by DINOv2"


def watch_flow() -> list[list[float]]:
    """Keep the flow of each pair that dynamic_degree thresholds: a list per clip, in the order of results."""
    kind = import_module("vbench.dynamic_degree").DynamicDegree
    decide = kind.check_move
    flows: list[list[float]] = []

    def check_move(self: object, score_list: list[float]) -> bool:
        flows.append([float(score) for score in score_list])
        return bool(decide(self, score_list))

    kind.check_move = check_move
    return flows
