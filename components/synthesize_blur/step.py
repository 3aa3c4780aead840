"""synthesize-blur: footage manifest → clip store with one blurry image and T sharp frames a clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypercut_core.blur.exposure import ExposureConfig
from hypercut_core.clips.manifest import SPLITS, Manifest, read_manifest
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.files import write_json
from hypercut_core.progress import track


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
    exposure: ExposureConfig = field(default_factory=ExposureConfig)  # how sharp frames become a blurry image


def synthesize_blur(manifest: Path, config: SynthesisConfig, out: Path, metrics: Path, seed: int,
                    frames: int = 7, work: Path | None = None) -> dict[str, Any]:
    """Write the clip store to `out` and its figures to `metrics`.

    Args:
        frames: T, the number of sharp frames, odd, 3 to 15.
    """
    footage = read_manifest(manifest)
    tally: Counter[tuple[str, str]] = Counter()
    motion: Counter[str] = Counter()
    with ClipStoreWriter(out, frames) as writer:
        _render_photos(footage, config, writer, tally, motion, seed, frames)
    figures: dict[str, Any] = {
        "clips": {split: sum(n for (s, _), n in tally.items() if s == split) for split in SPLITS},
        "clips_by_category": {f"{s}/{c}": n for (s, c), n in tally.items()},
        "motion_mean_px": {s: motion[s] / max(1, sum(n for (t, _), n in tally.items() if t == s)) for s in SPLITS},
        "frames": frames,
    }
    write_json(metrics, figures)
    return figures


def _render_photos(footage: Manifest, config: SynthesisConfig, writer: ClipStoreWriter,
                   tally: Counter[tuple[str, str]], motion: Counter[str], seed: int, frames: int) -> None:
    for split in SPLITS:
        count = getattr(config.clips, split)
        clips = render_clips(config.photos, split, count, seed, frames, exposure=config.exposure)
        for number, clip in enumerate(track(clips, f"rendering {split} clips", total=count)):
            writer.add(clip.frames, clip_id=f"{split}-{number:06d}", source=clip.source, split=split,
                       category=clip.category, motion=clip.motion, response=config.exposure.response,
                       noise=config.exposure.noise_read)
            tally[split, clip.category] += 1
            motion[split] += clip.motion
