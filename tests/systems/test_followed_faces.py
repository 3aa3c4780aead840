"""evaluate-trajectories with the real tracker: a face photo that a package ships, moved along a known path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.evaluate_trajectories.step import TrajectoriesConfig, evaluate_trajectories
from components.evaluate_trajectories.study import Study
from hypercut_core.blur.exposure import average
from hypercut_core.clips.photos import photo_path
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.trajectories.following import System
from hypercut_core.trajectories.tracker import Tracker
from tests.systems.needed import real_tracker

pytestmark = pytest.mark.system
T, SIDE = 7, 256
STEPS = ((2, 1), (-2, 1))  # px right and down a frame, of each clip


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return real_tracker()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "clips"
    with Image.open(photo_path("skimage/astronaut.png")) as image:
        photo = np.asarray(image.convert("RGB"))
    with ClipStoreWriter(path, T) as writer:
        for number, (right, down) in enumerate(STEPS):
            corners = [(20 - down * (t - 3), 110 - right * (t - 3)) for t in range(T)]
            sharp = np.stack([photo[y:y + SIDE, x:x + SIDE] for y, x in corners])
            images = torch.from_numpy(sharp).permute(0, 3, 1, 2)[None].float() / 255
            blurry = average(images, "srgb")[0].mul(255).round().byte().permute(1, 2, 0).numpy()
            writer.add(np.concatenate([blurry[None], sharp]), clip_id=f"face-{number}", source=f"photo-{number}",
                       split="test", category="face", motion=13.0)
    return path


def test_a_known_path_is_measured_as_it_is(store: Path, tracker: Tracker, tmp_path: Path) -> None:
    """A window that moves by (2, 1) px a frame: repeating is off by 12/7 steps on average."""
    shift = float(np.hypot(*STEPS[0]))
    study = Study(ClipStore(store), [(0, "face"), (1, "face")],
                  [System("perfect", "p", lambda clip: clip[1:]), System("backwards", "b", lambda clip: clip[:0:-1])],
                  np.array([1, 1]), tracker, tmp_path, 1)
    figures = study.figures("perfect")
    assert figures["true"]["rate"] == 1
    assert figures["true"]["roughness"] < 0.03
    perfect, backwards, repeat = (*figures["models"].values(), figures["repeat"])
    assert perfect["error_px"] == backwards["error_px"] == 0
    assert (perfect["direction"], backwards["direction"]) == (1, 0)
    assert perfect["motion"] == pytest.approx(1)
    assert repeat["rate"] == 1  # a face is found through 13 px of blur, but it stands still
    assert -0.5 < repeat["error_px"] - 12 / 7 * shift < 2.0  # blur moves some landmarks as well
    assert repeat["motion"] == 0
    for row in study.rows:
        assert row.moves
        assert row.subjects == 1


def test_the_step_runs_with_a_model_and_writes_its_page(store: Path, tracker: Tracker, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EvenOddDeblurrer(DeblurrerConfig(width=8, blocks=(1, 1), block="conv"), T)  # untrained: repeats the photo
    save_deblurrer(tmp_path / "model.safetensors", model, {"objective": "mine"})
    evaluate_trajectories(store, {"mine": tmp_path / "model.safetensors"}, None, tmp_path / "page", tmp_path / "m.json",
                          TrajectoriesConfig(enabled=True, most=1, films=1, worst=1), tmp_path / "work",
                          tracker=tracker, device="cpu")
    mine = json.loads((tmp_path / "m.json").read_text())["models"]["mine"]
    assert mine["rate"] == 1
    assert mine["error_px"] > 2
    assert mine["against_repeating"]["error_clips"] == 2
    assert abs(mine["against_repeating"]["error_gain_px"]) < 1
    assert (tmp_path / "page/report.html").stat().st_size > 50_000
