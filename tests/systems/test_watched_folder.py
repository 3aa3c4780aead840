"""`hypercut watch` as people run it: killed over and over, two at once, stopped in good order."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
PHOTOS, KILLS, FRAMES = 200, 10, 3
STATE, LIST = ".hypercut-watch", "not-restored.txt"
PATIENCE = 240.0  # s, of this test with a busy machine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1)), FRAMES)
    torch.nn.init.normal_(made.trunk.leave.weight, std=0.3)  # frames that differ: WebP joins equal ones
    save_deblurrer(tmp_path / "tiny.safetensors", made, {})
    return tmp_path / "tiny.safetensors"


class Started:
    """A watcher process; its messages go to a file."""

    def __init__(self, folder: Path, model: Path, *words: str):
        self.log = folder.parent / "watch.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "watch", str(folder), "--model", str(model), "--poll", "0.05",
                 "--settle", "0.1", "--patience", "2", *words], cwd=folder.parent, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})

    def end(self, number: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []
    (tmp_path / "in").mkdir()

    def begin(*words: str) -> Started:
        started.append(Started(tmp_path / "in", model, *words))
        return started[-1]

    yield begin
    for one in started:
        one.end(signal.SIGKILL)


class Looker(threading.Thread):
    """Opens whatever can be seen in the folder of the results, again and again."""

    def __init__(self, out: Path):
        super().__init__(daemon=True)
        self.out, self.problems, self.looks = out, [], 0
        self.first: dict[str, tuple[int, int, int]] = {}
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            self.look()
            self._done.wait(0.02)

    def look(self) -> None:
        self.looks += 1
        for path in self.out.iterdir() if self.out.is_dir() else ():
            if path.name in (STATE, LIST) or path.name in self.first:
                continue
            try:
                with Image.open(path) as film:
                    for frame in range(FRAMES):
                        film.seek(frame)
                        film.load()
                    if film.n_frames != FRAMES:
                        self.problems.append(f"{path.name}: {film.n_frames} frames")
            except Exception as error:
                self.problems.append(f"{path.name}: {error!r}")
            self.first[path.name] = identity(path)

    def end(self) -> None:
        self._done.set()
        self.join(PATIENCE)
        self.look()


def identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def drop(folder: Path, numbers: range, rng: np.random.Generator) -> None:
    """Put photos into the folder, every third in two halves with a pause, as slow copies arrive."""
    for n in numbers:
        made = folder.parent / f"{n:03d}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(made)
        whole = made.read_bytes()
        if n % 3:
            made.rename(folder / made.name)
            continue
        with (folder / made.name).open("wb") as stream:
            stream.write(whole[:len(whole) // 2])
            stream.flush()
            time.sleep(0.02)
            stream.write(whole[len(whole) // 2:])
        made.unlink()


def wait_for(condition: Callable[[], bool], watcher: Started) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert watcher.process.poll() is None, watcher.said()
        assert time.monotonic() < end, watcher.said()
        time.sleep(0.01)


def test_killed_ten_times_every_photo_is_restored_exactly_once(tmp_path: Path, start: Callable[..., Started]) -> None:
    folder, out = tmp_path / "in", tmp_path / "in/restored"
    chance, rng = random.Random(5), np.random.default_rng(5)
    looker = Looker(out)
    looker.start()
    share = PHOTOS // KILLS
    for n in range(KILLS):
        watcher = start()
        dropper = threading.Thread(target=drop, args=(folder, range(n * share, (n + 1) * share), rng))
        dropper.start()
        # killed after some progress, wherever it is by then
        goal = len(looker.first) + chance.randrange(1, share)
        wait_for(lambda goal=goal: len(looker.first) >= goal, watcher)
        assert watcher.end(signal.SIGKILL) == -signal.SIGKILL
        dropper.join()
    assert start("--once").process.wait(PATIENCE) == 0
    looker.end()

    assert looker.problems == []
    assert looker.looks > 100
    of_photo = Counter(name.split("-")[0] for name in looker.first)
    assert of_photo == {f"{n:03d}": 1 for n in range(PHOTOS)}
    assert {path.name: identity(path) for path in out.iterdir() if path.name != STATE} == looker.first
    journal = [json.loads(line) for line in (out / STATE / "journal.jsonl").read_text().splitlines()]
    ends = Counter(entry["name"] for entry in journal if entry["event"] == "restored")
    assert ends == {f"{n:03d}.png": 1 for n in range(PHOTOS)}
    assert list((out / STATE / "work").iterdir()) == []
    assert "set aside:" not in Started.said(watcher)


def test_two_at_once_an_orderly_stop_and_a_broken_file(tmp_path: Path, start: Callable[..., Started]) -> None:
    folder, out = tmp_path / "in", tmp_path / "in/restored"
    drop(folder, range(1, 2), np.random.default_rng(1))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(99))
    first = start()
    wait_for(lambda: (out / LIST).is_file() and len(list(out.glob("001-*.webp"))) == 1, first)
    second = start("-o", str(tmp_path / "other"))
    assert second.process.wait(PATIENCE) == 2
    assert "another 'hypercut watch' is at work here" in second.said()
    third = start()
    assert third.process.wait(PATIENCE) == 2
    assert f"(process {first.process.pid})" in third.said()
    assert first.process.poll() is None
    assert first.end(signal.SIGTERM) == 0
    assert "stopped: 1 restored, 1 set aside" in first.said()
    assert "broken.jpg" in (out / LIST).read_text()
    again = start()
    wait_for(lambda: again.said().count("watching ") == 2, again)
    assert again.end(signal.SIGINT) == 0
    assert again.said().rstrip().endswith("stopped: 0 restored, 0 set aside")
    assert "Traceback" not in again.said()
