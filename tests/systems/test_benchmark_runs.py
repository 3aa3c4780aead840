"""`hypercut benchmark` in processes of its own: a whole table, a failing row, on Ray, and going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypercut_core.benchmark.curves import read_curve
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import build_deblurrer, save_deblurrer
from hypercut_core.files import file_sha256

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200  # s; the machine may be busy
TINY = ("--params", ROOT / "params.yaml", "--preset", "benchmark-smoke", "--set", "blur.clips.train=32", "--set",
        "blur.clips.test=4", "--set", "blur.clips.val=4", "--set", "encoder.training.steps=20")
RESULT = Path("rows/cascade-naive/seed-0/result.json")
ROWS = ("--rows", "repeat", "--rows", "recurrent_oracle/naive", "--rows", "cascade/naive")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "benchmark", *map(str, words)]


def benchmark(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"})


def test_a_failing_row_costs_no_other_and_a_second_call_finishes_the_table(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no model")
    first = benchmark(*TINY, *ROWS, "--load", f"cascade/naive={broken}", "-w", tmp_path / "ws")
    assert first.returncode == 1, first.stderr[-3000:]
    folder = tmp_path / "ws/benchmark"
    table = json.loads((folder / "benchmark.json").read_text())
    assert [(line["row"], line["protocol"]) for line in table["lines"]] \
        == [("repeat", "blind"), ("recurrent_oracle/naive", "oracle-middle")]
    assert [one["row"] for one in table["failed"]] == ["cascade/naive"]
    assert "damaged" in (folder / "benchmark.html").read_text(encoding="utf-8")
    assert "Traceback" not in first.stderr

    second = benchmark(*TINY, *ROWS, "--budget", "samples=64", "-w", tmp_path / "ws", "--ray")
    assert second.returncode == 0, second.stderr[-3000:]
    assert "3 rows, 2 of them finished before" in second.stderr
    table = json.loads((folder / "benchmark.json").read_text())
    assert table["failed"] == []
    lines = {line["row"]: line for line in table["lines"]}
    assert lines["cascade/naive"]["samples"] == [64]
    for line in lines.values():
        assert {"parameters", "gmac", "cpu_seconds", "peak_mib"} <= set(line["cost"])
        assert len(line["frames"][0]) == 7
    assert set(table["encoder"]) == {"hit", "con2", "con3", "joint3"}

    on_ray = json.loads((folder / RESULT).read_text())
    shutil.rmtree(folder / RESULT.parent)
    third = benchmark(*TINY, *ROWS, "--budget", "samples=64", "-w", tmp_path / "ws")
    assert third.returncode == 0, third.stderr[-3000:]
    here = json.loads((folder / RESULT).read_text())
    assert {**here, "cpu_seconds": on_ray["cpu_seconds"]} == on_ray


def test_a_killed_benchmark_goes_on(tmp_path: Path) -> None:
    """Killed in the middle of a training: the row's plan stays, the training resumes, the model is the same.

    The training began with another benchmark's model.
    """
    short = (*TINY, "--rows", "even_odd/naive", "--set", "benchmark.cost_width=0")
    base, whole, killed = tmp_path / "base", tmp_path / "whole", tmp_path / "killed"
    row = Path("benchmark/rows/even_odd-naive/seed-0")
    (base / row).mkdir(parents=True)
    save_deblurrer(base / row / "model.safetensors",
                   build_deblurrer(DeblurrerConfig(width=8, blocks=(1, 1), views=2), 7), {})
    absent = benchmark(*short, "--seed", "0", "--seed", "7", "--start", base, "-w", whole)
    assert (absent.returncode, "no trained model of even_odd/naive, seed 7." in absent.stderr) == (2, True)
    assert not whole.exists()
    long = (*short, "--budget", "samples=800", "--set", "deblurrer.training.checkpoint_seconds=0.05", "--start", base)
    done = benchmark(*long, "-w", whole)
    assert done.returncode == 0, done.stderr[-3000:]
    with subprocess.Popen(command(*long, "-w", killed), cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        end = time.monotonic() + PATIENCE
        while not list((killed / row / "work").glob("[!.]*.safetensors")):
            assert time.monotonic() < end
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()
    while _group_lives(process.pid):  # the row's own process ends with the command, or two would write one folder
        assert time.monotonic() < end, "the row's process outlived the command"
        time.sleep(0.05)
    assert not (killed / row / "result.json").exists()
    again = benchmark(*long, "-w", killed)
    assert again.returncode == 0, again.stderr[-3000:]
    results = [json.loads((ws / row / "result.json").read_text()) for ws in (whole, killed)]
    assert results[0]["results"] == results[1]["results"]
    assert results[0]["steps"] == results[1]["steps"] == 100
    begun = file_sha256(base / row / "model.safetensors")
    assert [one["start"] for one in results] == [begun, begun]
    assert (whole / row / "model.safetensors").is_file()  # so that another benchmark can go on from it
    one, two = (read_curve(ws / row / "curve.csv") for ws in (whole, killed))
    assert one.steps == two.steps == list(range(1, 101))
    assert one.loss == two.loss
    assert [(step, db) for step, _, db in one.gain] == [(step, db) for step, _, db in two.gain]
    assert [step for step, *_ in one.gain] == [1, 3, 6, 12, 25, 50, 100]
    table = json.loads((killed / "benchmark/benchmark.json").read_text())
    assert table["starts"] == [{"row": "even_odd/naive", "seed": 0, "start": begun}]
    assert [one["file"] for one in table["learning"]] == ["rows/even_odd-naive/seed-0/curve.csv"]
    assert "Learning curves" in (killed / "benchmark/benchmark.html").read_text(encoding="utf-8")


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
