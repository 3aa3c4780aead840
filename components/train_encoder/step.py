"""train-encoder: clips → HyperCUT encoder and its hit, Con and Joint on unseen clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from components.checkpoint_places import checkpoint_place, open_checkpoints
from components.clip_stores import open_clips
from hypercut_core.files import write_json
from hypercut_core.ordering.distillation import TeacherConfig, fit_teacher
from hypercut_core.ordering.encoder import EncoderConfig, save_encoder
from hypercut_core.ordering.training import fit_encoder, measure_encoder
from hypercut_core.training.checkpoint_folder import forget_checkpoints
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig, forget, training_facts


@dataclass(frozen=True)
class TrainEncoderConfig:
    """The encoder and its training."""

    model: EncoderConfig = field(default_factory=EncoderConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=800, rate=2e-3))
    recolour: bool = True  # each pair of a clip in random colours: an order of motion, not of looks
    objective: Literal["hypercut", "distilled"] = "hypercut"  # distilled: the direction that a teacher predicts
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    checkpoints: str = ""  # folder or s3:// prefix of the checkpoints; empty: the step's work folder


def train_encoder(store: str | Path, config: TrainEncoderConfig, out: Path, metrics: Path, seed: int,
                  work: Path) -> dict[str, Any]:
    """Write the encoder to `out` and its figures to `metrics`; a killed run goes on where it was.

    Raises:
        TrainingCollapsed: the encoder's order means nothing, or its teacher has learned nothing.
    """
    clips = open_clips(store)
    folder, lesson = work / "train-encoder", work / "train-encoder-teacher"
    lessons = {"training": training_facts(config.training),
               "teacher": asdict(config.teacher) | {"training": training_facts(config.teacher.training)}}
    facts = [clips.sha256, seed, asdict(replace(config, checkpoints="")) | lessons]
    places = {one: checkpoint_place(one.name, facts, config.checkpoints, one) for one in (folder, lesson)}
    told = {one: Execution(checkpoints=open_checkpoints(place)) for one, place in places.items()}
    teacher = (fit_teacher(clips, config.teacher, seed, lesson, told[lesson]) if config.objective == "distilled"
               else None)
    encoder = fit_encoder(clips, config.model, config.training, seed, folder, recolour=config.recolour,
                          teacher=teacher, execution=told[folder])
    figures = measure_encoder(encoder, clips, teacher)
    figures["parameters"] = sum(p.numel() for p in encoder.parameters())
    save_encoder(out, encoder, {"data": clips.sha256, "seed": seed, "training": training_facts(config.training),
                                "recolour": config.recolour, "objective": config.objective, "figures": figures,
                                **({"teacher": asdict(config.teacher)} if teacher is not None else {})})
    write_json(metrics, figures)
    for one, place in places.items():
        forget_checkpoints(open_checkpoints(place))
        forget(one)
    return figures
