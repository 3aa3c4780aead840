"""Checkpoints: whatever happens to files, the newest good one is found, and a good one is always left."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.errors import BadCheckpoint, StorageError
from hypercut_core.files import LocalFiles
from hypercut_core.training.checkpoint import pack, unpack
from hypercut_core.training.checkpoint_folder import CheckpointFolder, forget_checkpoints

IDENTITY = {"data": "abc", "seed": 0, "shape": (1, 2)}


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"module.weight": torch.full((3, 5), float(step)), "module.count": torch.tensor(step)}


class Files:
    """A FileStore in memory, which fails when it is told to."""

    name = "s3://bucket/run"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.refuse: set[str] = set()  # names of calls

    def names(self) -> list[str]:
        self._may("names")
        return sorted(self.content)

    def read(self, name: str) -> bytes:
        self._may("read")
        if name not in self.content:
            raise FileNotFoundError(errno.ENOENT, "no such object", name)
        return self.content[name]

    def write(self, name: str, data: bytes) -> None:
        self._may("write")
        self.content[name] = data

    def delete(self, name: str) -> None:
        self._may("delete")
        self.content.pop(name, None)

    def _may(self, call: str) -> None:
        if call in self.refuse:
            raise StorageError("the server does not answer", where=self.name, remedy="start it")


def folder_of(files: Files, said: list[str] | None = None, keep: int = 2,
              identity: dict[str, object] | None = None) -> CheckpointFolder:
    return CheckpointFolder(files, identity or IDENTITY, keep, (said if said is not None else []).append)


def step_of(data: bytes | None) -> int | None:
    return None if data is None else int(unpack(data)[1]["step"])


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(st.integers(1, 10**9), min_size=1, max_size=5, unique=True), data=st.data())
def test_any_damage_leaves_the_newest_good_one(steps: list[int], data: st.DataObject) -> None:
    files, said = Files(), list[str]()
    writer = folder_of(files, keep=9)
    for step in sorted(steps):
        writer.save(step, -1.5, tensors(step))
    names = {saved.step: saved.name for saved in writer.saved()}
    damaged = data.draw(st.sets(st.sampled_from(steps)))
    for step in damaged:
        whole = files.content[names[step]]
        cut = data.draw(st.integers(0, len(whole) - 1))
        kind = data.draw(st.sampled_from(["cut off", "bit flipped", "something else", "another's content"]))
        files.content[names[step]] = {
            "cut off": whole[:cut], "bit flipped": whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1:],
            "something else": b"PK\x03\x04" * 9, "another's content": pack(tensors(0), {"step": step})}[kind]
    reader = folder_of(files, said)
    expected = max(set(steps) - damaged, default=None)
    assert step_of(reader.newest()) == expected
    passed = [step for step in damaged if expected is None or step > expected]
    assert len(said) == len(passed)
    assert all(f"step {step} " in " ".join(said) for step in passed)


@settings(deadline=None, max_examples=60)
@given(losses=st.lists(st.floats(-5, 5, width=16), min_size=1, max_size=12), keep=st.integers(1, 4))
def test_the_newest_and_the_best_are_kept(losses: list[float], keep: int) -> None:
    files = Files()
    folder = folder_of(files, keep=keep)
    for step, loss in enumerate(losses, start=1):
        folder.save(step, loss, tensors(step))
    kept = [saved.step for saved in folder.saved()]
    rounded = [float(f"{loss:.5f}") for loss in losses]
    best = 1 + max(place for place, loss in enumerate(rounded) if loss == min(rounded))
    assert set(kept) == {*range(max(1, len(losses) - keep + 1), len(losses) + 1), best}


def step_in(name: str) -> int:
    return int(name.split("-")[1])


@settings(deadline=None, max_examples=80)
@given(events=st.lists(st.sampled_from(["save", "save", "refuse write", "refuse read", "refuse delete", "answer",
                                        "damage", "start again"]), max_size=25), keep=st.integers(1, 3))
def test_a_good_one_is_always_left(events: list[str], keep: int) -> None:
    """Once one was written, there is always one that loads: only damage from outside can take the last."""
    files = Files()
    folder, step, good = folder_of(files, keep=keep), 0, set[int]()
    for event in events:
        if event == "save":
            step += 1
            try:
                if folder.save(step, 1.0 / step, tensors(step)):
                    good.add(step)
            except StorageError:
                assert not good
        elif event == "damage" and len(good) > 1:
            newest = sorted(files.content)[-1]
            files.content[newest] = files.content[newest][:-1]
            good.discard(step_in(newest))
        elif event == "start again":
            files.refuse.clear()
            folder = folder_of(files, keep=keep)
            found = step_of(folder.newest())
            step = found or 0
        elif event == "answer":
            files.refuse.clear()
        elif event.startswith("refuse"):
            files.refuse.add(event.split()[1])
        good &= {step_in(name) for name in files.content}  # the others were no longer needed
        if good:
            asked = set(files.refuse)
            files.refuse.clear()
            assert folder_of(files).newest() is not None
            files.refuse = asked


def test_others_are_left_alone_and_said() -> None:
    files, said = Files(), list[str]()
    other = folder_of(files, identity={"seed": 1})
    other.save(5, 0.0, tensors(5))
    files.content["notes.txt"] = b"mine"
    mine = folder_of(files, said, keep=1)
    assert mine.newest() is None
    assert said == ["1 checkpoints in s3://bucket/run belong to trainings with other data, settings or code: they are"
                    " left alone, this one starts from the beginning"]
    for step in (1, 2, 3):
        mine.save(step, -float(step), tensors(step))
    assert step_of(other.newest()) == 5
    assert len(mine.saved()) == 1
    forget_checkpoints(files)
    assert list(files.content) == ["notes.txt"]


def test_a_name_that_lies_about_its_training_is_passed_over() -> None:
    import hashlib

    files, said = Files(), list[str]()
    folder = folder_of(files, said)
    folder.save(1, 0.0, tensors(1))
    foreign = pack(tensors(9), {"step": 9, "identity": {"seed": 7}})
    digest = hashlib.sha256(foreign).hexdigest()[:16]
    files.content[f"{folder.training}-00000009-0.00000-{digest}.safetensors"] = foreign
    assert step_of(folder.newest()) == 1
    assert said == ["checkpoint of step 9 in s3://bucket/run is passed over: it belongs to another training"]


def test_a_place_that_cannot_be_read_is_no_reason_to_start_again() -> None:
    files = Files()
    files.refuse.add("names")
    with pytest.raises(StorageError, match="does not answer"):
        folder_of(files).newest()


def test_training_goes_on_without_a_checkpoint_only_if_there_is_an_older_one() -> None:
    files, said = Files(), list[str]()
    folder = folder_of(files, said)
    files.refuse.add("write")
    with pytest.raises(StorageError):
        folder.save(1, 0.0, tensors(1))
    files.refuse.clear()
    assert folder.save(2, 0.0, tensors(2))
    files.refuse.add("write")
    assert not folder.save(3, 0.0, tensors(3))
    assert said == ["no checkpoint at step 3, the training goes on: s3://bucket/run: the server does not answer."
                    " To mend it: start it."]
    with pytest.raises(StorageError):  # at the end nothing comes after it
        folder.save(4, 0.0, tensors(4), last=True)


def test_what_was_not_written_as_it_is_removes_nothing() -> None:
    class Lossy(Files):
        def write(self, name: str, data: bytes) -> None:
            super().write(name, data if len(self.content) < 2 else data[:-1])

    files, said = Lossy(), list[str]()
    folder = folder_of(files, said, keep=1)
    assert folder.save(1, 0.0, tensors(1))
    assert folder.save(2, 1.0, tensors(2))  # worse: the first stays as the best
    assert not folder.save(3, -1.0, tensors(3))
    assert "not what was written" in said[0]
    assert step_of(folder_of(files).newest()) == 2


def test_a_full_disk_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    folder = CheckpointFolder(LocalFiles(tmp_path / "w"), IDENTITY, 1, said.append)
    folder.save(1, 0.0, tensors(1))

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert not folder.save(2, 0.0, tensors(2))
    assert "disk is full" in said[0]
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [folder.saved()[0].name]
    assert folder.save(3, 0.0, tensors(3))
    assert step_of(folder.newest()) == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_a_checkpoint_or_a_clear_error(data: bytes) -> None:
    with pytest.raises(BadCheckpoint, match=r"damaged or of another kind|no description"):
        unpack(data)


def test_packing_gives_back_what_went_in() -> None:
    data = pack(tensors(7), {"step": 7, "words": ["a", "é"]})
    back, info = unpack(data)
    assert data == pack(back, {"step": 7, "words": ["a", "é"]})
    assert (info["step"], info["words"]) == (7, ["a", "é"])
    assert all(torch.equal(back[name], value) for name, value in tensors(7).items())
