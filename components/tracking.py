"""MLflow runs: one parent a pipeline, one child a step; and models by `models:/name@alias`.

The server is MLFLOW_TRACKING_URI; without it an SQLite file in the workspace, artifacts beside it. A run id
given by MLFLOW_RUN_ID (as Kubeflow's plugin does) is logged into as it is. Secrets are never logged.

A parent belongs to a Kubeflow run (`pipeline_id`), or to a git revision with its parameters. Steps that start
at the same moment agree on one: a lock file guards the local store; a server has no lock, but it refuses the
second of two experiments with one name. So a step makes a run, then claims it with an experiment called
"hypercut.pipeline/..." that names the run and is hidden (deleted, which keeps its name) at once; a step that comes
second deletes its run and takes the claimed one. "mlflow gc" removes claims: not while a pipeline runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.redaction import clean, leaves, shown
from components.tracking_failure import failure, store_refused
from hypercut_core.errors import BadCheckpoint, HypercutError, MissingExtra, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "hypercut"
PARENT_TAG = "hypercut.pipeline"  # of a parent: the key that its steps find it by
PIPELINE_TAG = "hypercut.pipeline_id"  # of a parent and its children: the Kubeflow run
MODEL_FILE = "deblurrer.safetensors"  # inside every registered model


@dataclass(frozen=True)
class StepRun:
    """A running MLflow run."""

    client: MlflowClient
    run_id: str

    def metrics(self, figures: Mapping[str, Any], prefix: str = "") -> None:
        """Log all numbers of a nested dictionary, names joined by dots."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        found = [Metric(_plain_name(name), value, now, 0) for name, value in _numbers(figures, prefix)]
        for start in range(0, len(found), 500):  # a server takes 1000 at once
            self.client.log_batch(self.run_id, metrics=found[start:start + 500])

    def points(self, series: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log points of curves: a step and its figures each."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        found = [Metric(_plain_name(name), float(value), now, step) for step, figures in series
                 for name, value in figures.items()]
        for start in range(0, len(found), 500):
            self.client.log_batch(self.run_id, metrics=found[start:start + 500])

    def end(self, status: str) -> None:
        """Mark the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def tags(self, values: Mapping[str, Any]) -> None:
        _set_tags(self.client, self.run_id, clean(values))


def tracking_uri(workspace: Path) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace.resolve() / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """The address without its user and password."""
    return shown(uri)


def source_revision() -> str:
    """The git revision that an image was built from: HYPERCUT_REVISION, which its build sets; "" elsewhere."""
    return os.environ.get("HYPERCUT_REVISION", "").strip()


@contextlib.contextmanager
def source_at(revision: str) -> Iterator[None]:
    """Tell the processes that are started meanwhile which revision their source has."""
    with _same_environment("HYPERCUT_REVISION"):
        os.environ["HYPERCUT_REVISION"] = revision
        yield


def store_missing(workspace: Path) -> bool:
    """Whether the store is a local file that is not there yet, so that reading it would only create it."""
    store = _store_file(workspace)
    return store is not None and not store.exists()


def _store_file(workspace: Path) -> Path | None:
    uri = tracking_uri(workspace)
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def store_lock(workspace: Path) -> Iterator[None]:
    """One process at a time on a local SQLite store; a server looks after itself."""
    store = _store_file(workspace)
    if store is None:
        yield
        return
    import fcntl

    from hypercut_core.files import explain_os_errors

    path = store.with_name(store.name + ".lock")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, however the process ends
        yield


def client(workspace: Path) -> MlflowClient:
    """A client of this workspace's server, which is made MLflow's default in this process.

    Raises:
        MissingExtra: MLflow is not installed; RegistryError: the server does not answer.
    """
    mlflow = _mlflow()
    uri = tracking_uri(workspace)
    with store_lock(workspace), explain(uri):
        with _same_environment("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(registry)
        made = mlflow.MlflowClient()
        made.search_experiments(max_results=1)  # creates the tables of a new store
    return made


@contextlib.contextmanager
def _same_environment(*names: str) -> Iterator[None]:
    """MLflow writes its settings into the environment, where the next workspace would find them."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def explain(uri: str) -> Iterator[None]:
    """Turn MLflow's and its database's errors into one that names the server and what to look at."""
    try:
        yield
    except HypercutError:
        raise
    except Exception as error:
        told = failure(error, uri)
        if told is None:
            raise
        raise told  # noqa: B904 - it says itself which cause may be shown


@contextlib.contextmanager
def run(step: str, workspace: Path, *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None, experiment: str = EXPERIMENT,
        pipeline_id: str = "") -> Iterator[StepRun]:
    """Track one step: a child run of this pipeline's parent, or the run that MLFLOW_RUN_ID names.

    Args:
        step: name of the step and of its run.
        workspace: folder of the SQLite store if no server is set.
        params: parameters as nested dictionaries; secrets are left out.
        tags: such as the git revision and data hashes.
        pipeline_id: the Kubeflow run whose parent is ours; "": `params` and the git revision tell it.

    Raises:
        MissingExtra, RegistryError.
    """
    mlflow = _mlflow()
    made = client(workspace)
    given = os.environ.get("MLFLOW_RUN_ID")
    facts = clean(tags or {}) | ({PIPELINE_TAG: pipeline_id} if pipeline_id else {})
    settings = clean(params or {})
    with explain(tracking_uri(workspace)):
        if given:
            run_id = given
            _set_tags(made, run_id, facts)
        else:
            place, parent = _place_and_parent(made, workspace, experiment, facts, settings, pipeline_id)
            labels = {"mlflow.parentRunId": parent, "mlflow.runName": step, "hypercut.step": step, **facts}
            run_id = made.create_run(place, run_name=step, tags=labels).info.run_id
        prefix = f"{step}." if given else ""  # several steps may share a given run
        _log_params(made, run_id, {prefix + name: value for name, value in settings.items()})
        # on leaving, MLflow marks the run as FINISHED or FAILED
        with _same_environment("MLFLOW_RUN_ID"), mlflow.start_run(run_id=run_id):
            yield StepRun(made, run_id)


def server_named() -> bool:
    """Whether MLFLOW_TRACKING_URI says where to log; otherwise it is the workspace's own file."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI"))


def open_run(name: str, workspace: Path, *, params: Mapping[str, Any], tags: Mapping[str, Any],
             experiment: str = EXPERIMENT) -> StepRun:
    """A child run that lives as long as its training, however many processes that takes.

    It is the one of this name that has not ended, or a new one; `StepRun.end` ends it.

    Raises:
        MissingExtra, RegistryError.
    """
    made = client(workspace)
    facts, settings = clean(tags), clean(params)
    with explain(tracking_uri(workspace)):
        place, parent = _place_and_parent(made, workspace, experiment, facts, settings, "")
        query = (f"tags.`mlflow.parentRunId` = '{parent}' and tags.`hypercut.step` = '{name}' and "
                 "attributes.status = 'RUNNING'")
        if found := made.search_runs([place], query, max_results=1):
            return StepRun(made, found[0].info.run_id)
        labels = {"mlflow.parentRunId": parent, "mlflow.runName": name, "hypercut.step": name, **facts}
        run_id = made.create_run(place, run_name=name, tags=labels).info.run_id
        _log_params(made, run_id, settings)
    return StepRun(made, run_id)


def record(metrics: Mapping[str, Path], workspace: Path, *, params: Mapping[str, Any],
           tags: Mapping[str, Any], experiment: str = EXPERIMENT, pipeline_id: str = "") -> None:
    """Log finished steps, one child run a metrics file (step name to file); what is there already stays.

    Raises:
        StorageError: a file is no JSON; MissingExtra, RegistryError.
    """
    from hypercut_core.files import file_sha256, read_json

    made = client(workspace)
    for step, path in metrics.items():
        if not path.is_file():
            continue
        digest = file_sha256(path)
        with explain(tracking_uri(workspace)):
            query = f"tags.`hypercut.step` = '{step}' and tags.`hypercut.metrics_sha256` = '{digest}'"
            query += f" and tags.`{PIPELINE_TAG}` = '{pipeline_id}'" if pipeline_id else ""
            if made.search_runs([_experiment(made, experiment, workspace)], query, max_results=1):
                continue
        with run(step, workspace, params=params, tags={**tags, "hypercut.metrics_sha256": digest},
                 experiment=experiment, pipeline_id=pipeline_id) as child:
            child.metrics(read_json(path))
            child.artifact(path)


def close_pipeline(pipeline_id: str, status: str, workspace: Path, *, failed_step: str = "", reason: str = "",
                   experiment: str = EXPERIMENT, tags: Mapping[str, Any] | None = None) -> str:
    """End the parent run of a Kubeflow run with its outcome; returns the MLflow run's id.

    A run given by MLFLOW_RUN_ID is tagged and not ended: whoever made it ends it.

    Args:
        status: Kubeflow's final state: SUCCEEDED, FAILED, CANCELLED ...
        failed_step: the step that failed, if one did.
        reason: its error, for people.

    Raises:
        MissingExtra, RegistryError.
    """
    made = client(workspace)
    outcome = {PIPELINE_TAG: pipeline_id, "hypercut.outcome": status.lower(), "hypercut.failed_step": failed_step,
               "hypercut.reason": reason[:1000], **(tags or {})}
    facts = {name: value for name, value in clean(outcome).items() if value}
    with explain(tracking_uri(workspace)):
        given = os.environ.get("MLFLOW_RUN_ID")
        run_id = given or _place_and_parent(made, workspace, experiment, facts, {}, pipeline_id)[1]
        _set_tags(made, run_id, facts)
        if not given:
            well = status == "SUCCEEDED" and not failed_step
            made.set_terminated(run_id, "FINISHED" if well else "KILLED" if status.startswith("CANCEL") else "FAILED")
    return run_id


def pipeline_address(pipeline_id: str, workspace: Path, experiment: str = EXPERIMENT) -> str:
    """Where the parent run of a Kubeflow run can be looked at; "" if no step has logged yet.

    Raises:
        MissingExtra, RegistryError.
    """
    if store_missing(workspace):
        return ""
    made = client(workspace)
    uri = tracking_uri(workspace)
    with explain(uri):
        found = made.get_experiment_by_name(experiment)
        parent = _find_parent(made, workspace, found.experiment_id, _key(pipeline_id)) if found else None
    if not found or not parent:
        return ""
    if uri.startswith("http"):
        return f"{shown_uri(uri).rstrip('/')}/#/experiments/{found.experiment_id}/runs/{parent}"
    return f"run {parent} in {shown_uri(uri)}"


def model_file(model: str | os.PathLike[str], workspace: Path, folder: Path | None = None) -> Path:
    """The .safetensors file that `model` names: a path, or `models:/name@alias`, `models:/name/version`.

    Args:
        folder: where a model of a remote server is put; None: a new temporary folder. A model of the
            workspace's own store is used where it lies.

    Raises:
        BadCheckpoint: no such file; RegistryError: no such registered model; MissingExtra.
    """
    text = os.fspath(model)
    if not text.startswith("models:/"):
        if not Path(text).is_file():
            raise BadCheckpoint("there is no such model file", where=text,
                                remedy="give a .safetensors file or models:/name@alias")
        return Path(text)
    uri = tracking_uri(workspace)
    if store_missing(workspace):
        raise RegistryError(f"there is no model store here, so '{text}' cannot be fetched", where=shown_uri(uri),
                            remedy="run 'hypercut register-model' first, name its --workspace, or give a file")
    mlflow = _mlflow()
    client(workspace)
    with explain(uri):
        try:
            found = Path(mlflow.artifacts.download_artifacts(
                f"{text}/artifacts/{MODEL_FILE}", dst_path=None if uri.startswith("sqlite:") else folder))
        except (mlflow.exceptions.MlflowException, OSError) as error:
            if store_refused(error):
                raise
            reason = str(error).splitlines()[0][:200]
            raise RegistryError(f"the model '{text}' cannot be fetched ({reason})", where=shown_uri(uri),
                                remedy="run 'hypercut register-model' first, or give a model file") from error
    return found


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")  # a minute of silence, not four
    # all artifacts through the server: signed S3 addresses would stand in logs and errors
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow
            import mlflow.pyfunc
    except ImportError as error:
        raise MissingExtra("mlflow", "tracking") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _experiment(made: MlflowClient, name: str, workspace: Path) -> str:
    from mlflow.exceptions import MlflowException

    found = made.get_experiment_by_name(name)
    if found is None:
        local = tracking_uri(workspace).startswith("sqlite:")
        location = (workspace.resolve() / "mlartifacts").as_uri() if local else None
        try:
            return str(made.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            found = made.get_experiment_by_name(name)  # another step may have made it since
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage == "deleted":
        made.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _place_and_parent(made: MlflowClient, workspace: Path, experiment: str, facts: dict[str, str],
                      settings: dict[str, str], pipeline_id: str) -> tuple[str, str]:
    """Experiment and parent run of the whole pipeline; both are made by the first step that asks."""
    identity = json.dumps([facts.get("git"), settings], sort_keys=True)
    key = _key(pipeline_id or hashlib.sha256(identity.encode()).hexdigest()[:16])
    with store_lock(workspace):
        place = _experiment(made, experiment, workspace)
        parent = _find_parent(made, workspace, place, key)
        if parent is None:
            parent = made.create_run(place, run_name=f"pipeline {key[:8]}", tags={**facts, PARENT_TAG: key}).info.run_id
            if not _store_file(workspace) and not _claim(made, place, key, parent):
                made.delete_run(parent)
                return place, str(_find_parent(made, workspace, place, key))
            _log_params(made, parent, settings)
            if not pipeline_id:  # nobody will say when it ends
                made.set_terminated(parent)
    return place, parent


def _key(pipeline: str) -> str:
    """An id as it may stand in a query."""
    return pipeline if re.fullmatch(r"[\w.-]{1,100}", pipeline) else hashlib.sha256(pipeline.encode()).hexdigest()


def _find_parent(made: MlflowClient, workspace: Path, experiment: str, key: str) -> str | None:
    """The parent run by its tag; on a server by the claim, for there the tag is also on runs that came second."""
    if _store_file(workspace):
        found = made.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None
    claim = made.get_experiment_by_name(f"{PARENT_TAG}/{experiment}/{key}")  # deleted ones are found too
    if claim is None:
        return None
    parent = str(claim.tags[PARENT_TAG])
    if made.get_run(parent).info.lifecycle_stage == "deleted":  # by hand
        made.restore_run(parent)
    return parent


def _claim(made: MlflowClient, experiment: str, key: str, parent: str) -> bool:
    """Make `parent` the parent of all steps of this pipeline; False if another step was first."""
    from mlflow.exceptions import MlflowException

    name = f"{PARENT_TAG}/{experiment}/{key}"
    try:
        made.delete_experiment(made.create_experiment(name, tags={PARENT_TAG: parent}))
    except MlflowException as error:
        claim = made.get_experiment_by_name(name)
        if claim is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return bool(claim.tags[PARENT_TAG] == parent)  # a repeated request finds its own
    return True


def _set_tags(made: MlflowClient, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.exceptions import MlflowException

    for name, value in values.items():
        try:
            made.set_tag(run_id, name, value)
        except MlflowException:  # a server fails if two steps set a new tag of one run at once: now it is there
            made.set_tag(run_id, name, value)


def _log_params(made: MlflowClient, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    found = [Param(_plain_name(name), value[:6000]) for name, value in settings.items()]  # one odd name fails all
    for start in range(0, len(found), 100):  # the most that a server takes at once
        with contextlib.suppress(MlflowException):  # a shared run may hold another value already
            made.log_batch(run_id, params=found[start:start + 100])


def _numbers(value: Any, prefix: str) -> Iterator[tuple[str, float]]:
    for name, inner in leaves(value, prefix):
        if isinstance(inner, int | float):
            yield name, float(inner)
        elif isinstance(inner, list) and all(isinstance(one, int | float) for one in inner):
            yield from ((f"{name}.{place}", float(one)) for place, one in enumerate(inner, start=1))


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)[:250]
