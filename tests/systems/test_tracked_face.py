"""The real tracker on a real face that moves along a known curve: within two pixels, up to direction."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needed import real_tracker
from PIL import Image

from hypercut_core.trajectories.anatomy import FACE, HAND, LINES, POINTS
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.paths import follow, path_error
from hypercut_core.trajectories.tracker import Tracker

pytest.importorskip("skimage")
pytestmark = pytest.mark.system
SIZE = 256


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return real_tracker()


@pytest.fixture(scope="module")
def moved(tracker: Tracker) -> tuple[np.ndarray, np.ndarray, list[list[Detection]]]:
    """Frames of a 20-px curve, where every landmark truly is in them, and what the tracker finds there."""
    from benchmarks.trajectories import moved_face

    face = moved_face(20, 140)
    rest, *found = tracker.detect([face.still, *face.frames], FACE)
    return face.frames, rest[0].points + face.path[:, None], found


def test_the_known_path_is_found_again(moved: tuple[np.ndarray, np.ndarray, list[list[Detection]]]) -> None:
    _, truth, found = moved
    track, = follow(found, FACE, (SIZE, SIZE)).tracks
    assert track.seen.all()
    assert track.points.shape == (7, max(POINTS[FACE]), 2)
    error, _ = path_error(track.points, truth)
    assert error <= 1.0  # of the 2 px that hold through the blurry photo too
    still = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert error < path_error(still, truth)[0] / 5  # and staying where the photo shows it would be far worse
    bend = track.points[3].mean(axis=0) - (track.points[0] + track.points[-1]).mean(axis=0) / 2
    assert np.linalg.norm(bend) > 1  # the path is seen to be bent
    assert np.median(track.confidence) > 0.6
    assert {region.mark for region in track.regions} == {""}


def test_a_missed_and_a_wrong_frame_do_not_carry_it_away(
        moved: tuple[np.ndarray, np.ndarray, list[list[Detection]]]) -> None:
    _, truth, found = moved
    worse = [list(frame) for frame in found]
    worse[1] = []
    worse[4] = [Detection(worse[4][0].points + np.float32(8), 0.6, FACE)]
    track, = follow(worse, FACE, (SIZE, SIZE)).tracks
    assert path_error(track.points, truth)[0] <= 2.0


def test_the_command_writes_paths_of_frames_without_a_network(
        moved: tuple[np.ndarray, np.ndarray, list[list[Detection]]], tmp_path: Path) -> None:
    frames, truth, _ = moved
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{index:03d}.png")
    command = [Path(sys.executable).with_name("hypercut"), "trajectories", "frames", "-o", "out"]
    alone = ["unshare", "--net"] if shutil.which("unshare") else []
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # not permitted here: then with whatever network there is
    done = subprocess.run([*alone, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "found in 7 of 7 frames" in done.stdout
    written = json.loads((tmp_path / "out/paths.json").read_text(encoding="utf-8"))
    assert np.linalg.norm(np.array(written["tracks"][0]["points_px"]) - truth, axis=2).mean() <= 1.0
    assert (tmp_path / "out/overlay.webp").stat().st_size > 10_000


def test_the_doctor_finds_it_well(tracker: Tracker) -> None:
    from pipelines.trajectories import examine

    said: list[str] = []
    assert examine("models:/none@champion", Path("/nonexistent"), True, said.append, tracker)
    findings = {finding["what"]: finding for finding in json.loads(said[0])["findings"]}
    assert findings["trial"] == {"what": "trial", "found": "it found 1 of 1 faces", "state": "ok", "remedy": ""}
    assert "mediapipe 0.10.21" in findings["tracker"]["found"]
    assert findings["model for photos"]["state"] == "note"


def test_no_hand_is_seen_where_there_is_none_and_no_face_in_noise(tracker: Tracker) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    assert tracker.detect([noise], HAND, 2) == [[]]
    assert tracker.detect([noise], FACE, 2) == [[]]


def test_our_lines_are_lines_of_its_meshes(tracker: Tracker) -> None:
    """Eyes, brows, mouth and outline of the face; all of the hand."""
    script = ("import json\nfrom mediapipe.python.solutions import face_mesh_connections as face, hands_connections\n"
              "names = 'LIPS LEFT_EYE RIGHT_EYE LEFT_EYEBROW RIGHT_EYEBROW FACE_OVAL'.split()\n"
              "print(json.dumps([sorted({tuple(sorted(e)) for n in names for e in getattr(face, 'FACEMESH_' + n)}),\n"
              "  sorted({tuple(sorted(e)) for e in hands_connections.HAND_CONNECTIONS})]))")
    done = subprocess.run([tracker.python, "-I", "-c", script], capture_output=True, text=True, timeout=120, check=True)
    theirs = [{tuple(edge) for edge in edges} for edges in json.loads(done.stdout)]
    for kind, edges in zip((FACE, HAND), theirs, strict=True):
        ours = {tuple(sorted(edge)) for name, lines in LINES[kind].items() if name != "nose" for line in lines
                for edge in itertools.pairwise(line)}
        assert ours == edges
