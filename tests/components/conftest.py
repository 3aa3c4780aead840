"""A bucket for unit tests: moto's S3 server, which proves nothing about access."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

S3_SECRET = "secret-that-must-not-show"


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    double = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    double.start()
    host, port = double.get_host_and_port()
    yield f"http://{host}:{port}"
    double.stop()


@pytest.fixture
def bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3

    from components.storage import s3_client

    connect = s3_client.client
    for name, value in (("HYPERCUT_S3_PATIENCE", "0"), ("AWS_ENDPOINT_URL", moto_server),
                        ("AWS_ACCESS_KEY_ID", "testing"),
                        ("AWS_SECRET_ACCESS_KEY", S3_SECRET), ("AWS_DEFAULT_REGION", "us-east-1"),
                        ("AWS_CONFIG_FILE", "/nonexistent"), ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    connect.cache_clear()
    client = boto3.client("s3", endpoint_url=moto_server)
    client.create_bucket(Bucket="footage")
    yield "s3://footage"
    for item in client.list_objects_v2(Bucket="footage").get("Contents", []):
        client.delete_object(Bucket="footage", Key=item["Key"])
    connect.cache_clear()
