"""evaluate: every deblurrer on the clips of one split → metrics/evaluate.json, reports/evaluation/.

The metrics hold nothing of the machine or the day: same models and clips, same bytes. Where a report comes
from (revision, versions, parameters) is said in the report alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.files import atomic_directory, read_json, write_json

if TYPE_CHECKING:
    from hypercut_core.clips.store import ClipStore
    from hypercut_core.ordering.labels import OrderTable


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated, and how much of it the report shows."""

    split: Literal["test", "val"] = "test"  # clips that are scored; "val" while settings are still chosen
    max_clips: int = 0  # score only so many clips, evenly chosen; 0: all
    batch: int = 32  # most clips at once (large clips go one by one)
    films: int = 8  # clips shown in the report, from best to worst
    worst: int = 6  # clips shown among the worst
    lpips: Literal["", "alex", "vgg"] = ""  # measure pLPIPS too, with this network; its weights: extra "lpips"
    motion_error: bool = False  # measure the end-point error of the recovered motion too, by optical flow


def evaluate(store: str | Path, models: Mapping[str, Path], orders: Path | None, out_dir: Path, metrics: Path,
             config: EvaluateConfig, *, default: str | None = None, encoder_metrics: Path | None = None,
             champion: Path | None = None, provenance: Mapping[str, Any] | None = None,
             device: str | None = None) -> dict[str, Any]:
    """Score all models on the same clips and write figures, tables and the report.

    Args:
        store: clip store: a folder, or s3://bucket/prefix.
        models: name -> model file, the name being the objective it was trained with.
        orders: order table, for the canonical order and the margins; None where there is none.
        out_dir: folder for report.html, per_frame.csv and per_clip.csv; replaced as a whole.
        metrics: JSON file with all figures.
        default: the model that the report is about; the first one if not given.
        encoder_metrics: figures of the learned order (hit, Con, Joint), repeated in the report.
        champion: model file of the present champion, scored on the same clips.
        provenance: what the report says of its origin.
        device: torch device; the GPU if there is one.

    Raises:
        BadClipStore: the split holds no clips.
        BadCheckpoint: a model file is missing, damaged or made for another number of frames.
    """
    from components.clip_stores import open_clips
    from components.evaluate.bench import Bench
    from hypercut_core.training.loop import pick_device

    default = default or next(iter(models), "")
    if default not in models:
        raise BadParameters(f"there is no model of the default objective '{default}'",
                            where="deblurrer.objective",
                            remedy=f"choose one of {', '.join(models)}, or train it")
    clips = open_clips(store)
    indices = _choose_clips(clips, config, store)
    bench = Bench(clips, indices, config, _read_orders(orders), str(pick_device(device or "auto")))
    for name in [default, *(name for name in models if name != default)]:
        bench.run(name, models[name])
    if champion is not None:
        bench.run_champion(champion)
    figures = bench.figures(default, _order_figures(encoder_metrics, config.split))
    with atomic_directory(out_dir) as folder:
        bench.write(folder, figures, default, dict(provenance or {}))
    write_json(metrics, figures)
    return figures


def _choose_clips(clips: ClipStore, config: EvaluateConfig, store: str | Path) -> np.ndarray:
    indices = clips.indices(config.split)
    if not len(indices):
        raise BadClipStore(f"the store holds no clips of the split '{config.split}'", where=store,
                           remedy="give footage with more sources, or set evaluate.split to another split")
    if 0 < config.max_clips < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, config.max_clips).round().astype(int)]
    return indices


def _read_orders(path: Path | None) -> OrderTable | None:
    from hypercut_core.ordering.labels import read_orders

    return None if path is None else read_orders(path)


def _order_figures(path: Path | None, split: str) -> dict[str, float]:
    """hit, conK and jointK of the encoder on this split, from the figures of train-encoder."""
    figures = read_json(path) if path is not None else {}
    figures = figures.get(split) if isinstance(figures, dict) else None
    figures = figures if isinstance(figures, dict) else {}
    return {key: float(value) for key, value in sorted(figures.items())
            if re.fullmatch(r"hit|con\d+|joint\d+", key) and isinstance(value, int | float)}
