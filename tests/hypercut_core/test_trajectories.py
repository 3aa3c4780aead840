"""Paths: polynomials are recovered, noise and mistakes are not, and what cannot be known is marked."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.errors import BadImage, BadParameters, TrackerMissing
from hypercut_core.trajectories.ambiguity import MEANING, path_length, whole_motion
from hypercut_core.trajectories.anatomy import FACE, HAND, LINES, POINTS, SHOWN, regions
from hypercut_core.trajectories.command import trajectories_command
from hypercut_core.trajectories.drawing import view
from hypercut_core.trajectories.joining import join
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.paths import LEAST_SEEN, Trajectories, follow, frame_times, path_error
from hypercut_core.trajectories.smoothing import HIGHEST, WINDOW, smooth
from hypercut_core.trajectories.tracker import Tracker
from hypercut_core.trajectories.writing import thinned

T, SIZE = 7, (256, 192)
RNG = np.random.default_rng(0)
SHAPE = RNG.uniform(-20, 20, (21, 2)) + np.array([120, 90])  # a hand of sorts, scale about 20 px
SHAPE[9], SHAPE[0] = [120, 75], [120, 105]


def hands(paths: np.ndarray, side: str = "left", confidence: float = 0.8) -> list[list[Detection]]:
    """Detections of one hand whose points take the paths [T, 21, 2]."""
    return [[Detection(points.astype(np.float32), confidence, HAND, side)] for points in paths]


def curve(length: float = 20.0, bend: float = 0.3, count: int = T, angle: float = 0.5) -> np.ndarray:
    """A bent path [count, 1, 2] about the origin."""
    t = frame_times(count) - 0.5
    along, aside = t + 0.2 * t**2, bend * (t**2 - 0.25)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (length * np.stack([along, aside], axis=1) @ turn)[:, None]


@given(st.integers(0, HIGHEST), st.integers(1, WINDOW), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_polynomials_are_recovered_where_there_are_moments_enough(degree: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    degree = min(degree, count // 2)
    times = np.sort(rng.permutation(40)[:count]) / 40
    coefficients = rng.normal(0, 20, (degree + 1, 4, 2))
    at = np.linspace(times[0], times[-1], 5)

    def truth(when: np.ndarray) -> np.ndarray:
        return sum(coefficients[k] * (when[:, None, None] - 0.5) ** k for k in range(degree + 1))

    fit = smooth(times, truth(times), rng.uniform(0.2, 1, count), at)
    np.testing.assert_allclose(fit.points, truth(at), atol=0.05)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5, 7, 15, 40]))
@settings(max_examples=12, deadline=None)
def test_time_and_place_do_not_matter(seed: int, count: int) -> None:
    """Reversed time gives the reversed path; a moved and turned picture the moved and turned path."""
    rng = np.random.default_rng(seed)
    times, weights = frame_times(count), rng.uniform(0.5, 1, count)
    points = curve(count=count) + rng.normal(0, 0.5, (count, 6, 2))
    fit = smooth(times, points, weights, times)
    back = smooth(times, points[::-1], weights[::-1], times)
    np.testing.assert_allclose(back.points[::-1], fit.points, atol=1e-6)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    moved = smooth(times, points @ turn + [100, -30], weights, times)
    np.testing.assert_allclose(moved.points, fit.points @ turn + [100, -30], atol=1e-6)
    np.testing.assert_allclose(moved.trust, fit.trust, atol=1e-6)


@pytest.mark.parametrize("count", [7, 15, 60])
def test_smoothing_takes_noise_away_and_measures_it(count: int) -> None:
    rng = np.random.default_rng(1)
    truth = curve(40, count=count) + rng.uniform(0, 100, (1, 200, 2))
    noisy = truth + rng.normal(0, 1, truth.shape)
    fit = smooth(frame_times(count), noisy, np.ones(count), frame_times(count))
    left = np.sqrt(np.square(fit.points - truth).mean())
    assert left < {7: 0.85, 15: 0.6, 60: 0.6}[count]
    assert 0.75 < np.median(fit.noise) < 1.25


def test_a_frame_gone_wrong_is_distrusted_and_hardly_pulls() -> None:
    truth = curve(20) + SHAPE
    wrong = truth + np.random.default_rng(2).normal(0, 0.2, truth.shape)
    wrong[3] += [30, -10]
    fit = smooth(frame_times(T), wrong, np.ones(T), frame_times(T))
    assert fit.trust[3].max() < 0.05
    assert np.delete(fit.trust, 3, axis=0).mean() > 0.5
    assert np.linalg.norm(fit.points - truth, axis=2).mean() < 0.5


def test_missed_frames_are_bridged_with_less_confidence() -> None:
    found = hands(curve(20) + SHAPE)
    found[2] = []
    track = follow(found, HAND, SIZE).tracks[0]
    assert path_error(track.points, curve(20) + SHAPE)[0] < 0.1
    assert track.seen.tolist() == [True, True, False, True, True, True, True]
    assert track.confidence[2].max() < track.confidence[5].min()
    assert track.confidence.min() >= 0
    assert track.confidence[5:].mean() == pytest.approx(0.8, abs=0.05)


def test_what_was_hardly_ever_found_is_no_track() -> None:
    found: list[list[Detection]] = [[] for _ in range(T)]
    assert follow(found, HAND, SIZE).tracks == ()
    for frame in range(int(LEAST_SEEN * T)):
        found[frame] = hands(SHAPE[None])[0]
    assert follow(found, HAND, SIZE).tracks == ()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_two_hands_are_kept_apart_in_whatever_order_they_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = curve(15) + SHAPE, curve(25, angle=2.5) + SHAPE + [70, 0]
    found = [[*hands(a[None])[0], *hands(b[None], "right")[0]] for a, b in zip(left, right, strict=True)]
    found = [[frame[i] for i in rng.permutation(2)] for frame in found]
    tracks = join(found)
    assert len(tracks) == 2
    for track in tracks:
        assert None not in track
        assert len({one.handedness for one in track if one is not None}) == 1


def test_two_hands_that_touch_and_are_found_by_turns_are_not_one() -> None:
    """As the tracker does with a fist in a palm: the right hand in three frames, the left in four."""
    near = [hands((SHAPE + np.array([0, 15 * (k % 2)]))[None], ("left", "right")[k % 2])[0] for k in range(T)]
    track, = follow(near, HAND, SIZE, ambiguous=False).tracks
    assert (track.handedness, track.seen.tolist()) == ("left", [True, False] * 3 + [True])
    assert track.length < 0.1
    mistaken = [hands(SHAPE[None], ("left", "right")[k == 3])[0] for k in range(T)]  # once, and in its place
    assert follow(mistaken, HAND, SIZE).tracks[0].seen.all()


def test_of_two_hands_in_a_photo_the_slower_may_run_otherwise_and_in_a_clip_none() -> None:
    left, right = curve(5) + SHAPE, curve(25, angle=2.5) + SHAPE + [70, 0]
    found = [[*hands(a[None])[0], *hands(b[None], "right")[0]] for a, b in zip(left, right, strict=True)]
    marks = {track.handedness: track.may_run_otherwise for track in follow(found, HAND, SIZE).tracks}
    assert marks == {"left": True, "right": False}
    assert not any(track.may_run_otherwise for track in follow(found, HAND, SIZE, ambiguous=False).tracks)


def marks_of(paths: np.ndarray, ambiguous: bool = True) -> dict[str, str]:
    track = follow(hands(paths), HAND, SIZE, ambiguous=ambiguous).tracks[0]
    return {region.name: region.mark for region in track.regions}


def test_regions_that_move_alone_rest_run_back_or_jump_are_marked() -> None:
    finger = list(regions(HAND)["index finger"])
    together = curve(20, 0) + SHAPE
    assert set(marks_of(together).values()) == {""}
    assert set(marks_of(np.repeat(SHAPE[None], T, 0)).values()) == {"still"}
    for change, mark in ((curve(14, 0, angle=2.0), "own"), (-2 * curve(20, 0), "against"),
                         (15 * np.resize([-1, 1], (T, 1, 1)), "noisy")):
        moved = together.copy()
        moved[:, finger] += change
        found = marks_of(moved)
        assert found.pop("index finger") == mark
        assert set(found.values()) == {""}
    moved = together.copy()
    moved[:, finger] -= curve(20, 0)
    assert marks_of(moved)["index finger"] == "still"
    moved[:, finger] -= curve(20, 0)
    assert marks_of(moved, ambiguous=False)["index finger"] == ""  # a clip's direction is known


@given(st.floats(-3, 3), st.floats(0.5, 2), st.floats(-50, 50), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_the_whole_is_a_body_that_turns_grows_and_moves(angle: float, growth: float, x: float, y: float) -> None:
    turn = growth * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    bodies = np.stack([SHAPE @ turn + [x, y], SHAPE, SHAPE @ turn])
    np.testing.assert_allclose(whole_motion(bodies), bodies, atol=1e-6)


def test_moments_lie_between_the_first_and_the_last_frame() -> None:
    found = hands(curve(20) + SHAPE)
    usual = follow(found, HAND, SIZE)
    np.testing.assert_allclose(usual.moments, (np.arange(T) + 0.5) / T)
    fine = follow(found, HAND, SIZE, moments=15)
    np.testing.assert_allclose(fine.moments[[0, 7, 14]], [0.5 / T, 0.5, 6.5 / T])
    np.testing.assert_allclose(fine.tracks[0].points[[0, 7, 14]], usual.tracks[0].points[[0, 3, 6]], atol=1e-3)
    assert follow(found, HAND, SIZE, moments=1).tracks[0].points.shape == (1, 21, 2)
    assert len(thinned(fine, 4).tracks[0].points) == 4
    for count in (0, 1001):
        with pytest.raises(BadParameters):
            follow(found, HAND, SIZE, moments=count)
    with pytest.raises(BadParameters):
        follow([], HAND, SIZE)


def test_reversed_time_gives_the_reversed_paths() -> None:
    found = hands(curve(20) + SHAPE + np.random.default_rng(4).normal(0, 0.3, (T, 21, 2)))
    forward, back = follow(found, HAND, SIZE), follow(found, HAND, SIZE, reverse=True)
    assert back.reversed
    np.testing.assert_allclose(back.tracks[0].points[::-1], forward.tracks[0].points, atol=1e-3)
    distance, turned = path_error(back.tracks[0].points, forward.tracks[0].points)
    assert (distance < 1e-3, turned) == (True, True)


def test_length_is_that_of_the_way() -> None:
    assert path_length(np.array([[[0, 0]], [[3, 4]], [[3, 0]]])) == pytest.approx([9])
    assert follow(hands(curve(20, 0) + SHAPE), HAND, SIZE).tracks[0].length == pytest.approx(20 * 6 / 7, rel=0.02)


@pytest.mark.parametrize("kind", [FACE, HAND])
def test_regions_share_no_point_and_lines_stay_in_the_mesh(kind: str) -> None:
    parts = list(regions(kind).values())
    together = [point for part in parts for point in part]
    assert len(set(together)) == len(together)
    assert max(together) < min(POINTS[kind])
    assert {point for lines in LINES[kind].values() for line in lines for point in line} == set(together)
    assert set(SHOWN[kind]) <= set(together)
    if kind == HAND:
        assert set(together) == set(range(21))


class SeesSquares(Tracker):
    """Finds a hand where a picture is bright: its points are SHAPE, moved to the bright pixels' middle."""

    def missing(self) -> None:
        return None

    def detect(self, frames: Sequence[np.ndarray], kind: str, most: int = 1) -> list[list[Detection]]:
        found: list[list[Detection]] = []
        for frame in frames:
            rows, columns = np.nonzero(frame[..., 0] > 128)
            middle = SHAPE - SHAPE.mean(axis=0) + [columns.mean() + 0.5, rows.mean() + 0.5] if len(rows) else None
            found.append([] if middle is None else hands(middle[None])[0])
        return found


def film(steps: int = T) -> np.ndarray:
    frames = np.zeros((steps, SIZE[1], SIZE[0], 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[80:100, 60 + 10 * index:80 + 10 * index] = 255
    return frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "frames"
    place.mkdir()
    for index, frame in enumerate(film()):
        Image.fromarray(frame).save(place / f"{index:03d}.png")
    return place


def written(out: Path) -> tuple[dict, list[dict[str, str]]]:
    with (out / "paths.csv").open(encoding="utf-8", newline="") as stream:
        return json.loads((out / "paths.json").read_text(encoding="utf-8")), list(csv.DictReader(stream))


@pytest.mark.parametrize("overlay", ["webp", "gif"])
def test_a_folder_of_frames_becomes_four_files_that_agree(folder: Path, tmp_path: Path, overlay: str) -> None:
    out = tmp_path / "out"
    paths = trajectories_command(folder, out, kind=HAND, tracker=SeesSquares(), overlay=overlay)
    assert {file.name for file in out.iterdir()} == {"paths.csv", "paths.json", "paths.png", f"overlay.{overlay}"}
    found, rows = written(out)
    assert (found["width"], found["height"], found["kind"], found["source"]) == (*SIZE, HAND, "frames")
    assert (found["found_in_frames"], found["found_in_photo"]) == (T, None)
    assert found["direction"]["ambiguous"] is False
    points = np.array(found["tracks"][0]["points_px"])
    np.testing.assert_allclose(points, paths.tracks[0].points, atol=1e-3)
    np.testing.assert_allclose(np.diff(points.mean(axis=1), axis=0), [[10, 0]] * (T - 1), atol=0.05)
    np.testing.assert_allclose(np.array(found["tracks"][0]["points_normalised"]) * SIZE, points, atol=2e-3)
    assert len(rows) == T * 21
    row = next(row for row in rows if (row["landmark"], row["moment"]) == ("8", "3"))
    assert [float(row["x"]), float(row["y"])] == pytest.approx(points[3, 8].tolist(), abs=2e-3)
    assert (row["region"], float(row["time"])) == ("index finger", pytest.approx(0.5))
    assert {row["mark"] for row in rows} <= set(MEANING)
    with Image.open(out / f"overlay.{overlay}") as animation:
        assert animation.n_frames == T  # there and not back: the direction is known
    with Image.open(out / "paths.png") as still:
        assert max(still.size) >= 720


def test_reverse_and_moments_reach_the_files(folder: Path, tmp_path: Path) -> None:
    trajectories_command(folder, tmp_path / "out", kind=HAND, tracker=SeesSquares(), reverse=True, moments=13)
    found, rows = written(tmp_path / "out")
    xs = np.array(found["tracks"][0]["points_px"]).mean(axis=1)[:, 0]
    np.testing.assert_allclose(np.diff(xs), -5, atol=0.05)
    assert found["direction"]["reversed"] is True
    assert len(rows) == 13 * 21


def test_a_clip_of_a_store_gives_its_true_frames(tmp_path: Path) -> None:
    sharp = film()
    with ClipStoreWriter(tmp_path / "clips", T) as store:
        for name, frames in (("a", sharp[::-1]), ("b", sharp)):
            store.add(np.concatenate([frames[:1], frames]), clip_id=name, source="s", split="test", category="hand",
                      motion=60.0)
    for clip, step in (("0", -10), ("b", 10)):
        paths = trajectories_command(tmp_path / "clips", tmp_path / clip, kind=HAND, tracker=SeesSquares(), clip=clip)
        assert np.diff(paths.tracks[0].points.mean(axis=1)[:, 0]) == pytest.approx(step, abs=0.05)
    for clip in ("2", "c", "-1"):
        with pytest.raises(BadParameters, match="no clip"):
            trajectories_command(tmp_path / "clips", tmp_path / "x", kind=HAND, tracker=SeesSquares(), clip=clip)
    with pytest.raises(BadParameters, match="--clip"):
        trajectories_command(tmp_path / "clips", tmp_path / "x", kind=HAND, tracker=SeesSquares())


def test_nothing_found_is_an_error_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    for file in sorted(folder.iterdir())[:5]:
        Image.new("RGB", SIZE).save(file)
    with pytest.raises(BadImage, match="found in 2 of 7 frames"):
        trajectories_command(folder, tmp_path / "out", kind=HAND, tracker=SeesSquares())
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    missing = Tracker(tmp_path / "none")
    with pytest.raises(BadParameters, match="which would be lost"):
        trajectories_command(folder, folder, kind=HAND, tracker=missing)
    with pytest.raises(BadParameters, match="in the way"):
        trajectories_command(folder, folder / "000.png", kind=HAND, tracker=missing)
    with pytest.raises(BadParameters, match="overlay"):
        trajectories_command(folder, tmp_path / "out", kind=HAND, tracker=missing, overlay="mp4")
    with pytest.raises(BadParameters, match="landmarks of"):
        trajectories_command(folder, tmp_path / "out", kind="foot", tracker=missing)
    with pytest.raises(TrackerMissing):
        trajectories_command(tmp_path / "no such photo.png", tmp_path / "out", tracker=missing)


def test_the_same_folder_may_be_written_again(folder: Path, tmp_path: Path) -> None:
    for reverse in (False, True):
        trajectories_command(folder, tmp_path / "out", kind=HAND, tracker=SeesSquares(), reverse=reverse)
    assert written(tmp_path / "out")[0]["direction"]["reversed"] is True


@given(st.floats(-300, 500), st.floats(-300, 500), st.floats(0.01, 20))
@settings(max_examples=40, deadline=None)
def test_the_picture_s_part_is_inside_the_picture(x: float, y: float, size: float) -> None:
    found = hands(np.repeat(((SHAPE - 100) * size + [x, y])[None], 3, 0))
    left, top, right, bottom = view(follow(found, HAND, SIZE))
    assert 0 <= left < right <= SIZE[0]
    assert 0 <= top < bottom <= SIZE[1]


def test_an_empty_result_has_a_view_too() -> None:
    assert view(Trajectories(HAND, SIZE, frame_times(3))) == (0, 0, *SIZE)
