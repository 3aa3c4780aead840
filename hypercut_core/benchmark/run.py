"""One row with one seed: trained within its budget (or loaded), then measured under every protocol that it knows.

Everything that is finished lies in the row's folder and is not done again: the plan (how many steps fit into the
budget), the model, the figures. A killed training goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hypercut_core.benchmark.config import BenchmarkConfig
from hypercut_core.benchmark.rows import EVENT_INTEGRAL, REPEAT, Row, Shapes, parse_row
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.objectives import LossConfig
from hypercut_core.files import file_sha256, read_json, write_json
from hypercut_core.training.loop import TrainingConfig, training_facts

if TYPE_CHECKING:
    from hypercut_core.training.execution import Execution

TRIAL_SECONDS = 5.0  # CPU-seconds of steps that tell how long one takes: a few quick ones mislead by a third
MOST_TRIAL_STEPS = 128


@dataclass(frozen=True)
class Job:
    """One row with one seed, with all that it needs; may be sent to another process."""

    row: str
    seed: int
    clips: Path
    encoder: Path
    orders: Path
    folder: Path  # the row's own
    budget: BenchmarkConfig
    shapes: Shapes
    loss: LossConfig
    training: TrainingConfig
    split: str = "test"
    max_clips: int = 0  # 0: all
    load: Path | None = None  # a model file, instead of training
    start: Path | None = None  # a model file whose weights the training begins with

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    def identity(self) -> str:
        """What makes the result this result: another clip store, shape or budget is another."""
        row = parse_row(self.row)
        config = asdict(self.shapes.config(row.model)) if row.objective else {}
        budget = (self.budget.samples, 0.0 if self.budget.samples else self.budget.seconds)
        facts = [self.row, self.seed, ClipStore(self.clips).sha256, file_sha256(self.orders), config,
                 self.shapes.rate(row.model, self.training.rate), self.shapes.peers.recurrent.stages,
                 asdict(self.loss), training_facts(replace(self.training, checkpoint_seconds=0.0, cache_mb=0)), budget,
                 self.split, self.max_clips, self.budget.films, file_sha256(self.load) if self.load else "",
                 *([file_sha256(self.start)] if self.start else [])]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def finished(job: Job) -> bool:
    """Is this very row measured already?"""
    return job.result.is_file() and bool(read_json(job.result).get("identity") == job.identity())


def run_job(job: Job) -> None:
    """Train or load, measure, and write `result.json` and `films.npz` into the row's folder.

    Raises:
        HypercutError: from the training or the clips.
    """
    import torch

    from hypercut_core.benchmark.scoring import score_row

    if job.training.threads:
        torch.set_num_threads(job.training.threads)
    identity, row = job.identity(), parse_row(job.row)
    facts: dict[str, Any] = {}
    model = None
    if row.model not in (REPEAT, EVENT_INTEGRAL):
        model, facts = _loaded(job) if job.load else _trained(job, row, identity)
    results, films = score_row(row, model, job)
    if films:
        _write_films(job.folder / "films.npz", films)
    write_json(job.result, {"identity": identity, "row": row.name, "model": row.model, "objective": row.objective,
                            "seed": job.seed, "results": results, **facts})


def _trained(job: Job, row: Row, identity: str) -> tuple[Path, dict[str, Any]]:
    from hypercut_core.benchmark.curves import FILE, CurveWriter, validation_gain
    from hypercut_core.deblurring.models import save_deblurrer
    from hypercut_core.training.checkpoint import read_info
    from hypercut_core.training.execution import Execution

    file, plan = job.folder / "model.safetensors", _plan(job, row, identity)
    facts = {"steps": plan["steps"], "samples": plan["steps"] * job.training.batch,
             "step_cpu_seconds": plan["step_cpu_seconds"],
             **({"start": file_sha256(job.start)} if job.start else {})}
    card = read_info(file).get("card", {}) if file.is_file() else {}
    if card.get("identity") != identity:
        curve = CurveWriter(job.folder / FILE, plan["steps"], validation_gain(ClipStore(job.clips)))
        model = _fit(job, row, plan["steps"], job.folder / "work", Execution(follow=curve))
        card = {"identity": identity, "objective": row.objective, "seed": job.seed,
                "cpu_seconds": curve.cpu_seconds(), "curve": FILE,
                **({"start": {"sha256": facts["start"]}} if job.start else {})}
        save_deblurrer(file, model, card)
        _forget(job.folder / "work")
    # models of earlier versions have no curve
    return file, {**facts, "cpu_seconds": card["cpu_seconds"], **({"curve": FILE} if card.get("curve") == FILE else {})}


def _loaded(job: Job) -> tuple[Path, dict[str, Any]]:
    from hypercut_core.training.checkpoint import read_info

    assert job.load is not None
    card = read_info(job.load).get("card", {})
    steps = card.get("training", {}).get("steps") if isinstance(card.get("training"), dict) else None
    return job.load, {"loaded": file_sha256(job.load), **({"steps": steps} if isinstance(steps, int) else {})}


def _plan(job: Job, row: Row, identity: str) -> dict[str, Any]:
    """How many steps the budget allows; measured once and kept, so that a resumed training is the same."""
    file = job.folder / "plan.json"
    if file.is_file() and (known := read_json(file)).get("identity") == identity:
        return dict(known)
    if job.budget.samples:
        steps, each = job.budget.samples / job.training.batch, None
    else:
        each = _measured_step(job, row)
        steps = job.budget.seconds / each
    plan = {"identity": identity, "steps": max(1, round(steps)), "step_cpu_seconds": each}
    write_json(file, plan)
    return plan


def _measured_step(job: Job, row: Row) -> float:
    """A row's CPU-seconds of a step, measured once: every seed is given the same number of steps."""
    shape = json.dumps([job.row, ClipStore(job.clips).sha256, asdict(job.shapes.config(row.model)),
                        job.shapes.peers.recurrent.stages, job.training.batch, job.training.crop,
                        job.training.threads, *(["from a start"] if job.start else []),
                        *(["out of focus"] if job.training.augmentation.defocus else [])], sort_keys=True)
    asked, file = hashlib.sha256(shape.encode()).hexdigest(), job.folder.parent / "step.json"
    if file.is_file() and (known := read_json(file)).get("of") == asked:
        return float(known["cpu_seconds"])
    each = step_seconds(job, row)
    write_json(file, {"of": asked, "cpu_seconds": each})
    return each


def step_seconds(job: Job, row: Row) -> float:
    """CPU-seconds of a training step, from a short training and a longer one; what both do once drops out.

    Steps come in fours: the recurrent model's stages then have their shares, and nothing else cares.
    """
    def spent(steps: int) -> float:
        started = time.process_time()
        _fit(job, row, steps, job.folder / "trial")
        _forget(job.folder / "trial")
        return time.process_time() - started

    spent(4)  # warms up: the clips' cache, the allocator
    short, steps = spent(4), 8
    while (long := spent(steps)) - short < TRIAL_SECONDS and steps < MOST_TRIAL_STEPS:
        steps *= 4
    return max((long - short) / (steps - 4), 1e-4)


def _fit(job: Job, row: Row, steps: int, work: Path, execution: Execution | None = None) -> Any:
    from hypercut_core.deblurring.start import read_start
    from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
    from hypercut_core.ordering.encoder import load_encoder
    from hypercut_core.ordering.labels import read_orders

    training = replace(job.training, steps=steps, rate=job.shapes.rate(row.model, job.training.rate))
    settings = DeblurrerTraining(job.shapes.config(row.model), job.loss, training, job.shapes.peers.recurrent.stages)
    return fit_deblurrer(ClipStore(job.clips), row.objective, settings, job.seed, work,
                         orders=read_orders(job.orders), encoder=load_encoder(job.encoder),
                         execution=execution, start=read_start(job.start) if job.start else None)


def _forget(work: Path) -> None:
    from hypercut_core.training.loop import forget

    forget(work)


def _write_films(path: Path, films: dict[str, np.ndarray]) -> None:
    from hypercut_core.files import atomic_file

    with atomic_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **films)  # type: ignore[arg-type]
