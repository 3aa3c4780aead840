"""The results of a pipeline that ran on this machine, laid where `hypercut run` puts them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from components.shared_store import RunFolder
from hypercut_core.files import atomic_directory, atomic_file, read_json
from pipelines.subprocess_run import LocalRun
from pipelines.workspace import Workspace


def lay_out(run: LocalRun, ws: Workspace, store: Path) -> None:
    """Copy what the tasks made into the workspace; of a run that failed, what there is."""
    places = {
        ("collect-footage", "manifest"): ws.manifest,
        ("validate-footage", "verdict"): ws.verdict("validate-footage"),
        ("validate-footage", "report"): ws.verdict("validate-footage").with_suffix(".html"),
        ("synthesize-blur", "metrics"): ws.metrics("synthesize-blur"),
        ("validate-clips", "verdict"): ws.verdict("validate-clips"),
        ("validate-clips", "report"): ws.verdict("validate-clips").with_suffix(".html"),
        ("train-encoder", "model"): ws.encoder,
        ("train-encoder", "metrics"): ws.metrics("train-encoder"),
        ("assign-order", "orders"): ws.orders,
        ("assign-order", "metrics"): ws.metrics("assign-order"),
        ("evaluate", "metrics"): ws.metrics("evaluate"),
        ("evaluate-trajectories", "metrics"): ws.metrics("evaluate-trajectories"),
        ("evaluate-trajectories", "report"): ws.trajectories / "report.html",
        ("evaluate-trajectories", "per_clip"): ws.trajectories / "per_clip.csv",
        ("register-model", "metrics"): ws.metrics("register-model"),
        ("register-model", "card"): ws.root / "reports/model-card.md",
        ("register-model", "registration"): ws.root / "reports/registration.json",
    }
    for (task, artifact), target in places.items():
        if (made := run.output(task, artifact)) is not None:
            _copy(made, target)
    _clips(run, ws, store)
    _deblurrers(run, ws)
    _report(run, ws)
    _rejected(ws, store, run)


def told(run: LocalRun, store: Path) -> tuple[int, str]:
    """Exit code and one paragraph on how the run went."""
    if run.succeeded:
        skipped = f", {len(run.cached)} as before" if run.cached else ""
        return 0, f"the pipeline is done: {len(run.executed)} tasks ran{skipped}"
    from components.close_run.outcome import outcome

    folder = newest_run(store, run.began)
    found = outcome(folder, "FAILED") if folder else None
    if found is None:
        return 1, f"the pipeline failed before its first step. All its output: {run.log}"
    reason = found.reason.rstrip(".")
    return (2 if found.expected else 1), f"the step '{found.failed_step}' failed: {reason}. All its output: {run.log}"


def newest_run(store: Path, began: float) -> RunFolder | None:
    """The run that left the newest note since `began`; runs that succeeded leave none."""
    notes = sorted((file for file in (store / "runs").glob("*/steps/*.json") if file.stat().st_mtime >= began - 1),
                   key=lambda file: file.stat().st_mtime)
    return RunFolder(store, notes[-1].parents[1].name) if notes else None


def _copy(made: Path, target: Path) -> None:
    with atomic_file(target) as partial:
        shutil.copyfile(made, partial)


def _clips(run: LocalRun, ws: Workspace, store: Path) -> None:
    """The clip store, without a second copy of its pixels where the file system can do so."""
    reference = run.output("synthesize-blur", "clips")
    if reference is None:
        return
    with atomic_directory(ws.clips) as folder:
        shutil.copytree(store / read_json(reference)["path"], folder, dirs_exist_ok=True, copy_function=_link)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _deblurrers(run: LocalRun, ws: Workspace) -> None:
    from components.tracked_steps import objective_of

    for model in run.outputs.get(("train-deblurrer", "model"), []):
        _copy(model, ws.deblurrer(objective_of(model)))
    for metrics in run.outputs.get(("train-deblurrer", "metrics"), []):
        _copy(metrics, ws.metrics(f"train-deblurrer-{read_json(metrics)['objective']}"))


def _report(run: LocalRun, ws: Workspace) -> None:
    if run.output("evaluate", "report") is None:
        return
    with atomic_directory(ws.report) as folder:
        for artifact, name in (("report", "report.html"), ("per_frame", "per_frame.csv"),
                               ("per_clip", "per_clip.csv")):
            shutil.copyfile(run.outputs["evaluate", artifact][0], folder / name)


def _rejected(ws: Workspace, store: Path, run: LocalRun) -> None:
    """The verdict of a gate that said no."""
    folder = None if run.succeeded else newest_run(store, run.began)
    for file in sorted(folder.reports.glob("*")) if folder else []:
        _copy(file, ws.root / "reports" / file.name)
