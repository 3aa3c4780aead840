"""MLflow on PostgreSQL and radosgw, for real: the pipeline's runs and models, DVC, refusals, secrets.

All of it goes through `infra/local/services`, as a user's does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import yaml
from local_services import ROOT, Services, bring_up, clean_environment, running_services, services
from made_footage import pan, write_video
from PIL import Image

from components import storage
from components.params import explained, load
from components.storage import s3_client
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.errors import StorageError
from hypercut_core.restore import restore

pytest.importorskip("mlflow")
pytestmark = pytest.mark.system

SERVERS = ("postgres", "ceph-mon", "ceph-osd", "radosgw", "mlflow")
SMOKE = ("--params", ROOT / "params.yaml", "--preset", "smoke")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".gitignore"}


def pids(folder: Path) -> dict[str, int]:
    """By server, as `status` tells them."""
    lines = [line.split() for line in services("status", "--state", folder, check=False).stdout.splitlines()]
    return {words[0]: int(words[2]) for words in lines if words[1] == "pid"}


def family(folder: Path) -> list[psutil.Process]:
    """All processes of the servers: those of the sessions that they lead."""
    leaders = set(pids(folder).values())
    return [process for process in psutil.process_iter() if os.getsid(process.pid) in leaders]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    yield from running_services(tmp_path_factory.mktemp("services") / "state")


@pytest.fixture(scope="module")
def trained(up: Services, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the nine steps ran against the servers."""
    ws = tmp_path_factory.mktemp("trained") / "ws"
    up.hypercut("run", *SMOKE, "-w", ws, cwd=ws.parent)
    return ws


@pytest.fixture(scope="module")
def client(up: Services) -> object:
    import mlflow

    uri = up.env["MLFLOW_TRACKING_URI"]
    return mlflow.MlflowClient(uri, registry_uri=uri)  # an earlier test may have set another registry


def test_up_is_idempotent_and_everything_listens_on_loopback_only(up: Services) -> None:
    before = pids(up.folder)
    assert set(before) == set(SERVERS)
    bring_up("--in-memory", "--state", up.folder)
    assert pids(up.folder) == before
    listening = {(process.name(), socket.laddr.ip) for process in family(up.folder)
                 for socket in process.net_connections() if socket.status == psutil.CONN_LISTEN}
    assert {ip for _, ip in listening} == {"127.0.0.1"}
    assert len({name for name, _ in listening}) >= 5


def test_secrets_lie_in_private_files_and_on_no_command_line(up: Services) -> None:
    assert len(up.secrets()) == 2 * 2 + 1 + 4
    open_to_others = [path for path in up.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert open_to_others == []
    assert up.folder.stat().st_mode & 0o077 == 0
    lines = [word for process in family(up.folder) for word in process.cmdline()]
    assert any("mlflow-artifacts" in word for word in lines)
    assert [word for word in lines for secret in up.secrets() if secret in word] == []


def test_runs_model_and_figures_are_in_the_registry_and_the_artifacts_in_s3(
        up: Services, trained: Path, client: object) -> None:
    registration = json.loads((trained / "reports/registration.json").read_text())
    assert registration["tracking_uri"] == up.env["MLFLOW_TRACKING_URI"]
    assert not (trained / "mlflow.db").exists()
    version = client.get_model_version_by_alias("hypercut-deblurrer", "champion")
    assert int(version.version) == registration["version"] == 1
    assert version.tags["hypercut.model_sha256"] == digest(trained / "models/deblurrer-sequence_min.safetensors")
    run = client.get_run(registration["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["ppsnr"] == pytest.approx(
        json.loads(version.tags["hypercut.figures"])["ppsnr"], abs=1e-6)

    bucket = up.bucket("mlflow")
    keys = [item["Key"] for page in bucket.get_paginator("list_objects_v2").paginate(Bucket="mlflow-artifacts")
            for item in page.get("Contents", [])]
    assert [key for key in keys if key.endswith(f"{registration['run_id']}/artifacts/report/report.html")]
    [weights] = [key for key in keys if key.endswith("/deblurrer.safetensors")]
    stored = bucket.get_object(Bucket="mlflow-artifacts", Key=weights)["Body"].read()
    assert hashlib.sha256(stored).hexdigest() == version.tags["hypercut.model_sha256"]


def test_the_champion_restores_a_photo_from_another_workspace(up: Services, trained: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").convert("RGB").resize((75, 50)).save(tmp_path / "photo.png")
    up.hypercut("restore", "photo.png", "-o", "far", "--model", "models:/hypercut-deblurrer@champion",
                "-w", "elsewhere", cwd=tmp_path)
    frames = restore(load_deblurrer(trained / "models/deblurrer-sequence_min.safetensors"),
                     np.asarray(Image.open(tmp_path / "photo.png")))
    shown = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "far").glob("*.png"))]
    np.testing.assert_array_equal(np.stack(shown), frames)


def videos(folder: Path, first: int) -> dict[str, str]:
    for seed in range(first, first + 3):
        write_video(folder / f"hand/{seed}.mp4", pan(seed, 8, 2.0, 96, 128))
    return digests(folder)


def collected(ws: Path) -> dict[str, str]:
    """The manifest's files and hashes."""
    rows = json.loads((ws / "data/footage.json").read_text())["sources"]
    return {row["source"]: row["sha256"] for row in rows}


def test_footage_is_read_from_the_bucket_and_wrong_keys_are_told(up: Services, tmp_path: Path) -> None:
    made = videos(tmp_path / "in", 0)
    bucket = up.bucket("hypercut")
    for name in made:
        bucket.upload_file(str(tmp_path / "in" / name), "hypercut", f"footage/{name}")
    words = ("collect-footage", "-w", "ws", "--set", "footage.source=s3://hypercut/footage")
    up.hypercut(*words, cwd=tmp_path)
    assert len(collected(tmp_path / "ws")) == 3

    words = ("collect-footage", "-w", "other", "--set", "footage.source=s3://hypercut/footage")
    said = up.refused(*words, cwd=tmp_path, AWS_SECRET_ACCESS_KEY="w" * 40)
    assert "refuses the credentials (SignatureDoesNotMatch)" in said
    assert not (tmp_path / "other/data").exists()


@pytest.mark.parametrize(("where", "key", "says"), [
    ("s3://hypercut/footage", "nobody", "(InvalidAccessKeyId)"),
    ("s3://mlflow-artifacts/1", "", "(AccessDenied)"),  # the clients' keys are not for the server's bucket
    ("s3://nowhere/footage", "", "there is no such bucket"),
])
def test_other_refusals_of_the_real_server(up: Services, monkeypatch: pytest.MonkeyPatch, where: str, key: str,
                                           says: str) -> None:
    for name, value in {**up.env, **({"AWS_ACCESS_KEY_ID": key} if key else {})}.items():
        monkeypatch.setenv(name, value)
    s3_client.client.cache_clear()
    try:
        with pytest.raises(StorageError, match=re.escape(says)) as caught:
            storage.list_files(where)
    finally:
        s3_client.client.cache_clear()
    assert [secret for secret in up.secrets() if secret in str(caught.value)] == []


def test_artifacts_written_to_s3_directly_with_wrong_keys_are_refused_in_one_paragraph(
        up: Services, trained: Path, client: object) -> None:
    client.create_experiment("direct", artifact_location="s3://hypercut/direct")
    words = ("register-model", *SMOKE, "-w", trained, "--set", "register.experiment=direct",
             "--set", "register.name=direct")
    said = up.refused(*words, cwd=trained, AWS_SECRET_ACCESS_KEY="w" * 40)
    assert "the artifact store refuses the request" in said
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert "w" * 40 not in said


def cluster_options(up: Services, port: int) -> list[str]:
    """The options of infra/kubernetes/mlflow.yaml's container, its four addresses replaced by those here."""
    from infra.local import mlflow_server, postgres

    documents = yaml.safe_load_all((ROOT / "infra/kubernetes/mlflow.yaml").read_text())
    [pod] = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "Deployment"]
    options = dict(option.split("=", 1) for option in pod["containers"][0]["args"])
    here = {"--host": "127.0.0.1", "--port": str(port), "--backend-store-uri": postgres.address(up.state),
            "--artifacts-destination": mlflow_server.ARTIFACTS}
    assert here.keys() < options.keys()
    return [word for option in {**options, **here}.items() for word in option]


def answer(port: int, host: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id=0",
                                     headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_cluster_s_server_knows_its_names_and_with_wrong_keys_is_told_from_one_that_is_down(
        up: Services, trained: Path, tmp_path: Path) -> None:
    from infra.local import mlflow_server, processes

    wrong = tmp_path / "wrong.ini"
    wrong.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = " + "w" * 40 + "\n")
    port, name = processes.free_port(), "mlflow-wrong-keys"
    try:
        mlflow_server.launch(up.folder, up.state, name, cluster_options(up, port), wrong)
        service = yaml.safe_load((ROOT / "infra/kubernetes/services.yaml").read_text())["data"]
        assert answer(port, service["MLFLOW_TRACKING_URI"].removeprefix("http://")) == 200
        assert answer(port, "elsewhere.example.org") == 403
        at = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        words = ("register-model", *SMOKE, "-w", trained, "--set", "register.name=refused")
        for command in (words, ("restore", "x.png", "-o", "out", "-w", tmp_path)):
            said = up.refused(*command, cwd=trained, **at)
            assert "the MLflow server cannot use its artifact store" in said
            assert "its S3 keys, bucket or endpoint are wrong" in said
    finally:
        processes.stop(up.folder, name)
    log = (up.folder / f"logs/{name}.log").read_text()
    assert "InvalidAccessKeyId" in log
    assert "w" * 40 not in log


@pytest.fixture
def repository(tmp_path: Path, up: Services) -> Path:
    """An empty git repository with DVC, whose remote is the bucket; the keys are in no file that git knows."""
    folder = tmp_path / "repository"
    up.run("git", "init", "-q", "-b", "main", folder, cwd=tmp_path)
    up.run("dvc", "init", "-q", cwd=folder)
    keys = up.keys("hypercut")
    (folder / ".dvc/config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = s3://hypercut/dvc/footage\n"
        f"    endpointurl = {up.env['AWS_ENDPOINT_URL_S3']}\n")
    (folder / ".dvc/config.local").write_text(
        f"['remote \"store\"']\n    access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"    secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n")
    return folder


def commit(up: Services, folder: Path, message: str) -> str:
    up.run("git", "add", "-A", cwd=folder)
    up.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", message, cwd=folder)
    return up.run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}


def test_dvc_moves_data_and_models_of_this_project(up: Services, trained: Path, tmp_path: Path) -> None:
    """This checkout's own dvc.yaml, with the outputs of the run: pushed from one clone, pulled into another."""
    first, second = tmp_path / "first", tmp_path / "second"
    up.run("git", "clone", "-q", ROOT, first, cwd=tmp_path)
    shutil.copy(ROOT / "dvc.yaml", first)
    (first / "params.yaml").write_text(explained(load(ROOT / "params.yaml", "smoke")))
    for name in ("data", "models", "metrics", "reports"):
        shutil.copytree(trained / name, first / name, dirs_exist_ok=True)
    up.run("dvc", "commit", "-q", "-f", cwd=first)
    # as infra/README.md says it
    up.run("dvc", "remote", "add", "-d", "store", "s3://hypercut/dvc/project", cwd=first)
    up.run("dvc", "remote", "modify", "store", "endpointurl", up.env["AWS_ENDPOINT_URL_S3"], cwd=first)
    for option, key in (("access_key_id", "AWS_ACCESS_KEY_ID"), ("secret_access_key", "AWS_SECRET_ACCESS_KEY")):
        up.run("dvc", "remote", "modify", "--local", "store", option, up.keys("hypercut")[key], cwd=first)
    assert "file" in up.run("dvc", "push", cwd=first, **NO_KEYS).stdout
    commit(up, first, "trained")

    up.run("git", "clone", "-q", first, second, cwd=tmp_path)
    assert digests(second / "models") == {}
    refused = up.run("dvc", "pull", cwd=second, check=False, **NO_KEYS)
    assert refused.returncode != 0
    shutil.copy(first / ".dvc/config.local", second / ".dvc")
    up.run("dvc", "pull", cwd=second, **NO_KEYS)
    for name in ("data", "models", "reports"):
        assert len(digests(trained / name)) >= 3
        assert digests(second / name) == digests(trained / name), name
    assert not [secret for secret in up.secrets()
                if up.run("git", "grep", "-q", "-F", secret, cwd=second, check=False).returncode == 0]


def test_a_revision_is_exactly_what_was_pushed_then(up: Services, repository: Path, tmp_path: Path) -> None:
    """Steps in clean folders know a repository's address and a revision; the videos come from the bucket."""
    made, commits = {}, {}
    for name, seed in (("v1", 10), ("v2", 20)):
        shutil.rmtree(repository / "footage", ignore_errors=True)
        made[name] = videos(repository / "footage", seed)
        up.run("dvc", "add", "-q", "footage", cwd=repository)
        commits[name] = commit(up, repository, name)
        up.run("git", "tag", name, cwd=repository)
        up.run("dvc", "push", "-q", cwd=repository, **NO_KEYS)
    up.run("git", "clone", "-q", "--bare", repository, "footage.git", cwd=tmp_path)
    shutil.rmtree(repository)  # with DVC's cache: all that is left is in git and in the bucket

    address = f"git+file://{tmp_path}/footage.git"
    for name in made:
        ws = tmp_path / name / "ws"
        settings = ("-w", ws, *SMOKE, "--set", "footage.source=footage",
                    "--set", f"footage.revision={address}@{name}")
        ws.parent.mkdir()
        up.hypercut("collect-footage", *settings, cwd=ws.parent)
        manifest = json.loads((ws / "data/footage.json").read_text())
        assert manifest["revision"].endswith(f"@{commits[name]}")
        assert collected(ws) == made[name]
    shutil.rmtree(ws / "work")  # the next step runs on another machine
    up.hypercut("synthesize-blur", *settings, cwd=ws.parent)
    made_of = pyarrow.parquet.read_table(ws / "data/clips/clips.parquet").column("source").unique().to_pylist()
    assert sorted(made_of) == sorted(made["v2"])

    words = ("collect-footage", "-w", "none", "--set", "footage.source=footage",
             "--set", f"footage.revision={address}@v1")
    said = up.refused(*words, cwd=tmp_path, AWS_SECRET_ACCESS_KEY="w" * 40)
    assert "cannot be fetched" in said
    assert not (tmp_path / "none/data").exists()


def test_no_secret_is_in_any_log_run_or_output(up: Services, trained: Path, client: object) -> None:
    """After all of the above: logs of the servers, what commands printed, MLflow's records, the workspace."""
    texts = {str(path): path.read_text(errors="replace") for folder in (up.folder / "logs", up.folder / "ceph", trained)
             for path in folder.rglob("*") if path.is_file() and path.name != "keyring" and "store.db" not in path.parts
             and path.parts[-2] not in ("mon", "osd")}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            texts[f"run {run.info.run_id}"] = json.dumps(run.to_dictionary())
    for version in client.search_model_versions():
        texts[f"version {version.name}/{version.version}"] = repr(dict(version))
    texts["output of commands"] = "\n".join(up.said)
    everything = "\n".join(texts.values())
    for witness in ("hypercut.model_sha256", "PUT /mlflow-artifacts/", "refuses the credentials", "beast"):
        assert witness in everything, f"the search does not see {witness}"
    assert [(place, secret[:4]) for place, text in texts.items() for secret in up.secrets() if secret in text] == []


def test_after_a_crash_up_mends_and_down_leaves_nothing(tmp_path: Path) -> None:
    """On disk this time: kill -9 of two servers; objects and experiments are still there."""
    folder = tmp_path / "state"
    try:
        bring_up("--state", folder)
        first = Services(folder, {})
        state, before = first.state, family(folder)
        first.env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{state['s3_port']}", "AWS_DEFAULT_REGION": "us-east-1"}
        first.bucket("hypercut").put_object(Bucket="hypercut", Key="kept", Body=b"x" * 70000)
        experiment(state["mlflow_port"], create=True)
        for name in ("mlflow", "ceph-osd"):
            os.kill(pids(folder)[name], signal.SIGKILL)
        wait_until_gone(folder, "mlflow", "ceph-osd")

        bring_up("--state", folder)
        assert set(pids(folder)) == set(SERVERS)
        assert [process for process in before if alive(process)] == []  # the orphans too
        assert first.state["s3_port"] == state["s3_port"]
        assert first.bucket("hypercut").get_object(Bucket="hypercut", Key="kept")["Body"].read() == b"x" * 70000
        assert experiment(state["mlflow_port"]) == "kept"
        left = family(folder)
    finally:
        services("down", "--delete", "--state", folder)
    assert len(left) > len(SERVERS)
    assert [process for process in left if alive(process)] == []
    assert not Path(state["postgres_folder"]).exists()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    refused = services("env", "--state", folder, check=False)
    assert refused.returncode == 2
    assert "run 'infra/local/services up'" in refused.stderr


def experiment(port: int, create: bool = False) -> str:
    import mlflow

    found = mlflow.MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    if create:
        found.create_experiment("kept")
    return str(found.get_experiment_by_name("kept").name)


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def wait_until_gone(folder: Path, *names: str) -> None:
    end = time.monotonic() + 30
    while set(names) & set(pids(folder)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_missing_program_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """With a PATH that has nothing of Ceph: nothing is started or left behind."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "dirname", "setpriv"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    code = ("import sys; from infra.local import processes, s3_server; from hypercut_core.errors import HypercutError\n"
            "processes.base_environment = lambda: {'PATH': sys.argv[1]}\n"
            "try: processes.need(s3_server.PROGRAMS)\n"
            "except HypercutError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "bin")], cwd=ROOT, capture_output=True,
                          text=True, check=True, env=clean_environment())
    assert "apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw ceph-common" in done.stdout
