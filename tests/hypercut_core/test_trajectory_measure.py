"""Landmark measures against detections made by hand, whose errors, directions and shares are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercut_core.trajectories.figures import REPEAT, FollowedClip, followed_clip, system_figures
from hypercut_core.trajectories.following import BLURRY, TRUE
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.measure import Picture, measure, moves, roughness, subjects_of
from hypercut_core.trajectories.spread import interval

T = 7
SIZE = 20.0
SHAPE = np.random.default_rng(3).uniform(-15, 15, (21, 2))
SHAPE[9] = SHAPE[0] + (0, SIZE)


def hand(x: float, y: float = 50.0, kind: str = "hand") -> Detection:
    return Detection((SHAPE + np.array((x, y))).astype(np.float32), 0.9, kind)


def walk(step: float = 2.0, start: float = 40.0, y: float = 50.0) -> list[Picture]:
    return [[hand(start + step * t, y)] for t in range(T)]


def shifted(pictures: Sequence[Picture], x: float, y: float) -> list[Picture]:
    return [[Detection(one.points + np.float32((x, y)), one.confidence, one.kind) for one in picture]
            for picture in pictures]


def test_the_truth_has_no_error_and_all_of_the_motion() -> None:
    subjects = subjects_of(walk())
    found = measure(subjects, walk(), T)
    assert (found.rate, found.within, found.found) == (1, 1, 1)
    assert found.mean_error == pytest.approx(0)
    assert found.motion == pytest.approx(1)
    assert found.lead > 0
    assert not found.reversed


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_a_shift_by_d_is_an_error_of_d(x: float, y: float) -> None:
    found = measure(subjects_of(walk()), shifted(walk(), x, y), T)
    distance = float(np.hypot(x, y))
    assert found.mean_error == pytest.approx(distance, abs=1e-4)
    assert found.mean_relative == pytest.approx(distance / SIZE, abs=1e-5)
    assert found.within == (1 if distance <= 0.2 * SIZE else 0)
    assert found.motion == pytest.approx(1, abs=1e-5)


@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4), st.booleans()), min_size=T, max_size=T))
def test_reversed_pictures_measure_the_same_and_lead_the_other_way(noise: list[tuple[float, float, bool]]) -> None:
    pictures = [shifted([picture], x, y)[0] if seen else []
                for picture, (x, y, seen) in zip(walk(), noise, strict=True)]
    subjects = subjects_of(walk())
    ahead, back = measure(subjects, pictures, T), measure(subjects, pictures[::-1], T)
    assert back.lead == -ahead.lead
    if ahead.lead:
        for name in ("rate", "within", "found", "motion", "roughness", "mean_error", "mean_relative"):
            assert getattr(back, name) == pytest.approx(getattr(ahead, name), nan_ok=True), name


def test_one_direction_is_chosen_for_the_whole_clip() -> None:
    """Half of the frames forwards and half backwards is wrong either way: it must not be forgiven by frames."""
    forwards = walk()
    mixed = [*forwards[::-1][:3], forwards[3], *forwards[4:]]
    assert measure(subjects_of(forwards), mixed, T).mean_error > 2


def test_what_was_not_found_is_missed_and_has_no_error() -> None:
    pictures = [*walk()[:4], [], [], []]
    found = measure(subjects_of(walk()), pictures, T)
    assert found.rate == pytest.approx(4 / 7)
    assert found.within == found.found == pytest.approx(4 / 7)
    assert found.mean_error == pytest.approx(0)
    nothing = measure(subjects_of(walk()), [[] for _ in range(T)], T)
    assert (nothing.rate, nothing.within, nothing.found, nothing.lead) == (0, 0, 0, 0)
    assert np.isnan(nothing.mean_error)
    assert np.isnan(nothing.motion)


def test_a_detection_somewhere_else_is_found_and_does_not_count() -> None:
    found = measure(subjects_of(walk()), shifted(walk(), 0, 3 * SIZE), T)
    assert found.rate == 1
    assert found.found == 0


def test_a_single_picture_stands_for_all_moments_and_has_no_direction() -> None:
    found = measure(subjects_of(walk(2.0)), [walk(2.0)[3]], T)
    assert found.mean_error == pytest.approx(2 * (3 + 2 + 1 + 0 + 1 + 2 + 3) / 7)
    assert found.lead == pytest.approx(0, abs=1e-12)
    assert found.motion == pytest.approx(0)
    assert found.roughness == 0


def test_half_the_motion_is_half_the_motion_and_hedging_is_none() -> None:
    subjects = subjects_of(walk(2.0, 40))
    assert measure(subjects, walk(1.0, 43), T).motion == pytest.approx(0.5)
    assert measure(subjects, walk(0.0, 46), T).motion == pytest.approx(0)


def test_two_hands_keep_their_names_where_they_are_listed_in_another_order() -> None:
    both = [[*left, *right][::1 if t % 2 else -1]
            for t, (left, right) in enumerate(zip(walk(), walk(1.0, y=110), strict=True))]
    subjects = subjects_of(both)
    assert len(subjects) == 2
    found = measure(subjects, [picture[::-1] for picture in both], T)
    assert found.mean_error == pytest.approx(0)
    assert found.found == 1


def test_what_the_tracker_saw_once_is_no_subject() -> None:
    frames = walk()
    frames[2] = [*frames[2], hand(200, 200)]
    assert len(subjects_of(frames)) == 1
    assert subjects_of([[] for _ in range(T)]) == []


def test_a_subject_survives_a_gap() -> None:
    frames = walk()
    frames[3] = []
    (subject,) = subjects_of(frames)
    assert subject.seen.tolist() == [True, True, True, False, True, True, True]
    assert subject.size == pytest.approx(SIZE, abs=1e-4)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 4))
def test_a_straight_path_is_smooth_and_a_bend_counts_in_sizes(x: float, y: float, bend: float) -> None:
    moments = np.arange(T)[:, None, None]
    straight = np.ones((T, 21, 2)) * moments * np.array((x, y))
    assert roughness([straight], [SIZE]) == pytest.approx(0, abs=1e-9)
    curved = straight + moments**2 * np.array((bend / 2, 0.0))
    assert roughness([curved], [SIZE]) == pytest.approx(bend / SIZE)
    assert roughness([curved[::-1]], [SIZE]) == pytest.approx(bend / SIZE)


def test_something_moves_from_a_pixel_on() -> None:
    assert moves(subjects_of(walk(0.2)))
    assert not moves(subjects_of(walk(0.1)))
    assert not moves([])


def followed(found: dict[str, list[Picture]], canonical: int = 0, source: str = "s", clip: str = "c") -> FollowedClip:
    return followed_clip(FollowedClip(clip, source, "hand", "hand", 8.0, canonical, 0, False), found, T)


def test_figures_compare_on_what_both_have_found() -> None:
    """The model finds a hand where repeating finds none; that frame must not spoil its error."""
    easy = followed({BLURRY: [walk(1.9)[3]], TRUE: walk(1.9), "model": shifted(walk(1.9), 1, 0)}, 1)
    hard = followed({BLURRY: [[]], TRUE: walk(1.9), "model": shifted(walk(1.9), 3, 0)}, -1, "other", "d")
    figures = system_figures([easy, hard], "model")
    against = figures["against_repeating"]
    assert figures["error_px"] == pytest.approx(2, abs=1e-4)
    assert against["error_clips"] == 1
    assert against["error_gain_px"] == pytest.approx(22.8 / 7 - 1, abs=1e-4)
    assert against["error_gain"] == pytest.approx((22.8 / 7 - 1) / SIZE, abs=1e-5)
    assert (against["rate_higher"], against["rate_same"], against["rate_lower"]) == (1, 1, 0)
    assert against["rate_gain"] == pytest.approx(0.5)
    assert (figures["direction"], figures["direction_clips"]) == (0.5, 2)
    repeat = system_figures([easy, hard], REPEAT)
    assert repeat["rate"] == 0.5
    assert repeat["within"] == pytest.approx(0.5 * 5 / 7)
    assert "direction" not in repeat


def test_a_clip_in_which_nothing_moves_has_no_direction() -> None:
    still = followed({BLURRY: [walk(0)[0]], TRUE: walk(0.05), "model": walk(0.05)}, 1)
    assert system_figures([still], "model")["direction_clips"] == 0


def test_an_interval_knows_that_clips_of_a_source_are_alike() -> None:
    rng = np.random.default_rng(0)
    level = {"a": 0.0, "b": 1.0, "c": 2.0}
    sources = [name for name in level for _ in range(40)]
    values = np.array([level[name] for name in sources]) + 0.01 * rng.standard_normal(120)
    low, high = interval(values, sources)
    assert low < values.mean() < high
    assert high - low > 1  # 0.3 if the clips were taken for independent
    assert interval(values, sources) == [low, high]
    assert interval(values, ["one"] * 120)[1] - interval(values, ["one"] * 120)[0] < 0.4


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(-50, 50))
def test_an_interval_moves_with_its_values_and_lies_among_them(values: list[float], shift: float) -> None:
    sources = [str(k % 3) for k in range(len(values))]
    low, high = interval(values, sources, draws=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    moved = interval([value + shift for value in values], sources, draws=50)
    assert moved == pytest.approx([low + shift, high + shift], abs=1e-6)


def test_an_interval_leaves_out_what_is_no_number() -> None:
    assert interval([1.0, float("nan")], ["a", "b"]) == [1.0, 1.0]
    assert np.isnan(interval([float("nan")], ["a"])).all()


def test_the_page_counts_a_clip_with_fewer_landmarks_right_though_its_mean_error_is_lower() -> None:
    """As the films beside it do: one frame is far off, and in all others the system is perfect."""
    from components.evaluate_trajectories.study import gains_of
    from hypercut_core.trajectories.page import _worst

    truth = walk(step=0.5)
    mine = [*truth[:6], *shifted(truth[6:], 0, 0.25 * SIZE)]
    about = FollowedClip("clip-a", "s", "hand", "hand", 3.0, 1, 0, False)
    clip = followed_clip(about, {BLURRY: [truth[3]], TRUE: truth, "mine": mine}, T)
    assert np.subtract(*clip.shared("mine")) < 0  # a lower error
    assert gains_of([clip], "mine")[0] < 0
    said = _worst([clip], [], {"default": "mine"})
    assert "1 of 1 clips" in said
    assert "−14.3" in said  # a seventh of the landmarks, in points
