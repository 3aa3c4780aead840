"""The commands of docs/data.md, run in order in a folder that has what they speak of."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from made_capture import Truth, write_capture
from made_footage import write_rb2v
from typer.testing import CliRunner

from hypercut_core.clips import layouts
from pipelines.cli import app

DOC = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
LINES = [line.split("  #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL)
         for line in block.splitlines()]

def test_the_commands_of_the_page_run_and_give_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rb2v(tmp_path / "in/hand", ["keep", "reverse"] * 3, ["train"] * 2 + ["val"] * 2 + ["test"] * 2)
    write_capture(tmp_path / "captures/kitchen", Truth(), images=8, size=(80, 104))
    assert len(LINES) == 9
    shown = {}
    for line in LINES:
        words = shlex.split(line)
        assert words[0] == "hypercut"
        extra = []
        if words[1] == "train-encoder":  # the recipe is for another machine's patience
            extra = ["--set", "encoder.training.steps=4"]
        done = CliRunner().invoke(app, [*words[1:], *extra])
        assert done.exit_code == 0, (line, done.output, done.exception)
        shown[line] = done.output
    assert "not redistributable" in shown["hypercut describe in/hand"]
    assert {path.name for path in (tmp_path / "out/hand").iterdir()} == {
        "metadata.json", "export.json", "seq000", "seq001", "seq002"}
    clips = {clip.clip_id: clip for clip in layouts.read(tmp_path / "in/hand", "rb2v", 7)}
    for clip in layouts.read(tmp_path / "out/hand", "rb2v", 7):
        before, after = (sorted(one.sharp) for one in (clips[clip.clip_id], clip))
        assert [path.name for path in before] == [path.name for path in after]
        assert np.array_equal(clip.load()[0], clips[clip.clip_id].load()[0])
    assert "blur explained" in shown["hypercut capture captures -o out/captured --rate 7.5"]
