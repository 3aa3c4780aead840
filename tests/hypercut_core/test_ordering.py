import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.errors import BadCheckpoint, BadClipStore, BadParameters, TrainingCollapsed
from hypercut_core.ordering.encoder import (
    EncoderConfig,
    build_encoder,
    load_encoder,
    pair_scores,
    save_encoder,
)
from hypercut_core.ordering.labels import assign_orders, read_orders, write_orders
from hypercut_core.ordering.metrics import order_metrics
from hypercut_core.ordering.objective import check_collapse, hypercut_loss
from hypercut_core.ordering.recolour import recolour_pairs
from hypercut_core.ordering.rule import mean_motion, rule_direction

TINY = EncoderConfig(width=4, blocks=1, features=8)


@given(seed=st.integers(0, 2**31), height=st.integers(8, 40), width=st.integers(8, 40),
       batch=st.integers(1, 5), scale=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=40, deadline=None)
def test_antisymmetric_score_is_antisymmetric_to_the_last_bit(seed: int, height: int, width: int, batch: int,
                                                              scale: float) -> None:
    torch.manual_seed(seed)
    encoder = build_encoder(TINY)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(scale)
        a, b = torch.rand(2, batch, 3, height, width)
        assert torch.equal(encoder(b, a), -encoder(a, b))
        assert torch.equal(encoder(a, a), torch.zeros(batch))


def test_swapping_the_sequence_swaps_every_pair() -> None:
    encoder = build_encoder(TINY)
    frames = torch.rand(3, 7, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(pair_scores(encoder, frames.flip(1)), -pair_scores(encoder, frames))


def test_hyperplane_encoder_is_the_released_structure() -> None:
    encoder = build_encoder(EncoderConfig(kind="hyperplane"))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(2.32e6, rel=0.01)
    frozen = {name for name, _ in encoder.named_buffers()}
    assert frozen == {"normal", "offset"}  # drawn once, saved with the model, never trained
    assert encoder(torch.rand(2, 3, 256, 256), torch.rand(2, 3, 256, 256)).shape == (2,)


def test_hyperplane_encoder_multiply_adds() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder = build_encoder(EncoderConfig(kind="hyperplane"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.rand(1, 3, 256, 256), torch.rand(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 == pytest.approx(1.53e9, rel=0.05)


def test_loss_follows_the_paper() -> None:
    u = torch.tensor([[1.0, -2.0, 0.5]])
    v = torch.tensor([[-1.0, 1.0, 3.0]])
    sp = lambda z: float(torch.nn.functional.softplus(torch.tensor(z)))  # noqa: E731
    different = (sp(-1.0) + sp(-2.0) + sp(1.5)) / 3
    same = (sp(2.0) + sp(-0.5) + sp(1.0)) / 3
    assert float(hypercut_loss(u, v)) == pytest.approx(0.5 * different + 0.5 * same)
    assert torch.isfinite(hypercut_loss(u[:, :1], v[:, :1]))  # T = 3 has one pair


def test_joint_exposes_what_con_hides() -> None:
    collapsed = torch.full((10, 3), 0.3)
    figures = order_metrics(collapsed, collapsed)
    assert figures["con3"] == 1.0
    assert figures["hit"] == figures["joint3"] == 0.0
    u = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
    figures = order_metrics(u, -u)
    assert (figures["hit"], figures["con2"], figures["con3"], figures["joint3"]) == (1.0, 0.75, 0.5, 0.5)


def test_collapse_is_refused_with_a_remedy() -> None:
    with pytest.raises(TrainingCollapsed, match=r"collapsed.*kind=antisymmetric"):
        check_collapse(torch.full((4, 3), 0.5), torch.full((4, 3), 0.5))
    with pytest.raises(TrainingCollapsed):
        check_collapse(torch.full((4, 3), 1e-4), torch.full((4, 3), -1e-4))
    with pytest.raises(TrainingCollapsed):
        check_collapse(torch.full((4, 3), float("nan")), torch.full((4, 3), float("nan")))
    check_collapse(torch.ones(4, 3), -torch.ones(4, 3))


def test_encoder_survives_its_file(tmp_path: Path) -> None:
    encoder = build_encoder(TINY)
    save_encoder(tmp_path / "e.safetensors", encoder, {})
    first = (tmp_path / "e.safetensors").read_bytes()
    again = load_encoder(tmp_path / "e.safetensors")
    a, b = torch.rand(2, 1, 3, 16, 16)
    assert torch.equal(encoder(a, b), again(a, b))
    assert not any(p.requires_grad for p in again.parameters())
    save_encoder(tmp_path / "e.safetensors", again, {})
    assert (tmp_path / "e.safetensors").read_bytes() == first


def test_a_deblurrer_is_no_encoder(tmp_path: Path) -> None:
    from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
    from hypercut_core.deblurring.models import save_deblurrer

    save_deblurrer(tmp_path / "d.safetensors", EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1))), {})
    with pytest.raises(BadCheckpoint, match="even_odd"):
        load_encoder(tmp_path / "d.safetensors")


def test_hyperplane_has_one_size() -> None:
    with pytest.raises(BadParameters, match="128 features"):
        build_encoder(EncoderConfig(kind="hyperplane", features=64))


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (-1, 0), (1, 1), (-1, 1), (2, -1), (-2, -1)])
def test_the_rule_sees_where_the_picture_goes(dx: int, dy: int) -> None:
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12), size=96, mode="bicubic")
    frames = torch.stack([torch.roll(wide, (dy * k, dx * k), (2, 3))[..., 16:80, 16:80] for k in range(7)], 1)
    motion = mean_motion(frames)[0]
    assert motion[0].sign() == np.sign(dx)
    assert dy == 0 or motion[1].sign() == np.sign(dy)
    assert float(rule_direction(frames)) == np.sign(dx)
    assert float(rule_direction(frames.flip(1))) == -np.sign(dx)


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    rng = np.random.default_rng(0)
    with ClipStoreWriter(tmp_path / "clips", 5) as writer:
        for k in range(4):
            width = 20 if k < 3 else 26
            pixels = rng.integers(0, 256, (6, 20, width, 3), dtype=np.uint8)
            writer.add(pixels, clip_id=f"c{k}", source=f"s{k}", split="train", category="x", motion=1.0)
    return ClipStore(tmp_path / "clips")


@pytest.mark.parametrize("kind", ["antisymmetric", "hyperplane"])
def test_order_table_is_deterministic_and_knows_every_view(store: ClipStore, tmp_path: Path, kind: str) -> None:
    config = TINY if kind == "antisymmetric" else EncoderConfig(kind="hyperplane")
    encoder = build_encoder(config).eval()
    table = assign_orders(encoder, store)
    write_orders(tmp_path / "a.parquet", table)
    write_orders(tmp_path / "b.parquet", assign_orders(encoder, store, threads=3))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    read = read_orders(tmp_path / "a.parquet")
    np.testing.assert_array_equal(read.directions8, table.directions8)
    np.testing.assert_array_equal(read.for_clips(store, np.array([2, 0])), table.directions8[[2, 0]])
    # the table's eight directions are what the encoder says of the transformed clip
    from hypercut_core.clips.dihedral import apply_dihedral
    from hypercut_core.ordering.labels import clip_tensor
    for index in (0, 3):
        sharp = clip_tensor(store.read(index)[1:])
        for code in range(8):
            with torch.no_grad():
                u = pair_scores(encoder, apply_dihedral(sharp, code)[None])[0, 0]
            assert table.directions8[index, code] == (1 if u <= 0 else -1)


def test_order_table_ignores_augmentation(store: ClipStore, tmp_path: Path) -> None:
    """Training on augmented batches in between changes nothing: the table reads the store's own clips."""
    from hypercut_core.clips.dataset import ClipBatches

    encoder = build_encoder(TINY).eval()
    write_orders(tmp_path / "a.parquet", assign_orders(encoder, store))
    torch.manual_seed(99)
    ClipBatches(store, "train", 4, 16, seed=5)(0)
    write_orders(tmp_path / "b.parquet", assign_orders(encoder, store))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_batches_carry_the_direction_of_what_they_show(store: ClipStore) -> None:
    """Whatever the augmentation, the batch's direction is the encoder's own answer to the transformed clip."""
    from hypercut_core.clips.dataset import Augmentation, ClipBatches

    encoder = build_encoder(TINY).eval()
    table = assign_orders(encoder, store)
    indices = store.indices("train")
    square = dataclasses.replace(Augmentation())
    batches = ClipBatches(store, "train", 8, 20, seed=1, augmentation=square,
                          directions=table.for_clips(store, indices))
    seen = 0
    for step in range(6):
        batch = batches(step)
        for k, clip in enumerate(batch.clips):
            if store.records[int(clip)].width != 20:
                continue  # a crop of a wider clip is another picture
            with torch.no_grad():
                u = float(pair_scores(encoder, batch.sharp[k][None])[0, 0])
            assert float(batch.direction[k]) == (1.0 if u <= 0 else -1.0)
            seen += 1
    assert seen > 20


def test_a_table_of_another_store_is_refused(store: ClipStore, tmp_path: Path) -> None:
    table = assign_orders(build_encoder(TINY), store)
    other = dataclasses.replace(table, clip_ids=["z", *table.clip_ids[1:]])
    with pytest.raises(BadClipStore, match="no row for clip 'c0'"):
        other.for_clips(store, np.array([0]))
    (tmp_path / "no.parquet").write_text("nothing")
    with pytest.raises(BadClipStore, match=r"no\.parquet"):
        read_orders(tmp_path / "no.parquet")


@given(frames=st.sampled_from([3, 7]), seed=st.integers(0, 99), step=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_recoloured_pairs_keep_their_motion_and_share_no_looks(frames: int, seed: int, step: int) -> None:
    sharp = torch.rand(2, frames, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    seen = recolour_pairs(sharp, seed, step)
    half = frames // 2
    assert torch.equal(seen, recolour_pairs(sharp, seed, step))
    assert not torch.equal(seen, recolour_pairs(sharp, seed, step + 1))
    # both frames of a pair get the same colours, so that reversal stays reversal
    torch.testing.assert_close(recolour_pairs(sharp.flip(1), seed, step), seen.flip(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[:, half], sharp[:, half], atol=1e-6, rtol=0)
    # a rotation about grey: what differs between the frames of a pair differs by as much
    before, after = sharp[:, 0] - sharp[:, -1], seen[:, 0] - seen[:, -1]
    torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1), atol=1e-5, rtol=0)
    if half > 1:  # the next pair has colours of its own
        same = sharp[:, :1].expand(-1, frames, -1, -1, -1)
        one, other = recolour_pairs(same, seed, step)[:, :2].unbind(1)
        assert (one - other).abs().max() > 0.01
