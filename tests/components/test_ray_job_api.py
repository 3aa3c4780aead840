"""The client of the Kubernetes API against a server over HTTP: what it asks for, and every way to fail."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_cluster import NAMESPACE, TOKEN, Cluster, Failure
from kubernetes_server import Server
from launcher_world import manifest
from self_signed import authority

from components.train_deblurrer.ray_job_api import Conflict, Expired, Missing, NoAnswer, RayJobApi, Refused
from components.train_deblurrer.ray_job_status import uid, version
from hypercut_core.errors import RayJobError

JOB = manifest("me")
NAME = JOB["metadata"]["name"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def account(tls: tuple[Path, ssl.SSLContext], tmp_path: Path) -> Path:
    for name, text in (("namespace", f"{NAMESPACE}\n"), ("token", f"{TOKEN}\n"), ("ca.crt", tls[0].read_text())):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def server(tls: tuple[Path, ssl.SSLContext]) -> Iterator[Server]:
    made = Server(Cluster(live=True), tls[1])
    yield made
    made.stop()


@pytest.fixture
def api(server: Server, account: Path) -> RayJobApi:
    return RayJobApi(server.url, account, timeout=20)


def test_a_rayjob_from_its_creation_to_its_end(api: RayJobApi, server: Server) -> None:
    assert api.get(NAME) is None
    made = api.create(JOB)
    assert made["spec"] == JOB["spec"]
    with pytest.raises(Conflict, match="already exists"):
        api.create(JOB)
    listed, found = api.find(NAME)
    assert found == made == api.get(NAME)
    assert int(listed) >= int(version(made))
    patched = api.patch(NAME, {"metadata": {"resourceVersion": version(made), "annotations": {"a": "b"}}})
    assert patched["metadata"]["annotations"] == {**JOB["metadata"]["annotations"], "a": "b"}
    with pytest.raises(Conflict):
        api.patch(NAME, {"metadata": {"resourceVersion": version(made)}})
    with pytest.raises(Conflict, match="resourceVersion"):
        api.delete(NAME, uid(made), version(made))
    with pytest.raises(Conflict, match="uid"):
        api.delete(NAME, "another", version(patched))
    api.delete(NAME, uid(made), version(patched))
    api.delete(NAME, uid(made), version(patched))  # gone is gone
    assert api.get(NAME) is None
    with pytest.raises(Missing):
        api.patch(NAME, {})
    assert server.cluster.violations == []


def test_a_watch_tells_what_happens_until_its_time_is_over(api: RayJobApi, server: Server) -> None:
    made = api.create(JOB)
    stream = api.watch(NAME, version(made), 2)
    threading.Thread(target=lambda: (server.cluster.set_status(NAME, jobStatus="RUNNING"),
                                     server.cluster.remove(NAME))).start()
    assert [(kind, found.get("status")) for kind, found in stream if kind != "BOOKMARK"] == [
        ("MODIFIED", {"jobStatus": "RUNNING"}), ("DELETED", {"jobStatus": "RUNNING"})]


def test_a_watch_is_only_of_the_one(api: RayJobApi, server: Server) -> None:
    server.cluster.live = False
    first, _ = api.find(NAME)
    api.create(manifest("other", name="hypercut-other"))
    api.create(JOB)
    events = list(api.watch(NAME, first, 1))
    assert [found["metadata"]["name"] for kind, found in events if kind == "ADDED"] == [NAME]
    assert events[-1][0] == "BOOKMARK"
    assert version(events[-1][1]) == str(server.cluster.version)


def test_an_expired_watch_says_so_and_the_list_knows_from_where(api: RayJobApi, server: Server) -> None:
    made = api.create(JOB)
    server.cluster.forget()
    with pytest.raises(Expired):
        list(api.watch(NAME, version(made), 1))
    server.cluster.live = False
    assert {kind for kind, _ in api.watch(NAME, api.find(NAME)[0], 1)} <= {"BOOKMARK"}
    server.cluster.failures.append(Failure("watch", 410))
    with pytest.raises(Expired):
        list(api.watch(NAME, version(made), 1))


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_watch_that_breaks_off_is_no_event(api: RayJobApi, server: Server, cut: int) -> None:
    server.cluster.live = False
    first, _ = api.find(NAME)
    api.create(JOB)
    server.cluster.cut = cut
    events = []
    with pytest.raises(NoAnswer):
        events.extend(api.watch(NAME, first, 1))
    assert events == []


def test_a_fresh_token_is_read_when_the_old_one_is_refused(api: RayJobApi, server: Server, account: Path) -> None:
    assert api.get(NAME) is None
    server.cluster.tokens = {"rotated"}
    (account / "token").write_text("rotated")
    server.cluster.calls.clear()
    api.create(JOB)
    assert server.cluster.calls == ["create", "create"]
    server.cluster.tokens = {"again"}
    server.cluster.calls.clear()
    with pytest.raises(Refused, match="401") as told:
        api.get(NAME)
    assert server.cluster.calls == ["get", "get"]  # once more, and not for ever
    assert "rotated" not in str(told.value)


def test_no_secret_is_in_an_error(api: RayJobApi, server: Server) -> None:
    server.cluster.failures.append(Failure("get", 403, b'{"message": "token a-token-of-the-test is bad"}'))
    with pytest.raises(Refused) as told:
        api.get(NAME)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_work_later(api: RayJobApi, server: Server, status: int) -> None:
    server.cluster.failures.append(Failure("get", status, headers={"Retry-After": "7"}))
    with pytest.raises(NoAnswer, match=f"{status}: made to fail") as told:
        api.get(NAME)
    assert told.value.after == 7
    server.cluster.failures.append(Failure("get", status, b"<html>gateway</html>"))
    with pytest.raises(NoAnswer, match=str(status)):
        api.get(NAME)


@pytest.mark.parametrize(("status", "body", "words"), [
    (403, b'{"message": "rayjobs is forbidden: exceeded quota"}', "exceeded quota.*access.yaml"),
    (403, b"", "403"),
    (422, b'{"message": "spec.backoffLimit: Invalid value"}', "backoffLimit"),
    (400, b'{"message": "bad"}', "400: bad"),
    (404, b"404 page not found", "does not know RayJobs.*KubeRay operator"),
    (301, b"", "301"),
])
def test_what_will_not_work_later_either(api: RayJobApi, server: Server, status: int, body: bytes, words: str) -> None:
    server.cluster.failures.append(Failure("create", status, body, headers={"Location": "/elsewhere"}))
    with pytest.raises(Refused, match=words):
        api.create(JOB)


def test_a_cluster_without_kuberay(api: RayJobApi, server: Server) -> None:
    server.cluster.installed = False
    with pytest.raises(Refused, match="install the KubeRay operator"):
        api.find(NAME)


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b"", b'{"a":', b"\xff" * 9, b"[" * 100000])
def test_an_answer_that_is_no_object(api: RayJobApi, server: Server, body: bytes) -> None:
    server.cluster.failures.append(Failure("get", 200, body))
    with pytest.raises(NoAnswer, match="something else"):
        api.get(NAME)


def test_a_server_that_is_silent_hangs_up_or_is_not_there(server: Server, account: Path) -> None:
    api = RayJobApi(server.url, account, timeout=0.3)
    server.cluster.failures.append(Failure("get", hang=True))
    with pytest.raises(NoAnswer, match="does not answer"):
        api.get(NAME)
    server.cluster.failures = [Failure("get", drop=True)]
    with pytest.raises(NoAnswer):
        api.get(NAME)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = RayJobApi(f"https://127.0.0.1:{free.getsockname()[1]}", account)
    with pytest.raises(NoAnswer, match="ConnectionRefused"):
        away.get(NAME)
    server.cluster.failures = [Failure("watch", hang=True)]
    with pytest.raises(NoAnswer):
        list(api.watch(NAME, "1", 0.1))


def test_another_server_under_its_address_gets_no_token(server: Server, account: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    stranger, _ = authority(tmp_path / "elsewhere")
    (account / "ca.crt").write_text(stranger.read_text())
    with pytest.raises(RayJobError, match="not the Kubernetes API") as told:
        RayJobApi(server.url, account).get(NAME)
    assert not isinstance(told.value, NoAnswer)
    assert server.cluster.calls == []


def test_http_is_for_loopback_only_and_without_the_token(account: Path) -> None:
    with pytest.raises(RayJobError, match="https only"):
        RayJobApi("http://kubernetes.example", account)
    with pytest.raises(RayJobError, match="https only"):
        RayJobApi("http://127.0.0.1.example", account)
    plain = Server(Cluster(tokens={""}))
    try:
        assert RayJobApi(plain.url, account).get(NAME) is None
    finally:
        plain.stop()


@pytest.mark.parametrize("missing", ["namespace", "token", "ca.crt"])
def test_outside_a_cluster_the_error_says_where_a_launcher_runs(server: Server, account: Path, missing: str) -> None:
    (account / missing).unlink()
    with pytest.raises(RayJobError, match=rf"{missing}.*no service account here.*hypercut submit"):
        RayJobApi(server.url, account).get(NAME)


def test_time_is_the_servers(server: Server, account: Path) -> None:
    here = [100.0]
    api = RayJobApi(server.url, account, now=lambda: here[0])
    server.cluster.now = lambda: 1.5e9
    api.get(NAME)
    here[0] += 60
    assert api.time() == pytest.approx(1.5e9 + 60, abs=1)
    assert abs(RayJobApi(server.url, account).time() - time.time()) < 60


def test_pods_that_may_not_be_seen_are_none(api: RayJobApi, server: Server) -> None:
    pod = {"metadata": {"name": "p", "labels": {"job-name": NAME}}}
    server.cluster.pod_objects["p"] = pod
    assert (api.pod("p"), api.pods(f"job-name={NAME}"), api.pods("job-name=x"), api.pod("q")) == (pod, [pod], [], None)
    server.cluster.failures.append(Failure("pods", 403))
    server.cluster.failures.append(Failure("pod", 403))
    assert (api.pod("p"), api.pods("job-name=x")) == (None, [])
