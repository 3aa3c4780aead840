import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch

from hypercut_core.blur.exposure import blur_error
from hypercut_core.clips.moving_photos import KINDS, MovingPhotosConfig, _paths, render_clips
from hypercut_core.clips.photos import PHOTOS, photo_path
from hypercut_core.errors import BadParameters

SMALL = MovingPhotosConfig(size=24, subframes=1)


def test_splits_share_no_photo_and_no_scene() -> None:
    for one, other in combinations(PHOTOS.values(), 2):
        assert not set(one) & set(other)
    assert sum("motorcycle" in name for name in PHOTOS["train"]) == 2  # one scene seen from two places
    assert all(photo_path(name).is_file() for names in PHOTOS.values() for name in names)


def test_same_seed_same_clips_whatever_the_count() -> None:
    few = list(render_clips(SMALL, "test", 5, seed=3))
    many = list(render_clips(SMALL, "test", 20, seed=3))
    other = next(iter(render_clips(SMALL, "test", 1, seed=4)))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.frames, b.frames)
        assert (a.source, a.category, a.motion) == (b.source, b.category, b.motion)
    assert not np.array_equal(few[0].frames, other.frames)
    assert len(many) == 20


@pytest.mark.parametrize("count", [3, 5, 15])
def test_the_blurry_image_is_the_exposure_of_the_frames(count: int) -> None:
    for clip in render_clips(SMALL, "val", 3, seed=0, frames=count):
        assert clip.frames.shape == (count + 1, 24, 24, 3)
        assert clip.frames.dtype == np.uint8
        assert blur_error(clip.frames[0], clip.frames[1:], "srgb") == 99.0


def test_every_kind_is_rendered_and_moves_as_asked() -> None:
    config = MovingPhotosConfig(size=32, subframes=1, motion_min=4, motion_max=6, camera=0.4, both=0.2)
    clips = list(render_clips(config, "test", 16 * 12, seed=0))
    assert {clip.category for clip in clips} == set(KINDS)
    assert all(3.3 < clip.motion < 10 for clip in clips)  # bends and shake lengthen a path
    still = [np.abs(c.frames[1].astype(int) - c.frames[-1]).mean() for c in clips]
    assert min(still) > 0
    assert np.median(still) > 3


def test_camera_motion_is_the_path_that_was_asked_for() -> None:
    """A pan without bends, shake or roll shifts the whole picture by the recorded length."""
    config = MovingPhotosConfig(size=64, subframes=1, motion_min=6, motion_max=6, camera=1, both=0,
                                curvature=0, shake=0, roll=0)
    for clip in list(render_clips(config, "test", 3, seed=1, frames=7)):
        spectra = [np.fft.fft2(clip.frames[k].mean(-1) - clip.frames[k].mean()) for k in (1, 7)]
        cross = spectra[1] * spectra[0].conj()
        peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
        y, x = np.unravel_index(peak.argmax(), peak.shape)
        shift = np.hypot(*[(v + 32) % 64 - 32 for v in (y, x)])
        assert shift == pytest.approx(clip.motion, abs=1.0)


@pytest.mark.parametrize(("curvature", "acceleration"), [(0.0, 0.0), (0.7, 0.6)])
def test_paths_bend_and_change_their_speed_as_asked(curvature: float, acceleration: float) -> None:
    config = dataclasses.replace(SMALL, motion_min=10.0, motion_max=10.0, curvature=curvature,
                                 acceleration=acceleration)
    times = torch.linspace(-0.5, 0.5, 101)
    path, length = _paths(config, times, 200, torch.Generator().manual_seed(0), shake=0.0)
    chord = path[:, -1] - path[:, 0]
    along = chord / chord.norm(dim=1, keepdim=True)
    aside = path - path[:, :1] - ((path - path[:, :1]) * along[:, None]).sum(-1, keepdim=True) * along[:, None]
    assert aside.norm(dim=-1).max() == pytest.approx(10 * curvature / 2, rel=0.05, abs=1e-4)
    speed = ((path[:, 1:] - path[:, :-1]) * along[:, None]).sum(-1)
    change = (speed[:, -1] - speed[:, 0]) / (speed[:, -1] + speed[:, 0])
    assert change.abs().max() == pytest.approx(acceleration, rel=0.05, abs=1e-3)
    assert (length >= 10 - 1e-3).all()


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadParameters, match="odd number"):
        next(render_clips(SMALL, "train", 1, 0, frames=4))
    with pytest.raises(BadParameters, match="motion_min"):
        next(render_clips(dataclasses.replace(SMALL, motion_min=9.0, motion_max=2.0), "train", 1, 0))
    with pytest.raises(BadParameters, match=r"acceleration is 1\.5"):
        next(render_clips(dataclasses.replace(SMALL, acceleration=1.5), "train", 1, 0))
    with pytest.raises(BadParameters, match="unknown split"):
        next(render_clips(SMALL, "dev", 1, 0))
