"""assign-order: clips and encoder → order table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.clip_stores import open_clips
from hypercut_core.files import write_json
from hypercut_core.ordering.encoder import load_encoder
from hypercut_core.ordering.labels import assign_orders, write_orders
from hypercut_core.training.loop import pick_device


@dataclass(frozen=True)
class OrderConfig:
    """How clips are ordered."""

    device: str = "cpu"  # the table is the same to the last bit on one kind of device only
    threads: int = 0  # clips in work at once, one CPU thread each; the table does not depend on it; 0: all cores


def assign_order(store: str | Path, encoder: Path, config: OrderConfig, out: Path, metrics: Path) -> dict[str, Any]:
    """Write the order table to `out` and its figures to `metrics`."""
    clips = open_clips(store)
    torch.set_num_threads(1)
    table = assign_orders(load_encoder(encoder), clips, str(pick_device(config.device)),
                          config.threads or os.cpu_count() or 1)
    write_orders(out, table)
    quantiles = np.quantile(table.margin, (0.05, 0.5, 0.95)) if len(clips) else np.zeros(3)
    figures = {"clips": len(clips), "kept": float((table.direction > 0).mean()),
               "agree": float(table.agree.mean()), "margin_quantiles": [float(q) for q in quantiles]}
    write_json(metrics, figures)
    return figures
