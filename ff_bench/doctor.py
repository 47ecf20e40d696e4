"""`ff-bench doctor`: what this machine can run, what is missing and the command that gets it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from ff_bench import __version__, shipped, weights
from ff_bench.errors import Unavailable
from ff_bench.models.facts import architecture
from ff_bench.plan import grid, size

Finding = tuple[str, str, str, str]
"""Thing, state (ok, missing, optional, unavailable), what was found, how to get it."""
EXTRAS = {
    "diffusers": ("wan", "VAE and text encoder of the Wan family"),
    "wandb": ("wandb", "logs to Weights & Biases"),
    "tensorboard": ("tensorboard", "logs to TensorBoard"),
    "kvpress": ("oracle", "compares policies with an independent implementation"),
    "timm": ("vbench", "networks of VBench-Long"),
    "submitit": ("slurm", "runs on SLURM"),
    "ray": ("ray", "runs on a Ray cluster"),
}

LIBRARIES = {
    "subject_consistency": ("timm", "torchvision"),
    "background_consistency": ("open_clip", "timm", "torchvision"),
    "temporal_flickering": (),
    "motion_smoothness": ("vbench",),
    "dynamic_degree": ("torchvision",),
    "aesthetic_quality": ("open_clip", "torchvision"),
    "imaging_quality": ("pyiqa", "torchvision"),
    "overall_consistency": ("open_clip", "torchvision"),
    "fidelity": ("lpips", "torchvision"),
}
"""What the networks of a metric are imported from; of fidelity, those of LPIPS."""
NONCOMMERCIAL = {"vbench": "vbench==0.1.5", "pyiqa": "pyiqa"}
"""Packages that are left out of the extra, as their networks are not for commercial use."""


def describe() -> tuple[str, bool]:
    """Examine this machine.

    Returns:
        The text, and whether everything that the core needs is there.
    """
    findings = [*_core(), *_machine(), *_encoders(), *_weights(), *_extras(), *_scoring()]
    lines = grid(("", "state", "found", "how to get it"), findings)
    is_sound = all(state != "broken" for _, state, _, _ in findings)
    missing = [name for name, state, _, _ in findings if state in ("broken", "missing")]
    verdict = (
        f"missing: {', '.join(missing)}" if missing else "everything that the embedded model needs is here"
    )
    return "\n".join([f"ff-bench {__version__}", *lines, "", verdict]), is_sound


def _core() -> Iterator[Finding]:
    version = sys.version_info
    state = "ok" if (3, 11) <= (version.major, version.minor) < (3, 14) else "broken"
    yield (
        "python",
        state,
        platform.python_version(),
        "" if state == "ok" else "install Python 3.11, 3.12 or 3.13",
    )
    for name in ("torch", "numpy", "pandas", "pyarrow", "hydra", "av", "safetensors", "matplotlib", "scipy"):
        try:
            found = __import__(name)
        except ImportError as error:
            yield (name, "broken", str(error), "pip install -e .")
            continue
        yield (name, "ok", str(getattr(found, "__version__", "installed")), "")


def _machine() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return
    cuda = torch.cuda.is_available()
    names = (
        ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        if cuda
        else "no CUDA device"
    )
    yield (
        "device",
        "ok" if cuda else "optional",
        names,
        "" if cuda else "mini runs on the CPU; larger models need a CUDA build of torch and a GPU",
    )
    yield ("cores", "ok", f"{os.cpu_count()}, torch uses {torch.get_num_threads()}", "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield (
        "memory",
        "ok" if memory > 3 << 30 else "missing",
        size(memory),
        "" if memory > 3 << 30 else "mini wants 3 GiB",
    )
    free = shutil.disk_usage(Path.cwd()).free
    yield (
        "disk",
        "ok" if free > 1 << 30 else "missing",
        f"{size(free)} free here",
        "" if free > 1 << 30 else "free some space or set runs_dir",
    )


def _encoders() -> Iterator[Finding]:
    try:
        import av
    except ImportError:
        return
    for name, purpose in (("ffv1", "records"), ("libx264", "videos for viewing")):
        has = name in av.codecs_available
        yield (name, "ok" if has else "missing", purpose, "" if has else "pip install --force-reinstall av")


def _weights() -> Iterator[Finding]:
    """Yield what the models load, each once: members of a family share most of it."""
    needs = {}
    for name in shipped.models():
        fields = shipped.model_fields(name)
        room = architecture(str(fields["architecture"]))
        needs.update({need.what: need for need in room.needs(room.read(fields))})
    for what, need in sorted(needs.items(), key=lambda item: item[0].startswith("Wan ")):
        lacking = "missing" if need.is_shipped else "optional"
        state = "ok" if need.found else lacking
        yield (what, state, need.found or "not here", "" if need.found else need.command)


def _extras() -> Iterator[Finding]:
    for module, (extra, purpose) in EXTRAS.items():
        has = find_spec(module) is not None
        yield (
            module,
            "ok" if has else "optional",
            purpose,
            "" if has else f"pip install 'ff-bench[{extra}]'",
        )


def _scoring() -> Iterator[Finding]:
    """Yield for each metric with networks whether it can be scored here."""
    for metric, libraries in LIBRARIES.items():
        serving = [one.name for one in weights.manifest().values() if metric in one.serves]
        files = {name: lack for name in serving if (lack := _lack(name))}
        modules = [name for name in libraries if find_spec(name) is None]
        lacks = [f"weights {', '.join(files.values())}"] if files else []
        lacks += [f"libraries {', '.join(modules)}"] if modules else []
        commands = [f"ff-bench weights fetch {' '.join(files)}"] if files else []
        yield (
            "fidelity: lpips" if metric == "fidelity" else f"vbench_long.{metric}",
            "unavailable" if lacks else "ok",
            f"lacks {' and '.join(lacks)}" if lacks else _used(serving),
            "; ".join([*_installs(modules), *commands]),
        )


def _lack(name: str) -> str:
    """Name a weight file that cannot be used; empty where it can."""
    try:
        weights.path(name)
    except Unavailable:
        return f"{name} (damaged)" if (weights.folder() / weights.find(name).file).is_file() else name
    return ""


def _used(names: Sequence[str]) -> str:
    """Say which weights a metric uses, and which of them are not what their names say."""
    folder, known = weights.folder(), weights.manifest()
    others = [name for name in names if weights.size_fault(known[name], folder / known[name].file)]
    told = ", ".join(f"{name} (another file)" if name in others else name for name in names)
    return told or "needs no weights"


def _installs(modules: Sequence[str]) -> Iterator[str]:
    if any(name not in NONCOMMERCIAL for name in modules):
        yield "pip install 'ff-bench[vbench]'"
    apart = [NONCOMMERCIAL[name] for name in modules if name in NONCOMMERCIAL]
    if apart:
        yield f"pip install --no-deps {' '.join(apart)} (not for commercial use)"
