"""`hypercut submit` as a user sees it: exit codes, addresses, one clear paragraph, and no secret anywhere."""

# ruff: noqa: F811 - `double` is a fixture of another module

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.params import Parameters, load
from hypercut_core.errors import BadParameters, PipelineServerError, StorageError
from pipelines import submit as submit_module
from pipelines.cli import main
from pipelines.kubeflow_runs import Pace
from pipelines.submit import address, with_data
from tests.components.registry_fixtures import alone, with_store
from tests.pipelines.kubeflow_double import Failure, KubeflowDouble
from tests.pipelines.sample_package import write_package
from tests.pipelines.test_kubeflow_runs import TOKEN, double, interruptible, looks, task  # noqa: F401

pytest.importorskip("kfp")
IMAGE = f"registry.example/hypercut@sha256:{'a' * 64}"
SubmitMain = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real pipeline, compiled once."""
    from pipelines.compile import compile_pipeline

    file = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(IMAGE, file)
    return str(file)


@pytest.fixture
def submit(double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
           tmp_path: Path) -> SubmitMain:
    """Call `hypercut submit ...` in this process and an empty folder: (exit code, stdout, stderr)."""
    alone(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    monkeypatch.setattr(submit_module, "Pace", functools.partial(Pace, poll=0.01, first_pause=0.01, patience=0.2))

    def run(*words: str, host: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("KFP_ENDPOINT", host or double.url)
        monkeypatch.setattr(sys, "argv", ["hypercut", "submit", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert TOKEN not in captured.out + captured.err
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_a_run_that_succeeds(double: KubeflowDouble, submit: SubmitMain) -> None:
    double.script = looks(("RUNNING", [task("evaluate", "RUNNING")]), ("SUCCEEDED", [task("evaluate", "SUCCEEDED")]))
    code, out, err = submit("--image", IMAGE, "--set", "seed=7", "--preset", "smoke")
    run = double.runs[0]
    page = f"{double.url}/#/runs/details/{run['run_id']}"
    assert code == 0
    assert out.splitlines()[:2] == [f"run: {page}", f"succeeded: {page}"]
    assert out.splitlines()[2].startswith(f"MLflow: no run with the tag hypercut.pipeline_id = '{run['run_id']}'")
    assert "evaluate: running" in err
    assert run["runtime_config"]["parameters"]["seed"] == 7
    assert run["runtime_config"]["parameters"]["objectives"] == ["sequence_min", "hypercut_targets"]
    image = {one["container"]["image"] for one in
             double.versions[0]["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert image == {IMAGE}


def test_a_run_that_fails(double: KubeflowDouble, submit: SubmitMain, compiled: str) -> None:
    double.script = looks(("FAILED", [task("train-encoder", "FAILED", "OOMKilled")]))
    code, out, err = submit("--package", compiled)
    assert code == 1
    assert "failed: train-encoder: OOMKilled" in err
    assert "failed: http" in out


def test_starting_and_coming_back_for_it(double: KubeflowDouble, submit: SubmitMain, compiled: str) -> None:
    double.script = looks(("RUNNING", []), ("CANCELED", []))
    code, out, _ = submit("--package", compiled, "--no-wait")
    run_id = double.runs[0]["run_id"]
    assert code == 0
    assert f"hypercut submit --attach {run_id} --host {double.url}" in out
    assert "GetRun" not in double.calls
    code, out, _ = submit("--attach", run_id)
    assert code == 1
    assert f"canceled: {double.url}/#/runs/details/{run_id}" in out
    assert len(double.runs) == 1


def test_the_mlflow_run_is_named(double: KubeflowDouble, submit: SubmitMain, compiled: str, tmp_path: Path) -> None:
    from components import tracking

    with_store(tmp_path)
    submit("--package", compiled, "--no-wait")
    run_id = double.runs[0]["run_id"]
    with tracking.run("evaluate", tmp_path, pipeline_id=run_id) as child:
        pass
    parent = tracking.client(tmp_path).get_run(child.run_id).data.tags["mlflow.parentRunId"]
    code, out, _ = submit("--attach", run_id)
    assert code == 0
    assert f"MLflow: run {parent} in sqlite:///" in out


def test_mlflow_being_away_changes_no_outcome(double: KubeflowDouble, submit: SubmitMain, compiled: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = submit("--package", compiled)
    assert code == 0
    assert "MLflow: not known here (MLflow failed" in out
    assert "hunter2" not in out + err


def test_a_package_that_was_compiled_before(double: KubeflowDouble, submit: SubmitMain, compiled: str,
                                            tmp_path: Path) -> None:
    for _ in range(2):
        assert submit("--package", compiled, "--no-wait")[0] == 0
    assert submit("--image", IMAGE, "--no-wait")[0] == 0
    assert (len(double.versions), len(double.runs)) == (1, 3)
    code, _, err = submit("--package", str(write_package(tmp_path / "other.yaml")))
    assert code == 2
    assert "does not go with this version" in err


def test_dry_run_starts_nothing_and_says_what_would_run(double: KubeflowDouble, submit: SubmitMain,
                                                        compiled: str) -> None:
    code, out, _ = submit("--package", compiled, "--dry-run")
    assert code == 0
    assert not double.pipelines + double.runs + double.experiments
    assert out.count(IMAGE) == 1
    for part in ("train-encoder", "train-deblurrer [hypercut_targets]", "hours cap: ", "GPUs: ", "h of GPUs"):
        assert part in out
    assert "finds the same" not in out
    submit("--package", compiled)
    again = submit("--package", compiled, "--dry-run")[1]
    changed = submit("--package", compiled, "--dry-run", "--set", "blur.clips.train=9")[1]
    where = {name: next(line for line in text.splitlines() if line.startswith("synthesize-blur"))
             for name, text in (("again", again), ("changed", changed))}
    assert "yes, if collect-footage finds the same" in where["again"]
    assert where["changed"].endswith("no")


def test_dry_run_without_a_server(submit: SubmitMain, compiled: str) -> None:
    code, out, err = submit("--package", compiled, "--dry-run", host="http://127.0.0.1:9")
    assert code == 0
    assert "unknown" in next(line for line in out.splitlines() if line.startswith("synthesize-blur"))
    assert "what the cache holds is unknown" in err


@pytest.mark.parametrize(("words", "says"), [
    ((), "--image NAME@sha256"), (("--image", IMAGE, "--package", "x.yaml"), "--package FILE"),
    (("--package", "none.yaml"), "none.yaml"), (("--image", "hypercut:latest"), "sha256"),
    (("--package", "COMPILED", "--data-rev", "v1"), "set footage.source"),
    (("--image", IMAGE, "--set", "sede=1"), "seed")])
def test_what_a_user_can_mend(double: KubeflowDouble, submit: SubmitMain, compiled: str, words: tuple[str, ...],
                              says: str) -> None:
    code, _, err = submit(*(compiled if word == "COMPILED" else word for word in words))
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert double.runs == []


@pytest.mark.parametrize("failure", [Failure("*", 401, times=99), Failure("CreateRun", 500, times=99),
                                     Failure("GetRun", drop=True, times=9999)])
def test_trouble_with_the_server_is_one_paragraph(double: KubeflowDouble, submit: SubmitMain, compiled: str,
                                                  failure: Failure) -> None:
    double.failures = [failure]
    code, _, err = submit("--package", compiled)
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("hypercut: ")
    assert "To mend it: " in last
    assert "Traceback" not in err


@pytest.mark.usefixtures("interruptible")
def test_looking_away_is_exit_code_130(double: KubeflowDouble, submit: SubmitMain, compiled: str) -> None:
    double.script = looks(("RUNNING", []))
    double.before = lambda name: os.kill(os.getpid(), signal.SIGINT) if name == "GetRun" else None
    code, _, err = submit("--package", compiled)
    assert code == 130
    assert "the run goes on" in err
    assert "run the same command again" not in err  # that would start a second run


# -- who is spoken to --


def test_the_address_comes_from_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_TOKEN", "KFP_COOKIE", "KFP_CA_CERT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PipelineServerError, match="--local"):
        address(None, None)
    monkeypatch.setenv("KFP_ENDPOINT", "https://one.example")
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    assert (address(None, None).base, address(None, None).namespace) == ("https://one.example", "team")
    assert address("https://two.example/", "other").base == "https://two.example"
    monkeypatch.setenv("KFP_CA_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(PipelineServerError, match="KFP_CA_CERT"):
        address(None, None)


# -- the data --


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True,
                          capture_output=True, text=True).stdout.strip()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the tag v1, whose origin has it."""
    folder = tmp_path / "here"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    git(folder, "tag", "v1")
    git(folder, "clone", "-q", "--bare", str(folder), str(tmp_path / "origin.git"))
    git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(folder, "fetch", "-q", "origin")
    monkeypatch.chdir(folder)
    return folder


def videos(**others: Any) -> Parameters:
    return load(None, None, ["footage.source=videos", *(f"footage.{name}={text}" for name, text in others.items())])


def test_a_revision_is_pinned_and_named_for_others(here: Path) -> None:
    commit = git(here, "rev-parse", "HEAD")
    with pytest.raises(StorageError, match="no origin that another machine"):
        with_data(videos(), "v1")  # a path of this machine
    assert with_data(videos(), "v1", local=True).footage.revision == commit
    git(here, "remote", "set-url", "origin", "https://me:hunter2@git.example/team/clips.git")
    assert with_data(videos(), "v1").footage.revision == f"git+https://git.example/team/clips.git@{commit}"
    assert with_data(videos(revision="v1"), "").footage.revision.endswith(commit)
    git(here, "commit", "-q", "--allow-empty", "-m", "two")
    with pytest.raises(StorageError, match="git push"):
        with_data(videos(), "HEAD")
    with pytest.raises(StorageError, match="no revision 'v9'"):
        with_data(videos(), "v9")


def test_data_of_another_repository_and_of_a_bucket(here: Path) -> None:
    commit = git(here, "rev-parse", "HEAD")
    assert with_data(videos(), f"git+{here}@v1").footage.revision == f"git+{here}@{commit}"
    moved = with_data(videos(revision="v1"), "s3://footage/hands")
    assert (moved.footage.source, moved.footage.revision) == ("s3://footage/hands", "")
    with pytest.raises(BadParameters, match="goes with a path"):
        with_data(load(None, None, ["footage.source=s3://footage/hands"]), "v1")
    with pytest.raises(StorageError, match="credential helper") as caught:
        with_data(videos(), "git+https://me:hunter2@git.example/clips.git@v1")
    assert "hunter2" not in str(caught.value)


# -- the step with an image of its own --


def test_trajectories_need_an_image_of_the_tracker(double: KubeflowDouble, submit: SubmitMain, compiled: str) -> None:
    tracker, on = f"registry.example/tracker@sha256:{'b' * 64}", ("--set", "trajectories.enabled=true")
    for words in (("--image", IMAGE), ("--package", compiled)):
        code, _, err = submit(*words, *on)
        assert code == 2
        assert "--tracker-image" in err
    assert double.calls == []
    code, out, _ = submit("--image", IMAGE, "--tracker-image", tracker, "--dry-run", *on)
    assert code == 0
    assert any(line.startswith("evaluate-trajectories ") for line in out.splitlines())
    assert "evaluate-trajectories" not in submit("--image", IMAGE, "--dry-run")[1]


def test_the_step_runs_in_the_tracker_s_image_and_a_parameter_of_the_run_switches_it(
        double: KubeflowDouble, submit: SubmitMain) -> None:
    """One package, uploaded once by what the API's description allows; only the run's argument differs."""
    tracker = f"registry.example/tracker@sha256:{'b' * 64}"
    for words in ((), ("--set", "trajectories.enabled=true")):
        assert submit("--image", IMAGE, "--tracker-image", tracker, *words)[0] == 0
    (version,) = double.versions
    images = {name: one["container"]["image"] for name, one in
              version["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].items()}
    assert images.pop("exec-evaluate-trajectories") == tracker
    assert set(images.values()) == {IMAGE}
    on, off = (json.loads(run["runtime_config"]["parameters"]["trajectories"]) for run in double.runs)  # newest first
    assert (off["enabled"], on["enabled"]) == (False, True)


# -- trainings in RayJobs --

RAYJOB = ("--set", "deblurrer.scale.launcher=rayjob", "--set", "deblurrer.scale.workers=16",
          "--set", "deblurrer.scale.gpus_per_worker=1", "--set", "deblurrer.training.batch=32")


def test_a_dry_run_counts_the_gpus_of_the_rayjobs(submit: SubmitMain) -> None:
    code, out, _ = submit("--image", IMAGE, "--dry-run", *RAYJOB,
                          "--set", "objectives=[hypercut_targets, sequence_min]")
    assert code == 0
    assert "GPUs: 34 if all tasks ran at once" in out  # and one each for train-encoder and evaluate
    assert "of the GPUs, 32 are those of RayJobs, which their tasks launch" in out
    [row] = [line.split() for line in out.splitlines() if line.startswith("train-deblurrer [hypercut_targets]")]
    assert row[2:5] == ["1", "4Gi", "16"]


def test_a_rayjob_that_could_not_begin_with_the_model_is_not_submitted(submit: SubmitMain) -> None:
    code, _, err = submit("--image", IMAGE, "--dry-run", *RAYJOB, "--set", "deblurrer.start=/mnt/hypercut/a")
    assert code == 2
    assert "RayJob begins with fresh weights" in err


def test_packages_for_rayjobs_and_for_trainings_in_the_step_are_told_apart(
        double: KubeflowDouble, submit: SubmitMain, compiled: str, tmp_path: Path) -> None:
    from pipelines.compile import compile_pipeline

    code, _, err = submit("--package", compiled, "--dry-run", *RAYJOB)
    assert code == 2
    assert "keeps a GPU for train-deblurrer" in err
    assert "--rayjob" in err
    compile_pipeline(IMAGE, tmp_path / "rayjob.yaml", rayjob=True)
    code, _, err = submit("--package", str(tmp_path / "rayjob.yaml"), "--dry-run")
    assert code == 2
    assert "compiled for trainings in RayJobs" in err
    assert submit("--package", str(tmp_path / "rayjob.yaml"), "--no-wait", *RAYJOB)[0] == 0
    given = double.runs[0]["runtime_config"]["parameters"]["deblurrer_scale"]
    assert '"launcher": "rayjob"' in given
    assert '"workers": 16' in given


def test_more_workers_than_clips_are_refused_before_anything_is_uploaded(double: KubeflowDouble,
                                                                        submit: SubmitMain) -> None:
    code, _, err = submit("--image", IMAGE, *RAYJOB[:4])
    assert code == 2
    assert "16 workers cannot share batches of 8 clips" in err
    assert double.calls == []
