"""What a GPU makes of the even/odd model: samples/s of training and frames/s of restoring 720p photos.

    .venv/bin/python -m benchmarks.gpu                      # writes benchmarks/results/gpu.md and .json
    .venv/bin/python -m benchmarks.gpu --device cpu --small # only shows that the measurement itself works

A ladder: plain float32 in eager mode, then one thing more on each step. Every step of the ladder gets its turn in
each round, and ratios are taken round by round. Beside it stand Jin's cascade, the matrix peak of the same device
(one large matrix product, in the same run) and the renderer of moving photos, which must keep the training fed.
FLOP are counted by torch over the very passes that are timed. Without a GPU nothing is measured and nothing written.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hypercut_core.clips.moving_photos import CHUNK, MovingPhotosConfig, render_clips
from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import SHAPES, build_deblurrer
from hypercut_core.deblurring.objectives import LossConfig, objective_loss
from hypercut_core.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"
FRAMES = 7


@dataclass(frozen=True)
class Rung:
    """How a model is run."""

    name: str
    tf32: bool = False
    bf16: bool = False
    channels_last: bool = False
    compiled: str = ""  # a mode of torch.compile; "": eager

    @property
    def peak(self) -> str:
        """The kind of matrix product that this is to be held against."""
        return "bf16" if self.bf16 else "tf32" if self.tf32 else "float32"


LADDER = (
    Rung("float32, eager"),
    Rung("TF32", True),
    Rung("bf16", True, True),
    Rung("bf16, channels-last", True, True, True),
    Rung("bf16, channels-last, compiled", True, True, True, "default"),
    Rung("bf16, channels-last, compiled, CUDA graphs", True, True, True, "reduce-overhead"),
)


@dataclass(frozen=True)
class Scale:
    """How large the measured things are."""

    config: DeblurrerConfig
    cascade: CascadeConfig
    batch: int
    crop: int
    photo: tuple[int, int]
    matrix: int
    calls: int  # calls in a row that are timed together


WHOLE = Scale(replace(SHAPES["default"], views=1), CascadeConfig(), 16, 256, (720, 1280), 8192, 10)
SMALL = Scale(DeblurrerConfig(width=8, blocks=(1, 1), views=1), CascadeConfig(8, 8, 8), 2, 32, (40, 60), 256, 2)


@dataclass
class Way:
    """One thing that is timed; `work` is what a call gets done (samples or frames)."""

    name: str
    rung: Rung
    work: int
    call: Callable[[], Any]
    flop: int
    seconds: list[float] = field(default_factory=list)  # a call, of each round
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny models: tries the measurement, is no result")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu was not run: no CUDA device is here. Nothing was measured and nothing written.")
        return
    result = measure(SMALL if options.small else WHOLE, device, options.rounds)
    text = table(result)
    print(text)
    if options.small or device.type != "cuda":
        print("This was a trial of the measurement, not a result: nothing was written.")
        return
    write_json(RESULTS / "gpu.json", result, digits=4)
    write_text(RESULTS / "gpu.md", text)


def measure(scale: Scale, device: torch.device, rounds: int) -> dict[str, Any]:
    peaks = {kind: matrix_peak(kind, scale.matrix, device, rounds) for kind in ("float32", "tf32", "bf16")}
    training = timed([training_way(scale, rung, device) for rung in LADDER], device, rounds, scale.calls)
    restoring = timed([restoring_way("even/odd", scale.config, scale, rung, device) for rung in LADDER]
                      + [restoring_way("cascade", scale.cascade, scale, rung, device)
                         for rung in (LADDER[0], LADDER[3], LADDER[4])], device, rounds, scale.calls)
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "torch": torch.__version__, "rounds": rounds, "batch": scale.batch, "crop": scale.crop,
            "photo": scale.photo, "peak_tflops": {kind: value / 1e12 for kind, value in peaks.items()},
            "training": rows(training, peaks), "restoring": rows(restoring, peaks),
            "renderer": renderer(scale, device)}


def matrix_peak(kind: str, side: int, device: torch.device, rounds: int) -> float:
    """FLOP/s of one large matrix product, the best of some rounds."""
    rung = Rung(kind, tf32=kind != "float32", bf16=kind == "bf16")
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16 if rung.bf16 else torch.float32)
                  for _ in range(2))
    out = torch.empty_like(one)
    with precision(rung):
        times = [seconds(lambda: torch.mm(one, other, out=out), device, 5) for _ in range(rounds + 1)]
    return 2 * side**3 / min(times)


def training_way(scale: Scale, rung: Rung, device: torch.device) -> Way:
    """One optimiser step of the even/odd model, as hypercut_core/training/loop.py takes it."""
    model = placed(build_deblurrer(scale.config, FRAMES), rung, device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    draw = torch.Generator().manual_seed(0)
    sharp = torch.rand(scale.batch, FRAMES, 3, scale.crop, scale.crop, generator=draw).to(device)
    blurry = arranged(sharp.mean(1), rung)
    direction = torch.ones(scale.batch, device=device)
    forward = compiled(model, rung, device)

    def step() -> None:
        mark_step(rung)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=rung.bf16):
            loss = objective_loss("hypercut_targets", forward(blurry), sharp, direction, LossConfig())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    def passes() -> None:
        objective_loss("hypercut_targets", model(blurry), sharp, direction, LossConfig()).backward()

    return Way("even/odd", rung, scale.batch, step, flop(passes))


def restoring_way(name: str, config: Any, scale: Scale, rung: Rung, device: torch.device) -> Way:
    """One photo to its frames, a single view."""
    model = placed(build_deblurrer(config, FRAMES), rung, device).eval()
    model.requires_grad_(False)
    photo = arranged(torch.rand(1, 3, *scale.photo, generator=torch.Generator().manual_seed(0)).to(device), rung)
    forward = compiled(model, rung, device)

    def restore() -> Tensor:
        mark_step(rung)
        with torch.inference_mode(not rung.compiled), torch.no_grad(), \
                torch.autocast(device.type, torch.bfloat16, enabled=rung.bf16):
            return forward(photo)

    return Way(name, rung, FRAMES, restore, flop(lambda: model(photo)))


def placed(model: nn.Module, rung: Rung, device: torch.device) -> nn.Module:
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if rung.channels_last else model  # type: ignore[call-overload]


def arranged(images: Tensor, rung: Rung) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last if rung.channels_last else torch.contiguous_format)


def compiled(model: nn.Module, rung: Rung, device: torch.device) -> Callable[[Tensor], Tensor]:
    if not rung.compiled:
        return model
    if device.type != "cuda":  # a trial: the graph is taken, and no compiler is waited for
        return torch.compile(model, backend="aot_eager")
    return torch.compile(model, mode=rung.compiled)


def mark_step(rung: Rung) -> None:
    if rung.compiled == "reduce-overhead":
        torch.compiler.cudagraph_mark_step_begin()


def flop(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@contextlib.contextmanager
def precision(rung: Rung) -> Iterator[None]:
    """TF32 on or off, for convolutions and matrix products alike."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rung.tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def seconds(call: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Wall seconds a call, all of its kernels included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - start) / calls


def timed(ways: list[Way], device: torch.device, rounds: int, calls: int) -> list[Way]:
    """Every way in each round; one that fails says why and costs the others nothing."""
    for turn in range(rounds + 1):
        for way in (way for way in ways if not way.failed):
            try:
                with precision(way.rung):
                    spent = seconds(way.call, device, calls)
            except Exception as error:  # a compiler that is not there, memory that is too small
                way.failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
                continue
            if turn:  # the first round warms up and compiles
                way.seconds.append(spent)
    return ways


def rows(ways: list[Way], peaks: dict[str, float]) -> list[dict[str, Any]]:
    base = ways[0]
    made: list[dict[str, Any]] = []
    for way in ways:
        row: dict[str, Any] = {"model": way.name, "way": way.rung.name, "failed": way.failed, "gflop": way.flop / 1e9}
        if not way.failed:
            spent = statistics.median(way.seconds)
            ratios = [a / b for a, b in zip(base.seconds, way.seconds, strict=True)] if base.seconds else []
            row |= {"per_second": way.work / spent, "milliseconds": 1e3 * spent,
                    "ratio": statistics.median(ratios) if ratios else None,
                    "share_of_peak": way.flop / spent / peaks[way.rung.peak]}
        made.append(row)
    return made


def renderer(scale: Scale, device: torch.device) -> dict[str, float]:
    """Clips/s of the moving photos at the training's crop size, all copies to the processor included."""
    config, count = MovingPhotosConfig(size=scale.crop), CHUNK * scale.calls
    for _ in render_clips(config, "train", CHUNK, 0, FRAMES, str(device)):
        pass  # warms up, and loads the photos

    def render() -> None:
        for _ in render_clips(config, "train", count, 1, FRAMES, str(device)):
            pass

    return {"clips_per_second": count / seconds(render, device, 1)}


def table(result: dict[str, Any]) -> str:
    peaks = ", ".join(f"{kind} {value:.1f}" for kind, value in result["peak_tflops"].items())
    height, width = result["photo"]
    lines = ["# The even/odd model on a GPU", "", f"{result['device']}, torch {result['torch']}; medians of "
             f"{result['rounds']} rounds; ratios to the first row, round by round. Matrix peak measured in the same "
             f"run, TFLOP/s: {peaks}. Share: of the peak of the same kind of product, FLOP counted by torch.", "",
             "Command: `.venv/bin/python -m benchmarks.gpu`", ""]
    for title, part, unit in ((f"Training, batches of {result['batch']} crops of {result['crop']} px", "training",
                               "samples/s"),
                              (f"Restoring {width}x{height}, one view", "restoring", "frames/s")):
        lines += [f"## {title}", "", f"| model | way | {unit} | ratio | ms a call | share of peak |",
                  "|---|---|---|---|---|---|"]
        for row in result[part]:
            if row["failed"]:
                lines.append(f"| {row['model']} | {row['way']} | not run: {row['failed']} | | | |")
                continue
            ratio = "" if row["ratio"] is None else f"**{row['ratio']:.2f}**"
            lines.append(f"| {row['model']} | {row['way']} | {row['per_second']:.1f} | {ratio} | "
                         f"{row['milliseconds']:.2f} | {row['share_of_peak']:.1%} |")
        lines.append("")
    fastest = max((row["per_second"] for row in result["training"] if not row["failed"]), default=0.0)
    clips = result["renderer"]["clips_per_second"]
    lines += ["## Moving photos", "", f"The renderer makes {clips:.1f} clips/s of {result['crop']} px on this device; "
              f"the fastest training takes {fastest:.1f} samples/s: {clips / max(fastest, 1e-9):.2f} clips for each "
              "sample.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
