"""A package on a Kubeflow Pipelines server: uploaded once, run, followed to the end."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.redaction import shown
from hypercut_core.errors import Interrupted, PipelineServerError
from hypercut_core.files import file_sha256
from pipelines.kubeflow_api import NoAnswer, Refused, Server, equals, quietly
from pipelines.package_plan import Package, plan, read_package, same_numbers, stored_package

if TYPE_CHECKING:
    from pipelines.package_plan import Planned

Say = Callable[[str], None]
SUCCEEDED, ENDED = "SUCCEEDED", ("SUCCEEDED", "FAILED", "ERROR", "SKIPPED", "CANCELED", "CANCELLED")


@dataclass(frozen=True)
class Job:
    """What is to run."""

    package: Path
    arguments: Mapping[str, Any]
    experiment: str = "hypercut"


@dataclass(frozen=True)
class Pace:
    """How waiting is done, s."""

    poll: float = 5.0  # between two looks
    patience: float = 300.0  # without any answer, until waiting ends
    first_pause: float = 1.0  # before the first repetition after no answer; doubled each time
    longest_pause: float = 30.0
    timeout: float = 0.0  # waiting at all; 0: as long as the run takes


@dataclass(frozen=True)
class Outcome:
    """How a run stands when we look away."""

    run_id: str
    state: str
    failures: tuple[str, ...] = ()  # "step: reason"
    mlflow: str = ""  # address of its MLflow run, where Kubeflow's own plugin made one

    @property
    def exit_code(self) -> int:
        return 1 if self.state in ENDED and self.state != SUCCEEDED else 0


def start(server: Server, job: Job, say: Say) -> str:
    """Upload if need be and start a run; returns its id.

    Raises:
        PipelineServerError: with nothing started, unless it says otherwise; Interrupted.
    """
    package = read_package(job.package)
    try:
        pipeline_id, version_id = upload(server, job.package, package, say)
        with quietly():
            experiment = _experiment(server, job.experiment)
    except KeyboardInterrupt:
        raise Interrupted("stopped before a run was started", where=server.address.base,
                          remedy="run the same command again to start one") from None
    name = f"{package.name} {time.strftime('%Y-%m-%d %H-%M-%S')} {secrets.token_hex(2)}"
    try:
        run_id = _start(server, name, experiment, pipeline_id, version_id, job.arguments)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped while the run '{name}' was being started; it may run",
                          where=server.address.base, remedy="look for it in the list of runs") from None
    return run_id


def upload(server: Server, file: Path, package: Package, say: Say) -> tuple[str, str]:
    """Ids of the pipeline and of the version with this content; both are uploaded if they are not there."""
    name = f"{package.name}-{file_sha256(file)[:12]}"
    for last in (False, True):
        pipeline_id = _pipeline(server, package.name)
        found = pipeline_id and _version(server, pipeline_id, name, package)
        if pipeline_id and found:
            say(f"pipeline {package.name}: this version is there already ({name})")
            return pipeline_id, found
        try:
            with quietly():
                if not pipeline_id:
                    made = server.client.upload_pipeline(str(file), package.name,
                                                         namespace=server.address.namespace or None)
                    pipeline_id, found = made.pipeline_id, _version(server, made.pipeline_id, name, package)
                if not found:
                    found = server.client.upload_pipeline_version(
                        str(file), name, pipeline_id=pipeline_id).pipeline_version_id
        except Refused as error:
            if error.status != 409 or last:  # 409: somebody else uploaded it at this moment
                raise
        else:
            say(f"pipeline {package.name}: uploaded ({name})")
            return str(pipeline_id), str(found)
    raise AssertionError("unreachable")


def wait(server: Server, run_id: str, say: Say, pace: Pace | None = None) -> Outcome:
    """Follow a run to its end, a line for every change.

    Raises:
        PipelineServerError: no answer for too long, no right (any more), or `timeout` is over; the run goes on.
        Interrupted: the user looked away; the run goes on.
    """
    pace = pace or Pace()
    begun, seen = time.monotonic(), dict[str, str]()
    try:
        while True:
            run = _look(server, run_id, say, pace)
            for line in _changes(run, seen):
                say(f"{clock(time.monotonic() - begun)} {line}")
            state = (run.state or "").upper()
            if state in ENDED:
                return Outcome(run_id, state, _failures(server, run), _mlflow_page(run))
            if pace.timeout and time.monotonic() - begun > pace.timeout:
                raise PipelineServerError(f"the run is not over after {clock(pace.timeout)} and goes on",
                                          where=server.address.run_page(run_id), remedy=_go_on(server, run_id))
            time.sleep(pace.poll)
    except KeyboardInterrupt:
        raise Interrupted("stopped waiting; the run goes on", where=server.address.run_page(run_id),
                          remedy=_go_on(server, run_id)) from None


def _pipeline(server: Server, name: str) -> str | None:
    with quietly():
        found = server.client.list_pipelines(filter=equals("display_name", name), page_size=10,
                                             namespace=server.address.namespace or None).pipelines
    return str(found[0].pipeline_id) if found else None


def _version(server: Server, pipeline_id: str, name: str, package: Package) -> str | None:
    """The version called `name`, or the first one (which bears the pipeline's name) if its content is the same."""
    for wanted in (name, package.name):
        with quietly():
            found = server.client.list_pipeline_versions(pipeline_id, page_size=10, sort_by="created_at desc",
                                                         filter=equals("display_name", wanted)).pipeline_versions
        for one in found or []:
            if wanted == name or same_numbers(one.pipeline_spec) == same_numbers(package.as_stored()):
                return str(one.pipeline_version_id)
    return None


def _experiment(server: Server, name: str) -> str:
    namespace = server.address.namespace or None
    try:
        return str(server.client.create_experiment(name, namespace=namespace).experiment_id)
    except Refused as error:
        if error.status != 409:
            raise
        return str(server.client.get_experiment(experiment_name=name, namespace=namespace).experiment_id)
    except ValueError as error:  # several of one name, as the client says it
        raise PipelineServerError(f"the experiment '{name}' cannot be used ({shown(str(error))})",
                                  where=server.address.base, remedy="name another one with --experiment") from error


def _start(server: Server, name: str, experiment: str, pipeline_id: str, version_id: str,
           arguments: Mapping[str, Any]) -> str:
    """Create the run. If the answer is lost, look whether it was created: a second one would cost as much again."""
    try:
        with quietly():
            made = server.client.run_pipeline(experiment, name, params=dict(arguments), pipeline_id=pipeline_id,
                                              version_id=version_id)
    except NoAnswer as lost:
        try:
            with quietly():
                found = server.client.list_runs(experiment_id=experiment, filter=equals("display_name", name),
                                                page_size=10).runs
        except PipelineServerError:
            raise NoAnswer(f"{lost.what}; whether the run '{name}' was started is not known", where=lost.where,
                           remedy="look for it in the list of runs before you submit again") from lost
        if not found:
            raise NoAnswer(f"{lost.what}; no run was started", where=lost.where, remedy=lost.remedy) from lost
        made = found[0]
    return str(made.run_id)


def _look(server: Server, run_id: str, say: Say, pace: Pace) -> Any:
    """The run; asks again while the server does not answer, for a bounded time."""
    pause, silent_since = pace.first_pause, time.monotonic()
    while True:
        try:
            with quietly():
                return server.client.get_run(run_id)
        except NoAnswer as error:
            if time.monotonic() - silent_since > pace.patience:
                raise NoAnswer(f"{error.what}, tried for {clock(pace.patience)}; the run {run_id} goes on",
                               where=error.where, remedy=_go_on(server, run_id)) from error
            say(f"no answer ({error.what}); asking again in {pause:g} s")
            time.sleep(pause)
            pause = min(2 * pause, pace.longest_pause)
        except Refused as error:
            what = "there is no such run here (any more)" if error.status == 404 else \
                f"{error.what}; the run {run_id} goes on"
            raise Refused(what, error.status, where=error.where,
                          remedy="check the run's id and the address" if error.status == 404 else
                          f"{error.remedy}, then {_go_on(server, run_id)}") from error


def _changes(run: Any, seen: dict[str, str]) -> Iterator[str]:
    """A line for everything that is in another state than when we last looked."""
    details = (run.run_details and run.run_details.task_details) or []
    rows = [("", run.run_id, run.state, run.error), *((one.display_name or "", one.task_id or one.display_name,
                                                       one.state, one.error) for one in details)]
    for name, key, state, _ in rows:
        hidden = name == "root" or name.endswith("-driver") or name in ("executor", "driver")
        if state and not hidden and seen.get(key) != state:
            seen[key] = state
            yield f"{name or 'run'}: {state.lower().replace('_', ' ')}"


def _failures(server: Server, run: Any) -> tuple[str, ...]:
    """The steps that failed, each with its reason."""
    details = (run.run_details and run.run_details.task_details) or []
    failed = [one for one in details if (one.state or "").upper() == "FAILED" and one.display_name != "root"]
    told = {f"{one.display_name}: {server._told(one.error.message) if one.error and one.error.message else 'failed'}"
            for one in failed if not (one.child_tasks and len(failed) > 1)}
    if not told and run.error and run.error.message:
        told = {server._told(run.error.message)}
    return tuple(sorted(told))


def _mlflow_page(run: Any) -> str:
    plugin = (run.plugins_output or {}).get("mlflow")
    pages = [one.value for one in ((plugin and plugin.entries) or {}).values() if one.render_type == "URL"]
    return shown(str(pages[0])) if pages else ""


def last_plan(server: Server, name: str, experiment: str) -> list[Planned]:
    """The tasks of the newest run of this pipeline that succeeded; [] if there is none."""
    namespace = server.address.namespace or None
    pipeline_id = _pipeline(server, name)
    with quietly(), contextlib.suppress(ValueError):  # no such experiment
        place = server.client.get_experiment(experiment_name=experiment, namespace=namespace).experiment_id
        runs = server.client.list_runs(experiment_id=place, sort_by="created_at desc", page_size=50).runs or []
        for run in runs:
            version = run.pipeline_version_reference
            if run.state != SUCCEEDED or not version or version.pipeline_id != pipeline_id:
                continue
            spec = server.client.get_pipeline_version(version.pipeline_id, version.pipeline_version_id).pipeline_spec
            with contextlib.suppress(KeyError, TypeError):
                return plan(stored_package(spec), run.runtime_config.parameters or {})
    return []


def _go_on(server: Server, run_id: str) -> str:
    place = f" --namespace {server.address.namespace}" if server.address.namespace else ""
    return f"go on waiting with 'hypercut submit --attach {run_id} --host {server.address.base}{place}'"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
