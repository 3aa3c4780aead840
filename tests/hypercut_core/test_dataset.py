from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.blur.exposure import RESPONSES, ExposureConfig, expose, from_linear, to_linear
from hypercut_core.clips.dataset import Augmentation, Batch, ClipBatches, sample_indices
from hypercut_core.clips.defocus import out_of_focus
from hypercut_core.clips.dihedral import apply_dihedral
from hypercut_core.clips.store import ClipStore, ClipStoreWriter, Packing
from hypercut_core.errors import BadClipStore, BadParameters

STILL = Augmentation(flips=False, transposes=False, time_reversal=False)
T = 3


def make_store(path: Path, sizes: list[tuple[int, int]], split: str = "train") -> ClipStore:
    """Random pixels: no two crops, transforms or frames are alike."""
    with ClipStoreWriter(path, T, Packing(chunk=16)) as writer:
        for k, (height, width) in enumerate(sizes):
            frames = np.random.default_rng(k).integers(0, 256, (T + 1, height, width, 3), dtype=np.uint8)
            writer.add(frames, clip_id=str(k), source=str(k), split=split, category="c", motion=0.0)
    return ClipStore(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    path = tmp_path_factory.mktemp("clips") / "store"
    return make_store(path, [(20, 20), (20, 20), (23, 18), (17, 21), (20, 20)])


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return make_store(tmp_path_factory.mktemp("clips") / "square", [(12, 12)] * 5)


def same(a: Batch, b: Batch) -> bool:
    return (torch.equal(a.blurry, b.blurry) and torch.equal(a.sharp, b.sharp)
            and torch.equal(a.direction, b.direction) and np.array_equal(a.clips, b.clips))


# --- which clips

@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 20), seed=st.integers(0, 2**32), epochs=st.integers(1, 3))
def test_each_epoch_visits_each_index_once(n: int, batch: int, seed: int, epochs: int):
    steps = -(-epochs * n // batch)
    drawn = np.concatenate([sample_indices(n, batch, seed, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(drawn[epoch * n:(epoch + 1) * n]) == list(range(n))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 20), seed=st.integers(0, 2**32), step=st.integers(0, 10**9))
def test_indices_depend_on_seed_and_step_alone(n: int, batch: int, seed: int, step: int):
    first = sample_indices(n, batch, seed, step)
    sample_indices(n, batch, seed + 1, step + 5)
    np.testing.assert_array_equal(first, sample_indices(n, batch, seed, step))
    assert first.shape == (batch,)
    assert first.dtype == np.int64


def test_seeds_and_epochs_have_their_own_order():
    orders = [tuple(sample_indices(100, 100, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


# --- which pixels

@settings(max_examples=25, deadline=None)
@given(crop=st.integers(1, 17), batch=st.integers(1, 7), seed=st.integers(0, 2**32),
       step=st.integers(0, 10**6), cached=st.booleans(),
       augmentation=st.builds(Augmentation, st.booleans(), st.booleans(), st.booleans()))
def test_batches_are_stateless(store, crop, batch, seed, step, cached, augmentation):
    """Resuming at `step` gives the batch that an uninterrupted run had, with or without the cache."""
    directions = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (5, 8))
    running = ClipBatches(store, "train", batch, crop, seed, augmentation, directions)
    running(step + 3)
    running(max(0, step - 1))
    resumed = ClipBatches(store, "train", batch, crop, seed, augmentation, directions,
                          cache_bytes=2**30 if cached else 0)
    assert same(running(step), resumed(step))


def find(store: ClipStore, batch: Batch, k: int) -> tuple[int, bool]:
    """Search sample k among all crops, transforms and directions of time: (code, backward)."""
    clip = torch.from_numpy(store.read(int(batch.clips[k]))).permute(0, 3, 1, 2).float() / 255
    height, width = batch.blurry.shape[-2:]
    found = []
    for code in range(8):
        high, wide = (width, height) if code & 4 else (height, width)
        for top in range(clip.shape[2] - high + 1):
            for left in range(clip.shape[3] - wide + 1):
                view = apply_dihedral(clip[:, :, top:top + high, left:left + wide], code)
                if torch.equal(view[0], batch.blurry[k]):
                    backward = not torch.equal(view[1:], batch.sharp[k])
                    assert torch.equal(view[1:].flip(0) if backward else view[1:], batch.sharp[k])
                    found.append((code, backward))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("augmentation", [Augmentation(), STILL, Augmentation(transposes=False),
                                          Augmentation(flips=False), Augmentation(time_reversal=False)])
def test_every_sample_is_one_crop_of_its_clip(store: ClipStore, augmentation: Augmentation):
    """The blurry image and all frames share one crop and transform; only the frames are reversed."""
    directions = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (5, 8))
    batches = ClipBatches(store, "train", 5, 16, 7, augmentation, directions)
    codes, reversals = set(), set()
    for step in range(14):
        batch = batches(step)
        assert batch.blurry.shape == (5, 3, 16, 16)
        assert batch.sharp.shape == (5, T, 3, 16, 16)
        assert batch.direction.dtype == batch.blurry.dtype == torch.float32
        for k in range(5):
            code, backward = find(store, batch, k)
            codes.add(code)
            reversals.add(backward)
            # directions8: the code's own column, negated where time runs backward
            assert batch.direction[k] == directions[batch.clips[k], code] * (-1 if backward else 1)
    allowed = {code for code in range(8) if (augmentation.flips or not code & 3)
               and (augmentation.transposes or not code & 4)}
    assert codes == allowed
    assert reversals == ({False, True} if augmentation.time_reversal else {False})


# --- out of focus

def test_without_defocus_nothing_else_is_drawn_anew(square: ClipStore):
    """Clips that stay as they are have the crop, transform and direction that they had without defocus."""
    plain = ClipBatches(square, "train", 20, 11, 3)
    some = ClipBatches(square, "train", 20, 11, 3, Augmentation(defocus=0.5))
    kept = []
    for step in range(5):
        before, after = plain(step), some(step)
        alike = [torch.equal(before.sharp[k], after.sharp[k]) for k in range(20)]
        assert alike == [torch.equal(before.blurry[k], after.blurry[k]) for k in range(20)]
        kept += alike
    assert 0.3 < np.mean(kept) < 0.7


def test_parts_of_a_batch_out_of_focus_are_the_whole(square: ClipStore):
    batches = ClipBatches(square, "train", 10, 11, 3, Augmentation(defocus=0.7))
    whole, first, last = batches(4), batches(4, range(4)), batches(4, range(4, 10))
    assert torch.equal(torch.cat([first.sharp, last.sharp]), whole.sharp)
    assert torch.equal(torch.cat([first.blurry, last.blurry]), whole.blurry)


def test_half_precision_leaves_the_clips_alone(square: ClipStore):
    """A training in bf16 reads its batches inside autocast, and its checks read them outside."""
    batches = ClipBatches(square, "train", 5, 11, 3, Augmentation(defocus=1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = batches(0)
    assert inside.sharp.dtype == torch.float32
    assert same(inside, batches(0))


@pytest.mark.parametrize("response", RESPONSES)
def test_a_clip_out_of_focus_is_still_the_mean_of_its_frames(tmp_path: Path, response: str):
    """G(mean x_k) = mean G(x_k) in the clip's own light, up to what its 8 bits had lost."""
    frames = np.random.default_rng(0).integers(0, 256, (T, 24, 24, 3), dtype=np.uint8)
    blurry = expose(frames, ExposureConfig(response), np.random.default_rng(0))
    with ClipStoreWriter(tmp_path / "clips", T) as writer:
        writer.add(np.concatenate([blurry[None], frames]), clip_id="0", source="0", split="train", category="c",
                   motion=1.0, response=response)
    store = ClipStore(tmp_path / "clips")
    batch = ClipBatches(store, "train", 4, 16, 0, Augmentation(defocus=1.0))(0)
    crisp = ClipBatches(store, "train", 4, 16, 0)(0)
    mean = from_linear(to_linear(batch.sharp, response).mean(1), response)
    assert (mean - batch.blurry).abs().max() < 1 / 255
    assert (batch.sharp.diff(dim=-1).abs().mean((1, 2, 3, 4)) < crisp.sharp.diff(dim=-1).abs().mean((1, 2, 3, 4))).all()


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(0.3, 6), height=st.integers(4, 40), width=st.integers(4, 40), level=st.floats(0, 1))
def test_defocus_spreads_light_as_far_as_it_says(sigma: float, height: int, width: int, level: float):
    """A flat image stays; a point becomes a spot of that width whose light is the same."""
    flat = torch.full((2, 3, height, width), level, dtype=torch.float64)
    torch.testing.assert_close(out_of_focus(flat, sigma), flat, atol=1e-6, rtol=0)
    point = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    point[..., 30, 30] = 1
    spot = out_of_focus(point, sigma, "none")[0, 0]
    assert float(spot.sum()) == pytest.approx(1, abs=1e-9)
    x = torch.arange(61, dtype=torch.float64) - 30
    variance = float((spot.sum(0) * x**2).sum())
    if sigma >= 1:  # below, the pixels are too coarse for the Gaussian
        assert variance == pytest.approx(sigma**2, rel=0.05)
    torch.testing.assert_close(spot, spot.flip(0), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("share", "most"), [(-0.1, 2.0), (1.1, 2.0), (0.5, 0.0), (0.5, 1e9), (float("nan"), 2.0)])
def test_a_senseless_defocus_is_refused(square: ClipStore, share: float, most: float):
    with pytest.raises(BadParameters, match="defocus"):
        ClipBatches(square, "train", 5, 8, 0, Augmentation(defocus=share, defocus_px=most))


def test_crops_reach_every_corner(square: ClipStore):
    batches = ClipBatches(square, "train", 5, 11, 0, STILL)
    clip = {k: torch.from_numpy(square.read(k)[0]).permute(2, 0, 1).float() / 255 for k in range(5)}
    seen = set()
    for step in range(20):
        batch = batches(step)
        for image, index in zip(batch.blurry, batch.clips, strict=True):
            seen |= {(top, left) for top in (0, 1) for left in (0, 1)
                     if torch.equal(clip[int(index)][:, top:top + 11, left:left + 11], image)}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_unknown_direction_is_zero(square: ClipStore):
    assert ClipBatches(square, "train", 5, 8, 0)(0).direction.tolist() == [0.0] * 5


def test_directions_follow_the_order_of_the_split(tmp_path: Path):
    """directions[k] belongs to store.indices(split)[k], not to clip k of the store."""
    with ClipStoreWriter(tmp_path / "clips", T) as writer:
        for k in range(6):
            writer.add(np.full((T + 1, 8, 8, 3), k, np.uint8), clip_id=str(k), source=str(k),
                       split=("test", "train")[k % 2], category="c", motion=0.0)
    store = ClipStore(tmp_path / "clips")
    directions = np.repeat(np.array([[1], [-1], [-1]], np.int8), 8, axis=1)
    batch = ClipBatches(store, "train", 3, 8, 0, Augmentation(time_reversal=False), directions)(0)
    assert dict(zip(batch.clips.tolist(), batch.direction.tolist(), strict=True)) == {1: 1, 3: -1, 5: -1}
    assert (batch.blurry[:, 0, 0, 0] * 255).round().tolist() == batch.clips.tolist()


def test_whole_clips(tmp_path: Path):
    store = make_store(tmp_path / "wide", [(10, 16)] * 3)
    batch = ClipBatches(store, "train", 3, 0, 0)(0)  # transposes would not fit and are left out
    assert batch.sharp.shape == (3, T, 3, 10, 16)
    still = ClipBatches(store, "train", 3, 0, 0, STILL)(0)
    for k, clip in enumerate(still.clips):
        assert torch.equal(still.blurry[k], torch.from_numpy(store.read(int(clip))[0]).permute(2, 0, 1) / 255)


def test_cache_keeps_within_its_bounds(square: ClipStore):
    size = square.read(0).nbytes
    batches = ClipBatches(square, "train", 5, 8, 0, cache_bytes=2 * size + size // 2)
    for step in range(4):
        batches(step)
    assert sum(clip.nbytes for clip in batches._cache.values()) == 2 * size


def test_refusals(store: ClipStore, square: ClipStore):
    with pytest.raises(BadClipStore, match="no clips of split 'val'"):
        ClipBatches(square, "val", 2, 8, 0)
    with pytest.raises(BadClipStore, match=r"17x21, smaller than the crop of 18.*training's crop"):
        ClipBatches(store, "train", 2, 18, 0)
    with pytest.raises(BadClipStore, match="several sizes"):
        ClipBatches(store, "train", 2, 0, 0)
    with pytest.raises(BadClipStore, match="assign-order"):
        ClipBatches(square, "train", 2, 8, 0, directions=np.ones((4, 8), np.int8))


# --- transforms

@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6))
def test_dihedral_codes(height: int, width: int):
    image = torch.arange(height * width).reshape(1, height, width)
    plain = image[0].numpy()
    for code in range(8):
        expected = plain.T if code & 4 else plain
        expected = expected[::-1] if code & 2 else expected
        expected = expected[:, ::-1] if code & 1 else expected
        np.testing.assert_array_equal(apply_dihedral(image, code)[0].numpy(), expected)


def test_dihedral_transforms_are_eight_and_a_group():
    image = torch.arange(12).reshape(3, 4)[:3, :3].contiguous()
    results = [apply_dihedral(image, code) for code in range(8)]
    assert len({tuple(result.flatten().tolist()) for result in results}) == 8
    for first in results:
        for code in range(8):
            assert any(torch.equal(apply_dihedral(first, code), result) for result in results)


def test_different_seeds_differ():
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "clips", [(16, 16)] * 3)
        one, two = (ClipBatches(store, "train", 4, 8, seed)(0) for seed in (0, 1))
        assert not torch.equal(one.blurry, two.blurry)
