"""The two steps that talk to MLflow, as a pipeline runs them: with the champion, and with where all comes from.

`evaluate` measures the present champion beside the new models, `register-model` compares with it and may take
its place. Neither may come from a cache: the champion is no input that Kubeflow knows of.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components import provenance as origin
from components import tracking
from components.evaluate.step import EvaluateConfig
from components.evaluate.step import evaluate as evaluate_step
from components.evaluate_trajectories.step import TrajectoriesConfig
from components.evaluate_trajectories.step import evaluate_trajectories as trajectories_step
from components.register_model.step import RegisterConfig, champion_file
from components.register_model.step import register_model as register_step
from components.shared_store import RunFolder, clips_folder, group, manifest_file
from hypercut_core.errors import RegistryError
from hypercut_core.files import file_sha256, read_json


def evaluate(run: RunFolder, clips: str, orders: str, models: Mapping[str, Path], encoder_metrics: str,
             config: str, *, default: str, name: str, tracking_folder: str, run_id: str, metrics: str, report: str,
             per_frame: str, per_clip: str) -> None:
    """Score the models, and the champion of the registered model `name` unless it is one of them.

    Args:
        clips: the reference to the clip store.
        config: the group `evaluate` as JSON.
        tracking_folder: where MLflow's own file lies if no server is set; "": the store.
        metrics, report, per_frame, per_clip: the files that are written.
    """
    run.remember(seed=str(_card(models[default]).get("seed", -1)))
    champion = champion_file(RegisterConfig(name=name), _workspace(run, tracking_folder))
    if champion is not None and file_sha256(champion) in {file_sha256(model) for model in models.values()}:
        champion = None
    made = run.unfinished / "evaluation"
    evaluate_step(clips_folder(clips, run.store), models, Path(orders), made, Path(metrics),
                  group(EvaluateConfig, config), default=default, encoder_metrics=Path(encoder_metrics),
                  champion=champion, provenance={**provenance(run), "pipeline": run_id})
    for file, target in (("report.html", report), ("per_frame.csv", per_frame), ("per_clip.csv", per_clip)):
        shutil.copyfile(made / file, target)


def evaluate_trajectories(run: RunFolder, clips: str, orders: str, models: Mapping[str, Path], config: str, *,
                          default: str, metrics: str, report: str, per_clip: str) -> None:
    """Follow faces and hands through restored frames; arguments as for `evaluate`."""
    made = run.unfinished / "trajectories"
    trajectories_step(clips_folder(clips, run.store), models, Path(orders), made, Path(metrics),
                      group(TrajectoriesConfig, config), run.work, default=default, provenance=provenance(run))
    for file, target in (("report.html", report), ("per_clip.csv", per_clip)):
        shutil.copyfile(made / file, target)


def register(run: RunFolder, figures: str, model: str, report: str, config: str, objective: str, *,
             tracking_folder: str, run_id: str, metrics: str, card: str, registration: str) -> dict[str, Any]:
    """Register the model that was measured; `objective` is the one that is to be shipped.

    Raises:
        RegistryError: the model is of another objective, or the registry does not answer.
    """
    if objective_of(Path(model)) != objective:
        raise RegistryError(f"the model was trained with the objective '{objective_of(Path(model))}', and "
                            f"'{objective}' is to be shipped", where=model, remedy="run the evaluation again")
    register_step(Path(figures), Path(model), Path(report), group(RegisterConfig, config), Path(metrics),
                  workspace=_workspace(run, tracking_folder), provenance=provenance(run), pipeline_id=run_id,
                  registration=Path(registration), card=Path(card))
    return dict(read_json(registration))


def close_parent(run: RunFolder, run_id: str, config: str, tracking_folder: str, state: str, failed_step: str,
                 reason: str) -> None:
    """Log the metrics of the steps that ran, and end the MLflow run of the whole pipeline with its outcome.

    Raises:
        RegistryError: MLflow does not answer.
    """
    workspace, experiment = _workspace(run, tracking_folder), group(RegisterConfig, config).experiment
    facts = provenance(run)
    steps = {step: file for step, file in run.metrics.items() if step != "register-model"}  # it logs itself
    tracking.record(steps, workspace, params=_params(facts), tags=origin.tags(facts), experiment=experiment,
                    pipeline_id=run_id)
    tracking.close_pipeline(run_id, state, workspace, failed_step=failed_step, reason=reason,
                            experiment=experiment, tags=origin.tags(facts))


def by_objective(files: Sequence[str], objectives: Sequence[str]) -> dict[str, Path]:
    """Model files by the objective that each was trained with, in the order of `objectives`."""
    found = {objective_of(Path(file)): Path(file) for file in files}
    return {objective: found[objective] for objective in objectives}


def objective_of(model: Path) -> str:
    """The objective that a deblurrer was trained with, as its file says."""
    return str(_card(model).get("objective", ""))


def _card(model: Path) -> dict[str, Any]:
    from hypercut_core.training.checkpoint import read_info

    return dict(read_info(model).get("card", {}))


def provenance(run: RunFolder) -> dict[str, Any]:
    """Where the results of a run come from, as far as its steps have noted it."""
    lineage = run.lineage
    manifest = manifest_file(run.store, lineage["manifest"]) if "manifest" in lineage else None
    facts = origin.provenance(manifest, int(lineage.get("seed", -1)), tracking.source_revision())
    return {name: value for name, value in facts.items() if (name, value) != ("seed", -1)}


def _params(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in origin.TAGS}


def _workspace(run: RunFolder, tracking_folder: str) -> Path:
    return Path(tracking_folder) if tracking_folder else run.store
