"""Parts of a clip store: joined to the bytes of one writer, however they are cut and whenever the join dies."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.clips.parts import Join, Part, PartWriter
from hypercut_core.clips.store import ClipStore, ClipStoreWriter, Packing
from hypercut_core.errors import BadClipStore, StorageError

SIZES = ((8, 8), (9, 20), (24, 16))
PACKINGS = (Packing(chunk=8, shard_bytes=4 * 24 * 16 * 3 * 2), Packing(chunk=8))  # shards of two to eight clips, or one


def clip(number: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4, (4, *size, 3), dtype=np.uint8)


def words(number: int) -> dict[str, object]:
    return {"clip_id": f"c{number}", "source": "s", "split": "train", "category": "c", "motion": number / 3}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make(folder: Path, clips: list[tuple[int, tuple[int, int]]], packing: Packing, name: str = "p") -> Part:
    part = Part(folder, "-".join([name, *(str(number) for number, _ in clips)]))
    with PartWriter(part, 3, packing) as writer:
        for number, size in clips:
            writer.add(clip(number, size), **words(number))
        writer.head.notes = {"clips": len(clips)}
    return part


@st.composite
def cut_clips(draw: st.DrawFn) -> list[list[tuple[int, tuple[int, int]]]]:
    sizes = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=14))
    clips = list(enumerate(sizes))
    cuts = sorted(draw(st.sets(st.integers(0, len(clips)), max_size=5)))
    return [clips[a:b] for a, b in zip([0, *cuts], [*cuts, len(clips)], strict=True)]


@settings(max_examples=25, deadline=None)
@given(cut_clips(), st.sampled_from(PACKINGS), st.lists(st.integers(0, 5), max_size=3), st.data())
def test_parts_join_to_the_bytes_of_one_writer(parts, packing, deaths, data) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with ClipStoreWriter(root / "expected", 3, packing) as writer:
            for number, size in (item for part in parts for item in part):
                writer.add(clip(number, size), **words(number))
        work = root / "work"
        made = [make(work, part, packing, f"p{k}") for k, part in enumerate(parts)]
        for reached in deaths:  # each time the join dies somewhere behind its part `reached`
            join = Join(work, root / "out", 3, packing)
            done = join.resume(made)
            for k in range(len(done), len(parts)):
                if not made[k].made:
                    make(work, parts[k], packing, f"p{k}")
            for part in made[len(done):reached]:
                join.add(part)
            state = data.draw(st.sampled_from(["between", "in a part", "finishing"]))
            left = made[max(len(done), reached):]
            if state == "in a part" and left:
                data_before = left[0].data.read_bytes()
                join.add(left[0])
                left[0].data.write_bytes(data_before)  # its chunks are in the store, and that was not noted yet
            elif state == "finishing" and not left:
                join._store.finish()
        join = Join(work, root / "out", 3, packing)
        heads = join.resume(made)
        for k in range(len(heads), len(parts)):
            if not made[k].made:
                make(work, parts[k], packing, f"p{k}")
            heads.append(join.add(made[k]))
        assert [head.notes for head in heads] == [{"clips": len(part)} for part in parts]
        join.finish()
        assert tree(root / "out") == tree(root / "expected")


def test_the_store_takes_no_twice_its_size(tmp_path: Path) -> None:
    parts = [make(tmp_path, [(k, (24, 16))], PACKINGS[0]) for k in range(5)]
    join = Join(tmp_path, tmp_path / "out", 3, PACKINGS[0])
    for part in parts:
        join.add(part)
        assert not part.data.exists()


@pytest.mark.parametrize("harm", ["shard lost", "shard cut", "head damaged"])
def test_what_is_damaged_is_made_again(tmp_path: Path, harm: str) -> None:
    clips = [[(0, (8, 8)), (1, (8, 8))], [(2, (8, 8))]]
    made = [make(tmp_path, part, Packing()) for part in clips]
    join = Join(tmp_path, tmp_path / "out", 3)
    join.add(made[0])
    shard = next((tmp_path / "store").glob("8x8/c/0/0/0/0/0"))
    if harm == "shard lost":
        shutil.rmtree(tmp_path / "store")
    elif harm == "shard cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        made[0].head_file.write_text('{"rows": [[1]]')
    join = Join(tmp_path, tmp_path / "out", 3)
    assert join.resume(made) == []
    assert [part.made for part in made] == [False, True]
    make(tmp_path, clips[0], Packing())
    for part in made:
        join.add(part)
    join.finish()
    assert len(ClipStore(tmp_path / "out")) == 3


def test_another_plan_sweeps_what_it_cannot_use(tmp_path: Path) -> None:
    old, kept = (make(tmp_path, [(k, (8, 8))], Packing()) for k in (0, 1))
    Join(tmp_path, tmp_path / "out", 3).add(old)
    (tmp_path / f".{old.name}.data.partial-abc").write_bytes(b"x")
    join = Join(tmp_path, tmp_path / "out", 3)
    assert join.resume([kept]) == []
    assert {path.name for path in tmp_path.iterdir()} == {kept.data.name, kept.head_file.name}
    join.add(kept)
    join.finish()
    assert [record.clip_id for record in ClipStore(tmp_path / "out").records] == ["c1"]


def test_a_part_that_fails_is_not_there(tmp_path: Path) -> None:
    part = Part(tmp_path, "p")

    def write() -> None:
        with PartWriter(part, 3) as writer:
            writer.add(clip(0, (8, 8)), **words(0))
            writer.add(clip(1, (8, 8)), **{**words(1), "motion": float("nan")})

    with pytest.raises(BadClipStore, match="finite"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("count", [1, 400])  # the disk is full when the file is closed, or before
def test_a_full_disk(tmp_path: Path, count: int) -> None:
    def write() -> None:
        with PartWriter(Part(tmp_path, "p"), 3) as writer:
            writer._stream = Path("/dev/full").open("wb")  # noqa: SIM115 - the writer closes it
            for number in range(count):
                writer.add(clip(number, (24, 16)), **words(number))

    with pytest.raises(StorageError, match="disk is full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_is_there_twice(tmp_path: Path) -> None:
    one, other = make(tmp_path, [(0, (8, 8))], Packing()), make(tmp_path / "b", [(0, (8, 8))], Packing())
    join = Join(tmp_path, tmp_path / "out", 3)
    join.add(one)
    with pytest.raises(BadClipStore, match="'c0' cannot be stored: the clip_id is in the store already"):
        join.add(other)
