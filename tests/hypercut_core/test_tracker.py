"""The contract with the tracker's process, held against doubles that answer well, badly or not at all."""

from __future__ import annotations

import ast
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypercut_core.errors import BadImage, BadParameters, TrackerError, TrackerMissing
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.tracker import LONGEST_SIDE, MAX_FRAMES, PROCESS, Tracker

FRAME = np.zeros((60, 80, 3), np.uint8)


def double(folder: Path, body: str) -> Path:
    """A program in the place of the tracker's Python: called as `python -I tracker_process.py FOLDER`."""
    file = folder / "python"
    file.write_text(f"#!{sys.executable} -I\nimport json, os, pathlib, sys, time\n"
                    f"folder = pathlib.Path(sys.argv[3])\nrequest = json.loads((folder / 'request.json').read_text())\n"
                    f"{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def answering(folder: Path, answer: Any) -> Tracker:
    text = json.dumps(answer)
    return Tracker(double(folder, f"(folder / 'landmarks.json').write_text({text!r})"))


def hand(**changes: Any) -> dict[str, Any]:
    return {"points": [[k, 2.0 * k] for k in range(21)], "confidence": 0.5, "handedness": "left", **changes}


def test_points_come_back_surest_first(tmp_path: Path) -> None:
    tracker = answering(tmp_path, {"frames": [[hand(confidence=0.2), hand(handedness="right")], []]})
    found = tracker.detect([FRAME, FRAME], "hand", most=2)
    assert [[one.handedness for one in frame] for frame in found] == [["right", "left"], []]
    one = found[0][0]
    assert isinstance(one, Detection)
    assert one.points.dtype == np.float32
    np.testing.assert_array_equal(one.points[3], [3, 6])
    assert one.scale == pytest.approx(np.hypot(9, 18))


def test_the_process_gets_the_frames_as_they_are_and_nothing_of_our_surroundings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller")
    copy = tmp_path / "copy"
    tracker = Tracker(double(tmp_path, f"""
import shutil
shutil.copytree(folder, {str(copy)!r})
pathlib.Path({str(copy)!r}, 'environment').write_text(json.dumps(dict(os.environ)))
(folder / 'landmarks.json').write_text(json.dumps({{'frames': [[], []]}}))"""), confidence=0.3)
    frames = [np.random.default_rng(k).integers(0, 256, (5 + k, 9, 3), dtype=np.uint8) for k in range(2)]
    assert tracker.detect(frames, "face", 3) == [[], []]
    request = json.loads((copy / "request.json").read_text())
    assert (request["kind"], request["most"], request["confidence"]) == ("face", 3, 0.3)
    for name, frame in zip(request["frames"], frames, strict=True):
        np.testing.assert_array_equal(np.load(copy / name, allow_pickle=False), frame)
    assert "A_SECRET" not in json.loads((copy / "environment").read_text())


def test_large_frames_are_shrunk_and_their_points_brought_back(tmp_path: Path) -> None:
    tracker = Tracker(double(tmp_path, """
header = (folder / request['frames'][0]).read_bytes()[:128].decode('latin-1')
height, width, _ = eval(header[header.index('('):header.index(')') + 1])
hand = {'points': [[width / 2, height]] * 21, 'confidence': 1, 'handedness': ''}
(folder / 'landmarks.json').write_text(json.dumps({'frames': [[hand]]}))"""))
    points = tracker.detect([np.zeros((100, 3 * LONGEST_SIDE, 3), np.uint8)], "hand")[0][0].points
    np.testing.assert_allclose(points[0], [1.5 * LONGEST_SIDE, 100], rtol=1e-6)


def test_no_frames_need_no_process(tmp_path: Path) -> None:
    assert Tracker(double(tmp_path, "sys.exit(3)")).detect([], "face") == []


def test_a_missing_environment_names_the_command_that_installs_it(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / ".venv-tracker/bin/python")
    assert "not installed" in str(tracker.missing())
    with pytest.raises(TrackerMissing, match="make tracker"):
        tracker.detect([FRAME], "face")


def test_a_python_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    file = double(tmp_path, "")
    file.write_text("no program", encoding="utf-8")
    with pytest.raises(TrackerMissing, match="cannot be started"):
        Tracker(file).detect([FRAME], "face")
    file.chmod(stat.S_IRUSR)
    if os.getuid():  # root may run what has any x bit
        assert "cannot be started" in str(Tracker(file).missing())


def test_a_process_that_dies_is_quoted(tmp_path: Path) -> None:
    tracker = Tracker(double(tmp_path, "print('noise')\nsys.exit('ModuleNotFoundError: no mediapipe\\x1b[2J')"))
    with pytest.raises(TrackerError, match=r"exit code 1 \(ModuleNotFoundError: no mediapipe") as caught:
        tracker.detect([FRAME], "face")
    assert "\x1b" not in str(caught.value)
    assert not isinstance(caught.value, TrackerMissing)


def test_a_process_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """Its child holds a lock that is free again only when the child is gone too."""
    import fcntl

    lock = tmp_path / "lock"
    lock.touch()
    tracker = Tracker(double(tmp_path, f"""
import fcntl
held = open({str(lock)!r}, 'r+')
fcntl.flock(held, fcntl.LOCK_EX)
os.fork()
time.sleep(600)"""), timeout=2.0)
    with pytest.raises(TrackerError, match="did not answer within 2 seconds"):
        tracker.detect([FRAME], "face")
    with lock.open("r+") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)  # the kernel frees it when the last holder has died


BAD = [
    {}, [], None, 3, {"frames": None}, {"frames": []}, {"frames": [[], []]}, {"frames": [{}]},
    {"frames": [[hand(), hand()]]}, {"frames": [[{}]]}, {"frames": [["hand"]]}, {"frames": [[None]]},
    {"frames": [[hand(points=[])]]}, {"frames": [[hand(points=[[0, 0]] * 22)]]},
    {"frames": [[hand(points=[[0, 0, 0]] * 21)]]}, {"frames": [[hand(points=[[0]] * 20 + [[0, 0]])]]},
    {"frames": [[hand(points=[["x", 0]] * 21)]]}, {"frames": [[hand(points=[[1e9, 0]] * 21)]]},
    {"frames": [[hand(points=[[float("nan"), 0]] * 21)]]}, {"frames": [[hand(points=[[10**400, 0]] * 21)]]},
    {"frames": [[hand(confidence=1.5)]]}, {"frames": [[hand(confidence=float("inf"))]]},
    {"frames": [[hand(confidence="much")]]}, {"frames": [[hand(confidence=None)]]},
    {"frames": [[hand(handedness="<b>")]]}, {"frames": [[hand(handedness=[])]]},
]


class InThisProcess(Tracker):
    """Answers without a process, as there are many answers to try."""

    def __init__(self, answer: Any):
        super().__init__(sys.executable)
        self.answer = answer

    def _run(self, folder: Path, frames: int) -> None:
        (folder / "landmarks.json").write_text(json.dumps(self.answer), encoding="utf-8")


@pytest.mark.parametrize("answer", BAD, ids=[str(k) for k in range(len(BAD))])
def test_nonsense_is_refused(answer: Any) -> None:
    with pytest.raises(TrackerError, match="answer cannot be used"):
        InThisProcess(answer).detect([FRAME], "hand")


@pytest.mark.parametrize(("body", "why"), [
    ("", "wrote no landmarks.json"),
    ("(folder / 'landmarks.json').write_text('{')", "not valid JSON"),
    ("(folder / 'landmarks.json').write_bytes(b'\\xff\\xfe')", "not valid JSON"),
    ("(folder / 'landmarks.json').write_text('[' * 5000)", "not valid JSON"),
    ("(folder / 'landmarks.json').write_text(' ' * 10**6 + '{}')", "no file of at most"),
    ("(folder / 'landmarks.json').symlink_to(folder / 'request.json')", "no file of at most"),
    ("os.mkfifo(folder / 'landmarks.json')", "no file of at most"),
    ("(folder / 'landmarks.json').mkdir()", "no file of at most"),
])
def test_an_answer_that_is_no_plain_file_of_json_is_refused(body: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(TrackerError, match=why):
        Tracker(double(tmp_path, body)).detect([FRAME], "hand")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    answering(tmp_path, {"frames": [[]]}).detect([FRAME], "hand")
    with pytest.raises(TrackerError):
        answering(tmp_path, {}).detect([FRAME], "hand")
    assert list(room.iterdir()) == []


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8),
                                   np.zeros((4, 4, 4), np.uint8)])
def test_frames_that_are_no_pictures_are_refused(frame: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadImage):
        Tracker(double(tmp_path, "")).detect([frame], "face")


def test_what_cannot_be_looked_for_is_refused(tmp_path: Path) -> None:
    tracker = Tracker(double(tmp_path, ""))
    for kind, most in (("foot", 1), ("face", 0), ("hand", 99)):
        with pytest.raises(BadParameters):
            tracker.detect([FRAME], kind, most)
    with pytest.raises(BadParameters, match="too many"):
        tracker.detect([FRAME] * (MAX_FRAMES + 1), "face")
    with pytest.raises(BadParameters):
        Tracker(confidence=1.5)


def test_the_other_side_imports_nothing_of_ours() -> None:
    tree = ast.parse(PROCESS.read_text(encoding="utf-8"))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} <= {"json", "sys", "pathlib", "typing", "numpy", "mediapipe"}
