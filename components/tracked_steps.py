"""The two steps that talk to MLflow, as a pipeline runs them: with the champion, and with where all comes from.

`evaluate` measures the present champion beside the new models, `register-model` compares with it and may take
its place. Neither may come from a cache: the champion is no input that Kubeflow knows of.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components import tracking
from components.evaluate.step import EvaluateConfig
from components.evaluate.step import evaluate as evaluate_step
from components.register_model.step import RegisterConfig, champion_file
from components.register_model.step import register_model as register_step
from components.shared_store import RunFolder, clips_folder, group
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
    run.remember(clips=str(read_json(clips)["sha256"]))
    champion = champion_file(RegisterConfig(name=name), _workspace(run, tracking_folder))
    if champion is not None and file_sha256(champion) in {file_sha256(model) for model in models.values()}:
        champion = None
    made = run.unfinished / "evaluation"
    evaluate_step(clips_folder(clips, run.store), models, Path(orders), made, Path(metrics),
                  group(EvaluateConfig, config), default=default, encoder_metrics=Path(encoder_metrics),
                  champion=champion, provenance=provenance(run, run_id))
    for file, target in (("report.html", report), ("per_frame.csv", per_frame), ("per_clip.csv", per_clip)):
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
                  workspace=_workspace(run, tracking_folder), provenance=provenance(run, run_id),
                  registration=Path(registration), card=Path(card))
    return dict(read_json(registration))


def close_parent(run: RunFolder, run_id: str, config: str, tracking_folder: str, failed_step: str,
                 reason: str) -> None:
    """Log the metrics of the steps that ran, and end the MLflow run of the whole pipeline with its outcome.

    Raises:
        RegistryError: MLflow does not answer.
    """
    workspace, experiment = _workspace(run, tracking_folder), group(RegisterConfig, config).experiment
    facts = provenance(run, run_id)
    params = {name: value for name, value in facts.items() if name != "git"}
    tracking.record({step: file for step, file in run.metrics.items() if step != "register-model"}, workspace,
                    params=params, tags={"git": facts.get("git")}, experiment=experiment)
    client = tracking.client(workspace)
    with tracking.explain(tracking.tracking_uri(workspace)):
        place = client.get_experiment_by_name(experiment)
        found = client.search_runs([place.experiment_id] if place else [],
                                   f"params.pipeline = '{run_id}' and tags.`{tracking.PARENT_TAG}` LIKE '_%'")
        for parent in found:
            if failed_step:
                client.set_tag(parent.info.run_id, "hypercut.failed_step", failed_step)
                client.set_tag(parent.info.run_id, "hypercut.reason", reason[:1000])
            client.set_terminated(parent.info.run_id, "FAILED" if failed_step else "FINISHED")


def by_objective(files: Sequence[str], objectives: Sequence[str]) -> dict[str, Path]:
    """Model files by the objective that each was trained with, in the order of `objectives`."""
    found = {objective_of(Path(file)): Path(file) for file in files}
    return {objective: found[objective] for objective in objectives}


def objective_of(model: Path) -> str:
    from hypercut_core.training.checkpoint import read_info

    return str(read_info(model).get("card", {}).get("objective", ""))


def provenance(run: RunFolder, run_id: str) -> dict[str, Any]:
    """Where a run's results come from; `run_id` is Kubeflow's id of the run."""
    lineage = run.lineage
    facts = {"pipeline": run_id, "footage manifest (sha256)": lineage.get("manifest"),
             "clips (sha256)": lineage.get("clips"), "data_rev": lineage.get("revision"),
             "git": getattr(tracking, "source_revision", str)(), "python": platform.python_version(),
             **{package: version(package) for package in ("hypercut", "torch", "numpy")}}
    return {name: value for name, value in facts.items() if value}


def _workspace(run: RunFolder, tracking_folder: str) -> Path:
    return Path(tracking_folder) if tracking_folder else run.store
