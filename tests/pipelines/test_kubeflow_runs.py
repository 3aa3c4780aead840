"""The real KFP client against a server that holds every call to the API's description, and fails as servers do."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from self_signed import authority

from hypercut_core.errors import Interrupted, PipelineServerError
from pipelines.kubeflow_api import Address, NoAnswer, Refused, Server
from pipelines.kubeflow_runs import Job, Outcome, Pace, last_plan, start, wait
from pipelines.package_plan import plan, read_package
from tests.pipelines.kubeflow_double import Failure, KubeflowDouble, serve, swagger
from tests.pipelines.sample_package import write_package

pytest.importorskip("kfp")
TOKEN, COOKIE = "token-that-must-not-show", "session=cookie-that-must-not-show"
ARGUMENTS = {"source": "videos", "seed": 1, "objectives": ["one"], "strict": True}
QUICK = Pace(poll=0.01, patience=0.3, first_pause=0.01, longest_pause=0.05)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C works as in a terminal; a shell's background job would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowDouble]:
    import kfp

    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", "/nonexistent/context.json")
    for name in [name for name in os.environ if name.startswith(("KF_PIPELINES", "KFP_"))]:
        monkeypatch.delenv(name)
    made = KubeflowDouble(swagger())
    server = serve(made)
    yield made
    made.stopping.set()
    server.shutdown()
    server.server_close()
    assert made.violations == []


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("package") / "pipeline.yaml")


@pytest.fixture
def job(package: Path) -> Job:
    return Job(package, ARGUMENTS)


class Impatient(Server):
    """Waits half a second for the calls that hang, and for all others as long as a busy machine takes."""

    def __init__(self, address: Address, hanging: set[str]):
        self.hanging = {CALLS[name] for name in hanging}
        super().__init__(address)

    def _answer(self, method: str, url: str, **others: Any) -> Any:
        if any(method == verb and re.search(path + "$", url) for verb, path in self.hanging):
            others["_request_timeout"] = (10.0, 0.5)
        return super()._answer(method, url, **others)


CALLS = {"GetHealthz": ("GET", "/healthz"), "ListPipelines": ("GET", "/pipelines"),
         "UploadPipeline": ("POST", "/pipelines/upload"), "ListPipelineVersions": ("GET", "/versions"),
         "ListExperiments": ("GET", "/experiments"), "CreateExperiment": ("POST", "/experiments"),
         "CreateRun": ("POST", "/runs"), "GetRun": ("GET", "/runs/[^/]+")}
STARTING = [name for name in CALLS if name != "GetRun"]


def connect(double: KubeflowDouble, **others: Any) -> Server:
    return Impatient(Address(double.url, token=TOKEN, cookie=COOKIE, **others),
                     {failure.operation for failure in double.failures if failure.hang})


def begin(double: KubeflowDouble, job: Job, **others: Any) -> str:
    return start(connect(double, **others), job, lambda line: None)


def told(double: KubeflowDouble, job: Job) -> str:
    """What a user is told when starting this job fails."""
    with pytest.raises(PipelineServerError) as caught:
        begin(double, job)
    text = str(caught.value)
    assert double.url in text
    assert "To mend it: " in text
    assert not [secret for secret in (TOKEN, COOKIE) if secret in text or secret in str(caught.value.__cause__)]
    return text


def test_first_submission_uploads_the_pipeline_and_runs_this_version(double: KubeflowDouble, job: Job) -> None:
    lines: list[str] = []
    run_id = start(connect(double), job, lines.append)
    assert [one["display_name"] for one in double.pipelines] == ["sample-training"]
    assert [one["display_name"] for one in double.experiments] == ["hypercut"]
    run = double.runs[0]
    assert run["run_id"] == run_id
    assert run["runtime_config"]["parameters"] == ARGUMENTS
    assert run["pipeline_version_reference"]["pipeline_version_id"] == double.versions[0]["pipeline_version_id"]
    assert double.versions[0]["pipeline_spec"]["pipeline_spec"] == read_package(job.package).spec
    assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in double.headers[1:])  # all but healthz
    assert len(lines) == 1
    assert "uploaded" in lines[0]


def test_the_same_package_is_uploaded_once_and_another_is_a_new_version(double: KubeflowDouble, job: Job,
                                                                        tmp_path: Path) -> None:
    for _ in range(3):
        begin(double, job)
    assert (len(double.pipelines), len(double.versions), len(double.runs), len(double.experiments)) == (1, 1, 3, 1)
    other = write_package(tmp_path / "other.yaml", f"registry.example/hypercut@sha256:{'b' * 64}")
    for _ in range(2):
        begin(double, Job(other, ARGUMENTS))
    begin(double, job)
    assert (len(double.pipelines), len(double.versions)) == (1, 2)
    assert double.calls.count("UploadPipelineVersion") == 1
    first, second = double.versions[1]["pipeline_version_id"], double.versions[0]["pipeline_version_id"]
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in reversed(double.runs)]
    assert used == [first, first, first, second, second, first]


@pytest.mark.parametrize("operation", ["UploadPipeline", "UploadPipelineVersion"])
def test_somebody_else_uploads_the_same_at_this_moment(double: KubeflowDouble, job: Job, operation: str,
                                                       tmp_path: Path) -> None:
    if operation == "UploadPipelineVersion":
        begin(double, Job(write_package(tmp_path / "o.yaml", f"r.example/h@sha256:{'b' * 64}"), ARGUMENTS))
    rival = connect(double)

    def overtake(name: str) -> None:
        if name == operation:
            double.before = lambda name: None
            start(rival, job, lambda line: None)

    double.before = overtake
    begin(double, job)
    assert len(double.pipelines) == 1
    assert len({run["pipeline_version_reference"]["pipeline_version_id"] for run in double.runs[:2]}) == 1


def test_an_experiment_that_appears_at_this_moment_is_used(double: KubeflowDouble, job: Job) -> None:
    def overtake(name: str) -> None:
        if name == "CreateExperiment":
            double.before = lambda name: None
            double.CreateExperiment(body={"display_name": "hypercut"})

    double.before = overtake
    begin(double, job)
    assert double.runs[0]["experiment_id"] == double.experiments[0]["experiment_id"]
    assert len(double.experiments) == 1


def test_a_server_of_several_users_needs_a_namespace(double: KubeflowDouble, job: Job) -> None:
    double.multi_user = True
    assert "--namespace" in told(double, job)
    begin(double, job, namespace="team")
    assert double.pipelines[0]["namespace"] == "team"
    assert double.experiments[0]["namespace"] == "team"


@pytest.mark.parametrize("operation", STARTING)
@pytest.mark.parametrize(("status", "says"), [
    (401, "KFP_TOKEN"), (403, "the right to run pipelines"), (404, ""), (409, "is there already"),
    (400, "refuses the request"), (500, "the server failed"), (503, "the server failed")])
def test_a_refusal_is_told_with_its_reason(double: KubeflowDouble, job: Job, operation: str, status: int,
                                           says: str) -> None:
    body = f'{{"code": 1, "message": "words\\nof the {TOKEN} server"}}'.encode()
    double.failures = [Failure(operation, status, body, times=99)]
    if (operation, status) == ("CreateExperiment", 409):
        return  # looked for once more: a test of its own
    text = told(double, job)
    assert says in text
    assert f"({status}: words of the *** server)" in text
    assert double.runs == []


def test_no_api_at_this_address(double: KubeflowDouble, job: Job) -> None:
    double.url += "/nothing/here"
    assert "no Kubeflow Pipelines API v2 at this address" in told(double, job)


@pytest.mark.parametrize("operation", STARTING)
@pytest.mark.parametrize(("how", "says"), [({"hang": True}, "does not answer in time"), ({"drop": True}, "reached"),
                                           ({"page": True}, "a login page")])
def test_no_answer_is_told(double: KubeflowDouble, job: Job, operation: str, how: dict[str, bool], says: str) -> None:
    double.failures = [Failure(operation, times=99, **how)]
    assert says in told(double, job)
    assert double.runs == []


def test_nobody_listens(double: KubeflowDouble, job: Job) -> None:
    server = serve(KubeflowDouble({"paths": {}, "definitions": {}}))
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    assert "cannot be reached" in told(double, job)
    double.url = "http://no-such-host.invalid"
    assert "cannot be reached" in told(double, job)


@pytest.mark.parametrize("how", [{"status": 500}, {"drop": True}, {"hang": True}, {"page": True}])
def test_a_run_whose_answer_is_lost_is_found_and_not_started_twice(double: KubeflowDouble, job: Job,
                                                                   how: dict[str, Any]) -> None:
    double.failures = [Failure("CreateRun", done=True, **how)]
    run_id = begin(double, job)
    assert [run["run_id"] for run in double.runs] == [run_id]
    assert double.calls.count("CreateRun") == 1


def test_whether_a_run_was_started_may_stay_unknown(double: KubeflowDouble, job: Job) -> None:
    double.failures = [Failure("CreateRun", drop=True, done=True), Failure("ListRuns", drop=True, times=9)]
    text = told(double, job)
    assert "whether the run 'sample-training " in text
    assert "look for it in the list of runs" in text
    double.failures = [Failure("CreateRun", drop=True)]
    assert "no run was started" in told(double, job)


# -- waiting --


def task(name: str, state: str, error: str = "") -> dict[str, Any]:
    return {"task_id": f"id-{name}", "display_name": name, "state": state,
            **({"error": {"code": 13, "message": error}} if error else {})}


def looks(*states: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"state": state, "run_details": {"task_details": tasks}} for state, tasks in states]


def test_every_change_is_a_line_and_the_end_has_an_exit_code(double: KubeflowDouble, job: Job) -> None:
    double.script = looks(
        ("PENDING", []), ("RUNNING", [task("root", "RUNNING"), task("collect-driver", "SUCCEEDED")]),
        ("RUNNING", [task("collect", "RUNNING")]), ("RUNNING", [task("collect", "RUNNING")]),
        ("RUNNING", [task("collect", "SUCCEEDED"), task("train", "RUNNING")]),
        ("SUCCEEDED", [task("collect", "SUCCEEDED"), task("train", "SKIPPED")]))
    lines: list[str] = []
    outcome = wait(connect(double), begin(double, job), lines.append, QUICK)
    assert [line.split(" ", 1)[1] for line in lines] == [
        "run: pending", "run: running", "collect: running", "collect: succeeded", "train: running", "run: succeeded",
        "train: skipped"]
    assert (outcome.state, outcome.exit_code, outcome.failures) == ("SUCCEEDED", 0, ())


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_does_not_succeed(double: KubeflowDouble, job: Job, state: str) -> None:
    double.script = looks(("RUNNING", []), (state, [
        task("train", "FAILED", f"OOMKilled at https://me:hunter2@data.example/x with {TOKEN}"),
        task("root", "FAILED", "a child failed"), task("collect", "SUCCEEDED")]))
    outcome = wait(connect(double), begin(double, job), lambda line: None, QUICK)
    assert (outcome.state, outcome.exit_code) == (state, 1)
    assert outcome.failures == ("train: OOMKilled at https://data.example/x with ***",)


def test_a_run_that_fails_as_a_whole(double: KubeflowDouble, job: Job) -> None:
    double.script = [{"state": "FAILED", "error": {"code": 13, "message": "no node has a GPU"}}]
    assert wait(connect(double), begin(double, job), lambda line: None, QUICK).failures == ("no node has a GPU",)


def test_the_mlflow_run_of_kubeflows_plugin(double: KubeflowDouble, job: Job) -> None:
    page = "https://mlflow.example/#/experiments/1/runs/2"
    double.script = [{"state": "SUCCEEDED", "plugins_output": {"mlflow": {
        "entries": {"run_url": {"value": page, "render_type": "URL"}}, "state": "PLUGIN_SUCCEEDED"}}}]
    assert wait(connect(double), begin(double, job), lambda line: None, QUICK).mlflow == page


@pytest.mark.parametrize("how", [{"status": 500}, {"status": 503}, {"status": 429}, {"drop": True}, {"hang": True},
                                 {"page": True}])
def test_waiting_outlasts_a_server_that_is_away_for_a_while(double: KubeflowDouble, job: Job,
                                                            how: dict[str, Any]) -> None:
    run_id = begin(double, job)
    double.script = looks(("RUNNING", []), ("SUCCEEDED", []))
    double.failures = [Failure("GetRun", times=3, **how)]
    lines: list[str] = []
    outcome = wait(connect(double), run_id, lines.append, Pace(poll=0.01, patience=30, first_pause=0.01))
    assert outcome == Outcome(run_id, "SUCCEEDED")
    silent = [line for line in lines if line.startswith("no answer (")]
    assert len(silent) == 3 or ("hang" in how and len(silent) > 3)  # a busy machine may be late on its own
    assert "asking again in 0.04 s" in silent[2]


def test_waiting_ends_when_the_server_stays_away_and_says_how_to_go_on(double: KubeflowDouble, job: Job) -> None:
    run_id = begin(double, job)
    double.failures = [Failure("GetRun", drop=True, times=9999)]
    with pytest.raises(NoAnswer) as caught:
        wait(connect(double), run_id, lambda line: None, QUICK)
    assert f"the run {run_id} goes on" in str(caught.value)
    assert f"'hypercut submit --attach {run_id} --host {double.url}'" in str(caught.value)


@pytest.mark.parametrize(("status", "says"), [(401, "fresh token"), (403, "may not do this"),
                                              (404, "no such run here")])
def test_a_right_that_ends_while_waiting(double: KubeflowDouble, job: Job, status: int, says: str) -> None:
    run_id = begin(double, job)
    double.failures = [Failure("GetRun", status)]
    with pytest.raises(Refused, match=says) as caught:
        wait(connect(double), run_id, lambda line: None, QUICK)
    assert (f"--attach {run_id}" in str(caught.value)) is (status != 404)
    assert double.calls.count("GetRun") == 1


def test_waiting_no_longer_than_asked(double: KubeflowDouble, job: Job) -> None:
    double.script = looks(("RUNNING", []))
    run_id = begin(double, job, namespace="team")
    with pytest.raises(PipelineServerError, match=rf"goes on.*--attach {run_id} --host .* --namespace team"):
        wait(connect(double, namespace="team"), run_id, lambda line: None, Pace(poll=0.01, timeout=0.1))


@pytest.mark.usefixtures("interruptible")
def test_looking_away_leaves_the_run_alone(double: KubeflowDouble, job: Job) -> None:
    run_id = begin(double, job)
    double.script = looks(("RUNNING", []))
    double.before = lambda name: os.kill(os.getpid(), signal.SIGINT) if name == "GetRun" else None
    with pytest.raises(Interrupted, match=rf"the run goes on.*--attach {run_id}"):
        wait(connect(double), run_id, lambda line: None, QUICK)
    assert "TerminateRun" not in double.calls


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("operation", "says"), [("ListPipelines", "before a run was started"),
                                                 ("CreateRun", "it may run")])
def test_an_interrupt_says_what_was_started(double: KubeflowDouble, job: Job, operation: str, says: str) -> None:
    def interrupt(name: str) -> None:
        if name == operation:
            os.kill(os.getpid(), signal.SIGINT)
            double.stopping.wait(5)  # the main thread has the signal long before it would have the answer

    double.before = interrupt
    with pytest.raises(Interrupted, match=says):
        begin(double, job)


# -- encryption --


def test_a_certificate_of_an_unknown_authority(double: KubeflowDouble, job: Job, tmp_path: Path) -> None:
    certificate, context = authority(tmp_path)
    server = serve(double, context)
    try:
        text = told(double, job)
        assert "the connection is not secure" in text
        assert "KFP_CA_CERT" in text
        assert begin(double, job, certificates=str(certificate)) == double.runs[0]["run_id"]
    finally:
        server.shutdown()
        server.server_close()


# -- addresses --


@pytest.mark.parametrize("host", ["kubeflow.example", "ftp://kubeflow.example", "https://me:hunter2@kubeflow.example",
                                  "https://token@kubeflow.example"])
def test_what_is_no_address(host: str) -> None:
    with pytest.raises(PipelineServerError, match="To mend it") as caught:
        Address(host)
    assert "hunter2" not in str(caught.value)
    assert "token@" not in str(caught.value)


def test_an_address_shows_no_secret() -> None:
    place = Address("https://kubeflow.example/pipeline/", token=TOKEN, cookie=COOKIE)
    assert TOKEN not in repr(place)
    assert COOKIE not in repr(place)
    assert place.run_page("r") == "https://kubeflow.example/pipeline/#/runs/details/r"


# -- what the cache holds --


def test_the_last_run_that_succeeded(double: KubeflowDouble, job: Job) -> None:
    server = connect(double)
    assert last_plan(server, "sample-training", "hypercut") == []
    run_id = begin(double, job)
    assert last_plan(server, "sample-training", "hypercut") == []  # it has not ended
    wait(server, run_id, lambda line: None, QUICK)
    begin(double, Job(job.package, {**ARGUMENTS, "seed": 2}))
    assert last_plan(server, "sample-training", "hypercut") == plan(read_package(job.package), ARGUMENTS)
