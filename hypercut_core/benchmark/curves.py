"""How a training of the benchmark went: the loss of every step, and now and then the gain on clips not learned from.

One line a step in the row's folder, written as it happens, so that a killed training keeps its curve and goes on with
it: lines behind the checkpoint that it resumes from are dropped, and come again as they were.

    step,loss,cpu_seconds,gain          gain: dB above repeating the blurry image, empty where it was not measured
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypercut_core.clips.store import ClipStore
from hypercut_core.evaluation.image_quality import psnr, quantise
from hypercut_core.evaluation.protocol_names import BLIND
from hypercut_core.evaluation.protocols import ways
from hypercut_core.files import explain_os_errors, write_text

FILE = "curve.csv"
HEAD = "step,loss,cpu_seconds,gain"
POINTS = 10  # steps at which the gain is measured: the last one, half of it, a quarter ...
CLIPS, SIDE = 16, 96  # validation clips, and the most px a side of what is looked at of them
MEANS = 60  # points of a loss curve that is shown

Gain = Callable[[nn.Module], float]


@dataclass
class Curve:
    """A training as its file tells it."""

    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # from the start, without what measuring the gain took
    gain: list[tuple[int, float, float]] = field(default_factory=list)  # step, CPU-seconds, dB

    def mean_loss(self, points: int = MEANS) -> list[tuple[float, float]]:
        """(mean step, mean loss) of at most so many equal stretches."""
        parts = np.array_split(np.arange(len(self.steps)), min(points, len(self.steps))) if self.steps else []
        return [(float(np.mean(np.take(self.steps, part))), float(np.mean(np.take(self.loss, part))))
                for part in parts]


def read_curve(file: Path) -> Curve:
    """The curve as far as it was written; a torn last line, or a file that is not there, is no error."""
    curve = Curve()
    with explain_os_errors(file):
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines(keepends=True)[1:]:
        if not _take(curve, line):
            break
    return curve


def _take(curve: Curve, line: str) -> bool:
    cells = line.rstrip("\n").split(",")
    try:
        step, loss, spent = int(cells[0]), float(cells[1]), float(cells[2])
        gain = float(cells[3]) if cells[3] else None
    except (ValueError, IndexError):
        return False
    if not line.endswith("\n") or (curve.steps and step <= curve.steps[-1]):
        return False
    curve.steps.append(step)
    curve.loss.append(loss)
    curve.cpu_seconds.append(spent)
    if gain is not None:
        curve.gain.append((step, spent, gain))
    return True


class CurveWriter:
    """What `Execution.follow` wants: writes a line a step, and tells the CPU-seconds of the training alone.

    Args:
        steps: of the whole training.
        gain: of a model in evaluation mode, dB; None: not measured.
    """

    def __init__(self, file: Path, steps: int, gain: Gain | None):
        self.file, self._gain = file, gain
        self._points = {max(1, steps >> k) for k in range(POINTS)}
        self._spent, self._since = 0.0, time.process_time()  # until the last line; and when it was written
        self._begun = False

    def __call__(self, module: nn.Module, step: int, loss: float) -> None:
        if not self._begun:
            self._begin(step)
        now = time.process_time()
        self._spent += now - self._since
        gain = ""
        if self._gain is not None and step in self._points:
            module.eval()
            gain = f"{self._gain(module):.4f}"
            module.train()
            now = time.process_time()
        with explain_os_errors(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{step},{loss:.6g},{self._spent:.3f},{gain}\n")
        self._since = now

    def _begin(self, step: int) -> None:
        """Keep the lines before `step`, which is the first one of this process."""
        kept = read_curve(self.file)
        count = sum(one < step for one in kept.steps)
        self._spent = kept.cpu_seconds[count - 1] if count else 0.0
        gains = {at: value for at, _, value in kept.gain}
        lines = [f"{at},{loss:.6g},{spent:.3f},{f'{gains[at]:.4f}' if at in gains else ''}"
                 for at, loss, spent in zip(kept.steps[:count], kept.loss, kept.cpu_seconds, strict=False)]
        write_text(self.file, "\n".join([HEAD, *lines, ""]))
        self._begun = True

    def cpu_seconds(self) -> float:
        """Of the training until now, earlier processes' share included."""
        if not self._begun and (earlier := read_curve(self.file)).steps:  # all of it was done before
            return earlier.cpu_seconds[-1]
        return self._spent + time.process_time() - self._since


def validation_gain(store: ClipStore, split: str = "val") -> Gain | None:
    """Mean pPSNR above repeating the blurry image, on the middle of up to 16 clips of a split; None: it has none.

    A model is measured under the first protocol that it knows (`ways`), which is blind where it can be. Averaged
    weights (`training.ema`) are not what is measured.
    """
    indices = store.indices(split)
    if not len(indices):
        return None
    chosen = indices[np.unique(np.linspace(0, len(indices) - 1, min(CLIPS, len(indices))).round().astype(int))]
    side = min(SIDE, *(min(store.records[int(i)].height, store.records[int(i)].width) for i in chosen))
    clips = torch.from_numpy(np.stack([_middle(store, int(i), side) for i in chosen]))
    frames = clips.permute(0, 1, 4, 2, 3).float() / 255
    trivial = _ppsnr(frames[:, :1].expand(-1, store.frames, -1, -1, -1), frames[:, 1:])

    def gain(model: nn.Module) -> float:
        device = next(model.parameters()).device
        with torch.no_grad():
            made = ways(model)[0].predict(frames[:, 0].to(device), frames[:, 1:].to(device))
        return _ppsnr(made.float().cpu().nan_to_num(0), frames[:, 1:]) - trivial

    return gain


def _middle(store: ClipStore, clip: int, side: int) -> np.ndarray:
    record = store.records[clip]
    return store.read_crop(clip, (record.height - side) // 2, (record.width - side) // 2, side, side)


def _ppsnr(made: Tensor, true: Tensor) -> float:
    made = quantise(made)
    return float(torch.maximum(psnr(made, true).mean(1), psnr(made.flip(1), true).mean(1)).mean())


@dataclass(frozen=True)
class Learned:
    """The curve of one trained row with one seed."""

    row: str
    model: str
    seed: int
    file: str  # relative to the benchmark's folder
    curve: Curve

    @property
    def protocol(self) -> str:
        """Under which the gain was measured."""
        from hypercut_core.benchmark.rows import ORACLE
        from hypercut_core.evaluation.protocol_names import ORACLE_MIDDLE

        return ORACLE_MIDDLE if self.model == ORACLE else BLIND

    def document(self) -> dict[str, Any]:
        """For `benchmark.json`."""
        return {"row": self.row, "seed": self.seed, "protocol": self.protocol, "file": self.file,
                "loss": [list(point) for point in self.curve.mean_loss()],
                "gain": [{"step": step, "cpu_seconds": spent, "db": value} for step, spent, value in self.curve.gain]}


def mean_gain(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """(mean CPU-seconds, mean dB) over the seeds, point by point from the end; plans differ by a few steps."""
    count = min((len(one.gain) for one in curves), default=0)
    points = [[one.gain[len(one.gain) - count + k] for one in curves] for k in range(count)]
    return [(float(np.mean([spent for _, spent, _ in at])), float(np.mean([value for *_, value in at])))
            for at in points]
