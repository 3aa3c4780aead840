"""MLflow runs: one parent a pipeline, one child a step; and models by `models:/name@alias`.

The server is MLFLOW_TRACKING_URI; without it an SQLite file in the workspace, artifacts beside it. A run id
given by MLFLOW_RUN_ID (as Kubeflow's plugin does) is logged into as it is. Secrets are never logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercut_core.errors import BadCheckpoint, HypercutError, MissingExtra, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "hypercut"
PARENT_TAG = "hypercut.pipeline"
MODEL_FILE = "deblurrer.safetensors"  # inside every registered model
_SECRET = re.compile(r"passw|secret|token|credential|api_?key|access_?key|private", re.IGNORECASE)
_S3 = ("boto3", "botocore", "s3transfer")
_KNOWN = ("mlflow", "sqlalchemy", "requests", "urllib3", "sqlite3", "alembic", *_S3)
_STORE_REFUSED = re.compile(r"mlflow-artifacts/.*too many (?P<a>\d+) error|(?P<b>401|403|5\d\d) \w+ Error.*"
                            r"mlflow-artifacts/", re.DOTALL)
_URI_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class StepRun:
    """A running MLflow run."""

    client: MlflowClient
    run_id: str

    def metrics(self, figures: Mapping[str, Any], prefix: str = "") -> None:
        """Log all numbers of a nested dictionary, names joined by dots."""
        for name, value in _numbers(figures, prefix):
            self.client.log_metric(self.run_id, _plain_name(name), value)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        self.client.log_text(self.run_id, text, name)

    def tags(self, values: Mapping[str, Any]) -> None:
        for name, value in clean(values).items():
            self.client.set_tag(self.run_id, name, value)


def tracking_uri(workspace: Path) -> str:
    """MLFLOW_TRACKING_URI, or an SQLite file in the workspace."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace.resolve() / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """The address without its user and password."""
    return _URI_LOGIN.sub("", uri)


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
        if type(error).__module__.split(".")[0] not in _KNOWN:
            raise
        raise _failure(error, uri) from error


def _failure(error: Exception, uri: str) -> RegistryError:
    """What failed: the server, the store of the artifacts behind it, or S3 where clients write to it directly."""
    text = _URI_LOGIN.sub("", str(error)).strip()
    first = text.splitlines()[0][:300] if text else type(error).__name__
    what = f"MLflow failed ({first})"
    remedy = "check MLFLOW_TRACKING_URI and that its server runs, or unset it to use a file in the workspace"
    refused = _STORE_REFUSED.search(text)
    if refused:
        what = f"the MLflow server cannot use its artifact store (it answers {refused['a'] or refused['b']})"
        remedy = "read the server's log: its S3 keys, bucket or endpoint are wrong, or the store is full"
    elif type(error).__module__.split(".")[0] in _S3:
        what = f"the artifact store refuses the request ({first})"
        remedy = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL"
    return RegistryError(what, where=shown_uri(uri), remedy=remedy)


@contextlib.contextmanager
def run(step: str, workspace: Path, *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None, experiment: str = EXPERIMENT) -> Iterator[StepRun]:
    """Track one step: a child run of this pipeline's parent, or the run that MLFLOW_RUN_ID names.

    Args:
        step: name of the step and of its run.
        workspace: folder of the SQLite store if no server is set.
        params: parameters as nested dictionaries; secrets are left out.
        tags: such as the git revision and data hashes; they and `params` also tell which parent is ours.

    Raises:
        MissingExtra, RegistryError.
    """
    mlflow = _mlflow()
    made = client(workspace)
    given = os.environ.get("MLFLOW_RUN_ID")
    facts = clean(tags or {})
    settings = clean(params or {})
    with explain(tracking_uri(workspace)):
        if given:
            run_id = given
        else:
            with store_lock(workspace):
                place = _experiment(made, experiment, workspace)
                parent = _parent(made, place, facts, settings)
            labels = {"mlflow.parentRunId": parent, "mlflow.runName": step, "hypercut.step": step, **facts}
            run_id = made.create_run(place, run_name=step, tags=labels).info.run_id
        prefix = f"{step}." if given else ""  # several steps may share a given run
        _log_params(made, run_id, {prefix + name: value for name, value in settings.items()})
        # on leaving, MLflow marks the run as FINISHED or FAILED
        with _same_environment("MLFLOW_RUN_ID"), mlflow.start_run(run_id=run_id):
            yield StepRun(made, run_id)


def record(metrics: Mapping[str, Path], workspace: Path, *, params: Mapping[str, Any],
           tags: Mapping[str, Any], experiment: str = EXPERIMENT) -> None:
    """Log finished steps, one child run a metrics file (step name to file); what is there already stays.

    Raises:
        StorageError: a file is no JSON; MissingExtra, RegistryError.
    """
    from hypercut_core.files import file_sha256, read_json

    for step, path in metrics.items():
        if not path.is_file():
            continue
        digest = file_sha256(path)
        made = client(workspace)
        with explain(tracking_uri(workspace)):
            place = _experiment(made, experiment, workspace)
            query = f"tags.`hypercut.step` = '{step}' and tags.`hypercut.metrics_sha256` = '{digest}'"
            if made.search_runs([place], query, max_results=1):
                continue
        with run(step, workspace, params=params, tags={**tags, "hypercut.metrics_sha256": digest},
                 experiment=experiment) as child:
            child.metrics(read_json(path))
            child.artifact(path)


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
            if _STORE_REFUSED.search(str(error)):
                raise _failure(error, uri) from error
            reason = str(error).splitlines()[0][:200]
            raise RegistryError(f"the model '{text}' cannot be fetched ({reason})", where=shown_uri(uri),
                                remedy="run 'hypercut register-model' first, or give a model file") from error
    return found


def clean(values: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names and text, without anything that looks like a secret."""
    return {name: _URI_LOGIN.sub("", value if isinstance(value, str) else json.dumps(value, default=str))
            for name, value in _leaves(values, "") if value is not None}


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")  # a minute of silence, not four
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
    found = made.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            made.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    local = tracking_uri(workspace).startswith("sqlite:")
    location = (workspace.resolve() / "mlartifacts").as_uri() if local else None
    return str(made.create_experiment(name, artifact_location=location))


def _parent(made: MlflowClient, experiment: str, facts: dict[str, str], settings: dict[str, str]) -> str:
    """The run of the whole pipeline: steps with the same code and parameters meet in one parent."""
    identity = json.dumps([facts.get("git"), settings], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    found = made.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    parent = made.create_run(experiment, run_name=f"pipeline {key[:8]}", tags={PARENT_TAG: key, **facts})
    _log_params(made, parent.info.run_id, settings)
    made.set_terminated(parent.info.run_id)
    return str(parent.info.run_id)


def _log_params(made: MlflowClient, run_id: str, settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    found = [Param(name, value[:6000]) for name, value in settings.items()]
    for start in range(0, len(found), 100):  # the most that a server takes at once
        with contextlib.suppress(MlflowException):  # a shared run may hold another value already
            made.log_batch(run_id, params=found[start:start + 100])


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not _SECRET.search(str(name)):
                yield from _leaves(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _numbers(value: Any, prefix: str) -> Iterator[tuple[str, float]]:
    for name, inner in _leaves(value, prefix):
        if isinstance(inner, int | float):
            yield name, float(inner)
        elif isinstance(inner, list) and all(isinstance(one, int | float) for one in inner):
            yield from ((f"{name}.{place}", float(one)) for place, one in enumerate(inner, start=1))


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)[:250]
