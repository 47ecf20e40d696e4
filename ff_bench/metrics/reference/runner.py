"""Run one dimension of VBench-Long's own code; a script for the environment of `make scorer-env`.

    python runner.py REQUEST.json     # writes the file that the request names under `result`
    python runner.py --check          # imports what is needed, prints versions as one JSON line

It knows nothing of ff_bench. What VBench computes is left alone; around it stand the weights where VBench
looks for them and the stand-ins of `stand_ins.py`.

Source: PyPI vbench 0.1.5 (`VBenchLong.evaluate`, mode `long_custom_input`, the settings of `--dev_flag`).
Deviates: clips are written with one encoder thread, as their number changes what x264 writes.
Deviates: overall_consistency gets the video's prompt instead of the name of its folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHECKPOINTS = "torch/hub/checkpoints"
FOLDERS = ("home/.cache", CHECKPOINTS, "cache/ViCLIP", "cache/dino_model/facebookresearch_dino_main")
"""Folders below the tree that must be there; VBench would clone DINO's repository into the last one."""
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "subject_consistency": {
        "dino_vitbase16_pretrain.pth": ("cache/dino_model", CHECKPOINTS),
        "dinov2_vitb14_pretrain.pth": (CHECKPOINTS,),
    },
    "background_consistency": {
        "ViT-B-32.pt": ("cache/clip_model",),
        "dino_vitbase16_pretrain.pth": (CHECKPOINTS,),  # DreamSim asks torch.hub for DINO's trunk
        "dreamsim_ensemble_checkpoint.zip": ("home/.cache",),
    },
    "temporal_flickering": {},
    "motion_smoothness": {"amt-s.pth": ("cache/amt_model",)},
    "dynamic_degree": {"raft-things.pth": ("cache/raft_model/models",)},
    "aesthetic_quality": {
        "ViT-L-14.pt": ("cache/clip_model",),
        "sa_0_4_vit_l_14_linear.pth": ("cache/aesthetic_model/emb_reader",),
    },
    "imaging_quality": {"musiq_spaq_ckpt-358bb6af.pth": ("cache/pyiqa_model",)},
    "overall_consistency": {"ViClip-InternVid-10M-FLT.pth": ("cache/ViCLIP",)},
}
"""Per dimension: files of the folder of weights, and where below the tree each is looked for."""
WRAPPED = {"amt-s.pth": "state_dict", "ViClip-InternVid-10M-FLT.pth": "model"}
"""Files that hold notes on training beside the weights, and under which key VBench reads the weights."""

VERSIONS = (
    "vbench", "torch", "torchvision", "timm", "transformers", "pyiqa", "dreamsim", "openai-clip", "decord",
    "av", "opencv-python-headless", "numpy",
)  # fmt: skip


def surround(tree: Path) -> None:
    """Point VBench and the libraries to folders below the tree; ViCLIP would fetch its vocabulary."""
    for name in FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    os.environ.update(
        VBENCH_CACHE_DIR=str(tree / "cache"), TORCH_HOME=str(tree / "torch"), HOME=str(tree / "home"),
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
    )  # fmt: skip
    found = find_spec("clip")
    vocabulary = Path((found.origin if found else None) or "").parent / "bpe_simple_vocab_16e6.txt.gz"
    shutil.copyfile(vocabulary, tree / "cache" / "ViCLIP" / vocabulary.name)


def arrange(tree: Path, dimension: str, weights: Path) -> None:
    """Link the dimension's weights to where they are looked for; archives are unpacked there.

    Where a file holds more than torch reads without running foreign code, its weights alone are put there.

    Raises:
        FileNotFoundError: where a weight file is not in the folder.
    """
    for file, folders in PLACES[dimension].items():
        if not (weights / file).is_file():
            raise FileNotFoundError(f"weights '{file}' are not in {weights}")
        for folder in folders:
            (tree / folder).mkdir(parents=True, exist_ok=True)
            if file.endswith(".zip"):
                with zipfile.ZipFile(weights / file) as archive:
                    archive.extractall(tree / folder)
            elif file not in WRAPPED or not _bare(weights / file, tree / folder / file, WRAPPED[file]):
                (tree / folder / file).symlink_to((weights / file).resolve())


def _bare(source: Path, target: Path, key: str) -> bool:
    return bool(import_module("stand_ins").bare(source, target, key))


def settings(tree: Path, mapping: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Write the tables that the wheel lacks, and return what the command line gives under `--dev_flag`.

    Args:
        tree: Where to write.
        mapping: Branch (`subject`, `background`) to points (clip-to-clip score, mapped score).
    """
    dump = import_module("yaml").safe_dump
    weights = {f"w_{part}_{branch}": 0.5 for part in ("inclip", "clip2clip") for branch in ("sb", "bg")}
    tables: dict[str, dict[Any, float]] = {branch: dict(points) for branch, points in mapping.items()}
    for name, content in {**tables, "slow_fast": weights, "length": {}}.items():
        (tree / f"{name}.yaml").write_text(dump(content), encoding="utf-8")
    return {
        "dev_flag": True, "sb_clip2clip_feat_extractor": "dinov2", "bg_clip2clip_feat_extractor": "dreamsim",
        "w_inclip": 1.0, "w_clip2clip": 0.0, "slow_fast_eval_config": str(tree / "slow_fast.yaml"),
        "sb_mapping_file_path": str(tree / "subject.yaml"),
        "bg_mapping_file_path": str(tree / "background.yaml"),
        "imaging_quality_preprocessing_mode": "longer", "clip_length_config": str(tree / "length.yaml"),
        "use_semantic_splitting": False, "static_filter_flag": False, "num_of_samples_per_prompt": 5,
    }  # fmt: skip


def evaluate(request: dict[str, Any], tree: Path) -> Any:
    """Let VBench-Long score the dimension and return its results: the aggregate, then one entry per clip."""
    import torch

    dimension, prompts = request["dimension"], request["prompts"]
    base = import_module("vbench2_beta_long").VBenchLong

    class Prompted(base):  # type: ignore[misc, valid-type]
        """VBench-Long with each video's prompt in place of its folder's name."""

        def build_full_info_json(self, *arguments: Any, **named: Any) -> str:
            path = Path(super().build_full_info_json(*arguments, **named))
            told = json.loads(path.read_text(encoding="utf-8"))
            for entry in told:
                entry["prompt_en"] = prompts[entry["prompt_en"]]
            path.write_text(json.dumps(told), encoding="utf-8")
            return str(path)

    (tree / "none.json").write_text("[]", encoding="utf-8")
    output = tree / "output"
    scorer = Prompted(torch.device(request["device"]), str(tree / "none.json"), str(output))
    scorer.evaluate(
        videos_path=request["videos"], name="reference", prompt_list=[], dimension_list=[dimension],
        local=True, read_frame=False, mode="long_custom_input", **settings(tree, request["mapping"]),
    )  # fmt: skip
    return json.loads((output / "reference_eval_results.json").read_text(encoding="utf-8"))[dimension]


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Score one dimension.

    Args:
        request: `dimension`, `device`, `videos` (a folder), `prompts` (video to text), `weights` (a folder),
            `tree` (an empty folder), `mapping`, `threads`, `is_lossless`, `checkouts` (network to folder),
            `result`.

    Returns:
        `aggregate`, `clips` (VBench's entries), `flows` (of dynamic_degree, per clip and pair),
        `substituted`, `versions`, `seconds`, `peak_bytes`.
    """
    stand_ins = import_module("stand_ins")
    tree, dimension = Path(request["tree"]).resolve(), request["dimension"]
    surround(tree)
    arrange(tree, dimension, Path(request["weights"]))
    held = stand_ins.libraries(request["threads"], request["is_lossless"])
    substituted: list[str] = []
    if dimension in ("subject_consistency", "background_consistency"):
        substituted = stand_ins.networks(tree / CHECKPOINTS, request["device"], request["checkouts"])
    flows = stand_ins.watch_flow() if dimension == "dynamic_degree" else []
    begun = time.perf_counter()
    aggregate, clips, *_ = evaluate(request, tree)
    del held
    return {
        "aggregate": aggregate, "clips": clips, "flows": flows, "substituted": substituted,
        "versions": versions(), "seconds": time.perf_counter() - begun,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of what the numbers rest on."""
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in VERSIONS}}


def check() -> None:
    """Import the eight dimensions; what is missing is an error."""
    with tempfile.TemporaryDirectory() as tree:
        surround(Path(tree))
        held = import_module("stand_ins").libraries(1, False)
        for dimension in PLACES:
            import_module(f"vbench2_beta_long.{dimension}")
        del held


def follow_parent() -> None:
    """End with the process that has started this one, also where that is killed; Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Run the request named on the command line, or see whether the environment is complete."""
    follow_parent()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of names that VBench's imports still have
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    if sys.argv[1:] == ["--check"]:
        check()
        sys.stdout.write(json.dumps(versions()) + "\n")
        return
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(request["result"]).write_text(json.dumps(run(request)), encoding="utf-8")


if __name__ == "__main__":
    main()
