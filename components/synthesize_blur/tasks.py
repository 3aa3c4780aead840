"""The work cut into tasks that can be done anywhere and in any order; each makes one part of the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from components.synthesize_blur.fan_out import FanOutConfig
from components.synthesize_blur.sources import Clip, blurred, chosen, imported, judges, noise_level
from hypercut_core.blur.exposure import ExposureConfig
from hypercut_core.clips import layouts
from hypercut_core.clips.footage import WindowConfig, WindowCounts
from hypercut_core.clips.layouts import LayoutCounts, PairedClip
from hypercut_core.clips.manifest import SPLITS, Manifest, Source
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.parts import Part, PartWriter

FORMAT = 1  # raise it when the same settings would give other clips: parts of an older version then are void
PHOTO_CLIPS, PAIRED_CLIPS = 128, 64  # clips of one part


@dataclass(frozen=True)
class ClipCounts:
    """How many clips are rendered from the built-in photos."""

    train: int = 3000  # clips to learn from
    val: int = 128  # clips to watch training with
    test: int = 256  # clips that the report is about


@dataclass(frozen=True)
class SynthesisConfig:
    """How footage becomes clips."""

    photos: MovingPhotosConfig = field(default_factory=MovingPhotosConfig)  # built-in footage only
    clips: ClipCounts = field(default_factory=ClipCounts)  # built-in footage only
    windows: WindowConfig = field(default_factory=WindowConfig)  # videos and folders of frames
    clips_per_source: int = 400  # most clips out of one source, spread over its length; 0: all
    paired_height: int = 0  # paired data sets are scaled down to this height, px; 0 keeps their own
    exposure: ExposureConfig = field(default_factory=ExposureConfig)  # how sharp frames become a blurry image
    scale: FanOutConfig = field(default_factory=FanOutConfig)  # how the work is spread; never changes the clips


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share."""

    config: SynthesisConfig
    seed: int
    frames: int
    folder: Path  # of the parts


@dataclass(frozen=True)
class Task:
    """One source, or a range of the clips of one."""

    kind: Literal["photos", "footage", "paired"]
    label: str  # the source's name, or the split
    split: str
    size: int  # clips of photos and paired data, frames of footage
    first: int = 0  # clips of photos: from here …
    source: Source | None = None
    path: Path = Path()
    members: tuple[PairedClip, ...] = ()
    layout: str = ""  # of paired data
    judges: tuple[PairedClip, ...] = ()  # clips of the whole sequence by which its response curve is judged
    left_out: int = 0  # clips over clips_per_source


Report = Callable[[int], None]


def plan(footage: Manifest, root: Path, config: SynthesisConfig, frames: int,
         counts: LayoutCounts) -> list[Task]:
    """The tasks of a manifest, in the store's order.

    Raises:
        BadFootage: a paired data set is damaged or of another number of frames.
    """
    if footage.kind == "builtin":
        return [Task("photos", split, split, min(PHOTO_CLIPS, count - first), first)
                for split in SPLITS for count in [getattr(config.clips, split)]
                for first in range(0, count, PHOTO_CLIPS)]
    tasks = list(_paired(footage, root, config, frames, counts)) if footage.kind == "paired" else []
    for source in footage.sources:
        if source.kind in ("video", "frames"):
            relative = footage.relative(source)
            tasks.append(Task("footage", source.source, source.split, source.frames, source=source,
                              path=root / relative if relative else root))
    return tasks


def _paired(footage: Manifest, root: Path, config: SynthesisConfig, frames: int,
            counts: LayoutCounts) -> Iterator[Task]:
    clips = layouts.by_sequence(root, footage.layout, frames, counts)
    for source in (source for source in footage.sources if source.kind == "paired"):
        members = clips.get(footage.relative(source), [])
        taken = chosen(members, config.clips_per_source)
        for first in range(0, max(1, len(taken)), PAIRED_CLIPS):
            part = tuple(taken[first:first + PAIRED_CLIPS])
            yield Task("paired", source.source, source.split, len(part), first, source, members=part,
                       layout=footage.layout, judges=judges(taken), left_out=0 if first else len(members) - len(taken))


def part_of(job: Job, task: Task) -> Part:
    """Where a task's part lies; its name is a hash of all that its clips depend on."""
    settings = {name: value for name, value in asdict(job.config).items() if name not in ("scale", "clips")}
    facts = [FORMAT, settings, job.seed, job.frames, task.kind, task.label, task.split, task.size, task.first,
             asdict(task.source) if task.source else None, [clip.clip_id for clip in task.members], task.layout,
             [clip.clip_id for clip in task.judges], task.left_out]
    return Part(job.folder, hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32])


def make(job: Job, task: Task, report: Report) -> None:
    """Make a task's part; `report` is told of every bit of `task.size` that is done.

    Raises:
        BadFootage: a source changed, cannot be read or does not fit.
    """
    with PartWriter(part_of(job, task), job.frames) as writer:
        {"photos": _render, "footage": _blur, "paired": _import}[task.kind](job, task, writer, report)


def _store(writer: PartWriter, clip: Clip, source: str, split: str, category: str) -> None:
    writer.add(clip.frames, clip_id=clip.clip_id, source=source, split=split, category=category,
               motion=clip.motion, blur=clip.blur, response=clip.response, noise=clip.noise)


def _render(job: Job, task: Task, writer: PartWriter, report: Report) -> None:
    config, split = job.config, task.split
    clips = render_clips(config.photos, split, task.first + task.size, job.seed, job.frames,
                         exposure=config.exposure, first=task.first)
    for number, made in enumerate(clips, task.first):
        clip = Clip(made.frames, f"{split}-{number:06d}", made.motion, "synthetic", config.exposure.response,
                    noise_level(config.exposure))
        _store(writer, clip, made.source, split, made.category)
        report(1)


def _blur(job: Job, task: Task, writer: PartWriter, report: Report) -> None:
    config, source, counts, done = job.config, task.source, WindowCounts(), 0
    assert source is not None
    for clip in blurred(source, task.path, job.frames, config.windows, config.exposure, config.clips_per_source,
                        job.seed, counts):
        _store(writer, clip, source.source, source.split, source.category)
        report(counts.frames - done)
        done = counts.frames
    report(max(0, task.size - done))
    found = {"kept": counts.kept, "scene_cuts": len(counts.cuts)}
    found.update({f"skipped_{reason}": n for reason, n in counts.skipped.items()})
    writer.head.notes = {
        "source": source.source, "windows": {source.category: found}, "skipped": dict(counts.skipped),
        "damage": [f"{source.source} {damage.place}: {damage.what}" for damage in counts.damage]}


def _import(job: Job, task: Task, writer: PartWriter, report: Report) -> None:
    source = task.source
    assert source is not None
    if task.judges:
        for clip in imported(task.members, task.layout, job.config.paired_height, task.judges):
            _store(writer, clip, source.source, source.split, source.category)
            report(1)
    found = {"kept": len(task.members), "skipped_over_clips_per_source": task.left_out}
    writer.head.notes = {"windows": {source.category: found}}
