"""`hypercut doctor`: what works on this machine, and what mends the rest."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hypercut_core.errors import HypercutError

EXTRAS = {"photos": ("scikit-image", "scikit-learn"), "tracking": ("mlflow", "pandas"),
          "validation": ("great-expectations",), "pipeline": ("dvc", "pydantic"), "s3": ("boto3", "dvc-s3"),
          "kubeflow": ("kfp", "kfp-kubernetes"), "ray": ("ray",)}
NEEDED = ("photos", "tracking", "validation", "pipeline")  # by the nine steps on one machine
ROOM = 2 * 2**30  # bytes that a demo needs
MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    found: str
    state: str = "ok"  # "ok", "note" (works without) or "bad"
    remedy: str = ""


def examine(workspace: Path, say: Callable[[str], None]) -> bool:
    """Look at everything and tell it line by line; true if nothing is bad."""
    fine = True
    for examination in (_python, _torch, _extras, _encoders, _disk, _commands, _registry):
        for finding in examination(workspace):
            fine &= finding.state != "bad"
            cure = f" ({finding.remedy})" if finding.state != "ok" and finding.remedy else ""
            say(f"{MARKS[finding.state]} {finding.what:20} {finding.found}{cure}")
    return fine


def _python(workspace: Path) -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info < (3, 13)
    yield Finding("python", f"{platform.python_version()} at {sys.executable}", "ok" if good else "bad",
                  "use Python 3.11 or 3.12")
    yield Finding("hypercut", _installed("hypercut") or "not installed")


def _torch(workspace: Path) -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken build raises what it likes
        yield Finding("torch", f"does not import: {error}", "bad", "pip install 'torch>=2.4'")
        return
    yield Finding("torch", torch.__version__)
    yield Finding("threads", f"{torch.get_num_threads()} of {_cpus()} processors")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("gpu", ", ".join(gpus) or "none", "ok" if gpus else "note", "the CPU is used")


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _extras(workspace: Path) -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        versions = {name: _installed(name) for name in packages}
        missing = [name for name, found in versions.items() if found is None]
        found = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        state = "ok" if not missing else "bad" if extra in NEEDED else "note"
        yield Finding(f"extra {extra}", found or "not installed", state, f"pip install 'hypercut[{extra}]'")


def _encoders(workspace: Path) -> Iterator[Finding]:
    import av
    from PIL import features

    video = [name for name in ("libx264", "h264", "libopenh264", "mpeg4") if _can_encode(av, name)]
    yield Finding("mp4 encoder", ", ".join(video) or "none", "ok" if video else "note",
                  "use .webp or .gif")
    webp = bool(features.check("webp"))
    yield Finding("animated webp", "yes" if webp else "no", "ok" if webp else "note", "use .gif")


def _can_encode(av: object, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")  # type: ignore[attr-defined]
    except Exception:  # PyAV raises a class of its own for each cause
        return False
    return True


def _disk(workspace: Path) -> Iterator[Finding]:
    place = next(folder for folder in (workspace.resolve(), *workspace.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    enough = free > ROOM
    yield Finding("disk", f"{free / 2**30:.1f} GiB free at {place}", "ok" if enough else "bad",
                  f"free {ROOM / 2**30:.0f} GiB, or choose another --workspace")


def _commands(workspace: Path) -> Iterator[Finding]:
    for name, purpose in (("git", "provenance and DVC's history"), ("make", "make demo, make test")):
        path = shutil.which(name)
        yield Finding(name, path or "not found", "ok" if path else "note", f"only for {purpose}")


def _registry(workspace: Path) -> Iterator[Finding]:
    from components.tracking import shown_uri, tracking_uri

    uri = tracking_uri(workspace)
    file = Path(uri.removeprefix("sqlite:///").split("?")[0])
    if uri.startswith("sqlite:///") and not file.is_file():
        yield Finding("model registry", "none in this workspace yet", "note", "'hypercut demo' makes one")
        return
    try:
        from components.register_model.gate import RegisterConfig
        from components.register_model.registry import CHAMPION, open_registry
        from components.tracking import explain

        registry = open_registry(RegisterConfig(), workspace)
        with explain(uri):
            champion = registry.version(CHAMPION)
    except HypercutError as error:
        yield Finding("model registry", f"{shown_uri(uri)}: {error.what}", "bad", error.remedy or "")
        return
    yield Finding("model registry", shown_uri(uri))
    if champion is None:
        yield Finding("champion", "none", "note", "'hypercut gate --explain' tells why")
    else:
        yield Finding("champion", f"models:/{registry.name}@champion is version {champion.number}, "
                                  f"{champion.figures.get('ppsnr')} dB mean pPSNR")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
