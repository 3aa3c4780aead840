"""`hypercut trajectories` from the command line: what is missing is said before any work, and by --doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hypercut_core.errors import BadParameters
from hypercut_core.trajectories.tracker import Tracker
from pipelines.cli import app
from pipelines.trajectories import examine, find_paths


def test_the_doctor_names_what_installs_a_missing_tracker(tmp_path: Path) -> None:
    said: list[str] = []
    model = tmp_path / "model.safetensors"
    model.touch()
    assert not examine(str(model), tmp_path, True, said.append, Tracker(tmp_path / "none/bin/python"))
    found = json.loads(said.pop())
    assert found["ok"] is False
    tracker, deblurrer = found["findings"]
    assert (tracker["what"], tracker["state"], tracker["remedy"]) == ("tracker", "bad", "make tracker")
    assert (deblurrer["what"], deblurrer["state"]) == ("model for photos", "ok")
    examine(str(tmp_path / "no model"), tmp_path, False, said.append, Tracker(tmp_path / "none/bin/python"))
    assert said[0].startswith("BAD")
    assert said[0].endswith("(make tracker)")
    assert said[1].startswith("note")  # a clip needs no model


def test_the_doctor_tells_a_python_without_the_tracker(tmp_path: Path) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    python.chmod(0o755)
    said: list[str] = []
    assert not examine("none", tmp_path, False, said.append, Tracker(python))
    assert "no mediapipe" in said[0]


def test_a_tracker_that_fails_its_trial_is_not_well(tmp_path: Path) -> None:
    python = tmp_path / "bin/python"
    (tmp_path / "lib/python3.11/site-packages/mediapipe-0.10.21.dist-info").mkdir(parents=True)
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'Illegal instruction' >&2\nexit 132\n", encoding="utf-8")
    python.chmod(0o755)
    said: list[str] = []
    assert not examine("none", tmp_path, False, said.append, Tracker(python))
    assert said[0].startswith("ok")
    assert "Illegal instruction" in said[1]


def test_a_photo_and_a_folder_are_needed(tmp_path: Path) -> None:
    for source, out in ((None, tmp_path), (tmp_path / "photo.jpg", None), (None, None)):
        with pytest.raises(BadParameters, match="are needed"):
            find_paths(source, out, "none", tmp_path)


def test_the_command_line_hands_its_options_on(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["trajectories", "photo.jpg", "-o", str(tmp_path / "out"), "--kind", "foot"])
    assert isinstance(done.exception, BadParameters)
    assert "'foot'" in str(done.exception)
    done = CliRunner().invoke(app, ["trajectories", "photo.jpg", "-o", str(tmp_path), "--overlay", "mp4"])
    assert isinstance(done.exception, BadParameters)
    assert "'mp4'" in str(done.exception)
