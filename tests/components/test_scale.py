"""How a training is spread: what is refused, and that none of it is part of the result's key."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from source_imports import ROOT

from components.params import Parameters, flat
from components.train_deblurrer.scale import ScaleConfig, check_scale
from hypercut_core.errors import BadParameters
from hypercut_core.training.loop import TrainingConfig


def test_the_key_of_the_result_does_not_contain_it() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train-deblurrer"]
    assert not [name for name in stage["params"] if "deblurrer.scale".startswith(name)]


def test_kubeflow_hands_the_step_nothing_of_it() -> None:
    from pipelines.training_pipeline import arguments

    wide = Parameters()
    wide = dataclasses.replace(wide, deblurrer=dataclasses.replace(
        wide.deblurrer, scale=ScaleConfig("ray", workers=3, keep=5)))
    assert arguments(wide) == arguments(Parameters())
    assert "lost_workers" not in json.dumps(arguments(wide))


def test_the_default_is_this_process() -> None:
    assert {name: value for name, value in flat(Parameters()).items() if name.startswith("deblurrer.scale.")} == {
        f"deblurrer.scale.{name}": value for name, value in dataclasses.asdict(ScaleConfig()).items()}
    check_scale(ScaleConfig(), TrainingConfig(batch=1))


def test_the_local_launcher_loads_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    """What a laptop pays for the other launchers is nothing."""
    code = """
import sys
from pathlib import Path
from components.assign_order.step import OrderConfig, assign_order
from components.params import load
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder
from pipelines.local import train_deblurrer
from pipelines.workspace import Workspace
ws = Workspace(Path())
with ClipStoreWriter(ws.clips, 3) as writer:
    for k, clip in enumerate(render_clips(MovingPhotosConfig(size=20, subframes=1), "train", 4, 0, frames=3)):
        writer.add(clip.frames, clip_id=f"{k}", source=clip.source, split="train", category=clip.category, motion=9.0)
save_encoder(ws.encoder, build_encoder(EncoderConfig(width=4, blocks=1, features=8)), {})
assign_order(ws.clips, ws.encoder, OrderConfig(threads=1), ws.orders, ws.metrics("assign-order"))
train_deblurrer(ws, load(overrides=["objectives=[naive]", "deblurrer.objective=naive", "deblurrer.training.steps=2",
                                    "deblurrer.training.crop=16", "deblurrer.model.width=4"]))
assert ws.deblurrer("naive").is_file()
assert not [path for path in ws.work.rglob("*") if path.is_file()]
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    assert not {"ray", "mlflow", "boto3"} & set(done.stdout.split())


@pytest.mark.parametrize(("change", "key"), [
    ({"workers": 2}, "workers"),
    ({"launcher": "ray", "workers": 0}, "workers"),
    ({"launcher": "ray", "workers": 9}, "workers"),
    ({"launcher": "ray", "gpus_per_worker": 2}, "gpus_per_worker"),
    ({"launcher": "ray", "cpus_per_worker": 0}, "cpus_per_worker"),
    ({"keep": 0}, "keep"),
    ({"hung_seconds": 0.0}, "hung_seconds"),
])
def test_what_cannot_run_is_refused_by_name(change: dict[str, object], key: str) -> None:
    with pytest.raises(BadParameters, match=rf"^deblurrer\.scale\.{key}: .*To mend it"):
        check_scale(dataclasses.replace(ScaleConfig(), **change), TrainingConfig(batch=8))  # type: ignore[arg-type]
