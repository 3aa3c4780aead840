"""Blurry videos: the sign chain against brute force, the evidence on motion that is known, real files in and out."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan, shifted, texture, write_frames, write_video
from PIL import Image
from torch import nn

from hypercut_core.animation import check_output
from hypercut_core.blurry_video.cuts import one_scene
from hypercut_core.blurry_video.evidence import Pace, glimpse, link_evidence
from hypercut_core.blurry_video.report import findings, shot_record
from hypercut_core.blurry_video.restore_video import Playing, restore_video_command
from hypercut_core.blurry_video.shots import OrderedVideo
from hypercut_core.blurry_video.signs import SignChain, best_states, energy, margins
from hypercut_core.clips.motion import grey_frame
from hypercut_core.clips.moving_photos import CHUNK, MovingPhotosConfig
from hypercut_core.clips.moving_videos import render_videos
from hypercut_core.clips.video import Frame, read_video
from hypercut_core.errors import BadFootage, BadParameters, StorageError

T, SPEED = 3, 6.0  # sharp frames an exposure; px an exposure


def costs(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count - 1, 2, 2)) * 3


def all_states(count: int) -> list[np.ndarray]:
    return [np.array(states) for states in itertools.product((0, 1), repeat=count)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 12))
def test_the_chain_finds_what_brute_force_finds(seed: int, count: int) -> None:
    links = costs(seed, count)
    every = {tuple(states): energy(links, states) for states in all_states(count)}
    best = best_states(links)
    assert energy(links, best) == pytest.approx(min(every.values()), abs=1e-9)
    if count <= 8:
        found, least = margins(links, best), min(every.values())
        for t in range(count):
            other = min(cost for states, cost in every.items() if states[t] != best[t])
            assert found.frames[t] == pytest.approx(other - least, abs=1e-9)
        for t in range(count - 1):
            turned = best[t] != best[t + 1]
            other = min(cost for states, cost in every.items() if (states[t] != states[t + 1]) != turned)
            assert found.links[t] == pytest.approx(other - least, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 40), window=st.integers(1, 6))
def test_a_window_changes_nothing_where_the_paths_meet_within_it(seed: int, count: int, window: int) -> None:
    links = costs(seed, count)
    chain, states, waited = SignChain(window), [], 0
    for place in range(count):
        states += chain.add(links[place - 1] if place else None)
        waited = max(waited, place + 1 - len(states))
    states += chain.finish()
    assert len(states) == count
    assert waited <= window
    if not chain.forced:
        np.testing.assert_array_equal(states, best_states(links))
    assert energy(links, np.array(states)) >= energy(links, best_states(links)) - 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(2, 12), window=st.sampled_from([0, 2, 3]))
def test_without_evidence_of_time_the_whole_may_be_reversed(seed: int, count: int, window: int) -> None:
    """Links that say only whether two frames agree: a sequence and its reverse are equally good, and the order is
    consistent all the same, however narrow the window."""
    rng = np.random.default_rng(seed)
    agree = rng.normal(size=count - 1) * 3
    links = agree[:, None, None] * np.array([[-1.0, 1], [1, -1]])
    states = best_states(links, window)
    np.testing.assert_array_equal(states[1:] == states[:-1], agree > 0)
    found = margins(links, states)
    assert found.whole == pytest.approx(0)
    np.testing.assert_allclose(found.frames, 0, atol=1e-9)
    np.testing.assert_allclose(found.links, 2 * np.abs(agree))


def moving(seed: int, count: int, gap: float = 0.0, speed: float = SPEED) -> list[np.ndarray]:
    """Sharp sequences [T, H, W, 3] of a picture that moves to the right, `gap` exposures between two."""
    picture = texture(seed)
    times = [[n * (1 + gap) + (k + 0.5) / T for k in range(T)] for n in range(count)]
    return [np.stack([shifted(picture, 0.0, speed * at) for at in row]) for row in times]


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
def test_neighbours_tell_the_direction_of_time(gap: float) -> None:
    """Each of the four voices, and all of them, over all ways to turn two neighbours."""
    one, other = ({sign: glimpse(sharp[::sign]) for sign in (1, -1)} for sharp in moving(3, 2, gap))
    straight = link_evidence(one[1], other[1], Pace()).cost()
    for a, b in itertools.product((1, -1), repeat=2):
        evidence = link_evidence(one[a], other[b], Pace())
        kept = (0 if a == 1 else 1, 0 if b == 1 else 1)  # what turns them right again
        assert np.unravel_index(evidence.cost().argmin(), (2, 2)) == kept
        assert evidence.on[0] * a > 0
        assert evidence.on[1] * b > 0
        assert evidence.carried[0] * a > 0
        assert evidence.carried[1] * b > 0
        assert evidence.along * a * b > 0
        # turning a frame swaps rows or columns, and nothing else
        np.testing.assert_allclose(evidence.cost(), straight[::a, ::b], atol=1e-4)


@pytest.mark.parametrize(("gap", "pace"), [(0.0, 1.5), (1.0, 3.0)])  # middle to middle over first to last, T is 3
def test_the_pace_of_a_shot_is_found_in_whatever_direction_its_frames_are(gap: float, pace: float) -> None:
    found = Pace()
    for (one, other), sign in zip(itertools.pairwise(moving(3, 4, gap, 4.0)), (1, -1, 1), strict=True):
        link_evidence(glimpse(one[::sign]), glimpse(other), found)
    assert found.best == pace


@pytest.mark.parametrize("step", [0, 9, 18])
def test_a_fast_pan_is_no_cut_and_another_picture_is_one(step: int) -> None:
    one, moved, other = (grey_frame(pixels.astype(np.uint8)) for pixels in
                         (texture(1), shifted(texture(1), 0.0, step), texture(2)))
    assert one_scene(one, moved)
    assert one_scene(moved, one)
    assert not one_scene(one, other)


def turned_at_random(sequences: list[np.ndarray], seed: int = 0) -> tuple[list[np.ndarray], list[int]]:
    signs = [int(s) for s in np.random.default_rng(seed).choice([-1, 1], len(sequences))]
    return [sharp[::sign] for sharp, sign in zip(sequences, signs, strict=True)], signs


class Known:
    """Restores by looking up: the middle frame is taken for the blurry one."""

    def __init__(self, sequences: list[np.ndarray]):
        self.by_frame = {sharp[T // 2].tobytes(): sharp for sharp in sequences}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.by_frame[pixels.tobytes()]


def order(sequences: list[np.ndarray], window: int = 64, broken: dict[int, str] | None = None,
          ) -> tuple[OrderedVideo, list[np.ndarray]]:
    frames = [Frame(sharp[T // 2], t, None, (broken or {}).get(t, "")) for t, sharp in enumerate(sequences)]
    video = OrderedVideo(Known(sequences), window, neighbours=False)
    return video, list(video.turned(frames, Path("made")))


@pytest.mark.parametrize("window", [1, 64])
def test_a_video_is_put_in_order_and_its_shots_are_settled_alone(window: int) -> None:
    shots = [moving(1, 5), moving(2, 4)]
    given_, signs = turned_at_random([sharp for shot in shots for sharp in shot], seed=4)
    assert len(set(signs)) == 2
    video, turned = order(given_, window)
    for sharp, true in zip(turned, itertools.chain(*shots), strict=True):
        np.testing.assert_array_equal(sharp, true)
    assert [(shot.why, len(shot.frames)) for shot in video.shots] == [("start", 5), ("cut", 4)]
    assert [1 - 2 * state for shot in video.shots for state in shot.states] == signs
    found = findings(video.shots)
    assert (found.frames, found.shots, found.unsure, found.still) == (9, 2, 0, 0)


def test_a_hole_ends_a_shot_and_a_lone_or_still_frame_is_no_more_than_a_guess() -> None:
    rest = [np.repeat(texture(5).astype(np.uint8)[None], T, 0)] * 3
    video, turned = order([*moving(1, 3), *rest], broken={2: "missing_frames"})
    assert [shot.why for shot in video.shots] == ["start", "missing_frames", "cut"]
    rows = [row for shot in video.shots for row in shot_record(shot)["frames"]]
    assert [row["note"] for row in rows] == ["", "", "guess", "still", "still", "still"]
    assert [row["confidence"] for row in rows[2:]] == pytest.approx([0.5] * 4)
    assert len(turned) == 6
    np.testing.assert_array_equal(turned[2], moving(1, 3)[2])  # no evidence: as the model has it


def test_frames_wait_in_a_file_and_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypercut_core.blurry_video import shots

    monkeypatch.setattr(shots, "MEMORY", 1)
    given_, _ = turned_at_random(moving(1, 6))
    for sharp, true in zip(order(given_)[1], moving(1, 6), strict=True):
        np.testing.assert_array_equal(sharp, true)


def test_another_size_in_the_middle_is_refused() -> None:
    frames = [Frame(np.zeros((64, 64, 3), np.uint8), 0, None), Frame(np.zeros((64, 80, 3), np.uint8), 1, None)]
    with pytest.raises(BadFootage, match="frame 1 is 80 x 64, and those before are 64 x 64"):
        list(OrderedVideo(lambda pixels: np.stack([pixels] * T)).turned(frames, Path("film.mp4")))
    with pytest.raises(BadFootage, match="too small"):
        list(OrderedVideo(lambda pixels: np.stack([pixels] * T)).turned(
            [Frame(np.zeros((20, 64, 3), np.uint8), 0, None)], Path("film.mp4")))


class Mover(nn.Module):
    """Shifts a frame to the right over the exposure, or to the left where its upper left corner is dark."""

    frames, response = T, "srgb"

    def forward(self, blurry: torch.Tensor) -> torch.Tensor:
        shifts = (-2, 0, 2) if float(blurry[0, 1, :8, :8].mean()) > 0.5 else (2, 0, -2)
        return torch.stack([blurry.roll(shift, -1) for shift in shifts], 1)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from hypercut_core.deblurring import models

    monkeypatch.setattr(models, "load_deblurrer", lambda path, views: Mover())
    return tmp_path / "model"


FPS = 20
COUNT = 8


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A pan to the right; the corner that `Mover` looks at turns dark and bright."""
    return write_video(tmp_path / "in.mp4", pan(7, COUNT, SPEED), fps=FPS)


def shown(path: Path) -> list[np.ndarray]:
    return [frame.pixels for frame in read_video(path, 0, [])]


def steps_right(frames: list[np.ndarray]) -> list[bool]:
    """Whether the picture moves to the right from each frame to the next: the shift that fits best."""
    def error(one: np.ndarray, other: np.ndarray, shift: int) -> float:
        return float(np.abs(np.roll(one, shift, 1)[:, 12:-12].astype(float) - other[:, 12:-12]).mean())

    return [min(range(-4, 5), key=lambda s: error(*pair, s)) > 0 for pair in itertools.pairwise(frames)]


def test_a_real_file_becomes_a_real_file(tmp_path: Path, film: Path, model: Path) -> None:
    said: list[str] = []
    out = restore_video_command(film, tmp_path / "out.mp4", model, tell=said.append)
    import av

    with av.open(str(out)) as container:
        assert container.streams.video[0].average_rate == Fraction(FPS * T)  # its own time
    assert len(shown(out)) == COUNT * T
    assert all(steps_right(shown(out)))
    report = json.loads((tmp_path / "out.mp4.json").read_text())
    assert [row["frame"] for row in report["shots"][0]["frames"]] == list(range(COUNT))
    assert {row["direction"] for row in report["shots"][0]["frames"]} == {1, -1}  # else nothing was to be done
    assert report["shots"][0]["confidence"] > 0.99
    assert report["sound"] == "none"
    assert report["output_fps"] == FPS * T
    assert f"{COUNT} frames in 1 shot" in said[0]
    reverse = restore_video_command(film, tmp_path / "back.mp4", model, Playing(reverse=True), tell=said.append)
    ends = np.abs(np.array(shown(reverse)[0], float) - shown(out)[2]).mean()
    assert ends < 3  # every frame's own direction is turned, the video is not


def test_folders_slow_motion_and_fewer_frames(tmp_path: Path, model: Path) -> None:
    folder = write_frames(tmp_path / "frames", pan(7, 4, SPEED))
    out = restore_video_command(folder, tmp_path / "out", model, Playing(frames=2), report=tmp_path / "r.json")
    assert sorted(path.name for path in out.iterdir()) == [f"frame_{n:04d}.png" for n in range(1, 9)]
    assert json.loads((tmp_path / "r.json").read_text())["input_fps"] is None
    out = restore_video_command(folder, tmp_path / "out.gif", model, Playing(slow=2))
    with Image.open(out) as image:
        assert (image.n_frames, image.info["duration"]) == (12, 200)


@pytest.mark.parametrize(("name", "playing", "message"), [
    ("out.gif", Playing(), "60 frames a second, and .gif plays at most 50"),
    ("out.mp4", Playing(fps=5, slow=2), "both --fps and --slow"),
    ("out.mp4", Playing(slow=0), "0 times slower"),
    ("out.mp4", Playing(fps=999), "999 frames a second"),
    ("out.avi", Playing(), r"\.avi"),
])
def test_what_cannot_be_shown_is_refused_before_the_work(tmp_path: Path, film: Path, model: Path, name: str,
                                                         playing: Playing, message: str) -> None:
    with pytest.raises(BadParameters, match=message):
        restore_video_command(film, tmp_path / name, model, playing)


def test_input_that_is_none_is_refused(tmp_path: Path, model: Path, film: Path) -> None:
    mixed = write_frames(tmp_path / "mixed", [*pan(1, 3, 1.0), *pan(1, 1, 1.0, 64, 64)])
    with pytest.raises(BadFootage, match="mixes sizes"):
        restore_video_command(mixed, tmp_path / "out.mp4", model)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadFootage, match="cannot be opened as a video"):
        restore_video_command(tmp_path / "text.mp4", tmp_path / "out.mp4", model)
    assert not (tmp_path / "out.mp4").exists()
    frames = write_frames(tmp_path / "frames", pan(1, 3, 1.0), name="frame_{:04d}.png")
    for own in (film, frames):
        with pytest.raises(BadParameters, match="would replace the video"):
            restore_video_command(own, own, model)


def test_nothing_is_left_of_what_failed(tmp_path: Path, film: Path, model: Path, small_disk: Path) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        restore_video_command(film, small_disk / "out", model, Playing(frames=99))
    assert list(small_disk.iterdir()) == []
    abandoned = tmp_path / ".out.mp4.partial-999999999-x.mp4"  # of a process that was killed
    abandoned.write_bytes(b"half")
    restore_video_command(film, tmp_path / "out.mp4", model)
    assert not abandoned.exists()
    check_output(tmp_path / "out.mp4")


def test_made_videos_go_on_from_exposure_to_exposure() -> None:
    config = MovingPhotosConfig(size=32, motion_min=4, motion_max=4, subframes=1)
    videos = list(render_videos(config, "test", 0, 0, length=3, frames=5, kind="camera"))
    again = list(render_videos(config, "test", 0, 0, length=2, frames=5, kind="camera"))
    np.testing.assert_array_equal(videos[1].sharp, again[1].sharp)
    assert videos[0].blurry.shape == (CHUNK, 32, 32, 3)
    np.testing.assert_allclose(videos[0].speed, 4, rtol=0.02)
    inside = np.abs(np.diff(videos[0].sharp.astype(float), axis=1)).mean((1, 2, 3, 4))
    seam = np.abs(videos[1].sharp[:, 0].astype(float) - videos[0].sharp[:, -1]).mean((1, 2, 3))
    far = np.abs(videos[1].sharp[:, -1].astype(float) - videos[0].sharp[:, 0]).mean((1, 2, 3))
    np.testing.assert_allclose(seam, inside, rtol=0.5)  # a fifth of an exposure, as between frames within
    assert (far > 1.5 * seam).all()
    for duty, kind in ((1.5, "camera"), (1.0, "train")):
        with pytest.raises(BadParameters, match="no video"):
            next(render_videos(config, "test", 0, 0, duty=duty, kind=kind))
