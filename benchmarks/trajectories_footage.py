"""Faces and hands in frames restored from real footage: found or not, how far off, which way; several seeds.

    .venv/bin/hypercut benchmark -w out/footage --set footage.source=FOOTAGE --set footage.categories=[face,hand] ...
    .venv/bin/python -m benchmarks.trajectories_footage --workspace out/footage [--pages out/trajectories]

Takes the models that `hypercut benchmark` trained (rows and seeds that are there) and the sources that none of them
saw: those of the test split, and of the validation split, which nothing was chosen by. Their windows with honest blur
(at most 5 px a step) are measured twice: as the crops of the benchmark's own store, cut where most moves, in which a
hand fills much of the picture and may be cut off, and as whole frames of 256 px height, as in a photo.

What was found is kept in work/, so that a stopped benchmark goes on. Writes
benchmarks/results/trajectories_footage.md and .json, which hold figures alone; --pages writes a page with pictures for
each seed, which hold frames of the footage.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate_trajectories.study import Study
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadCheckpoint
from hypercut_core.files import file_sha256, write_json, write_text
from hypercut_core.trajectories.figures import REPEAT, FollowedClip
from hypercut_core.trajectories.following import TRUE, Follower, System, load_system
from hypercut_core.trajectories.measure import mean
from hypercut_core.trajectories.spread import interval
from hypercut_core.trajectories.tracker import Tracker

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/trajectories_footage")
KINDS = ("face", "hand")
UNSEEN = ("test", "val")
MOST = 2  # faces or hands in a picture
MARK = "## Looked at"  # what follows was written by hand and stays when the rest is made again
Seeds = dict[int, list[FollowedClip]]


def whole_frames(manifest: Path, most: int, work: Path) -> ClipStore:
    """Whole frames of the unseen sources, at most `most` clips each.

    The step wants a clip of every split, so the shortest source of the training comes along; it is not measured.
    """
    from components.params import Parameters
    from components.synthesize_blur.step import synthesize_blur
    from hypercut_core.clips.manifest import read_manifest, write_manifest

    store = work / f"clips-{file_sha256(manifest)[:12]}-{most}"
    if not store.exists():
        footage = read_manifest(manifest)
        shortest = min((one for one in footage.sources if one.split == "train"), key=lambda one: one.frames)
        kept = [one for one in footage.sources if one.split in UNSEEN or one == shortest]
        write_manifest(work / "footage.json", replace(footage, sources=kept))
        blur = Parameters().blur
        windows = replace(blur.windows, crop=0, crops=1, stride=0, moving_share=0.02, fast_share=0.02)
        synthesize_blur(work / "footage.json", replace(blur, windows=windows, clips_per_source=most), store,
                        work / "synthesize-blur.json", 0, work=work)
    return ClipStore(store)


def trained(workspace: Path) -> dict[str, dict[int, Path]]:
    """Row -> seed -> model file, of what a benchmark has trained so far.

    Raises:
        BadCheckpoint: nothing.
    """
    found: dict[str, dict[int, Path]] = {}
    for file in sorted((workspace / "benchmark/rows").glob("*/seed-*/model.safetensors")):
        row = file.parts[-3].replace("-", "/", 1)
        found.setdefault(row, {})[int(file.parts[-2].removeprefix("seed-"))] = file
    if not found:
        raise BadCheckpoint("there is no trained model", where=workspace / "benchmark/rows",
                            remedy="run 'hypercut benchmark' on footage with faces and hands first")
    return found


def directions(clips: ClipStore, chosen: Sequence[tuple[int, str]], seed: Path, work: Path) -> np.ndarray:
    """The canonical direction of each clip by a seed's encoder; for the benchmark's own store its table is there."""
    from hypercut_core.ordering.encoder import load_encoder
    from hypercut_core.ordering.labels import assign_orders, read_orders, write_orders

    encoder, file = seed / "encoder.safetensors", seed / "orders.parquet"
    if set(read_orders(file).clip_ids) != {record.clip_id for record in clips.records}:
        file = work / f"orders-{file_sha256(encoder)[:12]}-{clips.sha256[:12]}.parquet"
        if not file.exists():
            write_orders(file, assign_orders(load_encoder(encoder), clips))
    return read_orders(file).for_clips(clips, np.array([index for index, _ in chosen]))[:, 0]


def run(workspace: Path, most: int, seeds: Sequence[int], rows: Sequence[str], pages: Path | None,
        finished: bool = False) -> dict[str, Any]:
    """Measure every row and seed; returns what is written as JSON.

    Args:
        finished: take only what an earlier call has looked at to the end.
    """
    sets = {"crops": ClipStore(workspace / "data/clips"),
            "whole frames": whole_frames(workspace / "data/footage.json", most, WORK)}
    models = {row: files for row, files in trained(workspace).items() if not rows or row in rows}
    result: dict[str, Any] = {"seeds": sorted({seed for files in models.values() for seed in files} & set(seeds)),
                              "systems": list(models), "sets": {}, "worse": {}}
    for name, clips in sets.items():
        chosen = unseen(clips, most)
        found: Seeds = {}
        for seed in result["seeds"]:
            systems = [load_system(row, files[seed], clips.frames) for row, files in models.items() if seed in files]
            systems = [one for one in systems if not finished or is_finished(clips, chosen, one)]
            if not systems:
                continue
            canonical = directions(clips, chosen, workspace / f"benchmark/seed-{seed}", WORK)
            study = Study(clips, chosen, systems, canonical, Tracker(), WORK / "found", MOST)
            found[seed] = study.rows
            if pages is not None:
                folder = pages / name.replace(" ", "-") / f"seed-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                study.write(folder, study.figures(systems[0].name), 12, 12, {"benchmark": name, "seed": seed})
        if found:
            result["sets"][name] = gathered(found, list(models))
            result["worse"][name] = {row: worse(found, row) for row in models}
    if not result["sets"]:
        raise BadCheckpoint("nothing was looked at to the end yet", where=WORK, remedy="leave --finished out")
    return result


def is_finished(clips: ClipStore, chosen: Sequence[tuple[int, str]], system: System) -> bool:
    """Whether all pictures of a system were looked at before."""
    rows, kinds = zip(*chosen, strict=True)
    return not Follower(clips, Tracker(), WORK / "found", MOST).lacks(rows, kinds, system)


def unseen(clips: ClipStore, most: int) -> list[tuple[int, str]]:
    """Clips of unseen sources with what is looked for in them, at most `most` of a source, evenly chosen."""
    groups: dict[tuple[str, str], list[int]] = {}
    for split in UNSEEN:
        for row in map(int, clips.indices(split)):
            if clips.records[row].category in KINDS:
                groups.setdefault((clips.records[row].category, clips.records[row].source), []).append(row)
    return [(rows[k], kind) for (kind, _), rows in sorted(groups.items())
            for k in np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]


def gathered(found: Seeds, systems: Sequence[str]) -> dict[str, Any]:
    """Figures of all clips, of every category and of every source, over the seeds."""
    rows = next(iter(found.values()))
    parts: dict[str, list[int]] = {"all": list(range(len(rows)))}
    for kind in sorted({row.category for row in rows}):
        parts[kind] = [k for k, row in enumerate(rows) if row.category == kind]
    for source in sorted({row.source for row in rows}):
        parts[source] = [k for k, row in enumerate(rows) if row.source == source]
    names = [TRUE, REPEAT, *systems]
    return {part: {"clips": len(places), "sources": len({rows[k].source for k in places}),
                   "motion": mean(np.array([rows[k].motion for k in places])),
                   "systems": {name: figures for name in names if (figures := over_seeds(found, places, name))}}
            for part, places in parts.items()}


def over_seeds(found: Seeds, places: Sequence[int], name: str) -> dict[str, Any]:
    """One system's figures: each over the clips, a number a seed; and its gains over repeating, with a spread over
    sources and clips of the mean over seeds."""
    seeds = [rows for rows in found.values() if name in rows[0].measured]
    if not seeds:
        return {}
    each = [[rows[k] for k in places] for rows in seeds]
    sources = [clip.source for clip in each[0]]

    def values(of: Any) -> list[float]:
        return [mean(np.array([of(clip.measured[name]) for clip in clips], np.float64)) for clips in each]

    figures: dict[str, Any] = {key: values(lambda one, key=key: getattr(one, key)) for key in
                               ("rate", "found", "within", "mean_error", "mean_relative", "motion", "roughness")}
    if name in (TRUE, REPEAT):
        return {key: value[0] for key, value in figures.items()}
    told = [[clip.measured[name].lead * clip.canonical > 0 for clip in clips
             if clip.canonical and clip.moves and clip.measured[name].lead] for clips in each]
    figures |= {"direction": [mean(np.array(one, np.float64)) for one in told],
                "direction_clips": [len(one) for one in told]}
    for key, gain in gains(each, name).items():
        centre = np.array([mean(column) for column in gain.T])
        figures[key] = {"seeds": [mean(one) for one in gain], "mean": mean(centre),
                        "interval": interval(centre, sources), "better": int((centre > 0).sum()),
                        "same": int((centre == 0).sum()), "worse": int((centre < 0).sum())}
    return figures


def worse(found: Seeds, name: str) -> list[dict[str, Any]]:
    """Clips on which less is found or the error is higher than by repeating, by the mean over seeds."""
    seeds = [rows for rows in found.values() if name in rows[0].measured]
    if not seeds:
        return []
    gain = {key: np.array([mean(column) for column in values.T]) for key, values in gains(seeds, name).items()}
    return [{"clip": clip.clip_id, "motion": clip.motion, "true": clip.measured[TRUE].rate,
             **{key: float(values[k]) for key, values in gain.items()}}
            for k, clip in enumerate(seeds[0])
            if gain["rate_gain"][k] < 0 or gain["found_gain"][k] < 0 or gain["error_gain"][k] < 0]


def gains(each: Sequence[Sequence[FollowedClip]], name: str) -> dict[str, np.ndarray]:
    """[seeds, clips] above repeating, more is better: pictures with a detection, true faces or hands found, landmarks
    within 0.2 sizes, and error as a share of the size on what both have found."""
    made: dict[str, np.ndarray] = {
        f"{key}_gain": np.array([[getattr(clip.measured[name], key) - getattr(clip.measured[REPEAT], key)
                                  for clip in clips] for clips in each]) for key in ("rate", "found", "within")}
    error = [[-float(np.subtract(*clip.shared(name))) for clip in clips] for clips in each]
    return {**made, "error_gain": np.array(error)}


def markdown(result: Mapping[str, Any]) -> str:
    """The tables for people."""
    lines = [
        "# Faces and hands in frames restored from real footage", "",
        "Windows with honest blur (at most 5 px a step at 256 px height) of videos that no model saw. The truth is "
        "what the tracker finds on the true frames; errors take the better of the two directions, once per clip; "
        "*size* is the eye distance or the palm. Mean ± standard deviation over the seeds that each row names. Made "
        "by `python -m benchmarks.trajectories_footage`.", "",
        "*Found*: share of the pictures with a detection; *of the true*: share of the faces or hands of the true "
        "frames that are found. *Within 0.2*: share of the true landmarks met within 0.2 sizes, what was not found "
        "counting as missed. *Error* is taken only where something was found, so systems that find less have the "
        "easier pictures: the second table of each part compares on the same clips and frames. In brackets the 95 % "
        "interval of the mean over seeds, bootstrapped over videos and clips within them; with so few videos it is "
        "wide. *Clips*: better, the same and worse than repeating, by the mean over seeds. *Direction*: of the clips "
        "in which something moves, against the order of each seed's own encoder."]
    for name, parts in result["sets"].items():
        for part in ("all", *KINDS):
            if part in parts:
                one = parts[part]
                lines += ["", f"## {name.capitalize()}, {part}: {one['clips']} clips of {one['sources']} videos", "",
                          *_systems(one["systems"]), "", *_against(one["systems"], result["systems"])]
        lines += ["", f"## {name.capitalize()}, by video", "", *_by_source(parts)]
        lines += ["", f"## {name.capitalize()}, clips that get worse", "", *_worse(result["worse"][name])]
    return "\n".join([*lines, ""])


def _systems(systems: Mapping[str, Any]) -> list[str]:
    lines = ["| | found, % of pictures | of the true, % | within 0.2, % of landmarks | error, px | "
             "error, % of size | motion | roughness, % of size | direction, % |", f"|{'---|' * 9}"]
    for name, one in systems.items():
        cells = [_spread(one[key], scale, digits) for key, scale, digits in (
            ("rate", 100, 1), ("found", 100, 1), ("within", 100, 1), ("mean_error", 1, 2), ("mean_relative", 100, 1),
            ("motion", 1, 2), ("roughness", 100, 1))]
        told = "–"
        if "direction" in one:
            told = f"{_spread(one['direction'], 100, 0)} ({max(one['direction_clips'])} clips)"
        seeds = f", {len(one['rate'])} seed{'s' * (len(one['rate']) > 1)}" if isinstance(one["rate"], list) else ""
        lines.append(f"| {name}{seeds} | {' | '.join(cells)} | {told} |")
    return lines


def _against(systems: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    lines = ["| against repeating | more found, points | clips | more of the true, points | clips | "
             "more within 0.2, points | clips | less error, % of size | clips |", f"|{'---|' * 9}"]
    for name in names:
        if name in systems:
            cells = []
            for key in ("rate_gain", "found_gain", "within_gain", "error_gain"):
                one = systems[name][key]
                low, high = one["interval"]
                cells.append(f"{100 * one['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] | "
                             f"{one['better']} / {one['same']} / {one['worse']}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _by_source(parts: Mapping[str, Any]) -> list[str]:
    lines = ["| video | clips | motion, px | system | found, % | within 0.2, % | error, px | less error, % of size |",
             "|---|---|---|---|---|---|---|---|"]
    for part, one in parts.items():
        if part in ("all", *KINDS):
            continue
        for name, row in one["systems"].items():
            gain = f"{100 * row['error_gain']['mean']:+.1f}" if "error_gain" in row else "–"
            lines.append(f"| {part} | {one['clips']} | {one['motion']:.1f} | {name} | {_spread(row['rate'], 100, 1)} | "
                         f"{_spread(row['within'], 100, 1)} | {_spread(row['mean_error'], 1, 2)} | {gain} |")
    return lines


def _worse(systems: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines = ["| system | clip | motion, px | true frames found, % | more found, points | more of the true, points "
             "| more within 0.2, points | less error, % of size |", f"|{'---|' * 8}"]
    for name, clips in systems.items():
        for one in clips:
            cells = [f"{100 * one[key]:+.1f}" if np.isfinite(one[key]) else "–" for key in
                     ("rate_gain", "found_gain", "within_gain", "error_gain")]
            lines.append(f"| {name} | {one['clip']} | {one['motion']:.1f} | {100 * one['true']:.0f} | "
                         f"{' | '.join(cells)} |")
    return lines


def _spread(values: float | Sequence[float], scale: float, digits: int) -> str:
    known = [scale * value for value in ([values] if isinstance(values, int | float) else values) if np.isfinite(value)]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread}"


def write(result: Mapping[str, Any], folder: Path) -> str:
    """Write the table and the JSON; what was written by hand below `MARK` stays."""
    file = folder / "trajectories_footage.md"
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    said = before[before.index(MARK):] if MARK in before else ""
    text = markdown(result) + (f"\n{said}" if said else "")
    write_json(folder / "trajectories_footage.json", result)
    write_text(file, text)
    return text


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="folder of `hypercut benchmark`")
    parser.add_argument("--rows", nargs="*", default=[], help="only these rows of it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=12, help="most clips of a video")
    parser.add_argument("--pages", type=Path, help="folder of pages with pictures")
    parser.add_argument("--finished", action="store_true", help="only what earlier calls have looked at to the end")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(write(run(given.workspace, given.clips, given.seeds, given.rows, given.pages, given.finished), RESULTS))


if __name__ == "__main__":
    main()
