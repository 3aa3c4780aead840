"""synthesize-blur over processes: the same store whoever made it, whatever died on the way."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan, write_frames, write_rb2v, write_video

from components.collect_footage.step import CollectConfig, collect_footage
from components.synthesize_blur.fan_out import AHEAD, Event, FanOutConfig, available_cores, in_order
from components.synthesize_blur.sources import blurred
from components.synthesize_blur.step import ClipCounts, SynthesisConfig, synthesize_blur
from hypercut_core.clips.footage import WindowConfig, WindowCounts
from hypercut_core.clips.manifest import read_manifest
from hypercut_core.clips.moving_photos import MovingPhotosConfig
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.errors import BadFootage, BadParameters, HypercutError, StorageError, WorkerLost
from hypercut_core.progress import Progress

CONFIG = SynthesisConfig(windows=WindowConfig(height=0, crop=32, crops=2, stride=7))
PHOTOS = SynthesisConfig(photos=MovingPhotosConfig(size=32, subframes=1), clips=ClipCounts(300, 20, 130))


def footage(folder: Path, **words: Any) -> Path:
    """A manifest of three videos and a folder of frames, 64 x 48 px."""
    for seed, name in enumerate(("hand/a.mp4", "hand/b.mp4", "hand/c.mp4")):
        write_video(folder / "in" / name, pan(seed, 15, 2.0, 48, 64))
    write_frames(folder / "in/hand/d", pan(3, 15, 2.0, 48, 64))
    collect_footage(CollectConfig(source=str(folder / "in"), **words), folder / "data/footage.json", 0)
    return folder / "data/footage.json"


def photos(folder: Path) -> Path:
    collect_footage(CollectConfig(), folder / "data/footage.json", 0)
    return folder / "data/footage.json"


def run(manifest: Path, config: SynthesisConfig, out: str = "clips", workers: int = 1, tries: int = 3,
        seed: int = 0) -> dict[str, bytes]:
    """Every byte of the store and of the metrics."""
    home = manifest.parent.parent
    store, metrics = home / "data" / out, home / f"{out}.json"
    synthesize_blur(manifest, replace(config, scale=FanOutConfig(workers=workers, tries=tries)), store, metrics, seed)
    return {"metrics": metrics.read_bytes(), **tree(store)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_two_and_three_workers_make_the_same_bytes(tmp_path: Path) -> None:
    manifest = footage(tmp_path)
    with ClipStoreWriter(tmp_path / "expected", 7) as writer:
        for source in read_manifest(manifest).sources:
            path = tmp_path / "in" / read_manifest(manifest).relative(source)
            for clip in blurred(source, path, 7, CONFIG.windows, CONFIG.exposure, 400, 0, WindowCounts()):
                writer.add(clip.frames, clip_id=clip.clip_id, source=source.source, split=source.split,
                           category=source.category, motion=clip.motion)
    one = run(manifest, CONFIG)
    assert {name: data for name, data in one.items() if name != "metrics"} == tree(tmp_path / "expected")
    assert run(manifest, CONFIG, workers=2) == run(manifest, CONFIG, workers=3) == one
    assert not (tmp_path / "work/synthesize-blur").exists()


def test_paired_sequences_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rb2v(tmp_path / "in", ["keep", "reverse"] * 4, ["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    collect_footage(CollectConfig(source=str(tmp_path / "in")), tmp_path / "data/footage.json", 0)
    whole = run(tmp_path / "data/footage.json", CONFIG)
    monkeypatch.setattr("components.synthesize_blur.tasks.PAIRED_CLIPS", 1)
    assert run(tmp_path / "data/footage.json", CONFIG, workers=2) == whole


def living_workers() -> list[psutil.Process]:
    """The fork server's children. `multiprocessing.active_children` would take their exit codes from the code that is
    tested: two threads that ask for one get 9 and 255."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [worker for helper in psutil.Process().children() for worker in helper.children()]
    return []


def test_workers_that_are_killed_cost_a_try_and_nothing_else(tmp_path: Path) -> None:
    manifest = photos(tmp_path)
    whole = run(manifest, PHOTOS)
    over, killed = threading.Event(), Counter[int]()

    def disturb() -> None:
        draw = np.random.default_rng(0)
        while not over.wait(draw.uniform(0.1, 0.5)) and killed.total() < 4:
            for process in living_workers()[:1]:
                process.kill()
                killed[process.pid] += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert run(manifest, PHOTOS, workers=2, tries=10) == whole
    finally:
        over.set()
        thread.join()
    assert killed


def test_a_task_that_kills_each_of_its_workers(tmp_path: Path) -> None:
    manifest, over = photos(tmp_path), threading.Event()
    config = replace(PHOTOS, clips=ClipCounts(3000, 1, 1), photos=MovingPhotosConfig(size=96))

    def disturb() -> None:
        while not over.wait(0.01):
            for process in living_workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with pytest.raises(WorkerLost, match=r"died 2 times while it made the clips of 'train' \(signal 9.*memory"):
            run(manifest, config, workers=2, tries=2)
    finally:
        over.set()
        thread.join()
    assert not (tmp_path / "data/clips").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_bad_source_is_named_and_nothing_is_left(tmp_path: Path, workers: int) -> None:
    manifest = footage(tmp_path)
    for name in ("c", "b"):
        write_video(tmp_path / f"in/hand/{name}.mp4", pan(9, 15, 2.0, 48, 64))
    with pytest.raises(BadFootage, match=r"b\.mp4.*collect-footage"):
        run(manifest, CONFIG, workers=workers)
    assert not (tmp_path / "data/clips").exists()
    assert multiprocessing.active_children() == []


def test_sources_that_were_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "in/hand/bad.mp4", pan(7, 15, 2.0, 48, 64))
    (tmp_path / "in/hand/bad.mp4").write_bytes(b"no video")
    manifest = footage(tmp_path, on_bad="skip")
    assert [problem.file for problem in read_manifest(manifest).problems] == ["hand/bad.mp4"]
    assert run(manifest, CONFIG, workers=2) == run(manifest, CONFIG)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    manifest, folder = photos(tmp_path), tmp_path / "work/synthesize-blur"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another run"):
            run(manifest, PHOTOS)


def test_no_try_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match=r"blur\.scale\.tries"):
        run(photos(tmp_path), PHOTOS, tries=0)


@pytest.mark.parametrize(("text", "share"), [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1),
                                             ("damaged", None), ("99000000 100000", None)])
def test_a_container_has_the_cores_that_it_was_given(tmp_path: Path, text: str, share: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert available_cores(tmp_path) == (share or len(os.sched_getaffinity(0)))


@dataclass
class Named:
    label: str


class Scripted:
    """A pool in which `draw` decides what happens next; it holds itself to what pools are promised."""

    def __init__(self, capacity: int, draw: Any, fate: dict[int, list[str]]):
        self.capacity, self._draw, self._fate = capacity, draw, fate
        self.running: list[int] = []
        self.started: Counter[int] = Counter()

    def submit(self, number: int, task: Any) -> None:
        assert len(self.running) < self.capacity
        assert number not in self.running
        self.running.append(number)
        self.started[number] += 1

    def wait(self) -> list[Event]:
        assert self.running, "nothing is at work, and the loop waits"
        number = self._draw(st.sampled_from(self.running))
        if self._draw(st.booleans()):
            return [Event(number, "progress", steps=1)]
        self.running.remove(number)
        kind = self._fate[number].pop(0) if self._fate[number] else "done"
        return [Event(number, kind, error=BadFootage(f"task {number}") if kind == "failed" else None)]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.data())
def test_any_course_of_events_keeps_the_order(count: int, capacity: int, tries: int, data: st.DataObject) -> None:
    fates = st.lists(st.sampled_from(["lost", "failed"]), max_size=3)
    fate = {number: data.draw(st.one_of(st.just([]), fates)) for number in range(count)}
    ends = {}
    for number, told in fate.items():
        lost = next((k for k, kind in enumerate(told) if kind == "failed"), len(told))
        ends[number] = WorkerLost if lost >= tries else BadFootage if lost < len(told) else None
    pool = Scripted(capacity, data.draw, {number: list(told) for number, told in fate.items()})
    tasks = [Named(str(number)) for number in range(count)]
    done: list[int] = []

    def all_done() -> Iterator[None]:
        for task in in_order(pool, tasks, tries, Progress("test")):  # type: ignore[arg-type]
            done.append(int(task.label))
            assert max(pool.started) < done[-1] + 1 + capacity * (1 + AHEAD)
            yield

    first = next((number for number, kind in ends.items() if kind), None)
    if first is None:
        assert len(list(all_done())) == count
    else:
        with pytest.raises(ends[first] or HypercutError, match=f"task {first}|'{first}'"):
            list(all_done())
    assert done == list(range(count if first is None else first))
    assert all(pool.started[number] == 1 + fate[number].count("lost") for number in done)
