"""Each of the paper's peers through the pipeline by one parameter: trained, measured, registered, used on photos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.params import Parameters, load
from hypercut_core.errors import RegistryError
from hypercut_core.files import read_json
from pipelines import local
from pipelines.workspace import Workspace

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
TINY = ["objectives=[sequence_min]", "blur.photos.size=40", "blur.clips.train=32", "blur.clips.val=4",
        "blur.clips.test=6", "encoder.training.steps=20", "deblurrer.training.steps=12", "evaluate.films=1",
        "deblurrer.peers.cascade.model.width=8", "deblurrer.peers.cascade.model.side_width=8",
        "deblurrer.peers.recurrent.model.width=16", "deblurrer.peers.recurrent.model.middle_width=8",
        "deblurrer.peers.guided.model.width=8", "deblurrer.peers.guided.model.blocks=1",
        "deblurrer.peers.guided.model.predictor_width=8", "register.min_gain=0", "register.min_gain_ends=0"]
NAMES = {"cascade": "Cascade of Jin et al. 2018", "recurrent": "Recurrent model of Purohit et al. 2019",
         "guided": "Motion-guided model of Zhong et al. 2022"}


def parameters(kind: str, *more: str) -> Parameters:
    return load(ROOT / "params.yaml", "smoke", [*TINY, f"deblurrer.kind={kind}", *more])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that has everything that comes before the deblurrer."""
    ws = Workspace(tmp_path_factory.mktemp("kinds") / "prepared")
    p = parameters("even_odd")
    for name in ("collect-footage", "validate-footage", "synthesize-blur", "validate-clips", "train-encoder",
                 "assign-order"):
        local.STEPS[name](ws, p)
    return ws.root


def measured(prepared: Path, folder: Path, p: Parameters) -> tuple[Workspace, dict[str, Any]]:
    shutil.copytree(prepared, folder)
    ws = Workspace(folder)
    local.train_deblurrer(ws, p)
    local.evaluate(ws, p)
    return ws, read_json(ws.metrics("evaluate"))


@pytest.mark.parametrize("kind", NAMES)
def test_a_peer_is_trained_registered_and_restores_photos(prepared: Path, tmp_path: Path, kind: str) -> None:
    from hypercut_core.restore import restore_command
    from pipelines.models import model_file

    p = parameters(kind)
    ws, figures = measured(prepared, tmp_path / "ws", p)
    assert read_json(ws.metrics("train-deblurrer-sequence_min"))["kind"] == kind
    assert "protocol" not in figures["models"]["sequence_min"]  # blind
    helped = {one["protocol"] for one in figures.get("given_more", {}).values()}
    assert helped == ({"oracle-guidance", "best of 5"} if kind == "guided" else set())
    local.register_model(ws, p)
    card = (ws.root / "reports/model-card.md").read_text(encoding="utf-8")
    for words in (NAMES[kind], "protocol blind", "billion multiply-adds",
                  f"{figures['models']['sequence_min']['parameters']:,} parameters"):
        assert words in card
    registered = model_file(f"models:/{p.register.name}@candidate", ws.root)
    for width, height in ((1280, 720), (317, 211)):
        Image.effect_noise((width, height), 60).convert("RGB").save(tmp_path / "photo.png")
        frames = restore_command(tmp_path / "photo.png", tmp_path / f"{width}", registered)
        made = [np.asarray(Image.open(file)) for file in sorted(frames.glob("*.png"))]
        assert [one.shape for one in made] == [(height, width, 3)] * 7


def test_an_oracle_model_is_measured_apart_and_never_registered(prepared: Path, tmp_path: Path) -> None:
    p = parameters("recurrent", "deblurrer.peers.recurrent.model.protocol=oracle")
    ws, figures = measured(prepared, tmp_path / "ws", p)
    assert figures["models"]["sequence_min"]["protocol"] == "oracle-middle"
    assert figures["models"]["sequence_min"]["middle"] == 100.0  # it was given
    report = (ws.report / "report.html").read_text(encoding="utf-8")
    assert "Given more than the blurry image" in report
    assert "sequence_min (oracle-middle)" in report
    with pytest.raises(RegistryError, match="only blind models"):
        local.register_model(ws, p)
    assert not (ws.root / "reports/registration.json").exists()
