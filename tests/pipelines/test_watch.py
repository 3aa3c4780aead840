"""`hypercut watch` on real files, with a restorer that costs nothing; the real process is in tests/systems."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypercut_core.errors import BadParameters, StorageError
from pipelines.watch.inbox import Inbox
from pipelines.watch.journal import RESTORED, SET_ASIDE, Entry, Journal, photo_key
from pipelines.watch.watch import check_folders, watch
from pipelines.watch.watcher import LIST, STATE, Stopped, WatchConfig, known_kind

ONCE = WatchConfig(once=True, poll=0.01, settle=0.02, patience=0.1)


def photo(path: Path, shade: int = 90, size: int = 40) -> Path:
    pixels = np.full((size, size, 3), shade, np.uint8)
    pixels[: size // 2, :, 0] = 200
    Image.fromarray(pixels).save(path)
    return path


def three(pixels: np.ndarray) -> np.ndarray:
    """Three frames from one photo, lighter each."""
    return np.stack([pixels, pixels // 2 + 40, pixels // 4 + 80])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def run(folder: Path, restore: Callable[[np.ndarray], np.ndarray] = three, config: WatchConfig = ONCE,
        out: Path | None = None) -> tuple[int, list[str]]:
    said: list[str] = []
    refused = watch(folder, out or folder / "restored", lambda: restore, config, said.append)
    return refused, said


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "restored").iterdir() if path.name != STATE)


def test_every_photo_is_restored_and_none_again(folder: Path) -> None:
    photo(folder / "a.png")
    photo(folder / "b.jpg")
    seen = []

    def restore(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape)
        return three(pixels)

    assert run(folder, restore)[0] == 0
    first = {name: (folder / "restored" / name).stat().st_mtime_ns for name in results(folder)}
    assert [name.split("-")[0] for name in first] == ["a", "b"]
    for name in first:
        with Image.open(folder / "restored" / name) as film:
            assert (film.format, film.n_frames, film.size) == ("WEBP", 3, (40, 40))
    run(folder, restore)
    assert {name: (folder / "restored" / name).stat().st_mtime_ns for name in results(folder)} == first
    assert len(seen) == 2


def test_an_output_that_was_taken_away_is_not_made_again(folder: Path) -> None:
    photo(folder / "a.png")
    run(folder)
    (folder / "restored" / results(folder)[0]).unlink()
    run(folder)
    assert results(folder) == []


def test_a_changed_file_of_the_same_name_is_a_new_photo_and_a_touched_one_is_not(folder: Path) -> None:
    photo(folder / "a.png", 90)
    run(folder)
    os.utime(folder / "a.png", (1, 1))
    run(folder)
    assert len(results(folder)) == 1
    photo(folder / "a.png", 20)
    run(folder)
    assert len(results(folder)) == 2


def test_the_same_bytes_under_two_names_are_two_photos(folder: Path) -> None:
    photo(folder / "a.png")
    photo(folder / "b.png")
    run(folder)
    assert len(results(folder)) == 2


def test_broken_files_are_reported_once_and_listed(folder: Path) -> None:
    whole = photo(folder / "whole.png", size=200).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "letter.jpg").write_text("dear all\n")
    (folder / "empty.png").touch()
    refused, said = run(folder)
    assert refused == 3
    told = [line for line in said if line.startswith("set aside: ")]
    assert sorted(line.split(": ")[1] for line in told) == ["cut.png", "empty.png", "letter.jpg"]
    listed = (folder / "restored" / LIST).read_text()
    assert "letter.jpg: this is a text file, not a photo" in listed
    assert len(results(folder)) == 2  # the whole one, and the list
    refused, said = run(folder)
    assert (refused, [line for line in said if "set aside:" in line]) == (0, [])
    assert (folder / "restored" / LIST).read_text() == listed


def test_a_mended_file_leaves_the_list_with_retry_and_is_restored_without(folder: Path) -> None:
    (folder / "a.png").write_text("no\n")
    assert run(folder)[0] == 1
    photo(folder / "a.png")
    assert run(folder)[0] == 0
    assert len(results(folder)) == 2
    (folder / "a.png").unlink()
    run(folder, config=WatchConfig(once=True, retry=True, poll=0.01, settle=0, patience=0))
    assert LIST not in results(folder)


def test_files_that_are_no_photos_by_their_name_are_passed_over(folder: Path) -> None:
    for name in ("notes.txt", "b.png.part", ".hidden.png", ".c.png.partial-x.png"):
        photo(folder / "x.png").rename(folder / name)
    (folder / "below.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    refused, said = run(folder)
    assert refused == 0
    assert results(folder) == []
    assert [line for line in said if "passed over" in line] == [
        "passed over: notes.txt (its name is not that of a photo)"]


def test_a_link_to_an_output_is_no_input(folder: Path) -> None:
    photo(folder / "a.png")
    run(folder)
    (folder / "again.webp").symlink_to(folder / "restored" / results(folder)[0])
    run(folder)
    assert len(results(folder)) == 1


def test_a_kill_between_the_rename_and_the_line_about_it_makes_nothing_twice(folder: Path) -> None:
    photo(folder / "a.png")
    run(folder)
    name = results(folder)[0]
    made = (folder / "restored" / name).stat().st_mtime_ns
    journal = folder / "restored" / STATE / "journal.jsonl"
    entry = json.loads(journal.read_text().splitlines()[-1])
    journal.write_text(json.dumps({**entry, "event": "begun", "attempts": 1, "out": ""}) + "\n")
    run(folder, restore=lambda pixels: pytest.fail("restored again"))
    assert (folder / "restored" / name).stat().st_mtime_ns == made


def test_a_photo_over_which_the_process_dies_each_time_is_set_aside(folder: Path) -> None:
    photo(folder / "a.png")
    photo(folder / "b.png")

    def restore(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("as if killed")

    for _ in range(2):
        with pytest.raises(RuntimeError):
            run(folder, restore, WatchConfig(once=True, poll=0.01, settle=0, attempts=2))
    refused, said = run(folder, config=WatchConfig(once=True, poll=0.01, settle=0, attempts=2))
    assert refused == 1
    assert any(line.startswith("set aside: a.png: the process died 2 times") for line in said)
    assert [name.split("-")[0] for name in results(folder)] == ["b", "not"]


def test_an_orderly_stop_is_no_attempt(folder: Path) -> None:
    photo(folder / "a.png")

    def restore(pixels: np.ndarray) -> np.ndarray:
        raise Stopped

    said: list[str] = []
    for _ in range(3):
        watch(folder, folder / "restored", lambda: restore, WatchConfig(poll=0.01, settle=0, attempts=2), said.append)
    assert said[-1] == "stopped: 0 restored, 0 set aside"
    assert run(folder)[1][-1] == "done: 1 restored, 0 set aside"


def test_a_photo_that_changes_while_it_is_restored_is_not_lost(folder: Path) -> None:
    """What was read is restored; the new content is another photo."""
    photo(folder / "a.png", 90)

    def restore(pixels: np.ndarray) -> np.ndarray:
        if pixels[-1, 0, 0] == 90:
            photo(folder / "a.png", 20)
        return three(pixels)

    run(folder, restore)
    run(folder, restore)
    assert len(results(folder)) == 2


def test_left_overs_of_a_killed_process_are_removed(folder: Path) -> None:
    work = folder / "restored" / STATE / "work"
    work.mkdir(parents=True)
    (work / "half.webp").write_bytes(b"RIFF")
    run(folder)
    assert not (work / "half.webp").exists()


@pytest.mark.parametrize(("kind", "suffix"), [("gif", ".gif"), ("mp4", ".mp4"), ("frames", "")])
def test_other_kinds_of_results(folder: Path, kind: str, suffix: str) -> None:
    photo(folder / "holiday.in.1999.png")
    run(folder, config=WatchConfig(known_kind(kind), frames=4, once=True, poll=0.01, settle=0))
    result = folder / "restored" / results(folder)[0]
    assert result.suffix == suffix
    if kind == "frames":
        assert len(list(result.glob("frame_*.png"))) == 4


@pytest.mark.parametrize("name", ["ä" * 120 + ".png", "a b;$(x).png", "-o.png", "\udcff\udcfe.png"])
def test_unusual_names(folder: Path, name: str) -> None:
    try:
        photo(folder / "x.png").rename(folder / name)
    except OSError:
        pytest.skip("this file system has no such names")
    run(folder)
    assert len(results(folder)) == 1
    run(folder, restore=lambda pixels: pytest.fail("restored again"))


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    photo(tmp_path / "file.png")
    with pytest.raises(StorageError, match="no such folder"):
        check_folders(tmp_path / "none", tmp_path / "out")
    with pytest.raises(StorageError, match="no folder"):
        check_folders(tmp_path / "file.png", tmp_path / "out")
    with pytest.raises(StorageError, match="in the way"):
        check_folders(folder, tmp_path / "file.png")
    with pytest.raises(BadParameters, match="taken for new photos"):
        check_folders(folder, folder / ".." / "in")
    with pytest.raises(BadParameters, match="cannot be played"):
        run(folder, config=WatchConfig(fps=9999, once=True))
    with pytest.raises(BadParameters, match="cannot be made"):
        known_kind("avi")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("out", ["restored", "../elsewhere"])
def test_a_second_watcher_is_refused(folder: Path, out: str) -> None:
    run(folder)
    with (folder / "restored" / STATE / "lock").open() as lock:
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            with pytest.raises(StorageError, match="another 'hypercut watch' is at work here"):
                run(folder, out=folder / out)
        finally:
            os.close(held)
    run(folder)


def test_a_file_rests_only_while_it_stays_the_same(folder: Path) -> None:
    now = 0.0
    inbox = Inbox(folder, folder / "restored", lambda line: None, clock=lambda: now)
    path = photo(folder / "a.png")
    inbox.look()
    now = 5.0
    inbox.look()
    assert inbox.rested("a.png") == 5.0
    with path.open("ab") as stream:
        stream.write(b"more")
    inbox.look()
    assert inbox.rested("a.png") == 0.0
    path.unlink()
    assert inbox.look() == []


def test_photos_are_known_by_name_and_content() -> None:
    keys = {photo_key(name, content * 64) for name in ("a.png", "b.png") for content in "01"}
    assert len(keys) == 4


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_a_journal_with_a_torn_end_still_knows_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int,
                                                               junk: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    entries = [Entry(f"{n:016x}", f"{n}.png", RESTORED if n % 2 else SET_ASIDE, (n, 1, 2, 3)) for n in range(4)]
    with Journal(path) as journal:
        for entry in entries:
            journal.write(entry)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut] + junk.replace(b"\n", b""))
    kept = path.read_bytes().count(b"\n")
    for _ in range(2):
        with Journal(path) as journal:
            assert all(journal.entry(entry.key) == entry for entry in entries[:kept])
            assert journal.known("1.png", (1, 1, 2, 3)) is (kept > 1)
            journal.write(Entry("f" * 16, "new.png", RESTORED, (9, 9, 9, 9)))
    with Journal(path) as journal:
        assert journal.known("new.png", (9, 9, 9, 9))


@pytest.mark.parametrize("line", ["[]", "{}", "null", '{"key": 1}', "[" * 5000])
def test_lines_of_something_else_are_left_out(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line + "\n")
    with Journal(path) as journal:
        assert journal.set_aside() == []
    assert path.read_text() == ""
