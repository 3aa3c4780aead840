"""What all containers of a pipeline share: a volume's mount, a folder of this machine, or s3://bucket/prefix.

    <store>/footage/<sha256>.json    footage manifests, named by content
    <store>/clips/<sha256>/          clip stores, named by content
    <store>/runs/<run>/              one run's own: what its steps are at, checkpoints, downloads, verdicts

Content names let concurrent runs share what is the same and never mix what is not. A run is known by the part
of its artifacts' addresses that all its tasks have in common: passing a run id to a step would make it part
of Kubeflow's cache key, and no step would ever be found there. How a store on S3 is worked on:
`store_mirror.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from components import storage
from components.clip_stores import open_clips
from components.schema import build
from components.store_mirror import RunState, mirror, origin
from hypercut_core.errors import BadClipStore, HypercutError, StorageError
from hypercut_core.files import file_sha256, read_json, write_json

Config = TypeVar("Config")
RUNNING, DONE, FAILED = "running", "done", "failed"


@dataclass(frozen=True)
class RunFolder:
    """One run's own folder in the store."""

    store: Path
    name: str

    @property
    def path(self) -> Path:
        return self.store / "runs" / self.name

    @property
    def work(self) -> Path:
        """Checkpoints and downloads; a step that is tried again goes on from there, if the store is a folder."""
        return self.path / "work"

    @property
    def state(self) -> RunState:
        """The run's small files, between here and a store on S3."""
        return RunState(self.store, f"runs/{self.name}")

    def with_checkpoints(self, config: Config) -> Config:
        """A training's settings; with a store on S3, its checkpoints lie there unless they are said to elsewhere."""
        if not origin(self.store):
            return config
        there = f"{origin(self.store)}/runs/{self.name}/work"
        scale = getattr(config, "scale", None)  # of the deblurrer
        if scale is None:
            return config if config.checkpoints else replace(config, checkpoints=there)  # type: ignore
        return config if scale.checkpoints else replace(config, scale=replace(scale, checkpoints=there))  # type: ignore

    @property
    def unfinished(self) -> Path:
        """Outputs that are being made; of no use once the run is over."""
        return self.path / "unfinished"

    @property
    def reports(self) -> Path:
        """Verdicts and their pages: Kubeflow keeps no artifact of a step that fails."""
        return self.path / "reports"

    def keep(self, task: str, metrics: str | Path) -> dict[str, float]:
        """Keep a task's metrics file, for `close-run` to log; returns its numbers by dotted name."""
        target = self.path / f"metrics/{task}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(metrics, target)
        return _numbers(read_json(metrics))

    @property
    def metrics(self) -> dict[str, Path]:
        """The metrics files that were kept, by task."""
        return {file.stem: file for file in sorted((self.path / "metrics").glob("*.json"))}

    def remember(self, **facts: str) -> None:
        """Note what the run's results come from."""
        write_json(self.path / "lineage.json", self.lineage | facts)

    @property
    def lineage(self) -> dict[str, str]:
        file = self.path / "lineage.json"
        return dict(read_json(file)) if file.is_file() else {}

    def note(self, task: str, state: str, what: str = "", expected: bool = True) -> None:
        write_json(self.path / f"steps/{task}.json",
                   {"task": task, "state": state, "what": what, "expected": expected, "time": time.time()})

    def notes(self) -> list[dict[str, Any]]:
        """What every task of the run was at last, in the order in which that was written."""
        found = [read_json(file) for file in (self.path / "steps").glob("*.json")]
        return sorted(found, key=lambda note: note["time"])


@contextlib.contextmanager
def running(step: str, store: str, uri: str, part: str = "") -> Iterator[RunFolder]:
    """Note in the run's folder that a step runs, and how it ended.

    An error that a user can mend leaves the log with one paragraph and no traceback. A step that is killed
    leaves the note that it runs: `close-run` tells what that means.

    Args:
        uri: the address of one of the step's output artifacts.
        part: tells tasks of the same step apart, such as the objective.
    """
    run = RunFolder(open_store(store), run_name(uri, step))
    task, state = f"{step}-{part}" if part else step, run.state
    state.pull()
    run.note(task, RUNNING)
    state.push()
    try:
        yield run
    except HypercutError as error:
        run.note(task, FAILED, str(error))
        state.push()
        raise SystemExit(f"hypercut: {' '.join(str(error).split())}") from None
    except BaseException as error:
        run.note(task, FAILED, f"{type(error).__name__}: {error}"[:2000], expected=False)
        state.push()
        raise
    run.note(task, DONE)
    state.push()


def open_store(store: str) -> Path:
    """The store's folder, made if need be; for a store on S3 the folder in which this step works on it.

    Raises:
        StorageError: it is neither a folder nor on S3, or cannot be used.
    """
    if storage.is_remote(store):
        return mirror(store)
    if "://" in store:
        raise StorageError("the store is neither a folder nor on S3", where=store,
                           remedy="give the mount path of a volume, or s3://bucket/prefix")
    if not store.startswith("/"):
        raise StorageError("the store must be an absolute path", where=store or "store",
                           remedy="give the mount path of the volume, such as /mnt/hypercut")
    path = Path(store)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the store cannot be used ({error.strerror})", where=path,
                           remedy="mount a volume there that this user may write to") from error
    return path


def run_name(uri: str, step: str) -> str:
    """A short name for the run that an artifact's address belongs to.

    Kubeflow writes <root>/<pipeline>/<run>/<task>/<salt>/<artifact>, its local runners
    <root>/<pipeline>-<time>[/<loop>-iteration-<n>]/<task>/<artifact>.
    """
    before = re.split(rf"/{re.escape(step)}(?:-\d+)?/", uri)
    shared = "/".join(before[:-1]) if len(before) > 1 else uri.rpartition("/")[0]
    shared = re.sub(r"(?:/[\w-]+-iteration-\d+)+$", "", shared)
    return hashlib.sha256(shared.encode()).hexdigest()[:16]


def group(kind: type[Config], text: str) -> Config:
    """A parameter group from the JSON in which the pipeline hands it on."""
    return build(kind, json.loads(text), "the pipeline's parameters")


def publish_manifest(made: Path, store: Path) -> str:
    """Put a footage manifest into the store; returns its hash, by which `manifest_file` finds it."""
    digest = file_sha256(made)
    target = store / "footage" / f"{digest}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{digest}.partial-{time.time_ns()}")
    shutil.copyfile(made, partial)
    partial.replace(target)
    if origin(store):
        storage.upload(target, f"{origin(store)}/footage/{digest}.json")
    return digest


def manifest_file(store: Path, digest: str) -> Path:
    """The file of a manifest; fetched from a store on S3."""
    file = store / "footage" / f"{digest}.json"
    if origin(store) and not file.exists():
        storage.download(f"{origin(store)}/footage/{digest}.json", file)
    return file


def publish_clips(made: Path, store: Path) -> dict[str, Any]:
    """Move a finished clip store to its place by content; what is there already stays, it is the same.

    Returns:
        The reference that travels between the steps: {"path", "sha256", "clips", "frames"}.
    """
    clips = open_clips(made)
    relative = f"clips/{clips.sha256}"
    target = store / relative
    if origin(store):
        storage.upload_clips(made, f"{origin(store)}/{relative}")
        shutil.rmtree(made, ignore_errors=True)
        return {"path": relative, "sha256": clips.sha256, "clips": len(clips), "frames": clips.frames}
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        with contextlib.suppress(OSError):  # another run may have been quicker
            made.rename(target)
    shutil.rmtree(made, ignore_errors=True)
    _same_clips(target, clips.sha256)
    return {"path": relative, "sha256": clips.sha256, "clips": len(clips), "frames": clips.frames}


def clips_folder(reference: str | Path, store: Path) -> str | Path:
    """The clip store that a reference names: a folder, or its URI.

    Raises:
        BadClipStore: it is gone, or holds other clips by now.
    """
    found = read_json(reference)
    there = origin(store)
    folder = f"{there}/{found['path']}" if there else store / str(found["path"])
    _same_clips(folder, str(found["sha256"]))
    return folder


def _same_clips(folder: str | Path, digest: str) -> None:
    again = "remove it and run the pipeline again without the cache"
    if not storage.exists(folder):
        raise BadClipStore("the clip store that this run refers to is gone", where=folder, remedy=again)
    if open_clips(folder).sha256 != digest:
        raise BadClipStore("the clip store holds other clips than its name says", where=folder, remedy=again)


def _numbers(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + name] = float(value)
    return numbers
