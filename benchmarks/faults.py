"""What faults cost: runs the tests of faults and prints their table.

    .venv/bin/python -m benchmarks.faults                    # storage, and the Ray cluster
    .venv/bin/python -m benchmarks.faults --rounds 3         # each fault three times
    .venv/bin/python -m benchmarks.faults -k checkpoint      # some of them, as pytest's -k

The tests are real: an S3 server that is hung and killed, disks that are full, Ray nodes in network namespaces
that are killed. Each holds what must be true after its fault, and notes what that cost. Writes
benchmarks/results/faults.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypercut_core.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
FILES = {"storage": "tests/systems/test_storage_faults.py", "cluster": "tests/systems/test_ray_cluster.py"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-k", default="", help="only tests whose name fits, as pytest's -k")
    options = parser.parse_args()
    result: dict[str, Any] = {"rounds": options.rounds, "groups": {}, "failed": []}
    for group, file in FILES.items():
        if not (ROOT / file).is_file():
            print(f"{group}: {file} is not there, left out", file=sys.stderr)
            continue
        rows: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            made, failed = run(file, options.k)
            rows += made
            result["failed"] += failed
        result["groups"][group] = merged(rows)
    text = table(result)
    print(text)
    if not options.k:
        write_json(RESULTS / "faults.json", result, digits=2)
        write_text(RESULTS / "faults.md", text)
    return 1 if result["failed"] else 0


def run(file: str, names: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that the tests of a file note, and the tests that failed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        only = ["-k", names] if names else []
        done = subprocess.run([sys.executable, "-m", "pytest", file, "-m", "system", "-rfE", *only], cwd=ROOT,
                              env={**os.environ, "HYPERCUT_FAULTS": str(rows)}, capture_output=True, text=True,
                              check=False)
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode not in (0, 1, 5):  # 5: no test fits -k
            failed.append(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return [json.loads(line) for line in lines], failed


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a fault: tries and survivals added up, steps and seconds the worst."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        so_far = found.setdefault(row["fault"], {"fault": row["fault"], "tries": 0, "survived": 0, "lost_steps": None,
                                                 "recovery_seconds": None})
        for name in ("tries", "survived"):
            so_far[name] += row[name]
        for name in ("lost_steps", "recovery_seconds"):
            so_far[name] = max((value for value in (so_far[name], row[name]) if value is not None), default=None)
    return list(found.values())


def table(result: dict[str, Any]) -> str:
    lines = ["# Faults", "",
             "Survived: the work went on by itself to the result of an undisturbed run, to the last bit for storage. "
             "The other tries ended with one clear error that names its remedy, and went on to that same result when "
             "that was done and the command run again. Lost steps: steps that were computed twice, the most of all "
             "tries. Recovery: seconds from the end of the fault (or the new start) to the next finished step, the "
             "most of all tries; none where it ended with an error, or nothing had to recover.", "",
             "Command: `.venv/bin/python -m benchmarks.faults`", ""]
    for group, rows in result["groups"].items():
        lines += [f"## {group}", "", "| fault | tries | survived | lost steps | recovery, s |", "|---|---|---|---|---|"]
        lines += [f"| {row['fault']} | {row['tries']} | {row['survived']} | {_shown(row['lost_steps'], '.0f')} "
                  f"| {_shown(row['recovery_seconds'], '.1f')} |" for row in rows]
        lines.append("")
    if result["failed"]:
        lines += ["## Tests that failed", "", *(f"- `{line}`" for line in result["failed"]), ""]
    return "\n".join(lines)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
