"""A Ray address where nobody answers is told at once, whoever asks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from components import ray_address
from components.ray_address import expect_head, silence
from hypercut_core.errors import ClusterError

SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Accepts one connection, and answers once it was greeted; None: never."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        with listening.accept()[0] as connection:
            if answer is None:
                ended.wait()
            elif connection.recv(64).startswith(b"PRI * HTTP/2.0"):
                connection.sendall(answer)
                ended.wait()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listening.close()


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("before", ["", "ray://"])
def test_a_grpc_server_answers(before: str) -> None:
    with server(SETTINGS) as address:
        assert silence(before + address) == ""


def test_what_does_not_answer_is_told(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "SILENCE", 0.2)
    assert "refused" in silence(closed)
    assert "refused" in silence(closed, patience=0.6)
    with server(None) as address:
        assert "says nothing" in silence(address)
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "web server" in silence(address)


@pytest.mark.parametrize("address", ["", "auto", "local", "http://127.0.0.1:1/"])
def test_other_words_are_for_ray(address: str) -> None:
    assert silence(address) == ""


def test_a_head_that_comes_up_is_waited_for(closed: str) -> None:
    host, port = closed.split(":")
    listening: list[socket.socket] = []

    def come_up() -> None:
        listening.append(socket.create_server((host, int(port))))
        connection, _ = listening[0].accept()
        connection.sendall(SETTINGS)
        listening.append(connection)

    thread = threading.Timer(0.3, come_up)
    thread.start()
    try:
        assert silence(closed, patience=60.0) == ""
    finally:
        thread.join()
        for one in listening:
            one.close()


def test_the_trainer_the_fan_and_the_rows_say_it(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from components.train_deblurrer.ray_rows import each_on_ray
    from components.train_deblurrer.ray_trainer import _cluster

    monkeypatch.setenv("RAY_ADDRESS", closed)
    monkeypatch.setattr(ray_address, "PATIENCE", 0.0)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked, which takes minutes"))
    for ask in (expect_head, lambda: _cluster().__enter__(), lambda: next(each_on_ray(print, [1]))):
        with pytest.raises(ClusterError, match="no Ray cluster answers") as told:
            ask()
        assert closed in str(told.value)
        assert "RAY_ADDRESS" in told.value.remedy
