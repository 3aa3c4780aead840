"""Batches of clips for training: random crops, the eight flips and transposes, time reversal, lack of focus.

Nothing here has a state: batch `step` of seed `seed` is always the same, so a training that
resumes at step n needs only n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hypercut_core.clips.defocus import out_of_focus
from hypercut_core.clips.dihedral import DIHEDRAL
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadClipStore, BadParameters

DEFOCUS_MIN, DEFOCUS_MAX = 0.3, 100.0  # px; less is not seen


@dataclass(frozen=True)
class Augmentation:
    flips: bool = True  # mirror left-right and up-down, each at even odds
    transposes: bool = True  # swap height and width at even odds
    time_reversal: bool = True  # reverse the sharp frames at even odds; the blurry image stays
    defocus: float = 0.0  # share of the clips that are put out of focus, blurry image and sharp frames alike
    defocus_px: float = 4.0  # most defocus, as the standard deviation of a Gaussian, px


@dataclass(frozen=True)
class Batch:
    """Pixels are float32 in [0, 1]."""

    blurry: Tensor  # [B, 3, h, w]
    sharp: Tensor  # [B, T, 3, h, w]
    direction: Tensor  # float32 [B]: +1 the order table would keep this sequence, -1 reverse it, 0 unknown;
    #                    [B, 2] where `directions` are given along two axes
    clips: np.ndarray  # int64 [B], the store's indices
    places: np.ndarray  # int64 [B], where each clip stands in the batch of all workers


def sample_indices(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Positions 0..n-1 of batch `step`, int64 [batch].

    The batches are cut from one endless sequence of epochs, each of which visits every position
    once in an order of its own; a batch may run across an epoch's end.
    """
    places = step * batch + np.arange(batch)
    orders = {int(epoch): _epoch_order(n, seed, int(epoch)) for epoch in np.unique(places // n)}
    return np.array([orders[int(place // n)][place % n] for place in places], dtype=np.int64)


@lru_cache(maxsize=8)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, 1, epoch]).permutation(n)
    order.flags.writeable = False
    return order


class ClipBatches:
    """Augmented batches of one split; `batches(step)` depends on seed and step alone.

    `batches(step, places)` reads the clips at some places of the same batch: parts put together are the whole.

    Args:
        store: the clips.
        split: "train", "val" or "test".
        batch: clips in a batch.
        crop: side of the square crop in px; 0 takes whole clips, which must then be of one size.
        seed: at least 0.
        augmentation: which random transforms are on.
        directions: int8 [n, 8], of the split's clips in the order of `store.indices(split)`: for each
            dihedral code, +1 if the order table keeps the transformed clip, -1 if it reverses it.
            Or float32 [n, 8, 2]: along two axes, each from -1 to 1.
        device: where the batches are wanted.
        cache_bytes: decoded clips are kept in memory up to this size.

    Raises:
        BadClipStore: the split is empty, or its clips are smaller than `crop` or of several sizes.
        BadParameters: a defocus out of range.
    """

    def __init__(self, store: ClipStore, split: str, batch: int, crop: int, seed: int,
                 augmentation: Augmentation | None = None, directions: np.ndarray | None = None,
                 device: str | torch.device = "cpu", cache_bytes: int = 2**30):
        self.store, self.batch, self.crop, self.seed = store, batch, crop, seed
        self.augmentation = augmentation or Augmentation()
        self.device = torch.device(device)
        self.clips = store.indices(split)
        self.sizes = np.stack([store.records.numbers(side)[self.clips] for side in ("height", "width")], 1)
        self._check(split, directions)
        self.directions = directions
        self._cache: dict[int, np.ndarray] = {}
        self._room = cache_bytes

    def __call__(self, step: int, places: range | None = None) -> Batch:
        part = np.arange(self.batch) if places is None else np.array(places, dtype=np.int64)
        at, corners, codes, backward = self._draw(step, part)
        height, width = self._crop_size()
        if self.store.far:
            self._fetch_ahead(at, corners)
            self._fetch_ahead(*self._draw(step + 1, part)[:2])  # while this one is decoded and trained on
        pixels = np.empty((len(part), self.store.frames + 1, 3, height, width), np.uint8)
        for k, position in enumerate(at):
            top, left = corners[k].tolist()
            clip = self._read(int(self.clips[position]), top, left, height, width)
            _place(clip, int(codes[k]), bool(backward[k]), pixels[k])
        known = np.zeros(len(part)) if self.directions is None else self.directions[at, codes]
        turned = 1 - 2 * backward.reshape(-1, *[1] * (known.ndim - 1))
        direction = torch.from_numpy((known * turned).astype(np.float32))
        values = torch.from_numpy(pixels).to(self.device).float().div_(255)
        for k, sigma in enumerate(self._sigmas(step)[part].tolist()):
            if sigma:  # one by one: the parts of a batch put together must be the whole to the last bit
                response = self.store.records[int(self.clips[at[k]])].response
                values[k] = out_of_focus(values[k], sigma, response)
        return Batch(values[:, 0], values[:, 1:], direction.to(self.device), self.clips[at], part)

    def _draw(self, step: int, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions, corners, dihedral codes and directions of some places of a batch, drawn for all of it."""
        at = sample_indices(len(self.clips), self.batch, self.seed, step)
        rng = np.random.default_rng([self.seed, 2, step])
        height, width = self._crop_size()
        corners = rng.integers(0, self.sizes[at] - (height, width) + 1)
        codes = self._codes(rng, square=height == width)
        backward = rng.integers(0, 2, self.batch) * self.augmentation.time_reversal
        return at[part], corners[part], codes[part], backward[part]

    def _sigmas(self, step: int) -> np.ndarray:
        """Defocus of each clip of a batch, float64 [batch], px; 0 leaves it as it is."""
        rng = np.random.default_rng([self.seed, 4, step])  # 3 is that of ordering/recolour.py
        spread = rng.uniform(DEFOCUS_MIN, self.augmentation.defocus_px, self.batch)
        return spread * (rng.random(self.batch) < self.augmentation.defocus)

    def _crop_size(self) -> tuple[int, int]:
        return (self.crop, self.crop) if self.crop else tuple(self.sizes[0].tolist())

    def _fetch_ahead(self, at: np.ndarray, corners: np.ndarray) -> None:
        crops = []
        for clip, (top, left) in zip(self.clips[at].tolist(), corners.tolist(), strict=True):
            if clip not in self._cache:
                record, whole = self.store.records[clip], self._bytes(clip) <= self._room
                crops.append((clip, 0, 0, record.height, record.width) if whole
                             else (clip, top, left, *self._crop_size()))
        self.store.prefetch(crops)

    def _codes(self, rng: np.random.Generator, square: bool) -> np.ndarray:
        drawn = rng.integers(0, DIHEDRAL, self.batch)
        allowed = 3 * self.augmentation.flips + 4 * (self.augmentation.transposes and square)
        return drawn & allowed

    def _read(self, clip: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        whole = self._cache.get(clip)
        if whole is None:
            size = self._bytes(clip)
            if size > self._room:
                return self.store.read_crop(clip, top, left, height, width)
            self._room -= size
            whole = self._cache[clip] = self.store.read(clip)
        return whole[:, top:top + height, left:left + width]

    def _bytes(self, clip: int) -> int:
        record = self.store.records[clip]
        return (record.frames + 1) * record.height * record.width * 3

    def _check(self, split: str, directions: np.ndarray | None) -> None:
        if not len(self.clips):
            raise BadClipStore(f"the store holds no clips of split '{split}'", where=self.store.path,
                               remedy="run synthesize-blur with more footage sources or more clips")
        small = (self.sizes < self.crop).any(axis=1)
        if small.any():
            record = self.store.records[self.clips[small.argmax()]]
            raise BadClipStore(f"clip '{record.clip_id}' is {record.height}x{record.width}, smaller than the "
                               f"crop of {self.crop}", where=self.store.path,
                               remedy="set the training's crop to a smaller number, or make larger clips")
        if not self.crop and (self.sizes != self.sizes[0]).any():
            raise BadClipStore("whole clips were asked for (crop 0) and they are of several sizes",
                               where=self.store.path, remedy="set the training's crop above 0")
        share, most = self.augmentation.defocus, self.augmentation.defocus_px
        if not 0 <= share <= 1 or not DEFOCUS_MIN <= most <= DEFOCUS_MAX:
            raise BadParameters(f"defocus {share:g} and defocus_px {most:g} do not fit", where="training.augmentation",
                                remedy="set defocus to a share, 0 to 1, and defocus_px to a length, "
                                       f"{DEFOCUS_MIN} to {DEFOCUS_MAX:g} px")
        if directions is not None and directions.shape[:2] != (len(self.clips), DIHEDRAL):
            raise BadClipStore(f"directions are {list(directions.shape)}, [{len(self.clips)}, {DIHEDRAL}] "
                               f"expected for split '{split}'", where=self.store.path,
                               remedy="run assign-order again")


def _place(clip: np.ndarray, code: int, backward: bool, out: np.ndarray) -> None:
    """Write clip [T + 1, H, W, 3], transformed, to out [T + 1, 3, h, w]: views only, one copy."""
    view = clip.transpose(0, 3, 2, 1) if code & 4 else clip.transpose(0, 3, 1, 2)
    if code & 2:
        view = view[:, :, ::-1]
    if code & 1:
        view = view[..., ::-1]
    out[0] = view[0]
    out[1:] = view[:0:-1] if backward else view[1:]
