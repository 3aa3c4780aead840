"""The table of benchmarks/trajectories_footage.py: from clips of several seeds to figures; hand-written notes stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.trajectories_footage import MARK, gathered, markdown, trained, worse, write
from hypercut_core.errors import BadCheckpoint
from hypercut_core.trajectories.figures import FollowedClip, followed_clip
from hypercut_core.trajectories.following import BLURRY, TRUE
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.measure import Picture

T, SIZE = 5, 20.0
SHAPE = np.random.default_rng(3).uniform(-15, 15, (21, 2))
SHAPE[9] = SHAPE[0] + (0, SIZE)


def walk(step: float = 3.0, off: float = 0.0) -> list[Picture]:
    return [[Detection((SHAPE + np.array((60 + step * (t - 2), 50 + off))).astype(np.float32), 0.9, "hand")]
            for t in range(T)]


def clip(number: int, off: float) -> FollowedClip:
    about = FollowedClip(f"clip-{number}", f"video-{number % 2}", "hand", "hand", 12.0, 1, 0, False)
    found = {BLURRY: [walk()[2]] if number else [[]], TRUE: walk(), "mine": walk(off=off), "late": walk()[::-1]}
    return followed_clip(about, found, T)


SEEDS = {seed: [clip(number, off) for number in range(4)] for seed, off in ((0, 1.0), (1, 3.0))}


def test_figures_are_means_over_clips_a_seed_and_gains_pair_with_repeating() -> None:
    parts = gathered(SEEDS, ["mine", "late"])
    assert set(parts) == {"all", "hand", "video-0", "video-1"}
    one = parts["all"]["systems"]["mine"]
    assert one["mean_error"] == pytest.approx([1.0, 3.0], abs=1e-4)
    assert one["rate"] == [1, 1]
    assert one["direction"] == [1, 1]
    assert one["rate_gain"]["mean"] == 0.25
    assert (one["rate_gain"]["better"], one["rate_gain"]["same"], one["rate_gain"]["worse"]) == (1, 3, 0)
    repeat = parts["all"]["systems"]["repeat the blurry image"]
    assert repeat["rate"] == 0.75
    off = 3 * (2 + 1 + 0 + 1 + 2) / 5
    assert one["error_gain"]["seeds"] == pytest.approx([(off - 1) / SIZE, (off - 3) / SIZE], abs=1e-5)
    late = parts["all"]["systems"]["late"]
    assert late["direction"] == [0, 0]
    assert late["mean_error"] == pytest.approx([0, 0], abs=1e-5)


def test_a_seed_without_a_system_is_left_out_of_its_figures() -> None:
    fewer = {0: SEEDS[0], 1: [FollowedClip(**{**vars(one), "measured": {
        name: value for name, value in one.measured.items() if name != "late"}}) for one in SEEDS[1]]}
    systems = gathered(fewer, ["mine", "late"])["all"]["systems"]
    assert (len(systems["mine"]["rate"]), len(systems["late"]["rate"])) == (2, 1)


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    systems = ["mine", "late"]
    result = {"seeds": [0, 1], "systems": systems, "sets": {"crops": gathered(SEEDS, systems)},
              "worse": {"crops": {name: worse(SEEDS, name) for name in systems}}}
    first = write(result, tmp_path)
    assert "| mine, 2 seeds | 100.0 ± 0.0 |" in first
    assert "nan" not in first
    file = tmp_path / "trajectories_footage.md"
    file.write_text(f"{first}\n{MARK}\n\nThe hand is cut off.\n", encoding="utf-8")
    again = write(result, tmp_path)
    assert again == f"{first}\n{MARK}\n\nThe hand is cut off.\n"
    assert write(result, tmp_path) == again
    assert markdown(result) == first


def test_models_are_found_by_row_and_seed(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="hypercut benchmark"):
        trained(tmp_path)
    for name in ("cascade-order_invariant/seed-0", "even_odd-hypercut_targets/seed-12"):
        (tmp_path / "benchmark/rows" / name).mkdir(parents=True)
        (tmp_path / "benchmark/rows" / name / "model.safetensors").touch()
    assert {row: list(files) for row, files in trained(tmp_path).items()} == {
        "cascade/order_invariant": [0], "even_odd/hypercut_targets": [12]}


def test_clips_that_get_worse_are_named() -> None:
    assert worse(SEEDS, "late") == []
    far = {0: [clip(0, 1.0), clip(1, 12.0)]}
    (one,) = worse(far, "mine")
    assert one["clip"] == "clip-1"
    assert one["error_gain"] < 0
    assert one["rate_gain"] == 0
