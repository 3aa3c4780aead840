"""synthesize-blur: footage manifest → clip store with one blurry image and T sharp frames a clip.

The work is cut into tasks (tasks.py), which one process or many make (fan_out.py) as parts in `work`; the parts are
joined in the order of the manifest. The store is the same, byte for byte, whoever made them, and a step that was
killed goes on from the parts that are there. On disk it takes the store and a few parts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from components import storage
from components.synthesize_blur.fan_out import FanOutConfig, InProcess, Pool, available_cores, check, in_order
from components.synthesize_blur.tally import Tally
from components.synthesize_blur.tasks import ClipCounts, Job, SynthesisConfig, Task, make, part_of, plan
from hypercut_core.clips.imported import IMPORTED, imported_documents, pack
from hypercut_core.clips.layouts import LayoutCounts
from hypercut_core.clips.manifest import SPLITS, Manifest, read_manifest
from hypercut_core.clips.parts import Join
from hypercut_core.errors import BadFootage, StorageError
from hypercut_core.files import explain_os_errors, file_sha256, read_json, write_json
from hypercut_core.progress import Progress

__all__ = ["ClipCounts", "FanOutConfig", "SynthesisConfig", "synthesize_blur"]
_CURES = {
    "too_fast": "raise blur.windows.max_motion, lower blur.windows.height, or add slower footage",
    "still": "lower blur.windows.min_motion or moving_share, or add footage in which something moves",
    "too_short": "add longer footage, or lower 'frames'",
    "scene_cut": "add footage with longer shots, or lower 'frames'",
    "repeated_frame": "bring the footage to its true frame rate first, or add other footage",
    "missing_frames": "copy the footage again from where it came from, or add other footage",
    "corrupt_frames": "copy the footage again from where it came from, or add other footage",
}


def synthesize_blur(manifest: Path, config: SynthesisConfig, out: str | Path, metrics: Path, seed: int,
                    frames: int = 7, work: Path | None = None) -> dict[str, Any]:
    """Write the clip store to `out` and its figures to `metrics`.

    Args:
        out: a folder, or s3://bucket/prefix.
        frames: T, the number of sharp frames, odd, 3 to 15.
        work: folder for downloads, as in collect-footage, and for parts; default: `work/` beside the folder of
            `manifest`.

    Raises:
        BadFootage: a source changed, cannot be read or does not fit; or a split has no clip.
        BadParameters: settings that make no sense.
        WorkerLost: a worker died again and again on the same source.
        StorageError: another run is at work in the same folder, or the disk is full.
    """
    check(config.scale)
    if storage.is_remote(out):
        return _synthesize_to_bucket(manifest, config, str(out), metrics, seed, frames, work)
    footage = read_manifest(manifest)
    work = work or manifest.parent.parent / "work"
    root = Path()
    if footage.kind != "builtin":
        root = storage.fetch(footage.root, footage.revision, work / "footage")
    counts, tally = LayoutCounts(), Tally()
    with _alone(work / "synthesize-blur") as folder:
        job = Job(config, seed, frames, folder.resolve())
        tasks = plan(footage, root.resolve(), config, frames, counts)
        join = Join(job.folder, Path(out), frames)
        done = join.resume([part_of(job, task) for task in tasks])
        with Progress("making clips", total=sum(task.size for task in tasks)) as progress:
            for head, task in zip(done, tasks, strict=False):
                tally.add(head)
                progress.advance(task.size, note=task.label)
            with contextlib.closing(_made(job, tasks[len(done):], progress)) as made:
                for task in made:
                    tally.add(join.add(part_of(job, task)))
        if footage.kind == "paired":
            documents = imported_documents(root, footage.layout)
            if documents:
                join.attach(IMPORTED, pack(documents))
            tally.windows[footage.layout].update({f"skipped_{reason}": n for reason, n in counts.skipped.items()})
        if footage.kind != "builtin":
            _check_splits(footage, tally, manifest)
        join.finish()
    figures = tally.figures(frames)
    write_json(metrics, figures)
    shutil.rmtree(work / "synthesize-blur", ignore_errors=True)
    return figures


def _synthesize_to_bucket(manifest: Path, config: SynthesisConfig, out: str, metrics: Path, seed: int, frames: int,
                          work: Path | None) -> dict[str, Any]:
    """Make the store in `work`, then upload it; a step that was killed while it uploaded makes nothing again."""
    place = (work or manifest.parent.parent / "work") / "upload" / hashlib.sha256(out.encode()).hexdigest()[:16]
    made, kept = place / "made.json", place / "metrics.json"
    blur = asdict(replace(config, scale=FanOutConfig()))
    identity = json.loads(json.dumps({"manifest": file_sha256(manifest), "blur": blur, "seed": seed,
                                      "frames": frames}))
    if not made.is_file() or read_json(made) != identity:
        made.unlink(missing_ok=True)
        synthesize_blur(manifest, config, place / "clips", kept, seed, frames, work)
        write_json(made, identity, digits=None)
    storage.upload_clips(place / "clips", out)
    figures = dict(read_json(kept))
    write_json(metrics, figures)
    shutil.rmtree(place, ignore_errors=True)
    return figures


def _made(job: Job, tasks: list[Task], progress: Progress) -> Generator[Task, None, None]:
    """Make what is not there yet; yields each task, in order, when its part is there."""
    there = [part_of(job, task).made for task in tasks]
    missing = [task for task, made in zip(tasks, there, strict=True) if not made]
    with _pool(job, len(missing), progress) as pool:
        making = in_order(pool, missing, job.config.scale.tries, progress)
        for task, made in zip(tasks, there, strict=True):
            if made:
                progress.advance(task.size, note=task.label)
            else:
                next(making)
            yield task


def _pool(job: Job, tasks: int, progress: Progress) -> Pool:
    scale = job.config.scale
    if scale.launcher == "ray" and tasks:
        from components.synthesize_blur.ray_fan import RayPool

        return RayPool(job, scale.workers)
    workers = min(scale.workers or available_cores(), tasks)
    if workers > 1:
        from components.synthesize_blur.processes import ProcessPool

        return ProcessPool(job, workers)
    return InProcess(lambda task, report: make(job, task, report), progress)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The folder of the parts, for one run at a time.

    Raises:
        StorageError: another run has it.
    """
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError("another run of synthesize-blur is at work here", where=folder,
                               remedy="wait until it ends, or choose another workspace") from None
        yield folder


def _check_splits(footage: Manifest, tally: Tally, manifest: Path) -> None:
    """Every split needs clips.

    Raises:
        BadFootage: one has none; says which sources it has and why their windows were skipped.
    """
    for split in SPLITS:
        if any(count for (name, _), count in tally.clips.items() if name == split):
            continue
        names = [source.source for source in footage.sources if source.split == split]
        if not names:
            raise BadFootage(f"no source is in the {split} split", where=manifest,
                             remedy="add footage and run 'hypercut collect-footage' again")
        reasons = sum((tally.per_source.get(name, Counter()) for name in names), Counter())
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "too few frames"
        cure = _CURES.get(reasons.most_common(1)[0][0] if reasons else "", "add footage")
        raise BadFootage(f"the {split} split ends without a clip: its sources are {', '.join(names[:5])}"
                         f"{' …' if len(names) > 5 else ''}, and their windows were skipped ({why})",
                         where=manifest, remedy=cure)
