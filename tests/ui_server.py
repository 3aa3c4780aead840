"""The page's server in a process of its own, and a client that speaks plain HTTP to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240.0  # s, with a busy machine


def tiny_deblurrer(path: Path, frames: int = 5) -> Path:
    """An untrained model whose frames differ."""
    import torch

    from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
    from hypercut_core.deblurring.models import save_deblurrer

    torch.manual_seed(0)
    model = EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1)), frames)
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.3)
    save_deblurrer(path, model, {})
    return path


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Server:
    """`hypercut ui`; `temporary` is the folder that it may leave nothing in."""

    def __init__(self, folder: Path, *words: str):
        self.temporary, self.log = folder / "tmp", folder / "ui.log"
        self.temporary.mkdir(exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "ui", "--port", "0", *words], cwd=folder, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)})
        self.port = 0

    def wait(self) -> Server:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"the page is at http://[^/]*:(\d+)/", self.said())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)
        self.port = int(found[1])
        return self

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, key: str | None = "new", body: bytes | None = None,
            **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of one call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if key is not None:
                sent["X-Hypercut"] = key
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def visitor(self) -> str:
        """The key of a new session."""
        status, body, _ = self.ask("POST", "/api/session")
        assert status == 201, body
        return str(json.loads(body)["session"])

    def restored(self, key: str) -> dict[str, Any]:
        """The last state of a session's photo."""
        end = time.monotonic() + PATIENCE
        while True:
            state: dict[str, Any] = json.loads(self.ask("GET", "/api/state", key)[1])
            if state["stage"] in ("done", "failed"):
                return state
            assert time.monotonic() < end, state
            time.sleep(0.02)


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[Server]:
    server = Server(folder, *words)
    try:
        yield server.wait()
    finally:
        server.end(signal.SIGKILL)
