"""A tracker's environment for tests: a real process that answers by the tracker's contract, without its models.

It finds one "hand" at the reddest place of a picture, if that is red enough: a sharp dot is found, a smeared one not.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = '''#!{python}
import json, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[-1])
request = json.loads((folder / "request.json").read_text())
with Path("{calls}").open("a") as calls:
    calls.write(json.dumps([request["kind"], request["most"], len(request["frames"])]) + "\\n")
shape = np.random.default_rng(3).uniform(-4, 4, (21, 2))
shape[9] = shape[0] + (0, 8)
answer = []
for name in request["frames"]:
    frame = np.load(folder / name, allow_pickle=False).astype(float)
    red = np.clip(frame[..., 0] - frame[..., 1:].mean(-1), 0, None)
    down, across = np.unravel_index(red.argmax(), red.shape)
    points = (shape + (across + 0.5, down + 0.5)).round(4).tolist()
    seen = red.max() >= {enough} and {answers}
    answer.append([dict(points=points, confidence=0.9, handedness="left")] if seen else [])
(folder / "landmarks.json").write_text(json.dumps(dict(frames=answer)))
'''


def tracker_double(folder: Path, enough: float = 100.0, answers: bool = True) -> tuple[Path, Path]:
    """The double's "Python", and a file to which each of its calls adds a line: [kind, most, pictures]."""
    python, calls = folder / "tracker-python", folder / "calls.jsonl"
    python.write_text(PROGRAM.format(python=sys.executable, calls=calls, enough=enough, answers=answers),
                      encoding="utf-8")
    python.chmod(0o755)
    return python, calls
