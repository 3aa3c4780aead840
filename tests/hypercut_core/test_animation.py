"""Animations: what is written can be read back, in the right order and timing, or nothing is written."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hypercut_core import animation
from hypercut_core.animation import check_output, playback_times, resample_frames, write_animation
from hypercut_core.errors import BadParameters, StorageError

T = 7


def sequence(height: int = 40, width: int = 56) -> np.ndarray:
    """A bright square that moves to the right; frame k has its left edge at 4 + 4 k."""
    frames = np.full((T, height, width, 3), 40, np.uint8)
    for k in range(T):
        frames[k, 10:26, 4 + 4 * k:20 + 4 * k] = (220, 120, 60)
    return frames


def read_images(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as image:
        shown, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return shown, durations


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], rate


def assert_shows(shown: list[np.ndarray], expected: np.ndarray, worst: float) -> None:
    assert len(shown) == len(expected)
    for one, other in zip(shown, expected, strict=True):
        assert np.abs(one[:other.shape[0], :other.shape[1]].astype(float) - other).mean() < worst


@pytest.mark.parametrize("kind", ["gif", "webp"])
@pytest.mark.parametrize(("reverse", "bounce"), [(False, False), (True, False), (False, True), (True, True)])
def test_images_play_in_the_order_asked_for(tmp_path: Path, kind: str, reverse: bool, bounce: bool) -> None:
    frames = sequence()
    out = write_animation(frames, tmp_path / f"a.{kind}", reverse=reverse, bounce=bounce, fps=20)
    once = frames[::-1] if reverse else frames
    shown, durations = read_images(out)
    assert_shows(shown, np.concatenate([once, once[-2:0:-1]]) if bounce else once, 3)
    assert set(durations) == {50}
    with Image.open(out) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("size", [(40, 56), (41, 57)])
def test_mp4_plays_the_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = sequence(*size)
    shown, rate = read_video(write_animation(frames, tmp_path / "a.mp4", fps=12.5, bounce=True))
    assert rate == pytest.approx(12.5)
    assert shown[0].shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert_shows(shown, np.concatenate([frames, frames[-2:0:-1]]), 4)
    assert abs(shown[0][20, 10].astype(int) - (220, 120, 60)).max() < 12  # the colour matrix is the right one


def test_mp4_without_h264_uses_mpeg4_and_without_both_explains(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "VIDEO_ENCODERS", ("no-such-encoder", "mpeg4"))
    shown, _ = read_video(write_animation(sequence(), tmp_path / "a.mp4"))
    assert_shows(shown, sequence(), 6)
    monkeypatch.setattr(animation, "VIDEO_ENCODERS", ("no-such-encoder",))
    with pytest.raises(StorageError, match=r"\.webp or \.gif"):
        write_animation(sequence(), tmp_path / "b.mp4")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.mp4"]


def test_folder_of_png_is_exact_and_replaces_only_its_own_kind(tmp_path: Path) -> None:
    frames = sequence()
    out = write_animation(frames, tmp_path / "frames")
    files = sorted(out.iterdir())
    assert [file.name for file in files] == [f"frame_{k:04d}.png" for k in range(1, T + 1)]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), frames)
    write_animation(frames, out, frames_shown=3)
    assert len(list(out.iterdir())) == 3
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(BadParameters, match=r"thesis\.txt"):
        write_animation(frames, out)
    assert (out / "thesis.txt").exists()


@given(available=st.sampled_from([3, 5, 7, 15]), count=st.integers(1, 60), reverse=st.booleans(),
       bounce=st.booleans())
def test_times_are_even_and_within_the_exposure(available: int, count: int, reverse: bool,
                                                bounce: bool) -> None:
    times = playback_times(available, count, reverse, bounce)
    once = times[:count]
    assert len(times) == (max(count, 2 * count - 2) if bounce else count)
    assert len({later - earlier for earlier, later in pairwise(once)}) <= 1
    if count > 1:
        assert {once[0], once[-1]} == {0, available - 1}
        assert (once[0] > once[-1]) == reverse
    assert sum(once) == count * (available - 1) / 2  # centred on the middle of the exposure


def test_resampling_interpolates_in_time() -> None:
    ramp = np.repeat(np.arange(0, 70, 10, dtype=np.uint8), 12).reshape(T, 2, 2, 3)
    np.testing.assert_array_equal(resample_frames(ramp, T), ramp)
    np.testing.assert_array_equal(resample_frames(ramp, 13)[:, 0, 0, 0], np.arange(0, 61, 5))
    np.testing.assert_array_equal(resample_frames(ramp, 1)[0], ramp[3])
    np.testing.assert_array_equal(resample_frames(ramp, 2), ramp[[0, -1]])
    for count in (0, -3, 1001):
        with pytest.raises(BadParameters, match="--frames"):
            resample_frames(ramp, count)


@pytest.mark.parametrize(("name", "fps", "size", "what"), [
    ("a.avi", 10, None, r"'\.avi'"), ("a.gif", 60, None, "--fps"), ("a.webp", 0, None, "--fps"),
    ("a.webp", float("nan"), None, "--fps"), ("a.webp", 10, (16384, 10), "16383"),
    ("a.gif", 10, (10, 70_000), "PNG"), ("file", 10, None, "in the way"),
])
def test_outputs_that_cannot_be_written_are_refused_first(
        tmp_path: Path, name: str, fps: float, size: tuple[int, int] | None, what: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadParameters, match=what):
        check_output(tmp_path / name, fps=fps, size=size)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "frames"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, name: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, path: object, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_animation(sequence(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
