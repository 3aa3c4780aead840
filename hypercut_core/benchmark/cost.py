"""What one photo costs: CPU-seconds and memory, measured in a process that does nothing else.

    python -m hypercut_core.benchmark.cost < question.json        (started by `measure_cost`)

The whole image goes through the model at once, in one thread, after a small image to warm up. Random weights: the
work does not depend on them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypercut_core.benchmark.rows import EVENT_INTEGRAL, REPEAT, Shapes
from hypercut_core.errors import HypercutError

PATIENCE = 3600  # s
EXPOSURE = 0.02  # s, of the simulated events


def count_cost(model: str, shapes: Shapes, frames: int, height: int, width: int) -> dict[str, float]:
    """Parameters and multiply-adds, without computing anything. GMAC at the papers' size and at the given one."""
    from hypercut_core.deblurring.cost import deblurrer_gmac, parameters_of

    if model in (REPEAT, EVENT_INTEGRAL):
        return {"parameters": 0, "gmac": 0.0}
    config = shapes.config(model)
    found = {"parameters": parameters_of(config, frames), "gmac": deblurrer_gmac(config, frames)}
    return {**found, **({"gmac_at_size": deblurrer_gmac(config, frames, height, width)} if width else {})}


def measure_cost(model: str, shapes: Shapes, frames: int, height: int, width: int) -> dict[str, float]:
    """`cpu_seconds` and `peak_mib` (memory above that of the loaded process) of one photo, in a fresh process.

    Raises:
        HypercutError: the process failed, such as for want of memory.
    """
    if model == REPEAT:
        return {"cpu_seconds": 0.0, "peak_mib": 0.0}
    question = {"model": model, "frames": frames, "height": height, "width": width}
    if model != EVENT_INTEGRAL:
        from hypercut_core.deblurring.models import kind_of

        config = shapes.config(model)
        question |= {"info": {"model": kind_of(config), "config": asdict(config)}}
    done = subprocess.run([sys.executable, "-m", "hypercut_core.benchmark.cost"], input=json.dumps(question),
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise HypercutError(f"the cost of {model} could not be measured: {why[0]}", where=f"{width}x{height}",
                            remedy="set benchmark.cost_width and cost_height to a smaller size")
    return {key: float(value) for key, value in json.loads(done.stdout).items()}


def _answer(question: dict[str, Any]) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    prepared = _events if question["model"] == EVENT_INTEGRAL else _network
    with torch.inference_mode():
        prepared(question, 64, 64)()
        work = prepared(question, question["height"], question["width"])
        _forget_peak()
        before, started = _memory("VmRSS"), time.process_time()
        work()
        return {"cpu_seconds": time.process_time() - started, "peak_mib": max(0.0, _memory("VmHWM") - before)}


def _network(question: dict[str, Any], height: int, width: int) -> Callable[[], Any]:
    import torch

    from hypercut_core.deblurring.models import build_deblurrer, config_of

    model = build_deblurrer(config_of(question["info"]), question["frames"]).eval()
    image = torch.rand(1, 3, height, width)
    oracle = question["info"]["config"].get("protocol") == "oracle"
    return lambda: model(image, image) if oracle else model(image)


def _events(question: dict[str, Any], height: int, width: int) -> Callable[[], Any]:
    """The search for c and the integral; making the events is not part of the cost."""
    import numpy as np
    import torch

    from hypercut_core.blur.events import EventConfig, simulate_events
    from hypercut_core.deblurring.event_integral import EventIntegral, EventIntegralConfig, exposure_times
    from hypercut_core.deblurring.threshold_search import find_threshold

    frames = question["frames"]
    model = EventIntegral(EventIntegralConfig(), frames)
    wide = torch.rand(1, 3, height // 8, (width + frames) // 8 + 1)
    wide = torch.nn.functional.interpolate(wide, size=(height, width + frames), mode="bilinear")[0]
    sharp = torch.stack([wide[..., k:k + width] for k in range(frames)])
    blurry, times = sharp.mean(0)[None], exposure_times(0, EXPOSURE, frames)
    events = simulate_events(sharp.movedim(1, -1).numpy(), times, EventConfig(), np.random.default_rng(0))

    def work() -> None:
        counts = model.counts(events, 0, EXPOSURE)
        model(blurry, counts, find_threshold(blurry, counts))

    return work


def _memory(name: str) -> float:
    """MiB of this process, as Linux counts it: VmRSS now, VmHWM at its peak."""
    with Path("/proc/self/status").open(encoding="ascii") as status:
        return next(float(line.split()[1]) / 1024 for line in status if line.startswith(name + ":"))


def _forget_peak() -> None:
    """Start VmHWM again (Linux; without the right to, the peak is that of the whole process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
