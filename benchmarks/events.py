"""The event integral on the built-in clips: how good, how noisy it may be, whether c is found, and how fast.

    .venv/bin/python -m benchmarks.events [--clips 16] [--seed 0] [--only PART ...]

Events are simulated from the sharp frames of the test photos' clips (96 px, motion of 5 to 14 px). The figures:

* with known c and no noise, the worst frame of each clip, dB, and in how many clips the direction is right, for each
  way to tell the light between two events (`event_levels.py`);
* how far the c that is found lies from the true one, by the clip's events per pixel, for both criteria;
* what limits the found c: the same with the optical flow of the true frames, with the light that a sensor of infinitely
  small steps would tell, and with both;
* quality against each kind of noise, with known c and with the c that is found;
* CPU-seconds of one thread per megapixel and frame at 1280x720, 7 frames, with the search for c and without.

Writes benchmarks/results/events.md and .json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.events import EventConfig, log_light, simulate_events
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.deblurring import threshold_search
from hypercut_core.deblurring.event_integral import EventIntegral, EventIntegralConfig, exposure_times
from hypercut_core.deblurring.event_levels import Between
from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.deblurring.threshold_search import Criterion, find_threshold
from hypercut_core.files import read_json, write_json, write_text
from hypercut_core.progress import Progress

RESULTS = Path(__file__).parent / "results"
EXPOSURE = 0.02  # seconds
MODELS = {between: EventIntegral(EventIntegralConfig(between=between)) for between in get_args(Between)}
MODEL = MODELS["timed"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
CAMERAS = {"colour, c 0.05": EventConfig(threshold=0.05, colour=True), "colour, c 0.1": EventConfig(colour=True),
           "colour, c 0.2": EventConfig(threshold=0.2, colour=True), "grey, c 0.05": EventConfig(threshold=0.05),
           "grey, c 0.2": EventConfig(threshold=0.2)}
LIVELY = (0, 1, 3, 1000)  # events per pixel: the classes in which errors of c are told
LIMITED = ("colour, c 0.1", "colour, c 0.2", "grey, c 0.2")
GIVEN = ("events", "true flow", "exact light", "both")
NOISE: dict[str, tuple[float, ...]] = {"noise_rate": (0, 1, 5, 20, 100, 500), "spread": (0, 0.03, 0.1, 0.3),
                                       "refractory": (0, 1e-4, 1e-3, 3e-3)}
NOISE_CLIPS = 6
UNITS = {"noise_rate": "false events per pixel and second", "spread": "spread of thresholds, share of c",
         "refractory": "refractory period, s"}


@dataclass(frozen=True)
class Seen:
    """One clip as a camera sees it."""

    blurry: Tensor  # (1, 3, H, W)
    sharp: Tensor  # (7, 3, H, W)
    counts: Tensor  # (1, 7, C, H, W)
    rate: float  # events per pixel


def see(frames: np.ndarray, camera: EventConfig, model: EventIntegral = MODEL, seed: int = 0) -> Seen:
    """`frames` (8, H, W, 3) uint8, the blurry image first."""
    events = simulate_events(frames[1:], exposure_times(0, EXPOSURE, 7), camera, np.random.default_rng(seed))
    images = torch.from_numpy(frames).movedim(-1, 1).float() / 255
    size = events.height * events.width * events.channels
    return Seen(images[:1], images[1:], model.counts(events, 0, EXPOSURE), len(events) / size)


def decibels(made: Tensor, true: Tensor) -> Tensor:
    return -10 * (made.clamp(0, 1) - true).square().mean((-3, -2, -1)).clamp_min(1e-10).log10()


def known_c(clips: list[np.ndarray]) -> list[dict[str, Any]]:
    """A row for each camera and way: quality with known c (worst clip, median clip), clips that reach 40 dB on every
    frame, that of the blurry image, right directions."""
    found = []
    for (name, camera), (between, model) in itertools.product(CAMERAS.items(), MODELS.items()):
        rows = []
        for frames in clips:
            seen = see(frames, camera, model)
            made = model(seen.blurry, seen.counts, camera.threshold)[0]
            forward, backward = decibels(made, seen.sharp), decibels(made.flip(0), seen.sharp)
            rows.append((float(forward.min()), float(decibels(seen.blurry.expand_as(seen.sharp), seen.sharp).mean()),
                         float(forward.mean() > backward.mean())))
        worst, blurry, right = zip(*rows, strict=True)
        found.append({"camera": name, "between": between, "worst_frame_worst_clip": min(worst),
                      "worst_frame_median_clip": statistics.median(worst),
                      "clips_of_40_db": statistics.fmean(one >= 40 for one in worst),
                      "blurry": statistics.fmean(blurry), "direction_right": statistics.fmean(right)})
    return found


def recovered_c(clips: list[np.ndarray]) -> list[dict[str, Any]]:
    """One row per camera and clip: events per pixel, and found c over true c by both criteria."""
    rows: list[dict[str, Any]] = []
    with Progress("finding c", len(CAMERAS) * len(clips)) as progress:
        for (name, camera), frames in itertools.product(CAMERAS.items(), clips):
            seen = see(frames, camera)
            if seen.rate > 0:
                found = [find_threshold(seen.blurry, seen.counts, criterion=criterion) for criterion in CRITERIA]
                ratio: dict[str, float] = {of: c / camera.threshold for of, c in zip(CRITERIA, found, strict=True)}
                rows.append({"camera": name, "events_per_pixel": seen.rate, **ratio})
            progress.advance()
    return rows


def limits_of_c(clips: list[np.ndarray]) -> list[dict[str, Any]]:
    """One row per camera, clip and what is given: found c over true c."""
    rows: list[dict[str, Any]] = []
    with Progress("what limits c", len(LIMITED) * len(clips)) as progress:
        for name, frames in itertools.product(LIMITED, clips):
            seen, c = see(frames, CAMERAS[name]), CAMERAS[name].threshold
            exact, true = exact_counts(frames, CAMERAS[name]), true_flow(seen)
            ways = ((seen.counts, optical_flow), (seen.counts, true), (exact, optical_flow), (exact, true))
            for given, (counts, flow) in zip(GIVEN, ways, strict=True):
                with mock.patch.object(threshold_search, "optical_flow", flow):
                    rows.append({"camera": name, "given": given,
                                 "ratio": find_threshold(seen.blurry, counts) / c})
            progress.advance()
    return sorted(rows, key=lambda row: (LIMITED.index(row["camera"]), GIVEN.index(row["given"])))


def exact_counts(frames: np.ndarray, camera: EventConfig) -> Tensor:
    """The change of log light since the first instant in units of c, (1, 7, C, H, W), not rounded to whole steps."""
    levels = torch.from_numpy(log_light(frames[1:], camera)).float() / camera.threshold
    return (levels - levels[:1])[None]


def true_flow(seen: Seen) -> Callable[[Tensor, Tensor], Tensor]:
    """In place of `optical_flow`: that between the true frames of the same instants, whatever frames it is given."""
    near = threshold_search._near(7, threshold_search.SPANS, None)
    true = seen.sharp.mean(1, keepdim=True)
    flow = optical_flow(true[near[:, 0]], true[near[:, 2]])
    return lambda before, after: flow


def noise_curves(clips: list[np.ndarray]) -> list[dict[str, Any]]:
    """One row per kind and strength of noise: mean PSNR with known and found c, right directions."""
    rows = []
    for kind, values in NOISE.items():
        for value in values:
            camera = replace(EventConfig(threshold=0.1, colour=True), **{kind: value})  # type: ignore[arg-type]
            known, found, right = [], [], []
            for frames in clips:
                seen = see(frames, camera)
                made = MODEL(seen.blurry, seen.counts, camera.threshold)[0]
                own = MODEL(seen.blurry, seen.counts, find_threshold(seen.blurry, seen.counts))[0]
                known.append(float(decibels(made, seen.sharp).mean()))
                found.append(float(decibels(own, seen.sharp).mean()))
                right.append(float(known[-1] > decibels(made.flip(0), seen.sharp).mean()))
            rows.append({"kind": kind, "value": value, "known": statistics.fmean(known),
                         "found": statistics.fmean(found), "direction_right": statistics.fmean(right)})
    return rows


def speed(frames: np.ndarray, height: int = 720, width: int = 1280) -> dict[str, float]:
    """CPU-seconds per megapixel and frame of a clip that is repeated to fill a photo."""
    across = [-(-side // have) for side, have in zip((height, width), frames.shape[1:3], strict=True)]
    large = np.tile(frames, (1, *across, 1))[:, :height, :width]
    camera = EventConfig(threshold=0.1)
    events = simulate_events(large[1:], exposure_times(0, EXPOSURE, 7), camera, np.random.default_rng(0))
    blurry = torch.from_numpy(large[:1]).movedim(-1, 1).float() / 255
    start = time.process_time()
    counts = MODEL.counts(events, 0, EXPOSURE)
    counted = time.process_time()
    c = find_threshold(blurry, counts)
    searched = time.process_time()
    MODEL(blurry, counts, c)
    done = time.process_time()
    unit = 7 * height * width / 1e6
    return {"events": float(len(events)), "all": (done - start) / unit, "search": (searched - counted) / unit,
            "without_search": (done - start - searched + counted) / unit}


def markdown(found: dict[str, Any]) -> str:
    """The tables for people."""
    known, rows, curves, seconds = (found[part]["figures"] for part in ("known_c", "recovered_c", "noise",
                                                                        "cpu_seconds"))
    clips = {part: found[part]["clips"] for part in found}
    lines = ["# The event integral", "",
             "Built-in clips of the test photos, 96 px, 7 frames, motion of 5 to 14 px; events simulated from the",
             "sharp frames. Made by `python -m benchmarks.events`, parts with another number of clips by",
             "`--only PART --clips N`.", "",
             f"## Known c, no noise: {clips['known_c']} clips", "",
             "| sensor | between events | worst frame, worst clip, dB | worst frame, median clip, dB |"
             " clips with 40 dB on every frame | blurry image, dB | direction right |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {row['camera']} | {row['between']} | {row['worst_frame_worst_clip']:.1f} | "
              f"{row['worst_frame_median_clip']:.1f} | {row['clips_of_40_db']:.0%} | {row['blurry']:.1f} | "
              f"{row['direction_right']:.0%} |" for row in known]
    lines += ["", "count: the paper's; half_step: 0.4 steps in the direction of the last event; timed (the default):",
              "by the times of the last and the next event. A grey sensor sees the luma alone: what it cannot know is",
              "how the colours share a change.", "", f"## Found c: {clips['recovered_c']} clips", "",
              *_note(found["recovered_c"]),
              "Found over true c: median distance from 1, and share of clips within 2 %.", "",
              f"| sensor | events per pixel | clips | {' | '.join(f'{one} | within 2 %' for one in CRITERIA)} |",
              "|---|---|---|---|---|---|---|"]
    for name, (low, high) in itertools.product(CAMERAS, itertools.pairwise(LIVELY)):
        mine = [row for row in rows if row["camera"] == name and low <= row["events_per_pixel"] < high]
        if mine:
            cells = [cell for criterion in CRITERIA for cell in _errors([row[criterion] for row in mine])]
            lines.append(f"| {name} | {low} to {high} | {len(mine)} | {' | '.join(cells)} |")
    lines += ["", f"## What limits the found c: {clips['limits']} clips", "", *_note(found["limits"]),
              "| sensor | given | median | within 2 % | most | mean, with its sign |", "|---|---|---|---|---|---|"]
    for key, group in itertools.groupby(found["limits"]["figures"], key=lambda row: (row["camera"], row["given"])):
        ratios = [row["ratio"] for row in group]
        median, within = _errors(ratios)
        lines.append(f"| {' | '.join(key)} | {median} | {within} | {max(abs(one - 1) for one in ratios):.1%} | "
                     f"{statistics.fmean(ratios) - 1:+.1%} |")
    lines += ["", "True flow: the optical flow of the true frames in place of that of the found ones. Exact light: the",
              "change of light in place of whole events, as a sensor of infinitely small steps would tell it.",
              "", "## Quality against noise", "", *_note(found["noise"]),
              f"Colour sensor, c 0.1, exposure 20 ms, {min(NOISE_CLIPS, clips['noise'])} clips, mean over frames.", "",
              "| noise | | known c, dB | found c, dB | direction right |", "|---|---|---|---|---|"]
    lines += [f"| {UNITS[row['kind']]} | {row['value']:g} | {row['known']:.1f} | {row['found']:.1f} | "
              f"{row['direction_right']:.0%} |" for row in curves]
    lines += ["", "## Time", "", f"1280x720, 7 frames, {seconds['events'] / 1e6:.1f} million events, one thread:",
              f"{seconds['all']:.2f} CPU-seconds per megapixel and frame, of which {seconds['search']:.2f} are the"
              f" search for c; {seconds['without_search']:.2f} without it.", ""]
    return "\n".join(lines)


def _note(part: dict[str, Any]) -> list[str]:
    """What a part that was not measured again says of itself."""
    return [part["note"], ""] if part.get("note") else []


def _errors(ratios: list[float]) -> tuple[str, str]:
    away = [abs(ratio - 1) for ratio in ratios]
    return f"{statistics.median(away):.1%}", f"{sum(a <= 0.02 for a in away) / len(away):.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="what is measured again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = MovingPhotosConfig(size=96, motion_min=5, motion_max=14)
    # clips of one chunk share their photos: every fifth one sees more of them
    drawn = render_clips(config, "test", 5 * given.clips, given.seed)
    clips = [clip.frames for clip in itertools.islice(drawn, 0, None, 5)]
    file = RESULTS / "events.json"
    found = read_json(file) if file.is_file() else {}
    for part in given.only:
        found[part] = {"clips": len(clips), "seed": given.seed, "figures": PARTS[part](clips)}
        write_json(file, found)
    if set(found) >= set(PARTS):
        write_text(RESULTS / "events.md", markdown(found))
        print((RESULTS / "events.md").read_text(encoding="utf-8"))


PARTS: dict[str, Callable[[list[np.ndarray]], Any]] = {
    "known_c": known_c, "cpu_seconds": lambda clips: speed(clips[0]), "recovered_c": recovered_c,
    "limits": limits_of_c,
    "noise": lambda clips: noise_curves(clips[:NOISE_CLIPS])}

if __name__ == "__main__":
    main()
