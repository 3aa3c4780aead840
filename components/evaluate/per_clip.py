"""The figures of `evaluate` as CSV: one row a model and clip, and one row a frame for plots."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hypercut_core.clips.store import ClipRecord
    from hypercut_core.evaluation.protocol import ClipScores

TRIVIAL = "repeat_blurry"
COLUMNS = ("model", "clip_id", "source", "category", "width", "height", "motion", "margin", "ppsnr", "pssim",
           "ends", "middle", "gain", "reblur", "reversed", "agreement", "odd_strength")


def write_per_frame(path: Path, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """frame, then mean pPSNR of each model: the shape that `dvc plots` takes."""
    columns = {name: one["ppsnr_frames"] for name, one in summaries.items()}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["frame", *map(_cell, columns)])
        for number, row in enumerate(zip(*columns.values(), strict=True), start=1):
            writer.writerow([number, *(f"{value:.4f}" for value in row)])


def write_per_clip(path: Path, records: Sequence[ClipRecord], trivial: ClipScores,
                   scores: Mapping[str, ClipScores], margins: np.ndarray | None) -> None:
    """One row for each model (the trivial answer first) and clip."""
    base = trivial.ppsnr.mean(1)
    more = {name: column for name, column in (("plpips", "lpips"), ("motion_error", "motion_error"))
            if getattr(trivial, column) is not None}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        orders = list(trivial.directions)
        writer.writerow([*COLUMNS, *(f"canonical_{order}" for order in orders),
                         *(f"direction_{order}" for order in orders), *more])
        for name, one in {TRIVIAL: trivial, **scores}.items():
            frames, canonical = one.ppsnr, {order: one.canonical(order).mean(1) for order in orders}
            for i, record in enumerate(records):
                margin = float("nan") if margins is None else float(margins[i])
                numbers = [frames[i].mean(), one.ssim[i].mean(), frames[i, [0, -1]].mean(),
                           frames[i, frames.shape[1] // 2], frames[i].mean() - base[i], one.reblur[i]]
                names = (name, record.clip_id, record.source, record.category)
                writer.writerow([*map(_cell, names), record.width, record.height,
                                 _number(record.motion), _number(margin),
                                 *map(_number, numbers), int(one.reversed[i]), _number(one.agreement[i]),
                                 _number(one.odd_strength[i]),
                                 *(_number(canonical[order][i]) for order in orders),
                                 *(int(one.directions[order][i]) for order in orders),
                                 *(_number(np.mean(getattr(one, column)[i])) for column in more.values())])


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _cell(text: str) -> str:
    """Names come from footage: a spreadsheet must not take one for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
