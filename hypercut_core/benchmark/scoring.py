"""The figures and films of one trained row, one entry for each protocol and number of views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hypercut_core.benchmark.rows import EVENT_INTEGRAL, REPEAT, Row, measured_views
from hypercut_core.blur.events import EventConfig, simulate_events
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.even_odd import EvenOddDeblurrer
from hypercut_core.deblurring.event_integral import EventIntegral, EventIntegralConfig, exposure_times
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.deblurring.threshold_search import find_threshold
from hypercut_core.errors import BadClipStore
from hypercut_core.evaluation.films import shrink
from hypercut_core.evaluation.protocol import ClipScores, evaluate_clips, repeat_blurry, summarise
from hypercut_core.evaluation.protocol_names import BLIND, EVENTS
from hypercut_core.evaluation.protocols import Way, ways
from hypercut_core.ordering.labels import read_orders

if TYPE_CHECKING:
    from hypercut_core.benchmark.run import Job

EXPOSURE = 0.02  # s, of the simulated events
CAMERA = EventConfig(colour=True)  # c = 0.1, no noise


def score_row(row: Row, model: Path | None, job: Job) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Figures by protocol, and the films of the clips that the page shows: "place: protocol, views" -> uint8
    [T, H, W, 3].

    Raises:
        BadClipStore: the split holds no clips; BadCheckpoint: the model is of another number of frames.
    """
    store = ClipStore(job.clips)
    indices = scored_clips(store, job.split, job.max_clips)
    directions = {"learned": read_orders(job.orders).for_clips(store, indices)[:, 0]}
    trivial = evaluate_clips(repeat_blurry(store.frames), store, indices, directions=directions, name=REPEAT)
    found: list[dict[str, Any]] = []
    films: dict[str, np.ndarray] = {}
    for way, views in _ways(row, model, store.frames):
        scores = evaluate_clips(None, store, indices, directions=directions, given=way.predict,
                                name=f"{row.name} ({way.protocol})")
        summary = summarise(scores, trivial) | {"sources": by_source(store, scores, trivial)}
        found.append({"protocol": way.protocol, "views": views, **summary})
        if job.budget.films:
            label = f"{way.protocol}, {views}" if views else way.protocol
            films |= {f"{place}: {label}": film for place, film in _films(way, store, scores, job.budget.films)}
    return found, films


def scored_clips(store: ClipStore, split: str, most: int) -> np.ndarray:
    """The clips that are scored: all of a split, or an even choice."""
    indices = store.indices(split)
    if not len(indices):
        raise BadClipStore(f"the store holds no clips of the split '{split}'", where=store.path,
                           remedy="give footage with more sources, or set evaluate.split to another split")
    if 0 < most < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]
    return indices


def by_source(store: ClipStore, scores: ClipScores, trivial: ClipScores) -> dict[str, dict[str, float]]:
    """Source -> number of its clips, pPSNR, and gain of the mean and of the ends above `trivial`, dB; in the order of
    the store."""
    sources = [store.records[int(index)].source for index in scores.indices]
    found = {}
    for source in dict.fromkeys(sources):
        mine = np.array([one == source for one in sources])
        gain = scores.ppsnr[mine].mean(0) - trivial.ppsnr[mine].mean(0)
        found[source] = {"clips": int(mine.sum()), "ppsnr": float(scores.ppsnr[mine].mean()),
                         "gain": float(gain.mean()), "gain_ends": float(gain[[0, -1]].mean())}
    return found


def shown_places(clips: int, films: int) -> np.ndarray:
    """Places among the scored clips that the page shows: the same for every row."""
    return np.unique(np.linspace(0, clips - 1, min(films, clips)).round().astype(int))


def event_way(frames: int) -> Way:
    """EDI with events simulated from the true frames; c is found from the clip, not given."""
    model = EventIntegral(EventIntegralConfig(), frames)

    def predict(blurry: Tensor, sharp: Tensor) -> Tensor:
        return torch.cat([_integrated(model, one[None], clip) for one, clip in zip(blurry, sharp, strict=True)])

    return Way(EVENTS, predict)


def _integrated(model: EventIntegral, blurry: Tensor, sharp: Tensor) -> Tensor:
    times = exposure_times(0, EXPOSURE, model.frames)
    events = simulate_events(sharp.movedim(1, -1).cpu().numpy(), times, CAMERA, np.random.default_rng(0))
    if not len(events):
        return blurry[:, None].expand(-1, model.frames, -1, -1, -1)  # nothing moved
    counts = model.counts(events, 0, EXPOSURE).to(blurry)
    return model(blurry, counts, find_threshold(blurry, counts)).float()


def _ways(row: Row, model: Path | None, frames: int) -> list[tuple[Way, str]]:
    """Every way to measure a row, with a word for how many views it joins."""
    if model is None:
        plain = repeat_blurry(frames)
        return [(event_way(frames), "")] if row.model == EVENT_INTEGRAL else \
            [(Way(BLIND, lambda blurry, sharp: plain(blurry)), "")]
    loaded = load_deblurrer(model)
    if isinstance(loaded, EvenOddDeblurrer) and loaded.config.views > 1:
        return [(ways(load_deblurrer(model, count))[0], word)
                for word, count in measured_views(loaded.config.views).items()]
    return [(way, "") for way in ways(loaded)]


def _films(way: Way, store: ClipStore, scores: ClipScores, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """(place, uint8 [T, H, W, 3]) of the shown clips, turned the way that scored, large ones made smaller."""
    for place in shown_places(len(scores.indices), count):
        clip = torch.from_numpy(store.read(int(scores.indices[place]))).permute(0, 3, 1, 2)[None].float() / 255
        with torch.inference_mode():
            frames = way.predict(clip[:, 0], clip[:, 1:])[0].nan_to_num(0).clamp(0, 1)
        frames = frames.flip(0) if scores.reversed[place] else frames
        yield int(place), shrink(frames.mul(255).round().byte().permute(0, 2, 3, 1).numpy())
