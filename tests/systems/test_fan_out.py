"""synthesize-blur that is killed as a whole, and over a real Ray."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.collect_footage.step import CollectConfig, collect_footage
from components.synthesize_blur import step
from components.synthesize_blur.step import ClipCounts, FanOutConfig, SynthesisConfig, synthesize_blur
from hypercut_core.clips.moving_photos import MovingPhotosConfig

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
PHOTOS = SynthesisConfig(photos=MovingPhotosConfig(size=32, subframes=1), clips=ClipCounts(300, 20, 130))
PARTS = 3 + 1 + 2


def photos(folder: Path) -> Path:
    collect_footage(CollectConfig(), folder / "data/footage.json", 0)
    return folder / "data/footage.json"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(manifest: Path, out: str = "clips", workers: int = 1, seed: int = 0) -> dict[str, bytes]:
    """Every byte of the store and of the metrics."""
    store, metrics = manifest.parent / out, manifest.with_name(f"{out}.json")
    config = SynthesisConfig(photos=PHOTOS.photos, clips=PHOTOS.clips, scale=FanOutConfig(workers=workers))
    synthesize_blur(manifest, config, store, metrics, seed)
    return {"metrics": metrics.read_bytes(), **tree(store)}


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_fan_out import run
if __name__ == "__main__":
    run(Path(sys.argv[1]), workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_that_is_killed_goes_on_from_the_parts_that_are_there(tmp_path: Path, workers: int,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = photos(tmp_path)
    whole = run(manifest, out="whole")
    heads = killed_after(manifest, workers, parts=2)
    assert not (tmp_path / "data/clips").exists()
    made = Counter[str]()
    real = step.make

    def counted(job: Any, task: Any, report: Any) -> None:
        made[step.part_of(job, task).name] += 1
        real(job, task, report)

    monkeypatch.setattr(step, "make", counted)
    assert run(manifest, out="whole") == whole  # the folder is another's, the parts are the same
    assert len(heads) >= 2
    assert not heads & set(made)
    assert len(heads) + len(made) == PARTS
    assert set(made.values()) <= {1}


def test_another_seed_takes_none_of_the_parts_that_are_there(tmp_path: Path) -> None:
    manifest = photos(tmp_path)
    expected = run(manifest, seed=1)
    killed_after(manifest, 1, parts=1)
    assert run(manifest, seed=1) == expected


def killed_after(manifest: Path, workers: int, parts: int) -> set[str]:
    """Kill the step, and only it, when so many parts are there; returns their names when its workers are gone."""
    folder = manifest.parent.parent / "work/synthesize-blur"
    words = [sys.executable, "-c", SCRIPT, manifest, str(workers), ROOT, Path(__file__).parent]
    process = subprocess.Popen([str(word) for word in words], start_new_session=True)
    try:
        while len(list(folder.glob("[!.]*.json"))) < parts:
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    while group_lives(process.pid):
        pass  # workers end by themselves when the step is gone
    return {path.stem for path in folder.glob("[!.]*.json")}


def group_lives(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            return True
    return False


RAY = ("synthesize-blur", "--set", "blur.scale.launcher=ray", "--set", "blur.scale.workers=2",
       "--set", "blur.photos.size=32", "--set", "blur.photos.subframes=1", "--set", "blur.clips.train=300",
       "--set", "blur.clips.val=20", "--set", "blur.clips.test=130")


def below(root: int) -> dict[int, str]:
    """Processes that descend from `root`, with their names."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found = re.match(r"(\d+) \((.*)\) \S (\d+)", stat.read_text())
        except OSError:
            continue
        if found:
            parents[int(found[1])], names[int(found[1])] = int(found[3]), found[2]
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return {pid: names[pid] for pid in family - {root}}


def test_ray_makes_the_same_bytes_though_its_workers_are_killed(tmp_path: Path) -> None:
    manifest = photos(tmp_path)
    whole = run(manifest, out="whole")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *RAY, "-w", str(tmp_path)], env=environment,
                               cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    killed, over = Counter[int](), threading.Event()

    def disturb() -> None:  # each worker that shows itself, until two are gone
        while not over.wait(0.05) and len(killed) < 2:
            for pid, name in below(process.pid).items():
                if name.startswith("ray::_make") and len(killed) < 2:
                    os.kill(pid, signal.SIGKILL)
                    killed[pid] += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        _, errors = process.communicate(timeout=600)
    finally:
        over.set()
        thread.join()
        left = below(process.pid)
        process.kill()
        process.wait()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert len(killed) == 2
    made = {"metrics": (tmp_path / "metrics/synthesize-blur.json").read_bytes(), **tree(tmp_path / "data/clips")}
    assert made == whole
    assert not (tmp_path / "work/synthesize-blur").exists()
