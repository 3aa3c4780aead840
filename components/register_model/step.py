"""register-model: figures and model → a version in the MLflow registry.

Always the alias `candidate`; `champion` only if the gate says so. Two registrations at once end with the
better one as champion: on a local store they take turns, on a server each looks again after moving the alias.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import tracking
from components.provenance import TAGS
from components.provenance import tags as origin_tags
from components.register_model.card import model_card
from components.register_model.gate import (
    GateDecision,
    Reason,
    RegisterConfig,
    decide,
    explain,
    gate_metrics,
    read_decision,
)
from components.register_model.registry import (
    CANDIDATE,
    CHAMPION,
    Registry,
    Version,
    log_pyfunc,
    open_registry,
)
from hypercut_core.errors import RegistryError
from hypercut_core.evaluation.protocol_names import BLIND, protocol_of
from hypercut_core.files import file_sha256, read_json, write_json, write_text

RECENT = 10 * 60 * 1000  # ms; no two promotions that far apart are "at the same time"

__all__ = ["RegisterConfig", "champion_file", "explain", "preview", "read_decision", "register_model"]


def register_model(metrics: Path, model: Path, report: Path | None, config: RegisterConfig, out: Path, *,
                   workspace: Path | None = None, provenance: Mapping[str, Any] | None = None,
                   steps: Mapping[str, Path] | None = None, registration: Path | None = None,
                   card: Path | None = None, pipeline_id: str = "") -> GateDecision:
    """Register the default model of an evaluation and let the gate decide.

    Args:
        metrics: metrics/evaluate.json.
        model: the model file that was measured.
        report: HTML report, stored with the run; None or missing: left out.
        out: the decision and its reasons; the same for the same model, figures and champion.
        workspace: folder of the local store; None: the parent of `out`'s folder.
        provenance: such as seed and git revision, for the card and the run's tags.
        steps: metrics files of the pipeline's other steps, each logged as a run of its own beside this one
            (logging them here saves every step MLflow's slow import).
        registration: where to write version number and run id; None: reports/registration.json.
        card: where to write the model card; None: reports/model-card.md.
        pipeline_id: the Kubeflow run, whose steps share a parent run even if the model is known already.

    Raises:
        RegistryError: no registry, the figures are of another model, or the model is not blind;
        BadCheckpoint: no model file.
    """
    workspace = workspace or out.resolve().parents[1]
    figures = read_json(metrics)
    candidate = gate_metrics(figures)
    if (protocol := protocol_of(candidate)) != BLIND:
        raise RegistryError(f"only blind models are registered, and this one was measured by '{protocol}': it needs "
                            "what no photo gives", where=metrics,
                            remedy="train a blind one, such as with deblurrer.peers.recurrent.model.protocol=blind")
    model = tracking.model_file(model, workspace)
    if candidate["model_sha256"] != file_sha256(model):
        raise RegistryError("the figures were measured on another model file", where=model,
                            remedy="run 'hypercut evaluate' again, then register")
    text = model_card(model, figures, config, provenance or {})
    registry = open_registry(config, workspace)
    with tracking.explain(registry.uri):
        version = registry.find(candidate["model_sha256"], candidate)
        if version is None or pipeline_id:
            facts = {**_facts(candidate, provenance or {}), "experiment": config.experiment,
                     "pipeline_id": pipeline_id}
            tracking.record(steps or {}, workspace, **facts)
            with tracking.run("register-model", workspace, **facts) as run:
                run.metrics(_numbers(candidate))
                version = version or _upload(registry, run, candidate, text, model, [metrics], report,
                                             facts["tags"])
                run.tags({"hypercut.version": version.number})
        with tracking.store_lock(workspace):
            decision = _decide_and_point(registry, version, figures, config)
    write_text(card or workspace / "reports/model-card.md", text)
    write_json(registration or workspace / "reports/registration.json",
               {"name": config.name, "version": version.number, "run_id": version.run_id,
                "tracking_uri": tracking.shown_uri(registry.uri), "champion": decision.promote})
    write_json(out, {**decision.to_json(), "name": config.name, "figures": candidate})
    return decision


def preview(metrics: Path, config: RegisterConfig, workspace: Path) -> GateDecision:
    """What the gate would say now; registers nothing.

    Raises:
        RegistryError, StorageError.
    """
    figures = read_json(metrics)
    registry = open_registry(config, workspace)
    with tracking.explain(registry.uri):
        champion = registry.version(CHAMPION)
    candidate = gate_metrics(figures)
    if champion is not None and champion.figures == candidate and champion.decision is not None:
        return champion.decision
    return decide(candidate, _champion_figures(champion, figures), config)


def champion_file(config: RegisterConfig, workspace: Path) -> Path | None:
    """The champion's model file, for `evaluate` to measure it on today's test set.

    None if there is no champion; a workspace without a store is left without one.
    """
    if tracking.store_missing(workspace):
        return None
    registry = open_registry(config, workspace)
    with tracking.explain(registry.uri):
        if registry.version(CHAMPION) is None:
            return None
    return tracking.model_file(f"models:/{config.name}@{CHAMPION}", workspace)


def _facts(candidate: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and tags of all runs of this pipeline."""
    params = {name: value for name, value in provenance.items() if name not in TAGS}
    return {"params": params, "tags": {**origin_tags(provenance), "test_set": candidate["test_set"],
                                       "model_sha256": candidate["model_sha256"]}}


def _numbers(candidate: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in candidate.items() if isinstance(value, int | float)}


def _upload(registry: Registry, run: tracking.StepRun, candidate: Mapping[str, Any], card: str, model: Path,
            files: list[Path], report: Path | None, tags: Mapping[str, Any]) -> Version:
    """Put the model, its card, figures and report into the run, and make a version of it."""
    with tempfile.TemporaryDirectory() as folder:
        card_file = Path(folder) / "model_card.md"
        card_file.write_text(card, encoding="utf-8")
        for file in [card_file, *files]:
            run.artifact(file)
        if report is not None and report.is_file():
            run.artifact(report, "report")
        source, model_id = log_pyfunc(model, int(candidate["frames"]), card_file)
        return registry.add(source, run.run_id, model_id, card, candidate, tags)


def _decide_and_point(registry: Registry, version: Version, figures: Mapping[str, Any],
                      config: RegisterConfig) -> GateDecision:
    registry.point(CANDIDATE, version.number)
    champion = registry.version(CHAMPION)
    if champion is not None and champion.number == version.number and champion.decision is not None:
        return champion.decision  # registered before, and still the champion
    decision = decide(version.figures, _champion_figures(champion, figures), config)
    beat = str(champion.number) if champion else "none"
    registry.record(version.number, decision, beat if decision.promote else "")
    if not decision.promote:
        return decision
    registry.point(CHAMPION, version.number)
    return decision if registry.local else _settle(registry, version, decision, beat)


def _settle(registry: Registry, version: Version, decision: GateDecision, beat: str) -> GateDecision:
    """Another process may have promoted its own version over the same champion: the better one stays.

    Both tag first and look then, so at least the later one sees the other; both choose by the same rule.
    """
    rivals = [one for one in registry.versions()
              if one.beat == beat and one.updated > version.created - RECENT]
    winner = max(rivals, key=lambda one: (float(one.figures["ppsnr"]), -one.number), default=version)
    if winner.number == version.number:
        return decision
    present = registry.version(CHAMPION)
    if present is not None and present.number == version.number:  # else a third one was promoted meanwhile
        registry.point(CHAMPION, winner.number)
    lost = Reason("rival", False, f"Version {winner.number} was promoted at the same time and is better.")
    decision = GateDecision(False, [*decision.reasons, lost])
    registry.record(version.number, decision, "")
    return decision


def _champion_figures(champion: Version | None, figures: Mapping[str, Any]) -> dict[str, Any] | None:
    """The champion's figures, measured today if `evaluate` did so, else those of its registration."""
    if champion is None:
        return None
    today = figures.get("champion")
    if isinstance(today, Mapping) and today.get("model_sha256") == champion.model_sha256:
        return gate_metrics(figures, "champion")
    return champion.figures
