"""Two axes: what a blurry image can tell is continuous all round, and gives the sequence back up to its direction."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hypercut_core.blur.exposure import RESPONSES, average, from_linear, response_slope, to_linear
from hypercut_core.clips.dataset import ClipBatches
from hypercut_core.clips.dihedral import DIHEDRAL, QUARTER, apply_dihedral
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.axes import Residuals, nearest_direction, rule_axes
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.objectives import DIRECTED, OBJECTIVES, LossConfig, objective_loss
from hypercut_core.deblurring.parts import Parts, join_parts, split_parts
from hypercut_core.deblurring.views import VIEWS, axis_shares, join_views
from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder
from hypercut_core.ordering.labels import OrderTable, assign_orders, read_orders, write_orders

ANGLE = st.floats(-math.pi, math.pi)
BEST = math.log(1e-4)  # log_mse of a perfect prediction


def circle(*angles: float) -> Tensor:
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles])


def perfect(sharp: Tensor, direction: Tensor, response: str = "srgb") -> Tensor:
    """What a perfect model with two axes says of sequences (B, T, 3, H, W): (B, 2, T, 3, H, W)."""
    parts = split_parts(to_linear(sharp, response))
    return torch.stack([from_linear(join_parts(Parts(parts.middle, parts.even, share.view(-1, 1, 1, 1, 1) * parts.odd)),
                                    response) for share in direction.unbind(1)], 1)


def perfect_residuals(sharp: Tensor, direction: Tensor, response: str = "srgb") -> Residuals:
    """The same before it is looked at from a direction."""
    blurry = average(sharp, response)
    light, slope = to_linear(blurry, response), response_slope(blurry, response)
    parts = split_parts((to_linear(sharp, response) - light[:, None]) / slope[:, None])
    return Residuals(light, slope, parts.middle, parts.even,
                     direction.view(*direction.shape, 1, 1, 1, 1) * parts.odd[:, None])


def panning(angle: float, seed: int = 0) -> Tensor:
    """Seven frames, (1, 7, 3, 24, 24), of smooth noise that moves by a pixel a frame towards `angle`."""
    generator = torch.Generator().manual_seed(seed)
    u, v, phase = torch.randn(3, 3, 12, 1, 1, generator=generator).unbind(0)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    frames = [torch.sin(0.5 * u * (x - k * math.cos(angle)) + 0.5 * v * (y - k * math.sin(angle)) + 6 * phase).mean(1)
              for k in range(-3, 4)]
    return (0.5 + 0.8 * torch.stack(frames))[None].clamp(0, 1)


@pytest.mark.parametrize("code", range(DIHEDRAL))
def test_quarter_is_a_quarter_turn_of_every_code(code: int) -> None:
    x = torch.rand(2, 5, 7)
    assert torch.equal(apply_dihedral(x, QUARTER[code]), apply_dihedral(x, code).rot90(-1, (-2, -1)))


@given(angle=ANGLE, response=st.sampled_from(RESPONSES), frames=st.sampled_from([3, 7]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_seen_along_its_direction_a_perfect_prediction_is_the_sequence(angle: float, response: str, frames: int,
                                                                       seed: int) -> None:
    sharp = 0.1 + 0.8 * torch.rand(2, frames, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    direction = circle(angle, angle + 1)
    said = perfect_residuals(sharp, direction, response)
    torch.testing.assert_close(said.along(direction, response), sharp, atol=1e-4, rtol=0)
    assert float(said.across(direction).abs().max()) < 1e-5  # nothing moves across it
    # from anywhere else the two share the motion: what one loses the other gains
    elsewhere = circle(0.3, 0.3)
    along = split_parts(to_linear(said.along(elsewhere, response), response)).odd / said.slope[:, None]
    true = split_parts(to_linear(sharp, response)).odd / said.slope[:, None]
    energy = lambda x: x.square().sum((1, 2, 3, 4))  # noqa: E731
    torch.testing.assert_close(energy(along) + energy(said.across(elsewhere)), energy(true), atol=1e-3, rtol=1e-3)


def test_the_target_has_no_seam() -> None:
    """Half a turn of the motion reverses the sequence; one sign must jump on the way, two axes need not."""
    steps = 90
    angles = [math.pi * k / steps for k in range(steps + 1)]
    odd = [split_parts(panning(a)).odd for a in angles]
    # half a turn brings the blur back, the sequence reversed, and the direction along both axes reversed
    torch.testing.assert_close(panning(math.pi), panning(0.0).flip(1), atol=1e-5, rtol=0)
    one = [d * (1.0 if a < 1.0 else -1.0) for a, d in zip(angles, odd, strict=True)]  # any sign that fits at the ends
    two = [torch.cat([math.cos(a) * d, math.sin(a) * d]) for a, d in zip(angles, odd, strict=True)]
    jump = lambda path: max(float((b - a).norm() / a.norm()) for a, b in pairwise(path))  # noqa: E731
    assert jump(one) > 1.9
    assert jump(two) < 0.3
    torch.testing.assert_close(two[0], two[-1], atol=1e-4, rtol=0)


@given(angles=st.lists(ANGLE, min_size=8, max_size=8), views=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_perfect_axes_join_to_the_sequence_up_to_its_direction(angles: list[float], views: int, seed: int) -> None:
    """Whatever direction each view sees: nothing but the sign of the whole is lost."""
    sharp = 0.1 + 0.8 * torch.rand(1, 5, 3, 6, 9, generator=torch.Generator().manual_seed(seed))
    codes = iter(VIEWS)
    predict = lambda _: perfect(apply_dihedral(sharp, code := next(codes)), circle(angles[code]))  # noqa: E731
    joined = join_views(predict, sharp[:, 0], views, "srgb")
    error = min(float((joined - sharp).abs().max()), float((joined - sharp.flip(1)).abs().max()))
    assert error < 1e-4


def test_shares_of_axes_are_an_eigenvector_of_the_right_length() -> None:
    share = axis_shares(torch.randn(3, 8, 30), 4)
    torch.testing.assert_close(share.square().sum(1), torch.full((3,), 0.25))
    assert (share[:, 0] >= 0).all()


@given(angle=ANGLE, seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_no_direction_is_nearer_than_the_nearest(angle: float, seed: int) -> None:
    torch.manual_seed(seed)
    sharp = torch.rand(2, 5, 3, 6, 6)
    predicted = perfect_residuals(sharp, circle(angle, -angle), "none")
    predicted = predicted._replace(odd=predicted.odd + 0.2 * torch.randn(2, 2, 2, 3, 6, 6))
    error = lambda c: (predicted.odd - c.view(2, 2, 1, 1, 1, 1)  # noqa: E731
                       * split_parts(sharp).odd[:, None]).square().flatten(1).sum(1)
    nearest = nearest_direction(predicted, sharp, "none")
    torch.testing.assert_close(nearest.norm(dim=1), torch.ones(2))
    for other in (circle(k * math.pi / 8, k * math.pi / 8) for k in range(16)):
        assert (error(nearest) <= error(other) + 1e-4).all()


def test_with_one_axis_the_nearest_direction_is_that_of_sequence_min() -> None:
    sharp = torch.rand(1, 5, 3, 6, 6)
    said = perfect_residuals(sharp, torch.ones(1, 1))
    assert nearest_direction(said, sharp, "srgb").tolist() == [[1.0]]
    assert nearest_direction(said, sharp.flip(1), "srgb").tolist() == [[-1.0]]


@pytest.mark.parametrize(("name", "blind_to_reversal"), [("sequence_min", True), ("rule_targets", False),
                                                         ("hypercut_targets", False)])
def test_what_each_objective_with_two_axes_calls_perfect(name: str, blind_to_reversal: bool) -> None:
    sharp = panning(0.6)
    loss = lambda said: float(objective_loss(name, said, sharp, circle(0.6), LossConfig()))  # noqa: E731
    assert loss(perfect_residuals(sharp, circle(0.6))) == pytest.approx(BEST, abs=0.01)
    reversed_too = loss(perfect_residuals(sharp, circle(0.6 + math.pi)))
    assert (reversed_too < BEST + 0.01) == blind_to_reversal
    assert loss(perfect_residuals(sharp, torch.ones(1, 2))) > BEST + 1  # twice the whole odd part is too much


def test_objectives_without_a_direction_refuse_two_axes() -> None:
    sharp = torch.rand(1, 3, 3, 8, 8)
    both = perfect_residuals(sharp, circle(0.0))
    for name in set(OBJECTIVES) - set(DIRECTED):
        with pytest.raises(BadParameters, match="no second axis"):
            objective_loss(name, both, sharp, torch.ones(1), LossConfig())
    with pytest.raises(BadParameters, match="assign-order"):
        objective_loss("hypercut_targets", both, sharp, torch.zeros(1), LossConfig())


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, -2.0])
def test_rule_axes_point_where_the_picture_goes(angle: float) -> None:
    assert float((rule_axes(panning(angle)) * circle(angle)).sum()) > 0.95


@pytest.mark.parametrize("views", [1, 4])
def test_a_model_with_two_axes_trains_on_both_and_restores_one_sequence(views: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DeblurrerConfig(width=4, blocks=(1, 1), views=views, axes=2)  # type: ignore[arg-type]
    model = EvenOddDeblurrer(config, 5)
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.05)
    blurry = 0.1 + 0.8 * torch.rand(2, 3, 9, 14)
    said = model.train()(blurry)
    assert said.odd.shape == (2, 2, 2, 3, 9, 14)
    # each axis by itself is a sequence of its own: what `predict` hands on to be joined
    by_axis = torch.stack([said.along(axis.expand(2, 2), "srgb") for axis in torch.eye(2)], 1)
    torch.testing.assert_close(model.predict(blurry), by_axis)
    torch.testing.assert_close(by_axis[:, 0, 2], by_axis[:, 1, 2])  # one middle frame
    save_deblurrer(tmp_path / "m.safetensors", model, {})
    again = load_deblurrer(tmp_path / "m.safetensors")
    with torch.no_grad():
        out = again(blurry)
        assert torch.equal(out, model.eval()(blurry))
    assert out.shape == (2, 5, 3, 9, 14)
    assert -10 * torch.log10((average(out, "srgb") - blurry).square().mean()) > 55


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    rng = np.random.default_rng(0)
    with ClipStoreWriter(tmp_path / "clips", 5) as writer:
        for k in range(4):
            writer.add(rng.integers(0, 256, (6, 20, 20, 3), dtype=np.uint8), clip_id=f"c{k}", source=f"s{k}",
                       split="train", category="x", motion=1.0)
    return ClipStore(tmp_path / "clips")


def table(store: ClipStore) -> OrderTable:
    torch.manual_seed(0)
    return assign_orders(build_encoder(EncoderConfig(width=4, blocks=1, features=8)).eval(), store)


def test_directions_on_the_circle_turn_with_the_clip(store: ClipStore, tmp_path: Path) -> None:
    """A quarter turn of the clip is a quarter turn of its direction, exactly, whatever the encoder says."""
    write_orders(tmp_path / "o.parquet", table(store))
    found = read_orders(tmp_path / "o.parquet").axes_for_clips(store, np.array([3, 1]))
    assert found.shape == (2, 8, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    turned = found[:, QUARTER]
    np.testing.assert_array_equal(turned[..., 0], found[..., 1])
    np.testing.assert_array_equal(turned[..., 1], -found[..., 0])


def test_a_table_without_scores_says_what_to_do(store: ClipStore, tmp_path: Path) -> None:
    old = dataclasses.replace(table(store), scores8=None)
    write_orders(tmp_path / "o.parquet", old)
    read = read_orders(tmp_path / "o.parquet")
    np.testing.assert_array_equal(read.for_clips(store, np.arange(4)), old.directions8)
    with pytest.raises(BadClipStore, match=r"no scores.*assign-order"):
        read.axes_for_clips(store, np.arange(4))


def test_batches_turn_both_axes_with_the_code_and_with_time(store: ClipStore) -> None:
    known = table(store).axes_for_clips(store, store.indices("train"))
    batches = ClipBatches(store, "train", 4, 16, 3, directions=known)
    one = ClipBatches(store, "train", 4, 16, 3, directions=np.where(known[..., 0] > 0, 1, -1).astype(np.int8))
    for step in range(6):
        batch = batches(step)
        assert batch.direction.shape == (4, 2)
        assert torch.equal(batch.direction[:, 0].sign(), one(step).direction)
        for direction, clip in zip(batch.direction, batch.clips, strict=True):
            ways = np.concatenate([known[clip], -known[clip]])
            assert np.abs(ways - direction.numpy()).max(1).min() == 0
