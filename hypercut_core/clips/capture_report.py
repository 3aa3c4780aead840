"""What became of a capture, as one HTML file: the fit of each scene, and how well blur is explained, in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.clips.captures import STAGES
from hypercut_core.evaluation import charts, films, tables
from hypercut_core.evaluation.page import page
from hypercut_core.files import write_text
from hypercut_core.photos import load_photo

STRENGTH = 4  # differences are shown so many times as strong, round grey
NOTE = ("PSNR of the captured blur against the mean, in linear light, of the sharp frames that belong to its exposure: "
        "with the time alone matched, then the colours, then the geometry (a homography, then a smooth rest). What "
        "remains is limited by noise, by the time between two sharp frames and by what only one of the cameras sees.")


def write_capture_report(folder: Path, summary: Mapping[str, Any], entries: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write capture.html into the data set."""
    rows = [row for one in entries.values() for row in one]
    last = np.array([row["capture"]["psnr"]["rest"] for row in rows])
    picked = dict.fromkeys(int(place) for place in np.argsort(last)[[0, len(last) // 2, len(last) - 1]])
    shown = "".join(_pictures(folder, rows[place]) for place in picked)
    least = summary["rule"]["min_psnr"]
    curve = charts.Series("clips", [(float(place), float(value)) for place, value in enumerate(np.sort(last), 1)], 0)
    chart = charts.line_chart([curve], "clips, from worst to best", "blur explained (dB)",
                              f"PSNR of {len(last)} clips, from {last.min():.1f} to {last.max():.1f} dB")
    left = sum(sum(one["left out"].values()) for one in summary["scenes"].values())
    body = (f'<header><h1>Captured data set</h1><p class="headline">{summary["clips"]:,} clips, whose '
            f"frames explain their blur by {last.mean():.1f} dB on average; {left:,} exposures were left out."
            "</p></header>"
            f"<main><section><h2>Scenes</h2>{_scenes(summary)}<p class=\"small soft\">{escape(NOTE)} Clips below "
            f"{least:g} dB are left out.</p></section><section><h2>Clips</h2><figure class=\"wide\">{chart}</figure>"
            f'<p>The worst clip, the middle one and the best:</p><div class="clips">{shown}</div></section></main>')
    write_text(folder / "capture.html", page("Captured data set", body))


def _scenes(summary: Mapping[str, Any]) -> str:
    heads = [("Scene", ""), ("Clips", ""), ("Left out", ""), ("Begin", "sharp frame"), ("Rate", "sharp per blurry"),
             ("Corners moved", "px"), ("Bent", "px"), ("Curve", "gamma"), ("Time", "dB"), ("Colour", "dB"),
             ("Geometry", "dB"), ("Rest", "dB")]
    rows = []
    for name, one in summary["scenes"].items():
        left = ", ".join(f"{count} {escape(reason)}" for reason, count in one["left out"].items()) or "none"
        rest = tables.MISSING if one["rest_px"] is None else f"{one['rest_px']:.1f}"
        stages = [f"{one['psnr'][stage]:.1f}" if one["psnr"] else tables.MISSING for stage in STAGES]
        mirror = " (mirrored)" if one["mirrored"] else ""
        rows.append([escape(name) + mirror, f"{one['clips']:,}", left, f"{one['offset']:.2f}", f"{one['rate']:.4f}",
                     f"{one['corner_shift_px']:.1f}", rest, f"{one['gamma']:.2f}", *stages])
    return tables.table(heads, rows, "Scenes")


def _pictures(folder: Path, row: Mapping[str, Any]) -> str:
    frames = [row[key] for key in sorted(row) if key.startswith("frame") and key.endswith("_path")]
    sharp = np.stack([load_photo(folder / path) for path in frames])
    blurry = load_photo(folder / row["blur_path"])
    made = expose(sharp, ExposureConfig(), np.random.default_rng(0))
    difference = np.clip(128 + STRENGTH * (made.astype(int) - blurry), 0, 255).astype(np.uint8)
    about = f"clip {row['id']}"
    panels = "".join(films.panel(label, picture[None], about) for label, picture in (
        ("captured blur", blurry), ("mean of the frames", made), (f"difference, {STRENGTH} times", difference)))
    return (f'<figure><div class="strip many">{panels}</div><figcaption><strong>'
            f"{row['capture']['psnr']['rest']:.1f} dB</strong>, {escape(row['id'])}</figcaption></figure>")
