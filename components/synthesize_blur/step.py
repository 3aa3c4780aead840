"""synthesize-blur: footage manifest → clip store with one blurry image and T sharp frames a clip."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components import storage
from components.synthesize_blur.sources import Clip, blurred, imported, noise_level
from hypercut_core.blur.exposure import ExposureConfig
from hypercut_core.clips import layouts
from hypercut_core.clips.footage import WindowConfig, WindowCounts
from hypercut_core.clips.imported import IMPORTED, imported_documents, pack
from hypercut_core.clips.layouts import LayoutCounts
from hypercut_core.clips.manifest import SPLITS, Manifest, read_manifest
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.errors import BadFootage
from hypercut_core.files import write_json
from hypercut_core.progress import Progress, track

MOST_DAMAGE = 50  # damaged places that are listed; the rest is counted
_CURES = {
    "too_fast": "raise blur.windows.max_motion, lower blur.windows.height, or add slower footage",
    "still": "lower blur.windows.min_motion or moving_share, or add footage in which something moves",
    "too_short": "add longer footage, or lower 'frames'",
    "scene_cut": "add footage with longer shots, or lower 'frames'",
    "repeated_frame": "bring the footage to its true frame rate first, or add other footage",
    "missing_frames": "copy the footage again from where it came from, or add other footage",
    "corrupt_frames": "copy the footage again from where it came from, or add other footage",
}


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


@dataclass
class Tally:
    """What went into the store, and what did not."""

    clips: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, category)
    motion: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)  # of imported clips
    windows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by category
    per_source: dict[str, Counter[str]] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)

    def add(self, writer: ClipStoreWriter, clip: Clip, source: str, split: str, category: str) -> None:
        writer.add(clip.frames, clip_id=clip.clip_id, source=source, split=split, category=category,
                   motion=clip.motion, blur=clip.blur, response=clip.response, noise=clip.noise)
        self.clips[split, category] += 1
        self.motion[split] += clip.motion  # type: ignore[assignment]

    def figures(self, frames: int) -> dict[str, Any]:
        clips = {split: sum(n for (s, _), n in self.clips.items() if s == split) for split in SPLITS}
        return {
            "frames": frames,
            "clips": clips,
            "clips_by_category": {f"{split}/{category}": n for (split, category), n in self.clips.items()},
            "motion_mean_px": {split: self.motion[split] / max(1, clips[split]) for split in SPLITS},
            "windows": {category: dict(counts) for category, counts in self.windows.items()},
            **({"response_curves": dict(self.responses)} if self.responses else {}),
            "damaged_places": len(self.damage),
            "damage": self.damage[:MOST_DAMAGE],
        }


def synthesize_blur(manifest: Path, config: SynthesisConfig, out: Path, metrics: Path, seed: int,
                    frames: int = 7, work: Path | None = None) -> dict[str, Any]:
    """Write the clip store to `out` and its figures to `metrics`.

    Args:
        frames: T, the number of sharp frames, odd, 3 to 15.
        work: folder for downloads, as in collect-footage; default: `work/` beside the folder of `manifest`.

    Raises:
        BadFootage: a source changed, cannot be read or does not fit; or a split has no clip.
        BadParameters: settings that make no sense.
    """
    footage = read_manifest(manifest)
    tally = Tally()
    with ClipStoreWriter(out, frames) as writer:
        if footage.kind == "builtin":
            _render_photos(config, writer, tally, seed, frames)
        else:
            cache = (work or manifest.parent.parent / "work") / "footage"
            root = storage.fetch(footage.root, footage.revision, cache)
            if footage.kind == "paired":
                _import_paired(footage, root, config, writer, tally, frames)
            _blur_footage(footage, root, config, writer, tally, seed, frames)
            _check_splits(footage, tally, manifest)
    figures = tally.figures(frames)
    write_json(metrics, figures)
    return figures


def _render_photos(config: SynthesisConfig, writer: ClipStoreWriter, tally: Tally, seed: int,
                   frames: int) -> None:
    for split in SPLITS:
        count = getattr(config.clips, split)
        clips = render_clips(config.photos, split, count, seed, frames, exposure=config.exposure)
        for number, made in enumerate(track(clips, f"rendering {split} clips", total=count)):
            clip = Clip(made.frames, f"{split}-{number:06d}", made.motion, "synthetic",
                        config.exposure.response, noise_level(config.exposure))
            tally.add(writer, clip, made.source, split, made.category)


def _blur_footage(footage: Manifest, root: Path, config: SynthesisConfig, writer: ClipStoreWriter,
                  tally: Tally, seed: int, frames: int) -> None:
    sources = [source for source in footage.sources if source.kind in ("video", "frames")]
    with Progress("blurring footage", total=sum(source.frames for source in sources)) as progress:
        for source in sources:
            counts = WindowCounts()
            relative = footage.relative(source)
            done = 0
            for clip in blurred(source, root / relative if relative else root, frames, config.windows,
                                config.exposure, config.clips_per_source, seed, counts):
                tally.add(writer, clip, source.source, source.split, source.category)
                progress.advance(counts.frames - done, note=source.source)
                done = counts.frames
            progress.advance(max(0, source.frames - done), note=source.source)
            found = Counter({"kept": counts.kept, "scene_cuts": len(counts.cuts)})
            found.update({f"skipped_{reason}": n for reason, n in counts.skipped.items()})
            tally.windows[source.category].update(found)
            tally.per_source[source.source] = counts.skipped
            tally.damage += [f"{source.source} {damage.place}: {damage.what}" for damage in counts.damage]


def _import_paired(footage: Manifest, root: Path, config: SynthesisConfig, writer: ClipStoreWriter,
                   tally: Tally, frames: int) -> None:
    counts = LayoutCounts()
    clips = layouts.by_sequence(root, footage.layout, frames, counts)
    sources = [source for source in footage.sources if source.kind == "paired"]
    with Progress("importing clips", total=sum(source.frames for source in sources)) as progress:
        for source in sources:
            members = clips.get(footage.relative(source), [])
            made = 0
            for clip in imported(members, footage.layout, config.paired_height, config.clips_per_source):
                tally.add(writer, clip, source.source, source.split, source.category)
                tally.responses[clip.response] += 1
                made += 1
                progress.advance(note=source.source)
            found = {"kept": made, "skipped_over_clips_per_source": len(members) - made}
            tally.windows[source.category].update(found)
    documents = imported_documents(root, footage.layout)
    if documents:
        writer.attach(IMPORTED, pack(documents))
    tally.windows[footage.layout].update({f"skipped_{reason}": n for reason, n in counts.skipped.items()})


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
