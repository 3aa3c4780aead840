"""A photo and a file of events to frames: as good as the integral is, strip by strip, and clear about bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_footage import pan
from PIL import Image
from typer.testing import CliRunner

from hypercut_core import restore_events as module
from hypercut_core.blur.event_files import write_events
from hypercut_core.blur.events import EventConfig, Events, simulate_events
from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.deblurring.event_integral import exposure_times
from hypercut_core.errors import BadFootage, BadParameters
from hypercut_core.restore_events import restore_events_command, restore_with_events
from pipelines.cli import app

START, END = 2.0, 2.02


def scene(frames: int = 35, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray, Events]:
    """Photo, the sharp frames in the middle of its sevenths, and events of a colour sensor."""
    fine = np.stack(pan(0, frames, 7.0 / frames, height, width))
    times = exposure_times(START, END, frames)
    events = simulate_events(fine, times, EventConfig(threshold=0.1, colour=True), np.random.default_rng(0))
    photo = expose(fine, ExposureConfig(), np.random.default_rng(0))
    return photo, fine[frames // 14::frames // 7], events


PHOTO, SHARP, EVENTS = scene()


def decibels(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.square(made / 255.0 - true / 255.0).mean((1, 2, 3)))


def test_photo_and_events_become_the_sharp_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    made, c = restore_with_events(PHOTO, EVENTS, START, END)
    assert made.shape == SHARP.shape
    assert float(c) == pytest.approx(0.1, rel=0.05)
    assert decibels(made, SHARP).min() >= 36
    assert decibels(made, SHARP)[[0, -1]].min() > decibels(made[::-1], SHARP)[[0, -1]].max() + 8
    monkeypatch.setattr(module, "AT_ONCE", 64 * 35 * 5)  # five rows at once: the same to the bit
    again, _ = restore_with_events(PHOTO, EVENTS, START, END, threshold=float(c))
    assert np.array_equal(again, made)


def test_every_frame_may_have_its_own_threshold() -> None:
    made, c = restore_with_events(PHOTO, EVENTS, START, END, frames=3, per_frame=True)
    assert made.shape == (3, 48, 64, 3)
    assert c.shape == (3,)
    assert (c / 0.1 - 1).abs().max() < 0.3


def test_the_command_writes_pictures_and_tells_the_threshold(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    write_events(tmp_path / "events.npz", EVENTS)
    done = CliRunner().invoke(app, ["restore-events", str(tmp_path / "photo.png"), str(tmp_path / "events.npz"), "-o",
                                    str(tmp_path / "out"), "--exposure", str(START), str(END), "--threshold", "0.1"])
    assert done.exit_code == 0, done.output
    made = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "out").glob("*.png"))])
    assert decibels(made, SHARP).min() >= 36
    whole = restore_events_command(tmp_path / "photo.png", tmp_path / "events.npz", tmp_path / "out.gif",
                                   threshold=0.1)  # the exposure is that of the events
    assert whole.stat().st_size > 0


@pytest.mark.parametrize(("asked", "says"), [
    ({"start": END, "end": START}, "is none"), ({"threshold": 0.0}, "cannot be"), ({"frames": 4}, "sharp frames is 4"),
    ({"start": 9.0, "end": 9.1}, "no events during the exposure")])
def test_wrong_wishes_are_refused(asked: dict[str, float], says: str) -> None:
    with pytest.raises(BadParameters, match=says):
        restore_with_events(PHOTO, EVENTS, **{"start": START, "end": END, **asked})  # type: ignore[arg-type]


def test_events_of_another_sensor_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFootage, match="64x48 and the photo has 32x48"):
        restore_with_events(PHOTO[:, :32], EVENTS, START, END)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    none = Events(*(np.zeros(0, kind) for kind in (np.int32, np.int32, np.float64, np.int8)), 48, 64)
    write_events(tmp_path / "none.npz", none)
    with pytest.raises(BadFootage, match=r"no events|holds no"):
        restore_events_command(tmp_path / "photo.png", tmp_path / "none.npz", tmp_path / "out")
    write_events(tmp_path / "some.npz", EVENTS)
    with pytest.raises(BadParameters, match="no unit of time"):
        restore_events_command(tmp_path / "photo.png", tmp_path / "some.npz", tmp_path / "out", unit="h")
    assert not (tmp_path / "out").exists()
