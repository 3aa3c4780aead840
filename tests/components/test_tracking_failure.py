"""Who is to blame when MLflow fails: told from the errors that its real client and boto3 raise."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import tracking
from components.tracking_failure import failure
from hypercut_core.errors import RegistryError

pytest.importorskip("mlflow")


class Broken(http.server.BaseHTTPRequestHandler):
    """Takes artifacts and answers as its server's `answer` says."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.answer:  # type: ignore[attr-defined]
            self.send_response(self.server.answer)  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()
        self.close_connection = True

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def uploaded(uri: str, file: Path) -> RegistryError:
    """What `tracking.explain` makes of an upload that fails."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    file.write_text("x")
    with pytest.raises(RegistryError) as caught, tracking.explain(uri):
        MlflowArtifactsRepository("mlflow-artifacts:/1/x", tracking_uri=uri).log_artifact(str(file))
    return caught.value


@pytest.mark.parametrize(("answer", "says"), [
    (500, "(it answers 500)"), (403, "(it answers 403)"), (0, "(it breaks the connection off)"),
])
def test_a_server_that_cannot_reach_its_store(server: http.server.ThreadingHTTPServer, tmp_path: Path, answer: int,
                                              says: str) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    told = uploaded(f"http://user:secret@127.0.0.1:{server.server_port}", tmp_path / "x")
    assert f"the MLflow server cannot use its artifact store {says}" in str(told)
    assert "secret" not in str(told)


def test_a_server_that_is_down(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    server.shutdown()  # else the thread still polls the closed socket, and the kernel takes one connection more
    server.server_close()
    told = uploaded(f"http://127.0.0.1:{server.server_port}", tmp_path / "x")
    assert "check MLFLOW_TRACKING_URI and that its server runs" in str(told)


def test_s3_that_refuses_the_client_itself(tmp_path: Path) -> None:
    from boto3.exceptions import S3UploadFailedError

    error = S3UploadFailedError("An error occurred (SignatureDoesNotMatch) when calling PutObject")
    told = failure(error, "http://mlflow")
    assert told is not None
    assert "the artifact store refuses the request (An error occurred (SignatureDoesNotMatch)" in str(told)
    assert "AWS_SECRET_ACCESS_KEY" in str(told)


def test_signed_addresses_and_logins_are_in_neither_message_nor_cause() -> None:
    from mlflow.exceptions import MlflowException

    error = MlflowException("403 for http://s3/mlflow/model?X-Amz-Credential=AKEY&X-Amz-Signature=abcdef0123456789")
    told = failure(error, "http://me:pw@mlflow")
    assert told is not None
    assert "abcdef" not in str(told)
    assert "AKEY" not in str(told)
    assert "pw" not in str(told)
    assert told.__cause__ is None
    kept = failure(MlflowException("no such run"), "http://mlflow")
    assert kept is not None
    assert kept.__cause__ is not None


def test_other_errors_are_not_ours() -> None:
    assert failure(KeyError("x"), "http://mlflow") is None
