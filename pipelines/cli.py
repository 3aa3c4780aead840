"""The command line: `hypercut <step>`, and the commands round the steps.

Everything heavy is imported inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hypercut_core.errors import HypercutError, Interrupted
from pipelines import data_sets, using
from pipelines.options import (
    HERE,
    ClipsOption,
    EncoderOption,
    ManifestOption,
    MetricsOption,
    ObjectiveOption,
    OrdersOption,
    ParamsOption,
    PresetOption,
    ReportOption,
    SetOption,
    TrackerImageOption,
    VerdictOption,
    WorkspaceOption,
)

app = typer.Typer(
    name="hypercut", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    help="Recover a sharp video from a single motion-blurred photo: train, evaluate, register, restore.")

STEP, WHOLE, USE = "Steps, in order", "All of them", using.PANEL


@app.command("collect-footage", rich_help_panel=STEP)
def collect_footage(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                    workspace: WorkspaceOption = HERE, manifest: ManifestOption = None) -> None:
    """Find footage, probe and hash it, split it by source -> footage manifest."""
    _step("collect-footage", params, preset, set_, workspace, manifest=manifest)


@app.command("validate-footage", rich_help_panel=STEP)
def validate_footage(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                     workspace: WorkspaceOption = HERE, manifest: ManifestOption = None,
                     verdict: VerdictOption = None) -> None:
    """Check the manifest with Great Expectations; exit code 2 if it is rejected."""
    _step("validate-footage", params, preset, set_, workspace, manifest=manifest, verdict=verdict)


@app.command("synthesize-blur", rich_help_panel=STEP)
def synthesize_blur(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                    workspace: WorkspaceOption = HERE, manifest: ManifestOption = None,
                    clips: ClipsOption = None, metrics: MetricsOption = None) -> None:
    """Footage -> clip store: one blurry image and T sharp frames a clip."""
    _step("synthesize-blur", params, preset, set_, workspace, manifest=manifest, clips=clips, metrics=metrics)


@app.command("validate-clips", rich_help_panel=STEP)
def validate_clips(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                   workspace: WorkspaceOption = HERE, clips: ClipsOption = None,
                   verdict: VerdictOption = None) -> None:
    """Check the clips with Great Expectations; exit code 2 if they are rejected."""
    _step("validate-clips", params, preset, set_, workspace, clips=clips, verdict=verdict)


@app.command("train-encoder", rich_help_panel=STEP)
def train_encoder(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                  workspace: WorkspaceOption = HERE, clips: ClipsOption = None, encoder: EncoderOption = None,
                  metrics: MetricsOption = None) -> None:
    """Train the HyperCUT encoder; resumes where a killed run stopped."""
    _step("train-encoder", params, preset, set_, workspace, clips=clips, encoder=encoder, metrics=metrics)


@app.command("assign-order", rich_help_panel=STEP)
def assign_order(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                 workspace: WorkspaceOption = HERE, clips: ClipsOption = None, encoder: EncoderOption = None,
                 orders: OrdersOption = None, metrics: MetricsOption = None) -> None:
    """Label every clip with its canonical direction of time -> order table."""
    _step("assign-order", params, preset, set_, workspace, clips=clips, encoder=encoder, orders=orders,
          metrics=metrics)


@app.command("train-deblurrer", rich_help_panel=STEP)
def train_deblurrer(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                    workspace: WorkspaceOption = HERE, objective: ObjectiveOption = None,
                    clips: ClipsOption = None, encoder: EncoderOption = None, orders: OrdersOption = None,
                    out: Annotated[Path | None, typer.Option(help="Model file (with --objective).")] = None,
                    metrics: MetricsOption = None) -> None:
    """Train deblurrers, one for each objective; resumes where a killed run stopped."""
    from hypercut_core.errors import BadParameters

    if objective is None and (out or metrics):
        raise BadParameters("--out and --metrics name one model's files", where="train-deblurrer",
                            remedy="say which with --objective")
    _step("train-deblurrer", params, preset, set_, workspace, clips=clips, encoder=encoder, orders=orders,
          deblurrer=out, metrics=metrics, objective=objective)


@app.command("evaluate", rich_help_panel=STEP)
def evaluate(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
             workspace: WorkspaceOption = HERE, clips: ClipsOption = None, orders: OrdersOption = None,
             report: ReportOption = None, metrics: MetricsOption = None) -> None:
    """Score all deblurrers on unseen clips -> metrics, tables and the offline report."""
    _step("evaluate", params, preset, set_, workspace, clips=clips, orders=orders, report=report,
          metrics=metrics)


@app.command("evaluate-trajectories", rich_help_panel=STEP)
def evaluate_trajectories(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                          workspace: WorkspaceOption = HERE, clips: ClipsOption = None, orders: OrdersOption = None,
                          report: Annotated[Path | None, typer.Option(help="Folder of the page. "
                                                                      "[reports/trajectories]")] = None,
                          metrics: MetricsOption = None) -> None:
    """Optional: faces and hands in restored frames, against the true ones (trajectories.enabled)."""
    _step("evaluate-trajectories", params, preset, set_, workspace, clips=clips, orders=orders, trajectories=report,
          metrics=metrics)


@app.command("register-model", rich_help_panel=STEP)
def register_model(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                   workspace: WorkspaceOption = HERE, report: ReportOption = None,
                   metrics: MetricsOption = None) -> None:
    """Register the default deblurrer: candidate always, champion if the gate says so."""
    _step("register-model", params, preset, set_, workspace, report=report, metrics=metrics)


@app.command("run", rich_help_panel=WHOLE)
def run(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
        workspace: WorkspaceOption = HERE) -> None:
    """Run all nine steps in a folder, without DVC."""
    from pipelines.local import run_all

    ws, parameters = _open(params, preset, set_, workspace)
    run_all(ws, parameters, say=_say)


@app.command("submit", rich_help_panel=WHOLE)
def submit(
        host: Annotated[str | None, typer.Option(help="Kubeflow Pipelines server. [KFP_ENDPOINT]")] = None,
        namespace: Annotated[str | None, typer.Option(help="Yours on a multi-user server. [KFP_NAMESPACE]")] = None,
        experiment: Annotated[str | None, typer.Option(help="Experiment of the run. [register.experiment]")] = None,
        image: Annotated[str | None, typer.Option(help="Image of all steps, NAME@sha256:...")] = None,
        package: Annotated[Path | None, typer.Option(help="Compiled pipeline, instead of --image.")] = None,
        store: Annotated[str | None, typer.Option(help="Folder that all containers share, or "
                                                  "s3://bucket/prefix.")] = None,
        data_rev: Annotated[str, typer.Option(help="Footage: a git/DVC revision, git+ADDRESS@REVISION, or "
                                              "s3://bucket/prefix.")] = "",
        timeout: Annotated[float, typer.Option(help="Minutes to wait; 0: until the run ends.")] = 0.0,
        no_wait: Annotated[bool, typer.Option("--no-wait", help="Start the run and leave it.")] = False,
        attach: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Only wait for this run.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
        local: Annotated[bool, typer.Option("--local", help="Run the same pipeline on this machine.")] = False,
        tracker_image: TrackerImageOption = "",
        params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
        workspace: WorkspaceOption = HERE) -> None:
    """Run the pipeline on Kubeflow: upload, run, wait; exit code 1 if it fails there."""
    from pipelines.submit import Request
    from pipelines.submit import submit as run_submit

    ws, parameters = _open(params, preset, set_, workspace)
    request = Request(host, namespace, experiment, image, package, store, data_rev, timeout, not no_wait, dry_run,
                      local, attach, tracker_image)
    raise typer.Exit(run_submit(request, parameters, ws.root, _say, typer.echo))


@app.command("compile", rich_help_panel=WHOLE)
def compile_(image: Annotated[str, typer.Option(help="Image of all steps, NAME@sha256:...")],
             out: Annotated[Path, typer.Option("--out", "-o", help="YAML file to write.")],
             no_gpus: Annotated[bool, typer.Option("--no-gpus", help="For clusters without.")] = False,
             cache_trainings: Annotated[bool, typer.Option("--cache-trainings", help="Let trainings come from "
                                                           "Kubeflow's cache, as other steps do.")] = False,
             rayjob: Annotated[bool, typer.Option("--rayjob", help="For deblurrer.scale.launcher=rayjob: the task of "
                                                  "the training launches and waits, without a GPU.")] = False,
             s3_store: Annotated[bool, typer.Option("--s3-store", help="For runs with --store s3://...: no shared "
                                                    "volume.")] = False,
             tracker_image: TrackerImageOption = "") -> None:
    """Write the pipeline as the YAML that Kubeflow takes; all its references are checked."""
    from pipelines.compile import compile_pipeline

    compile_pipeline(image, out, gpus=not no_gpus, cache_trainings=cache_trainings, rayjob=rayjob,
                     s3_store=s3_store, tracker_image=tracker_image)
    typer.echo(f"compiled: {out}")


@app.command("demo", rich_help_panel=WHOLE)
def demo(workspace: WorkspaceOption = HERE) -> None:
    """All nine steps through DVC (only what changed), then restore a blurry photo with the champion."""
    from pipelines.demo import demo as show

    show(workspace)


data_sets.add_commands(app)
using.add_commands(app)


@app.command("benchmark", rich_help_panel=USE)
def benchmark(rows: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Only this row: MODEL/OBJECTIVE or "
                                                             "a pattern such as 'cascade/*'; may be repeated.")] = None,
              seed: Annotated[list[int] | None, typer.Option(help="Only this seed; may be repeated.")] = None,
              budget: Annotated[str, typer.Option(help="Of each training: samples=N or seconds=S (CPU).")] = "",
              load: Annotated[list[str] | None, typer.Option(metavar="ROW=FILE", help="Measure this model file "
                                                             "instead of training.")] = None,
              start: Annotated[Path | None, typer.Option(metavar="WORKSPACE", help="Train on from the weights of the "
                                                         "same row and seed in this other benchmark.")] = None,
              ray: Annotated[bool, typer.Option("--ray", help="One Ray task a row.")] = False,
              list_: Annotated[bool, typer.Option("--list", help="Say which rows there are; train nothing.")] = False,
              json_: Annotated[bool, typer.Option("--json", help="With --list: as JSON.")] = False,
              params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
              workspace: WorkspaceOption = HERE, clips: ClipsOption = None) -> None:
    """Train or load every (model, objective) pair on one clip store -> one table; goes on where it was stopped."""
    from pipelines.benchmark_models import Request, listed, loads
    from pipelines.benchmark_models import benchmark as run_benchmark

    ws, parameters = _open(params, preset, set_, workspace, {"clips": clips})
    request = Request(rows or (), seed or (), budget, loads(load or ()), ray, start)
    if list_:
        typer.echo(listed(request, parameters, as_json=json_))
    elif not run_benchmark(ws, parameters, request, _say):
        raise typer.Exit(1)


@app.command("gate", rich_help_panel=USE)
def gate(explain: Annotated[bool, typer.Option("--explain", help="Every comparison that was made.")] = False,
         workspace: WorkspaceOption = HERE, params: ParamsOption = None, preset: PresetOption = None,
         set_: SetOption = None) -> None:
    """What the gate decided about the newest candidate, and why."""
    from pipelines.models import explain_gate

    ws, parameters = _open(params, preset, set_, workspace)
    typer.echo(explain_gate(ws, parameters, details=explain))


@app.command("params", rich_help_panel=USE)
def show_params(params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
                workspace: WorkspaceOption = HERE) -> None:
    """Print the parameters that a step would get, with their meaning and unit."""
    from components.params import explained

    typer.echo(explained(_open(params, preset, set_, workspace)[1]), nl=False)


@app.command("doctor", rich_help_panel=USE)
def doctor(
        cluster: Annotated[bool, typer.Option("--cluster", help="Examine every node of a Ray cluster instead; exit "
                                              "code 1 if an expensive run would fail.")] = False,
        address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="Head of the cluster, host:port.")] = "auto",
        json_: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
        timeout: Annotated[float, typer.Option(min=1.0, help="Seconds that a node has for each answer.")] = 60.0,
        params: ParamsOption = None, preset: PresetOption = None, set_: SetOption = None,
        workspace: WorkspaceOption = HERE, clips: ClipsOption = None) -> None:
    """Say what works on this machine, or on a cluster, and what mends the rest."""
    from pipelines.doctor import examine

    if cluster:
        from components.train_deblurrer.cluster_probe import ProbeConfig
        from pipelines.cluster_doctor import Request, examine_cluster

        ws, parameters = _open(params, preset, set_, workspace, {"clips": clips})
        request = Request(address, _store(ws.clips, clips), parameters.deblurrer.scale, ProbeConfig(patience=timeout))
        raise typer.Exit(0 if examine_cluster(request, json_, _say, typer.echo) else 1)
    if not examine(workspace, typer.echo):
        raise typer.Exit(2)


def main() -> None:
    """Entry point: errors that a user can mend are one paragraph on stderr, exit code 2."""
    usage_error: Any = typer.BadParameter.__mro__[2]  # ClickException, of click or of typer's own copy of it
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except usage_error as error:
        error.show()
        code = 2
    except Interrupted as error:
        _fail(str(error))
        sys.exit(130)
    except HypercutError as error:
        code = _fail(str(error))
    except OSError as error:
        explanation = explained_os_error(error)
        if explanation is None:
            raise
        code = _fail(explanation)
    except MemoryError:
        code = _fail("the memory is full. To mend it: close other programs, or use smaller batches or tiles.")
    if code == 130:  # typer turns the signal into this code itself
        print("hypercut: interrupted; run the same command again to go on", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def explained_os_error(error: OSError) -> str | None:
    """One paragraph for the errors of the surroundings; None for those that are bugs."""
    known = {
        errno.ENOSPC: ("the disk is full", "free some space, then run it again"),
        errno.EDQUOT: ("the disk quota is used up", "free some space, then run it again"),
        errno.EACCES: ("access is not permitted", "choose a path that you may use"),
        errno.EPERM: ("access is not permitted", "choose a path that you may use"),
        errno.EROFS: ("the file system is read-only", "choose a path that you may write to"),
        errno.ENOENT: ("there is no such file or folder", "check the path"),
        errno.EISDIR: ("this is a folder, and a file is needed", "check the path"),
        errno.ENOTDIR: ("this is a file, and a folder is needed", "check the path"),
        errno.EMFILE: ("too many files are open", "raise the limit with 'ulimit -n 4096'"),
        errno.EIO: ("the disk reports an error", "check the disk, then run it again"),
        errno.ENOMEM: ("the memory is full", "close other programs, then run it again"),
    }
    if error.errno not in known:
        return None
    what, cure = known[error.errno]
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{what}. To mend it: {cure}."


def _fail(paragraph: str) -> int:
    print(f"hypercut: {' '.join(paragraph.split())}", file=sys.stderr)
    return 2


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _store(store: Path | str, asked_for: str | None) -> str | None:
    """What the nodes of a cluster shall read: nothing, if there is nothing here and nothing was asked for."""
    if isinstance(store, str):
        return store
    return str(store.resolve()) if asked_for or store.is_dir() else None


def _step(name: str, params: Path | None, preset: str | None, overrides: list[str] | None, workspace: Path,
          objective: str | None = None, metrics: Path | None = None, **paths: Path | str | None) -> None:
    from pipelines.local import STEPS, train_deblurrer

    if metrics is not None:
        paths[f"metrics of {name}" + (f"-{objective}" if objective else "")] = metrics
    ws, parameters = _open(params, preset, overrides, workspace, paths)
    if objective is not None:
        train_deblurrer(ws, parameters, objective)
    else:
        STEPS[name](ws, parameters)


def _open(params: Path | None, preset: str | None, overrides: list[str] | None, workspace: Path,
          paths: dict[str, Path | str | None] | None = None) -> tuple[Any, Any]:
    """The workspace and the parameters that a command is about."""
    from components.params import SOURCE_TREE, load
    from pipelines.workspace import Workspace

    usual = [folder / "params.yaml" for folder in (workspace, HERE, SOURCE_TREE)]
    file = params or next((path for path in usual if path.is_file()), None)
    elsewhere = {name: path for name, path in (paths or {}).items() if path is not None}
    return Workspace(workspace, elsewhere), load(file, preset, overrides or ())


if __name__ == "__main__":
    main()
