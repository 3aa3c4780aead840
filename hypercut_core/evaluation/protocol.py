"""The blind protocol: a model gets the blurry image alone and is scored on all T sharp frames.

Reversing a sequence leaves its blur unchanged, so the paper scores the better of the two directions:

    pPSNR = max( mean_t PSNR(y_t, x_t), mean_t PSNR(y_{T+1-t}, x_t) )

The direction is chosen ONCE PER SEQUENCE, by mean PSNR, and the per-frame figures, pSSIM, pLPIPS and the error
of the recovered motion follow that choice. Frames are numbered by the truth, so the figures do not change when
a prediction is reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.exposure import average
from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.errors import BadCheckpoint
from hypercut_core.evaluation.image_quality import psnr, quantise, ssim
from hypercut_core.evaluation.lpips import Lpips
from hypercut_core.progress import Progress

Predict = Callable[[Tensor], Tensor]
Given = Callable[[Tensor, Tensor], Tensor]
PIXELS_AT_ONCE = 2**20  # pixels of blurry images in one batch: a single 720p clip, or 256 clips of 64 px


class Record(Protocol):
    """What the protocol reads of a clip's record."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def response(self) -> str: ...


class Clips(Protocol):
    """What the protocol reads of a clip store (`hypercut_core.clips.store.ClipStore`)."""

    @property
    def records(self) -> Sequence[Any]: ...
    @property
    def frames(self) -> int: ...
    def read(self, i: int) -> np.ndarray: ...  # uint8 [T+1, H, W, 3], the blurry image first


@dataclass
class ClipScores:
    """Scores of one predictor, a row a clip, in the order of the indices it was given (N clips, T frames)."""

    name: str
    indices: np.ndarray  # [N] rows of the store
    forward: np.ndarray  # [N, T] PSNR of the prediction against the truth in stored order, dB
    backward: np.ndarray  # [N, T] PSNR of the reversed prediction against the truth, dB
    ssim: np.ndarray  # [N, T] SSIM in the chosen direction
    reblur: np.ndarray  # [N] PSNR of the mean of the 8-bit predictions against the blurry image, dB
    agreement: np.ndarray  # [N] cosine between the odd parts of prediction and truth, -1..1
    odd_strength: np.ndarray  # [N] length of the predicted odd part over the true one; 0 hedges both ways
    finite: np.ndarray  # [N] bool: the prediction held no inf or nan
    directions: dict[str, np.ndarray] = field(default_factory=dict)  # order -> [N] +1, -1, 0 unknown
    # measured on request only:
    lpips: np.ndarray | None = None  # [N, T] LPIPS in the chosen direction, nan where the clip is too small
    motion_error: np.ndarray | None = None  # [N] end-point error of the recovered motion, px

    @property
    def reversed(self) -> np.ndarray:
        """[N] bool: the direction that pPSNR chose is against the stored order."""
        return self.backward.mean(1) > self.forward.mean(1)

    @property
    def ppsnr(self) -> np.ndarray:
        """[N, T] PSNR per true frame in the better direction."""
        return np.where(self.reversed[:, None], self.backward, self.forward)

    def canonical(self, order: str) -> np.ndarray:
        """[N, T] PSNR against the sequence turned as `order` says; nan where it says nothing."""
        direction = self.directions[order][:, None]
        ahead = np.where(direction > 0, self.forward, self.backward)
        return np.where(direction == 0, np.nan, ahead)

    def order_agreement(self, order: str) -> float:
        """Share of clips with <D_predicted, direction * D_true> > 0: how predictable the order is from blur.

        Clips that `order` says nothing about are left out; nan if none is left.
        """
        direction = self.directions[order]
        known = direction != 0
        return float(np.mean(self.agreement[known] * direction[known] > 0)) if known.any() else float("nan")


def repeat_blurry(frames: int) -> Predict:
    """The trivial answer: the blurry image `frames` times; `[B, 3, H, W]` -> `[B, T, 3, H, W]`."""
    return lambda blurry: blurry[:, None].expand(-1, frames, -1, -1, -1)


def odd_part(sequence: Tensor) -> Tensor:
    """D_k = (x_k - x_{T+1-k}) / 2 of the first half; `[B, T, 3, H, W]` -> `[B, (T-1)/2, 3, H, W]`."""
    half = sequence.shape[1] // 2
    return (sequence[:, :half] - sequence.flip(1)[:, :half]) / 2


def motion_error(prediction: Tensor, sharp: Tensor) -> Tensor:
    """End-point error of the recovered motion: mean length of the difference between the optical flow from the
    first to the last predicted frame and that from the first to the last true frame.

    Both flows are measured with `optical_flow`, so it is 0 for the truth, and the mean true motion for frames
    that do not move.

    Args:
        prediction, sharp: `[B, T, 3, H, W]` in [0, 1], in the same direction of time.
    Returns:
        `[B]` px.
    """
    made, true = (optical_flow(frames[:, 0], frames[:, -1]) for frames in (prediction, sharp))
    return (made - true).norm(dim=1).double().mean((1, 2))


def _lpips_of(chosen: Tensor, sharp: Tensor, lpips: Lpips) -> Tensor:
    """[B, T], a frame at a time: features take far more memory than frames."""
    if min(sharp.shape[-2:]) < lpips.smallest:
        return sharp.new_full(sharp.shape[:2], float("nan"))
    return torch.stack([lpips(chosen[:, t], sharp[:, t]) for t in range(sharp.shape[1])], dim=1)


def score_batch(prediction: Tensor, sharp: Tensor, blurry: Tensor, response: str, *, lpips: Lpips | None = None,
                motion: bool = False) -> dict[str, np.ndarray]:
    """Scores of one batch: the arrays of `ClipScores`, a row a clip.

    Args:
        prediction, sharp: `[B, T, 3, H, W]` in [0, 1] (the prediction is clamped and rounded to 8 bits).
        blurry: `[B, 3, H, W]` in [0, 1].
        response: the curve that the blur was averaged in.
        lpips: measure LPIPS too, with this network.
        motion: measure the error of the recovered motion too.
    """
    finite = torch.isfinite(prediction).flatten(1).all(1)
    prediction = quantise(torch.nan_to_num(prediction.float(), nan=0.0, posinf=1.0, neginf=0.0))
    forward, backward = psnr(prediction, sharp), psnr(prediction.flip(1), sharp)
    against = backward.mean(1) > forward.mean(1)
    chosen = torch.where(against.view(-1, 1, 1, 1, 1), prediction.flip(1), prediction)
    similar = torch.stack([ssim(chosen[:, t], sharp[:, t]) for t in range(sharp.shape[1])], dim=1)
    made, true = odd_part(prediction).flatten(1).double(), odd_part(sharp).flatten(1).double()
    made_length, true_length = made.norm(dim=1), true.norm(dim=1)
    scores = {
        "forward": forward, "backward": backward, "ssim": similar,
        "reblur": psnr(average(chosen, response), blurry),  # not `prediction`: the order of a sum changes its last bit
        "agreement": (made * true).sum(1) / (made_length * true_length).clamp_min(1e-12),
        "odd_strength": made_length / true_length.clamp_min(1e-12),
        "finite": finite,
    }
    if lpips is not None:
        scores["lpips"] = _lpips_of(chosen, sharp, lpips)
    if motion:
        scores["motion_error"] = motion_error(chosen, sharp)
    return {key: value.cpu().numpy() for key, value in scores.items()}


def evaluate_clips(predict: Predict | None, store: Clips, indices: np.ndarray, *,
                   directions: np.ndarray | Mapping[str, np.ndarray] | None = None, batch: int = 32,
                   name: str = "model", device: str = "cpu", given: Given | None = None,
                   lpips: Lpips | None = None, motion: bool = False) -> ClipScores:
    """Score `predict` on clips of a store, in batches of one size, with bounded memory.

    Args:
        predict: `[B, 3, H, W]` in [0, 1] -> `[B, T, 3, H, W]`, not necessarily clamped.
        indices: [N] rows of the store.
        directions: [N] of +1 (stored order), -1 (reversed), 0 (unknown) for each order by name; a plain
            array is taken for the order named "order".
        batch: most clips at once (fewer when they are large).
        given: in place of `predict`, what is also given the true frames: `[B, 3, H, W]`, `[B, T, 3, H, W]` ->
            `[B, T, 3, H, W]`. Its scores are not blind (`protocol_names.py`).
        lpips, motion: what is measured on request; see `score_batch`.
    Raises:
        BadCheckpoint: the model gives another number or size of frames than the clips have.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if directions is not None and not isinstance(directions, Mapping):
        directions = {"order": directions}
    rows: dict[str, np.ndarray] = {}
    with Progress(f"evaluate {name}", len(indices)) as progress, torch.inference_mode():
        for places in same_size_batches(store, indices, batch):
            clips = torch.from_numpy(np.stack([store.read(int(i)) for i in indices[places]])).to(device)
            clips = clips.permute(0, 1, 4, 2, 3).float() / 255
            blurry, sharp = clips[:, 0], clips[:, 1:]
            prediction = given(blurry, sharp) if given is not None else predict(blurry)  # type: ignore[misc]
            if prediction.shape != sharp.shape:
                raise BadCheckpoint(f"the model gives {_shape(prediction)} for clips of {_shape(sharp)}",
                                    where=name, remedy="train it on clips with the same number of frames")
            response = store.records[int(indices[places[0]])].response
            scores = score_batch(prediction, sharp, blurry, response, lpips=lpips, motion=motion)
            for key, value in scores.items():
                rows.setdefault(key, np.zeros((len(indices), *value.shape[1:]), value.dtype))[places] = value
            progress.advance(len(places))
    if not rows:
        raise ValueError("no clips to evaluate")
    orders = {key: np.asarray(value).astype(np.int8) for key, value in (directions or {}).items()}
    if any(value.shape != indices.shape for value in orders.values()):
        raise ValueError("directions must have one entry per clip")
    return ClipScores(name=name, indices=indices, directions=orders, **rows)


def same_size_batches(store: Clips, indices: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Positions in `indices`, grouped by size and response, at most `batch` clips and `PIXELS_AT_ONCE`."""
    groups: dict[tuple[int, int, str], list[int]] = {}
    for place, i in enumerate(indices):
        record = store.records[int(i)]
        groups.setdefault((record.height, record.width, record.response), []).append(place)
    for (height, width, _), places in sorted(groups.items()):
        step = max(1, min(batch, PIXELS_AT_ONCE // (height * width)))
        for start in range(0, len(places), step):
            yield np.array(places[start:start + step])


def summarise(scores: ClipScores, trivial: ClipScores | None = None) -> dict:
    """Means over the clips as plain numbers for a metrics file (dB, SSIM, shares).

    `gain` is mean pPSNR above `trivial` (the same clips), with a 95 % interval over clips; `ends` the mean of
    frames 1 and T.
    """
    per_frame = scores.ppsnr.mean(0)
    summary: dict = {
        "clips": len(scores.indices),
        "ppsnr": float(per_frame.mean()),
        "ppsnr_frames": [float(value) for value in per_frame],
        "ends": float(per_frame[[0, -1]].mean()),
        "middle": float(per_frame[len(per_frame) // 2]),
        "pssim": float(scores.ssim.mean()),
        "pssim_frames": [float(value) for value in scores.ssim.mean(0)],
        "reblur": float(scores.reblur.mean()),
        "odd_strength": float(scores.odd_strength.mean()),
        "not_finite": int((~scores.finite).sum()),
        "canonical": {order: float(np.nanmean(scores.canonical(order))) if value.any() else None
                      for order, value in scores.directions.items()},
        "agreement": {order: scores.order_agreement(order) if value.any() else None
                      for order, value in scores.directions.items()},
    }
    if scores.lpips is not None and np.isfinite(scores.lpips).any():
        summary["plpips"] = float(np.nanmean(scores.lpips))
        summary["plpips_frames"] = [float(value) for value in np.nanmean(scores.lpips, 0)]
    if scores.motion_error is not None:
        summary["motion_error"] = float(scores.motion_error.mean())
    if trivial is not None:
        gain = scores.ppsnr.mean(1) - trivial.ppsnr.mean(1)
        summary["gain"] = float(gain.mean())
        half = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
        summary["gain_interval"] = [summary["gain"] - half, summary["gain"] + half]
        summary["gain_ends"] = summary["ends"] - float(trivial.ppsnr.mean(0)[[0, -1]].mean())
        summary["worse_than_trivial"] = int((gain < 0).sum())
    return summary


def _shape(sequence: Tensor) -> str:
    if sequence.ndim != 5:
        return f"an array of shape {tuple(sequence.shape)}"
    return f"{sequence.shape[1]} frames of {sequence.shape[4]} x {sequence.shape[3]} px"
