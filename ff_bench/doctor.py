"""`ff-bench doctor`: what this machine can run, what is missing and the command that gets it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ff_bench import __version__, shipped
from ff_bench.models.facts import architecture
from ff_bench.plan import grid, size

Finding = tuple[str, str, str, str]
"""Thing, state (ok, missing, optional), what was found, how to get it."""
EXTRAS = {
    "diffusers": ("wan", "VAE and text encoder of the Wan family"),
    "wandb": ("wandb", "logs to Weights & Biases"),
    "kvpress": ("oracle", "compares policies with an independent implementation"),
    "vbench": ("vbench", "scores with VBench, in an environment of its own"),
    "submitit": ("slurm", "runs on SLURM"),
    "ray": ("ray", "runs on a Ray cluster"),
}


def describe() -> tuple[str, bool]:
    """Examine this machine.

    Returns:
        The text, and whether everything that the core needs is there.
    """
    findings = [*_core(), *_machine(), *_encoders(), *_weights(), *_extras()]
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
