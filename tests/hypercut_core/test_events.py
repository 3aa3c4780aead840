"""Simulated events keep their definition, and files of events come back as they were, or say what is wrong."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan

from hypercut_core.blur.event_files import read_events, write_events
from hypercut_core.blur.events import EventConfig, Events, log_light, simulate_events
from hypercut_core.errors import BadFootage, BadParameters, MissingExtra

TIMES = np.arange(7) / 700


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def clip(seed: int = 0) -> np.ndarray:
    return np.stack(pan(seed, 7, 1.5, 24, 32))


def final_counts(events: Events) -> np.ndarray:
    count = np.zeros((events.channels, events.height, events.width))
    np.add.at(count, (events.channel if events.channel is not None else 0, events.y, events.x), events.p)
    return count


@given(threshold=st.floats(0.02, 0.5), colour=st.booleans(), seed=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_count_follows_the_light_to_within_one_threshold(threshold: float, colour: bool, seed: int) -> None:
    """At every frame, not only at the last: |log L(t) - log L(0) - c E(t)| < c."""
    frames, config = clip(seed), EventConfig(threshold=threshold, colour=colour)
    events = simulate_events(frames, TIMES, config, rng())
    level = log_light(frames, config)
    for step in range(7):
        told = threshold * final_counts(events.between(TIMES[0], TIMES[step] + 1e-12))
        assert np.abs(level[step] - level[0] - told).max() <= threshold * (1 + 1e-6)
    assert (np.diff(events.t) >= 0).all()
    assert set(np.unique(events.p)) <= {-1, 1}


def test_a_still_scene_makes_no_events_and_a_brighter_one_only_rising_ones() -> None:
    still = np.repeat(clip()[:1], 7, 0)
    assert len(simulate_events(still, TIMES, EventConfig(), rng())) == 0
    ramp = np.stack([np.full((4, 5, 3), 40 + 30 * k, np.uint8) for k in range(7)])
    events = simulate_events(ramp, TIMES, EventConfig(threshold=0.2), rng())
    assert len(events) > 0
    assert (events.p == 1).all()
    # every pixel sees the same
    assert len(np.unique(np.bincount(events.y * 5 + events.x, minlength=20))) == 1


def test_reversed_clips_make_reversed_events() -> None:
    """To within one event per pixel, as the reference level starts at the other end."""
    there = final_counts(simulate_events(clip(), TIMES, EventConfig(), rng()))
    back = final_counts(simulate_events(clip()[::-1], TIMES, EventConfig(), rng()))
    assert np.abs(there + back).max() <= 1


def test_event_times_lie_where_the_light_crosses() -> None:
    frames = np.stack([np.full((1, 1, 3), value, np.uint8) for value in (100, 200)])
    config = EventConfig(threshold=0.1)
    low, high = log_light(frames, config)[:, 0, 0, 0]
    events = simulate_events(frames, np.array([0.0, 1.0]), config, rng())
    crossings = 0.1 * np.arange(1, int((high - low) / 0.1) + 1) / (high - low)
    np.testing.assert_allclose(events.t, crossings, rtol=1e-9)


@pytest.mark.parametrize("refractory", [1e-4, 2e-3, 5e-3])
def test_a_pixel_is_blind_for_the_refractory_period(refractory: float) -> None:
    free = simulate_events(clip(), TIMES, EventConfig(threshold=0.05), rng())
    events = simulate_events(clip(), TIMES, EventConfig(threshold=0.05, refractory=refractory), rng())
    place = events.y * events.width + events.x
    order = np.lexsort((events.t, place))
    same = np.diff(place[order]) == 0
    assert np.diff(events.t[order])[same].min() >= refractory * (1 - 1e-9)
    assert 0 < len(events) < len(free)


def test_noise_has_its_rate_and_the_thresholds_their_spread() -> None:
    still = np.repeat(clip()[:1], 2, 0)
    events = simulate_events(still, np.array([0.0, 10.0]), EventConfig(noise_rate=5.0), rng())
    expected = 5.0 * 10 * 24 * 32
    assert abs(len(events) - expected) < 5 * np.sqrt(expected)
    assert abs(int(events.p.sum())) < 5 * np.sqrt(expected)
    ramp = np.stack([np.full((24, 32, 3), value, np.uint8) for value in (20, 250)])
    counts = final_counts(simulate_events(ramp, np.array([0.0, 1.0]), EventConfig(spread=0.2), rng()))
    assert counts.std() > 0.1 * counts.mean()


def test_the_same_seed_gives_the_same_events() -> None:
    config = EventConfig(noise_rate=100, spread=0.1)
    one, two = (simulate_events(clip(), TIMES, config, rng()) for _ in range(2))
    assert all(np.array_equal(getattr(one, key), getattr(two, key)) for key in "xytp")


@pytest.mark.parametrize("change", [{"threshold": 0.0}, {"noise_rate": -1.0}, {"refractory": float("nan")},
                                    {"dark": 0.0}])
def test_cameras_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(BadParameters, match=f"events.{next(iter(change))}"):
        simulate_events(clip(), TIMES, EventConfig(**change), rng())  # type: ignore[arg-type]


def test_times_that_do_not_rise_are_refused() -> None:
    with pytest.raises(BadParameters, match="rising times"):
        simulate_events(clip(), TIMES[::-1], EventConfig(), rng())


def same(one: Events, two: Events) -> bool:
    return (one.height, one.width) == (two.height, two.width) and np.allclose(one.t, two.t, atol=1e-9, rtol=0) and \
        all(np.array_equal(getattr(one, key), getattr(two, key)) for key in "xyp")


@pytest.mark.parametrize("name", ["e.npz", "e.csv"])
def test_events_survive_their_file(tmp_path: Path, name: str) -> None:
    events = simulate_events(clip(), TIMES, EventConfig(), rng())
    write_events(tmp_path / name, events)
    assert same(read_events(tmp_path / name, 24, 32), events)


def test_a_colour_sensor_survives_its_file(tmp_path: Path) -> None:
    events = simulate_events(clip(), TIMES, EventConfig(colour=True), rng())
    write_events(tmp_path / "e.npz", events)
    again = read_events(tmp_path / "e.npz")
    assert same(again, events)
    assert again.channel is not None
    assert np.array_equal(again.channel, events.channel)


@pytest.mark.parametrize(("text", "seconds"), [
    ("0.5 3 4 0\n0.25 1 2 1\n", [0.25, 0.5]),  # the order of the event-camera data set, seconds
    ("250000,1,2,1\n500000,3,4,0\n", [0.25, 0.5]),  # whole numbers: microseconds
    ("x,y,pol,timestamp\n1,2,1,0.25\n3,4,-1,0.5\n", [0.25, 0.5]),
    ("# x y p t\n1 2 1 0.25\n3 4 0 0.5\n", [0.25, 0.5]),
])
def test_other_peoples_text_files(tmp_path: Path, text: str, seconds: list[float]) -> None:
    (tmp_path / "e.txt").write_text(text)
    events = read_events(tmp_path / "e.txt")
    np.testing.assert_allclose(events.t, seconds)
    assert (events.x.tolist(), events.y.tolist(), events.p.tolist()) == ([1, 3], [2, 4], [1, -1])
    assert (events.height, events.width) == (5, 4)


def test_the_unit_of_time_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("250,1,2,1\n")
    assert read_events(tmp_path / "e.csv", unit="ms").t.tolist() == [0.25]


@pytest.mark.parametrize("name", ["matrix.npz", "names.npz"])
def test_other_peoples_arrays(tmp_path: Path, name: str) -> None:
    t, x, y, p = np.array([250_000, 500_000]), np.array([1, 3]), np.array([2, 4]), np.array([1, 0])
    arrays = {"events": np.stack([t, x, y, p], 1)} if name == "matrix.npz" else {"ts": t, "x": x, "y": y, "pol": p}
    np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
    assert read_events(tmp_path / name).t.tolist() == [0.25, 0.5]


MALFORMED = {
    "missing.csv": None, "text.npz": b"not a zip", "words.csv": b"0.1,one,2,1\n", "three.csv": b"0.1,2,1\n",
    "half.csv": b"0.1,2.5,1,1\n", "left.csv": b"0.1,-1,1,1\n", "far.csv": b"0.1,99999,1,1\n",
    "never.csv": b"nan,1,1,1\n", "two.csv": b"0.1,1,1,2\n", "both.csv": b"0.1,1,1,0\n0.2,1,1,-1\n",
    "ragged.csv": b"0.1,1,1,1\n0.2,1,1\n", "e.bin": b"123", "nameless.csv": b"a,b,c,d\n0.1,1,1,1\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    if (content := MALFORMED[name]) is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFootage, match=rf"{name}.*To mend it"):
        read_events(tmp_path / name)


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", events=np.array([object()], dtype=object))
    with pytest.raises(BadFootage, match=r"e\.npz"):
        read_events(tmp_path / "e.npz")


def test_events_outside_the_sensor_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("0.1,7,1,1\n")
    with pytest.raises(BadFootage, match="column 7 of a sensor of 5"):
        read_events(tmp_path / "e.csv", height=5, width=5)


@pytest.mark.parametrize(("suffix", "package"), [(".h5", "h5py"), (".aedat4", "aedat")])
def test_a_missing_reader_names_its_extra(tmp_path: Path, suffix: str, package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    (tmp_path / f"e{suffix}").write_bytes(b"x")
    with pytest.raises(MissingExtra, match=rf"{package}.*hypercut\[events\]"):
        read_events(tmp_path / f"e{suffix}")


@pytest.mark.parametrize("place", ["", "events", "CD/events", "matrix", "compound"])
def test_hdf5_layouts(tmp_path: Path, place: str) -> None:
    h5py = pytest.importorskip("h5py")
    columns = {"t": np.array([250_000, 500_000]), "x": np.array([1, 3]), "y": np.array([2, 4]), "p": np.array([1, 0])}
    with h5py.File(tmp_path / "e.h5", "w") as root:
        if place == "matrix":
            root["events"] = np.stack(list(columns.values()), 1)
        elif place == "compound":
            table = np.zeros(2, [("x", "u2"), ("y", "u2"), ("p", "i2"), ("t", "i8")])
            for key, values in columns.items():
                table[key] = values
            root["CD/events"] = table
        else:
            for key, values in columns.items():
                root[f"{place}/{key}"] = values
    events = read_events(tmp_path / "e.h5")
    assert (events.t.tolist(), events.x.tolist(), events.p.tolist()) == ([0.25, 0.5], [1, 3], [1, -1])
    (tmp_path / "e.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(BadFootage, match=r"e\.h5"):
        read_events(tmp_path / "e.h5")


def test_aedat4_written_by_its_own_library(tmp_path: Path) -> None:
    pytest.importorskip("aedat")
    dv = pytest.importorskip("dv_processing")
    path = tmp_path / "e.aedat4"
    writer = dv.io.MonoCameraWriter(str(path), dv.io.MonoCameraWriter.EventOnlyConfig("made", (20, 10)))
    store = dv.EventStore()
    for number in range(50):
        store.push_back(1_700_000_000_000_000 + 1000 * number, number % 20, number % 10, number % 2 == 0)
    writer.writeEvents(store)
    del writer
    events = read_events(path)
    assert (events.height, events.width, len(events)) == (10, 20, 50)
    np.testing.assert_allclose(np.diff(events.t), 1e-3, atol=1e-6)
    assert events.p[:3].tolist() == [1, -1, 1]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadFootage, match=r"e\.aedat4"):
        read_events(path)
