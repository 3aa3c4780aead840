"""What the neighbours of a blurry video's frame show: on motion that is known, whatever a model makes of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan, shifted, texture, write_video
from torch import Tensor, nn

from hypercut_core.blurry_video.evidence import Glimpse, Pace, glimpse, link_evidence
from hypercut_core.blurry_video.neighbours import MOST, Motion, Way, exposed_share, joined, mixed
from hypercut_core.blurry_video.restore_video import restore_video_command
from hypercut_core.blurry_video.shots import OrderedVideo
from hypercut_core.clips.video import Frame
from hypercut_core.tiles import agreement

T = 5


def exposures(seed: int, count: int, speed: float, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Sharp sequences uint8 [T, H, W, 3] of a picture that moves to the right, the shutter always open."""
    picture = texture(seed, height, width)
    times = [[n + (k + 0.5) / T for k in range(T)] for n in range(count)]
    return [np.stack([shifted(picture, 0.0, speed * at) for at in row]).round().astype(np.uint8) for row in times]


def blur(sharp: np.ndarray) -> np.ndarray:
    return sharp.mean(0).round().astype(np.uint8)


def invented(blurry: np.ndarray, shift: float) -> np.ndarray:
    """What a model shows that was trained with other motion: the photo moved up and down by `shift`."""
    return np.stack([shifted(blurry.astype(float), shift * (k / (T - 1) - 0.5), 0.0) for k in range(T)]
                    ).round().astype(np.uint8)


def shown(sequences: list[np.ndarray], made: list[np.ndarray], **how: bool) -> tuple[OrderedVideo, list[np.ndarray]]:
    ready = iter(made)
    video = OrderedVideo(lambda pixels: next(ready), **how)
    frames = [Frame(blur(sharp), t, None) for t, sharp in enumerate(sequences)]
    return video, list(video.turned(frames, Path("made")))


def error(made: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean((made[..., 16:-16, :].astype(float) - true[..., 16:-16, :]) ** 2))


@pytest.mark.parametrize("speed", [0.0, 0.6, 1.0])
def test_where_it_is_calm_the_neighbours_are_believed_and_not_the_model(speed: float) -> None:
    sequences = exposures(3, 5, speed)
    made = [invented(blur(sharp), 6.0)[::sign] for sharp, sign in zip(sequences, (1, -1, -1, 1, -1), strict=True)]
    video, frames = shown(sequences, made)
    for frame, sharp, own in zip(frames, sequences, made, strict=True):
        assert error(frame, sharp) < 0.05 * error(own, sharp)
        assert error(frame, sharp) <= error(np.broadcast_to(blur(sharp), sharp.shape), sharp) + 0.2
        assert np.abs(frame.mean(0) - blur(sharp)).mean() < 0.5  # its blur is the frame's
        if speed:
            assert agreement(frame, sharp) > 0
    shot = video.shots[0]
    assert shot.speed == pytest.approx([speed] * 5, abs=0.25 + 0.4 * speed)  # how long the shutter is open is a guess
    assert max(shot.restored) < 0.05


def test_where_it_moves_a_model_that_is_right_stays_right() -> None:
    sequences = exposures(4, 5, 6.0)
    video, frames = shown(sequences, [sharp[::sign] for sharp, sign in zip(sequences, (1, -1, 1, 1, -1), strict=True)])
    for frame, sharp in zip(frames, sequences, strict=True):
        repeated = np.broadcast_to(blur(sharp), sharp.shape)
        assert error(frame, sharp) < 0.2 * error(repeated, sharp)
        assert agreement(frame, sharp) > 0
    assert min(video.shots[0].restored) > 0.9


def test_where_it_moves_and_the_model_shows_another_way_the_direction_is_the_neighbours() -> None:
    sequences = exposures(5, 5, 6.0)
    frames = shown(sequences, [invented(blur(sharp), 3.0) for sharp in sequences])[1]
    assert all(agreement(frame, sharp) > 0 for frame, sharp in zip(frames, sequences, strict=True))


def test_alone_nothing_is_put_in_and_a_lone_frame_stays_as_it_is() -> None:
    sequences = exposures(6, 3, 1.0)
    made = [invented(blur(sharp), 6.0) for sharp in sequences]
    video, frames = shown(sequences, made, neighbours=False)
    assert all((frame == own).all() or (frame == own[::-1]).all() for frame, own in zip(frames, made, strict=True))
    assert video.shots[0].restored == [1.0] * 3
    video, frames = shown(sequences[:1], made[:1])
    np.testing.assert_array_equal(frames[0], made[0])
    assert np.isnan(video.shots[0].speed).all()


def seen(sharp: np.ndarray) -> Glimpse:
    return glimpse(np.repeat(blur(sharp)[None], T, 0))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (209, 333), (400, 290)])
def test_the_motion_is_that_of_the_picture_at_every_size(height: int, width: int) -> None:
    sequences = exposures(7, 3, 5.0, height, width)
    ways = [link_evidence(seen(one), seen(other), Pace()).ways for one, other in itertools.pairwise(sequences)]
    motion = joined([ways[0][1], ways[1][0]], 1.0, (height, width))
    assert motion.flow.shape == (1, 2, height, width)
    inside = motion.flow[0, :, 24:-24, 24:-24]
    assert float(inside[0].median()) == pytest.approx(5.0, abs=0.5)
    assert float(inside[1].abs().median()) < 0.5
    assert motion.speed > 4.5  # at the edges the flow knows less
    assert float(motion.trust.median()) > 0.5 * MOST


def test_a_flow_that_explains_nothing_is_not_trusted() -> None:
    change = torch.full((96, 128), 0.01)
    flow = torch.full((2, 96, 128), 4.0)
    made = np.random.default_rng(0).integers(0, 256, (T, 96, 128, 3), np.uint8)
    motion = joined([Way(flow, change * 1.2, change)], 1.0, (96, 128))
    assert float(motion.trust.max()) == 0
    assert np.abs(mixed(made, blur(made), motion).astype(int) - made).max() <= 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(3, 8), scale=st.floats(0, 6))
def test_the_reverse_of_everything_gives_the_reverse(seed: int, count: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, 24, 32, 3), np.uint8)

    def field(channels: int) -> Tensor:
        return torch.from_numpy(rng.random((1, channels, 24, 32), np.float32))

    motion = Motion(scale * (field(2) - 0.5), field(1), MOST * field(1), 0.0)
    forward = mixed(made, blur(made), motion)
    if count % 2:  # the middle frame of an even number is another one in the reverse
        back = mixed(made[::-1], blur(made), Motion(-motion.flow, motion.model, motion.trust, 0.0))
        assert np.abs(forward.astype(int) - back[::-1]).max() <= 1
    model = Motion(motion.flow, torch.ones(1, 1, 24, 32), torch.zeros(1, 1, 24, 32), 0.0)
    assert np.abs(mixed(made, blur(made), model).astype(int) - made).max() <= 1


def test_too_much_motion_makes_no_ghosts() -> None:
    """A dark bar that a model leaves where it is, and a flow of 30 px: nothing becomes brighter than the background."""
    photo = np.full((96, 128, 3), 200, np.uint8)
    photo[:, 60:70] = 20
    flow = torch.zeros(1, 2, 96, 128)
    flow[:, 0] = 30.0
    everywhere = torch.ones(1, 1, 96, 128)
    made = mixed(np.repeat(photo[None], T, 0), photo, Motion(flow, everywhere, MOST * everywhere, 30.0))
    assert (made.min(), made.max()) == (20, 200)
    assert (made[0] != made[-1]).any()


def test_the_shutter_is_open_for_as_long_as_the_pace_says() -> None:
    assert exposed_share(7, 7 / 6) == pytest.approx(1.0)  # from first to last frame are six sevenths of an exposure
    assert exposed_share(7, 14 / 6) == pytest.approx(0.5)
    assert exposed_share(7, 0.75) == 1.0


class Mover(nn.Module):
    """Moves whatever it is given up by 8 px."""

    frames, response = T, "srgb"

    def forward(self, blurry: Tensor) -> Tensor:
        return torch.stack([blurry.roll(2 * k - 4, -2) for k in range(T)], 1)


@pytest.mark.parametrize("alone", [False, True])
def test_a_calm_video_is_written_calm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    from hypercut_core.deblurring import models

    monkeypatch.setattr(models, "load_deblurrer", lambda path, views: Mover())
    film = write_video(tmp_path / "in.mp4", pan(7, 5, 0.5))
    out = restore_video_command(film, tmp_path / "out", tmp_path / "model", alone=alone)
    from PIL import Image

    frames = [np.asarray(Image.open(path), float)[8:-8, 16:-16] for path in sorted(out.iterdir())]
    steps = [float(np.abs(one - other).mean()) for one, other in itertools.pairwise(frames)]
    report = json.loads((tmp_path / "out.json").read_text())
    rows = report["shots"][0]["frames"]
    assert report["alone"] is alone
    assert (max(steps) > 4) is alone
    assert [row["restored_share"] for row in rows] == pytest.approx([1.0 if alone else 0.0] * 5, abs=0.1)
    assert all(0.2 < row["neighbours_px"] < 1 for row in rows)
