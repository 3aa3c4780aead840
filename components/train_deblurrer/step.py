"""train-deblurrer: clips and their orders → a deblurrer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.train_deblurrer.scale import ScaleConfig, check_scale
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.deblurring.objectives import LossConfig, Objective
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.files import write_json
from hypercut_core.ordering.encoder import load_encoder
from hypercut_core.ordering.labels import read_orders
from hypercut_core.training.loop import TrainingConfig, forget


@dataclass(frozen=True)
class TrainDeblurrerConfig:
    """The deblurrer of a run; `objectives` in params.yaml lists those that are trained beside it."""

    objective: Objective = "hypercut_targets"  # the shipped one
    model: DeblurrerConfig = field(default_factory=DeblurrerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)


def train_deblurrer(store: Path, orders: Path, encoder: Path, config: TrainDeblurrerConfig, objective: str,
                    out: Path, metrics: Path, seed: int, work: Path) -> dict[str, Any]:
    """Train one objective's deblurrer; write it to `out` and its figures to `metrics`.

    A killed run goes on where it was.
    """
    check_scale(config.scale, config.training)
    clips = ClipStore(store)
    folder = work / f"train-deblurrer-{objective}"
    settings = DeblurrerTraining(config.model, config.loss, config.training)
    model = fit_deblurrer(clips, objective, settings, seed, folder, orders=read_orders(orders),
                          encoder=load_encoder(encoder))
    figures = {"objective": objective, "parameters": sum(p.numel() for p in model.parameters()),
               "steps": config.training.steps, "clips_seen": config.training.steps * config.training.batch}
    save_deblurrer(out, model, {"objective": objective, "data": clips.sha256, "seed": seed,
                                "loss": asdict(config.loss), "training": asdict(config.training)})
    write_json(metrics, figures)
    forget(folder)
    return figures
