"""`hypercut restore VIDEO` as people run it: killed in the middle, then run again; and a model of 15 frames."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_footage import pan, write_video

from components.params import load
from hypercut_core.blurry_video.restore_video import Playing, restore_video_command
from hypercut_core.clips.store import ClipStore
from hypercut_core.clips.video import probe_video
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.files import read_json
from pipelines import local
from pipelines.workspace import Workspace

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
FRAMES, COUNT, FPS, PATIENCE = 3, 24, 25, 120.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1)), FRAMES)
    torch.nn.init.normal_(made.trunk.leave.weight, std=0.3)
    save_deblurrer(tmp_path / "tiny.safetensors", made, {})
    return tmp_path / "tiny.safetensors"


def start(folder: Path, model: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "pipelines.cli", "restore", "in.mp4", "-o", "out.mp4", "--model",
                             str(model)], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def partials(folder: Path) -> list[Path]:
    return list(folder.glob(".out.mp4.partial-*"))


def test_a_killed_run_leaves_no_film_and_the_next_one_is_whole(tmp_path: Path, model: Path) -> None:
    write_video(tmp_path / "in.mp4", pan(1, COUNT, 5.0, 64, 64), fps=FPS)
    killed, until = start(tmp_path, model), time.monotonic() + PATIENCE
    while not partials(tmp_path) and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL  # it was at work, and not done
    assert partials(tmp_path)
    assert not (tmp_path / "out.mp4").exists()
    assert not (tmp_path / "out.mp4.json").exists()
    again = start(tmp_path, model)
    out, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert out == "restored: out.mp4\n"
    assert f"{COUNT} frames in 1 shot" in said
    assert partials(tmp_path) == []
    made = probe_video(tmp_path / "out.mp4")
    assert (made.frames, made.fps) == (COUNT * FRAMES, FPS * FRAMES)
    report = json.loads((tmp_path / "out.mp4.json").read_text())
    assert sum(len(shot["frames"]) for shot in report["shots"]) == COUNT


TINY = ["blur.photos.size=32", "blur.clips={train: 24, val: 4, test: 6}", "objectives=[sequence_min]",
        "deblurrer.objective=sequence_min", "deblurrer.model={width: 8, blocks: [1, 1], views: 1}",
        "deblurrer.training={steps: 10, batch: 4, crop: 32}", "encoder.model={width: 8, blocks: 1, features: 16}",
        "encoder.training={steps: 20, batch: 4, crop: 32}", "evaluate={films: 1, worst: 1}"]


def test_fifteen_frames_from_footage_to_a_restored_video(tmp_path: Path) -> None:
    """The preset `long-motion` through the steps, and on to a video."""
    ws, p = Workspace(tmp_path / "ws"), load(ROOT / "params.yaml", "long-motion", TINY)
    for name in ("collect-footage", "synthesize-blur", "train-encoder", "assign-order", "train-deblurrer", "evaluate"):
        local.STEPS[name](ws, p)
    assert ClipStore(ws.clips).frames == 15
    assert len(read_json(ws.metrics("evaluate"))["models"]["sequence_min"]["ppsnr_frames"]) == 15
    film = write_video(tmp_path / "in.mp4", pan(2, 3, 9.0, 48, 48), fps=FPS)
    for playing, count, fps in ((Playing(slow=15), 45, FPS), (Playing(frames=7), 21, 7 * FPS)):
        out = restore_video_command(film, tmp_path / "out.mp4", ws.deblurrer("sequence_min"), playing)
        made = probe_video(out)
        assert (made.frames, made.fps) == (count, fps)
