"""The order table: which direction of each clip is the canonical one.

Computed on whole, un-augmented clips, once for each of the eight dihedral transforms: a mirrored clip has
an order of its own, and a training that mirrors clips must know it. Same encoder, same clips: same bytes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from hypercut_core.clips.dihedral import DIHEDRAL, QUARTER, apply_dihedral
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadClipStore
from hypercut_core.files import atomic_file
from hypercut_core.ordering.encoder import both_scores, pair_scores
from hypercut_core.progress import Progress

AT_ONCE = 32  # clips in memory
COLUMNS = ("clip_id", "direction", "score", "margin", "agree", "directions8")
SCORES8 = "scores8"  # tables of earlier versions lack it


@dataclass(frozen=True)
class OrderTable:
    """One row a clip, in the order of the store's records."""

    clip_ids: list[str]
    direction: np.ndarray  # int8 [n]: +1 keep, -1 reverse
    score: np.ndarray  # float32 [n]: u_1, of the pair that is farthest apart; negative: keep
    margin: np.ndarray  # float32 [n]: |score|, the distance from the seam
    agree: np.ndarray  # bool [n]: do all pairs say the same
    directions8: np.ndarray  # int8 [n, 8]: direction of the clip under each dihedral code
    scores8: np.ndarray | None = None  # float32 [n, 8]: u_1 of the clip under each dihedral code

    def for_clips(self, store: ClipStore, indices: np.ndarray) -> np.ndarray:
        """directions8 of the store's clips `indices`, int8 [len, 8].

        Raises:
            BadClipStore: the table lacks one of the clips: it was made from another store.
        """
        return self.directions8[self._rows(store, indices)]

    def axes_for_clips(self, store: ClipStore, indices: np.ndarray) -> np.ndarray:
        """Directions along two axes at right angles, float32 [len, 8, 2], for each dihedral code.

        With u_j the score of the clip turned by j quarters, it is (u_2 - u_0, u_3 - u_1), brought to length 1.
        Half a turn reverses the motion and a quarter moves it to the other axis, so this is a point on the
        circle that goes round with the clip: the angle of the motion, up to the encoder's own zero.

        Raises:
            BadClipStore: the table lacks one of the clips, or was made by a version that kept no scores.
        """
        if self.scores8 is None:
            raise BadClipStore("the order table holds no scores of mirrored and turned clips",
                               where="orders.parquet", remedy="run 'hypercut assign-order' again")
        scores = self.scores8[self._rows(store, indices)]
        turned = [np.arange(DIHEDRAL)]
        for _ in range(3):
            turned.append(np.array(QUARTER)[turned[-1]])
        u = [scores[:, codes] for codes in turned]
        both = np.stack([u[2] - u[0], u[3] - u[1]], -1)
        size = np.linalg.norm(both, axis=-1, keepdims=True)
        return np.where(size > 0, both / np.maximum(size, 1e-30), np.float32(0.5**0.5)).astype(np.float32)

    def _rows(self, store: ClipStore, indices: np.ndarray) -> list[int]:
        rows = {clip: row for row, clip in enumerate(self.clip_ids)}
        try:
            return [rows[store.records[int(i)].clip_id] for i in indices]
        except KeyError as error:
            raise BadClipStore(f"the order table has no row for clip {error}", where="orders.parquet",
                               remedy="run 'hypercut assign-order' on this clip store") from error


def clip_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).float().div_(255)


@torch.no_grad()
def score_clips(encoder: nn.Module, store: ClipStore, indices: np.ndarray, label: str = "scoring clips"
                ) -> tuple[Tensor, Tensor]:
    """Scores u and v, each (N, T//2), of whole clips, one clip at a time: a clip's score must not depend on
    its neighbours in a batch, not even in the last bit."""
    forward, swapped = [], []
    with Progress(label, len(indices)) as progress:
        for index in indices:
            u, v = both_scores(encoder, clip_tensor(store.read(int(index))[1:])[None])
            forward.append(u)
            swapped.append(v)
            progress.advance()
    return torch.cat(forward), torch.cat(swapped)


def assign_orders(encoder: nn.Module, store: ClipStore, encoder_device: str = "cpu", threads: int = 1
                  ) -> OrderTable:
    """Order of every clip of the store. The first pair (x_1, x_T) decides: u_1 <= 0 keeps, else reverses;
    the other pairs say whether they agree.

    Args:
        threads: clips in work at once; the table does not depend on it.
    """
    encoder = encoder.to(encoder_device)

    @torch.no_grad()
    def scores_of(pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        sharp = clip_tensor(pixels[1:]).to(encoder_device)
        u = pair_scores(encoder, sharp[None])[0].cpu()
        turned = _views_scores(encoder, sharp[[0, -1]]).cpu()
        turned[0] = u[0]
        return u, turned

    found: list[tuple[Tensor, Tensor]] = []
    with Progress("ordering clips", len(store)) as progress, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(store), AT_ONCE):
            clips = [store.read(index) for index in range(start, min(start + AT_ONCE, len(store)))]
            found += pool.map(scores_of, clips)
            progress.advance(len(clips))
    score = np.array([float(u[0]) for u, _ in found], np.float32)
    agree = np.array([bool(((u > 0) == (u[0] > 0)).all()) for u, _ in found], bool)
    scores8 = np.array([turned.numpy() for _, turned in found], np.float32).reshape(-1, DIHEDRAL)
    eight = np.where(scores8 <= 0, 1, -1).astype(np.int8)
    return OrderTable([r.clip_id for r in store.records], eight[:, 0], score, np.abs(score), agree, eight, scores8)


def _views_scores(encoder: nn.Module, ends: Tensor) -> Tensor:
    """u_1 under the eight dihedral codes, (8,): `ends` are the first and last frame, (2, 3, H, W)."""
    upright = torch.stack([apply_dihedral(ends, code) for code in range(4)])
    turned = torch.stack([apply_dihedral(ends, code) for code in range(4, DIHEDRAL)])
    if upright.shape == turned.shape:
        return pair_scores(encoder, torch.cat([upright, turned]))[:, 0]
    return torch.cat([pair_scores(encoder, upright)[:, 0], pair_scores(encoder, turned)[:, 0]])


def write_orders(path: str | os.PathLike[str], table: OrderTable) -> None:
    """Write the table as Parquet."""
    eight = pa.FixedSizeListArray.from_arrays(pa.array(table.directions8.reshape(-1), pa.int8()), DIHEDRAL)
    columns = [pa.array(table.clip_ids, pa.string()), pa.array(table.direction, pa.int8()),
               pa.array(table.score, pa.float32()), pa.array(table.margin, pa.float32()),
               pa.array(table.agree, pa.bool_()), eight]
    names = list(COLUMNS)
    if table.scores8 is not None:
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(table.scores8.reshape(-1), pa.float32()), DIHEDRAL))
        names.append(SCORES8)
    with atomic_file(path) as partial:
        pq.write_table(pa.table(columns, names=names), partial, compression="zstd")


def read_orders(path: str | os.PathLike[str]) -> OrderTable:
    """Read an order table.

    Raises:
        BadClipStore: missing, or not an order table.
    """
    cure = "run 'hypercut assign-order'"
    if not Path(path).is_file():
        raise BadClipStore("there is no order table", where=path, remedy=cure)
    try:
        named = [*COLUMNS, *(name for name in pq.read_schema(path).names if name == SCORES8)]
        table = pq.read_table(path, columns=named)
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS[1:-1]}
        eight = np.array(table["directions8"].to_pylist(), np.int8).reshape(-1, DIHEDRAL)
        scores8 = (np.array(table[SCORES8].to_pylist(), np.float32).reshape(-1, DIHEDRAL)
                   if SCORES8 in named else None)
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise BadClipStore(f"this is no order table ({error})", where=path, remedy=cure) from error
    if not np.isin(eight, (-1, 1)).all():
        raise BadClipStore("the order table holds directions other than +1 and -1", where=path, remedy=cure)
    if scores8 is not None and not np.isfinite(scores8).all():
        raise BadClipStore("the order table holds scores that are no numbers", where=path, remedy=cure)
    return OrderTable(table["clip_id"].to_pylist(), columns["direction"].astype(np.int8), columns["score"],
                      columns["margin"], columns["agree"].astype(bool), eight, scores8)
