"""The pictures of docs/method.md: the clip that turns, and the page that needs no network."""

from __future__ import annotations

import base64
import hashlib
import re

import numpy as np
import pytest
import torch

from benchmarks.orders import ROWS, markdown
from benchmarks.seam import FRAMES, Turn, turning_clip
from benchmarks.seam_page import page


@pytest.mark.parametrize("degrees", [0.0, 35.0, 90.0])
def test_half_a_turn_gives_the_same_blur_and_the_reversed_sequence(degrees: float) -> None:
    blurry, sharp = turning_clip(degrees)
    again, backwards = turning_clip(degrees + 180)
    assert (blurry - again).abs().max() <= 1 / 255 + 1e-6  # rounding to 8 bits
    assert (sharp - backwards.flip(0)).abs().max() <= 1 / 255 + 1e-6
    assert (sharp[0] - sharp[-1]).abs().mean() > 0.005  # and it does move


def test_the_page_holds_all_that_it_shows() -> None:
    clips = [turning_clip(angle) for angle in (0.0, 90.0, 180.0)]
    outputs = {"sequence_min": torch.stack([sharp for _, sharp in clips])}
    text = page(Turn(np.array([0.0, 90.0, 180.0]), clips, np.array([3.0, -0.5, -3.0]), outputs,
                     {"sequence_min": np.array([1.0, 0.25, -1.0])}))
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "")
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script
    assert f"sha256-{base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()}" in text
    assert "[0, 90, 180]" in script[1]
    assert text.count(f'data-frames="{FRAMES}"') == 9  # three sequences: film, first and last frame
    assert "+0.25" in text


def test_the_table_of_orders_names_the_cells_that_are_missing() -> None:
    cell = {"views": {"gain": 3.0, "gain_ends": 4.0, "agreement": {"learned": 0.9, "rule": 0.5}}, "steps": 3000}
    text = markdown({"sequence_min": {"0": cell, "2": cell}}, [0, 1, 2], {})
    assert "| sequence_min | 0 2 | 3.00 ± 0.00 | 4.00 ± 0.00 |" in text
    missing = text[text.index("Seeds that are missing"):]
    assert "sequence_min: 1;" in missing
    assert all(f"{name}: 0 1 2" in missing for name in ROWS if name != "sequence_min")
    assert "training step" not in text


def test_the_table_of_orders_says_what_a_step_costs() -> None:
    cell = {"views": {"gain": 3.0, "gain_ends": 4.0, "agreement": {"learned": 0.9, "rule": 0.5}}, "steps": 3000}
    text = markdown({"sequence_min": {"0": cell}}, [0], {"rule_targets": 0.02, "sequence_min": 0.021})
    assert "| rule_targets | 20.0 | 1.000 |\n| sequence_min | 21.0 | 1.050 |" in text
