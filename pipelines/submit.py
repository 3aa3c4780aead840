"""`hypercut submit`: a compiled pipeline onto a Kubeflow Pipelines server, and its run until the end.

    upload (or find the version with the same content) → experiment → run → wait → addresses, exit code

The only module of this floor that reads the environment: KFP_ENDPOINT, KFP_NAMESPACE, KFP_TOKEN, KFP_COOKIE,
KFP_CA_CERT. Tokens and cookies come from there alone, so that no shell history or process list holds them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hypercut_core.errors import BadParameters, HypercutError, PipelineServerError
from pipelines.kubeflow_api import Address, Server
from pipelines.kubeflow_runs import Job, Pace, last_plan, start, wait
from pipelines.package_plan import checked_arguments, expected_from_cache, plan, read_package, table

if TYPE_CHECKING:
    from components.params import Parameters

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    host: str | None = None
    namespace: str | None = None
    experiment: str | None = None
    image: str | None = None
    package: Path | None = None
    store: str | None = None
    data_rev: str = ""
    minutes: float = 0.0  # of waiting; 0: until the run ends
    wait: bool = True
    dry_run: bool = False
    local: bool = False  # on this machine, without a server
    attach: str | None = None  # id of a run to wait for
    tracker_image: str = ""  # of evaluate-trajectories, beside `image`


def submit(request: Request, parameters: Parameters, workspace: Path, say: Say, tell: Say) -> int:
    """Do what is asked; returns the exit code: 1 if the run failed, else 0.

    Args:
        workspace: where MLflow's own file lies if no server of it is set.
        say: progress.
        tell: results: the addresses of the run and of its MLflow run, or the plan of a dry run.

    Raises:
        HypercutError: bad input, or the server's refusal or silence; Interrupted.
    """
    if request.local:
        from pipelines.subprocess_run import run_local

        return run_local(with_data(parameters, request.data_rev, local=True), workspace, say)
    pace = Pace(timeout=60 * request.minutes)
    if request.attach:
        server = Server(address(request.host, request.namespace))
        return _follow(server, request.attach, parameters, workspace, pace, say, tell)
    with tempfile.TemporaryDirectory(prefix="hypercut-submit-") as folder:
        made = job(parameters, Path(folder), request)
        if request.dry_run:
            for line in dry_run(request, made, say):
                tell(line)
            return 0
        server = Server(address(request.host, request.namespace))
        run_id = start(server, made, say)
    tell(f"run: {server.address.run_page(run_id)}")
    if not request.wait:
        tell(f"wait for it: hypercut submit --attach {run_id} --host {server.address.base}")
        return 0
    return _follow(server, run_id, parameters, workspace, pace, say, tell)


def _follow(server: Server, run_id: str, parameters: Parameters, workspace: Path, pace: Pace, say: Say,
            tell: Say) -> int:
    outcome = wait(server, run_id, say, pace)
    for failure in outcome.failures:
        say(f"failed: {failure}")
    tell(f"{outcome.state.lower()}: {server.address.run_page(run_id)}")
    tell(f"MLflow: {outcome.mlflow or mlflow_page(run_id, parameters, workspace)}")
    return outcome.exit_code


def mlflow_page(run_id: str, parameters: Parameters, workspace: Path) -> str:
    """Where MLflow shows this run, or why that is not known here; never an error, for the run has ended."""
    from components import tracking

    try:
        found = tracking.pipeline_address(run_id, workspace, parameters.register.experiment)
    except HypercutError as error:
        return f"not known here ({error.what})"
    return found or (f"no run with the tag {tracking.PIPELINE_TAG} = '{run_id}' in "
                     f"{tracking.shown_uri(tracking.tracking_uri(workspace))} (MLFLOW_TRACKING_URI names the server)")


def address(host: str | None, namespace: str | None) -> Address:
    """The server that is meant.

    Raises:
        PipelineServerError: none is named, or this is no address.
    """
    found = host or os.environ.get("KFP_ENDPOINT", "")
    if not found:
        raise PipelineServerError("no Kubeflow Pipelines server is named", where="submit",
                                  remedy="give --host or set KFP_ENDPOINT; --local runs the pipeline on this machine")
    certificates = os.environ.get("KFP_CA_CERT", "")
    if certificates and not Path(certificates).is_file():
        raise PipelineServerError("the file of KFP_CA_CERT is not there", where=certificates,
                                  remedy="name a PEM file, or unset it")
    return Address(found, namespace or os.environ.get("KFP_NAMESPACE", ""), os.environ.get("KFP_TOKEN", "").strip(),
                   os.environ.get("KFP_COOKIE", "").strip(), certificates)


def job(parameters: Parameters, folder: Path, request: Request) -> Job:
    """Compile the pipeline into `folder`, or take the package that is given, and check its arguments.

    Raises:
        BadParameters: no image or two, the package is none, or does not go with the parameters.
    """
    from components.storage import is_remote
    from components.train_deblurrer.scale import check_scale
    from components.train_deblurrer.start import check_start
    from pipelines.compile import compile_pipeline
    from pipelines.package_checks import check_package
    from pipelines.task_policy import STORE_MOUNT
    from pipelines.training_pipeline import arguments

    if (request.image is None) == (request.package is None):
        raise BadParameters("a pipeline needs an image, or a package that was compiled for one", where="submit",
                            remedy="give --image NAME@sha256:..., or --package FILE")
    scale = parameters.deblurrer.scale
    check_scale(scale, parameters.deblurrer.training)  # hours before the step itself would say so
    check_start(parameters.deblurrer.start, scale.launcher)
    _check_place_of_start(parameters.deblurrer.start, request.store or STORE_MOUNT)
    package = request.package or folder / "pipeline.yaml"
    if request.image:
        compile_pipeline(request.image, package, rayjob=scale.launcher == "rayjob",
                         s3_store=is_remote(request.store or ""), tracker_image=request.tracker_image)
    read_package(package)
    check_package(package)
    given = arguments(with_data(parameters, request.data_rev), store=request.store or STORE_MOUNT)
    made = Job(package, checked_arguments(read_package(package), given, package),
               request.experiment or parameters.register.experiment)
    _check_place_of_training(made, scale.launcher)
    _check_trajectories(made, parameters.trajectories.enabled)
    return made


def _check_place_of_training(job: Job, launcher: str) -> None:
    """Refuse a package that keeps a GPU for a task that only waits, or that has none for one that trains."""
    own: dict[str, int] = {}
    for task in plan(read_package(job.package), job.arguments):
        own[task.name.split(" ")[0]] = task.gpus - task.launched
    waits, gpus = launcher == "rayjob", own.get("train-deblurrer", 0)
    if (waits and gpus) or (not waits and not gpus and own.get("train-encoder", 0)):
        what = "keeps a GPU for train-deblurrer, which only waits for its RayJob" if waits else \
            "was compiled for trainings in RayJobs, and deblurrer.scale.launcher is not rayjob"
        raise BadParameters(f"the package {what}", where=job.package,
                            remedy=f"compile it {'with' if waits else 'without'} --rayjob, or give --image")


def _check_place_of_start(start: str, store: str) -> None:
    """Refuse a model to begin with that the task of the training could not read: only a store on S3 gives it keys."""
    from components.storage import is_remote

    seen = is_remote(start) if is_remote(store) else Path(start).is_relative_to(store) and ".." not in Path(start).parts
    if start and not seen:
        where = "on S3, as the store is" if is_remote(store) else f"below {store}, the volume that tasks share"
        raise BadParameters(f"the task of the training could not read '{start}'", where="deblurrer.start",
                            remedy=f"put the model {where}, and name it there")


def _check_trajectories(job: Job, enabled: bool) -> None:
    """Refuse a package without the step that the parameters switch on."""
    names = {task.name for task in plan(read_package(job.package), job.arguments)}
    if enabled and "evaluate-trajectories" not in names:
        raise BadParameters("trajectories.enabled is true, and the pipeline was compiled without that step",
                            where=job.package, remedy="give --tracker-image NAME@sha256:... where it is compiled")


def with_data(parameters: Parameters, data_rev: str, local: bool = False) -> Parameters:
    """The parameters with their footage at `data_rev`: a revision, or a URI of the footage.

    A revision is pinned to its commit here and now: by the time that the cluster fetches it, a branch could be
    another one. If it is of the repository here, others fetch it from its origin.

    Raises:
        BadParameters, StorageError: no such revision, or one that nobody else could fetch.
    """
    from components import storage

    footage = parameters.footage
    if storage.is_remote(data_rev):
        return replace(parameters, footage=replace(footage, source=data_rev, revision=""))
    revision = data_rev or footage.revision
    if revision and (footage.source == "builtin" or storage.is_remote(footage.source)):
        raise BadParameters(f"a revision ('{revision}') goes with a path that DVC tracks, and the footage is "
                            f"'{footage.source}'", where="--data-rev",
                            remedy="set footage.source to the path in the repository")
    if revision:
        revision = storage.pinned(revision)
        revision = revision if local else storage.published(revision)
    return replace(parameters, footage=replace(footage, revision=revision))


def dry_run(request: Request, job: Job, say: Say) -> list[str]:
    """What would run, as text; what the cache holds is unknown where no server answers."""
    package, last = read_package(job.package), None
    try:
        last = last_plan(Server(address(request.host, request.namespace)), package.name, job.experiment)
    except HypercutError as error:
        say(f"what the cache holds is unknown: {error}")
    tasks = plan(package, job.arguments)
    return table(tasks, expected_from_cache(tasks, last))
