from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.blur.exposure import RESPONSES, to_linear
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer, blur_projection
from hypercut_core.deblurring.models import SHAPES, load_deblurrer, save_deblurrer
from hypercut_core.deblurring.objectives import OBJECTIVES, LossConfig, objective_loss
from hypercut_core.deblurring.parts import join_parts, split_parts
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder
from hypercut_core.training.checkpoint import read_info, save_tensors

TINY = DeblurrerConfig(width=4, blocks=(1, 1))
ODD = st.sampled_from([3, 5, 7, 15])


@given(frames=ODD, seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_reversal_turns_the_odd_part_and_nothing_else(frames: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.rand(2, frames, 3, 6, 5)
    there, back = split_parts(x), split_parts(x.flip(1))
    assert torch.equal(there.middle, back.middle)
    assert torch.equal(there.even, back.even)
    assert torch.equal(there.odd, -back.odd)
    torch.testing.assert_close(join_parts(there), x, atol=1e-6, rtol=0)


@given(response=st.sampled_from(RESPONSES), frames=ODD, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_outputs_reblur_to_the_input(response: str, frames: int, seed: int) -> None:
    """At least 60 dB in linear light before clipping, however wrong the frames are."""
    torch.manual_seed(seed)
    blurry = torch.rand(2, 3, 9, 11)
    wrong = blurry[:, None] + 0.3 * torch.randn(2, frames, 3, 9, 11)
    light = to_linear(blur_projection(wrong, blurry, response), response).mean(1)
    error = (light - to_linear(blurry, response)).square().mean()
    assert -10 * torch.log10(error + 1e-20) >= 60


@given(height=st.integers(5, 41), width=st.integers(5, 41), frames=ODD,
       block=st.sampled_from(["gated", "conv"]), unshuffle=st.sampled_from([1, 2, 4]),
       training=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_size_and_any_number_of_frames(height: int, width: int, frames: int, block: str, unshuffle: int,
                                           training: bool) -> None:
    config = DeblurrerConfig(width=4, blocks=(1, 1), block=block, unshuffle=unshuffle)  # type: ignore[arg-type]
    model = EvenOddDeblurrer(config, frames).train(training)
    blurry = torch.rand(1, 3, height, width)
    with torch.no_grad():
        out = model(blurry)
        light = to_linear(out, "srgb").mean(1) - to_linear(blurry, "srgb")
    assert out.shape == (1, frames, 3, height, width)
    assert light.abs().max() < 1e-4


def test_a_fresh_model_repeats_the_blurry_image_nearly() -> None:
    torch.manual_seed(0)
    blurry = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (EvenOddDeblurrer(TINY)(blurry) - blurry[:, None]).abs().max() < 0.05


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_build_and_run(name: str) -> None:
    model = EvenOddDeblurrer(SHAPES[name])
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_even_numbers_of_frames_are_refused() -> None:
    with pytest.raises(BadParameters, match="odd number from 3 to 15"):
        EvenOddDeblurrer(TINY, 6)


def _loss(name: str, predicted: torch.Tensor, sharp: torch.Tensor, **more: object) -> float:
    direction = more.pop("direction", torch.ones(len(sharp)))
    return float(objective_loss(name, predicted, sharp, direction, LossConfig(**more)))  # type: ignore[arg-type]


BEST = float(np.log(1e-4))  # log_mse of a perfect prediction


@pytest.mark.parametrize(("name", "backward_is_right"), [
    ("naive", False), ("order_invariant", True), ("sequence_min", True),
    ("hypercut_targets", False), ("rule_targets", False)])
def test_what_each_objective_thinks_of_the_reversed_truth(name: str, backward_is_right: bool) -> None:
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=64, mode="bicubic")
    sharp = torch.stack([torch.roll(wide, k, 3)[..., 16:48, 16:48] for k in range(7)], 1)  # to the right
    assert _loss(name, sharp, sharp) == pytest.approx(BEST, abs=1e-3)
    reverse = _loss(name, sharp.flip(1), sharp)
    assert (reverse == pytest.approx(BEST, abs=1e-3)) == backward_is_right


def test_order_invariant_is_blind_where_sequence_min_sees() -> None:
    """A random per-pixel swap of the pairs leaves the order-invariant loss at its minimum (trap 3)."""
    torch.manual_seed(0)
    sharp = torch.rand(2, 7, 3, 16, 16)
    swap = torch.rand(2, 1, 1, 16, 16) < 0.5
    scrambled = torch.where(swap, sharp.flip(1), sharp)
    assert _loss("order_invariant", scrambled, sharp) == pytest.approx(BEST, abs=1e-3)
    assert _loss("sequence_min", scrambled, sharp) > BEST + 1


def test_hypercut_targets_follow_the_table_and_the_rule_follows_the_motion() -> None:
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=64, mode="bicubic")
    right = torch.stack([torch.roll(wide, k, 3)[..., 16:48, 16:48] for k in range(7)], 1)
    left = right.flip(1)
    minus = -torch.ones(1)
    assert _loss("hypercut_targets", left, right, direction=minus) == pytest.approx(BEST, abs=1e-3)
    assert _loss("rule_targets", right, left) == pytest.approx(BEST, abs=1e-3)
    with pytest.raises(BadParameters, match="assign-order"):
        _loss("hypercut_targets", left, right, direction=torch.zeros(1))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("reconstruction", ["log_mse", "charbonnier", "l1"])
@pytest.mark.parametrize("frames", [3, 7])
def test_the_middle_frame_is_always_supervised(name: str, reconstruction: str, frames: int) -> None:
    torch.manual_seed(0)
    sharp = torch.rand(2, frames, 3, 12, 12)
    predicted = (sharp + 0.1 * torch.randn_like(sharp)).requires_grad_()
    encoder = build_encoder(EncoderConfig(width=4, blocks=1, features=8))
    loss = objective_loss(name, predicted, sharp, torch.ones(2),
                          LossConfig(reconstruction=reconstruction), encoder)  # type: ignore[arg-type]
    loss.backward()
    assert predicted.grad is not None
    assert (predicted.grad.abs().amax((0, 2, 3, 4)) > 0).all()


def test_hypercut_pushes_predictions_to_the_negative_side() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(width=4, blocks=1, features=8))
    sharp = torch.rand(4, 7, 3, 12, 12)
    from hypercut_core.ordering.encoder import pair_scores
    loss = lambda x: float(objective_loss("hypercut", x, sharp, torch.ones(4), LossConfig(alpha=50.0), encoder))  # noqa: E731
    with torch.no_grad():
        side = float(pair_scores(encoder, sharp).sum())
        better, worse = (sharp.flip(1), sharp) if side > 0 else (sharp, sharp.flip(1))
        assert loss(better) < loss(worse)
    with pytest.raises(BadParameters, match="train-encoder"):
        objective_loss("hypercut", sharp, sharp, torch.ones(4), LossConfig())


def test_unknown_objective_lists_the_known_ones() -> None:
    with pytest.raises(BadParameters, match=r"'best'.*sequence_min"):
        _loss("best", torch.rand(1, 3, 3, 8, 8), torch.rand(1, 3, 3, 8, 8))


def test_deblurrer_survives_its_file(tmp_path: Path) -> None:
    model = EvenOddDeblurrer(TINY, 5).eval()
    save_deblurrer(tmp_path / "m.safetensors", model, {"seed": 3})
    again = load_deblurrer(tmp_path / "m.safetensors")
    blurry = torch.rand(1, 3, 13, 17)
    with torch.no_grad():
        assert torch.equal(model(blurry), again(blurry))
    assert (again.frames, again.card) == (5, {"seed": 3})


def test_a_loaded_model_joins_as_many_views_as_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EvenOddDeblurrer(TINY, 5).eval()
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.05)
    save_deblurrer(tmp_path / "m.safetensors", model, {})
    blurry = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        one = load_deblurrer(tmp_path / "m.safetensors", views=1)(blurry)
        assert torch.equal(one, model.predict(blurry))
        assert not torch.equal(one, load_deblurrer(tmp_path / "m.safetensors")(blurry))
    with pytest.raises(BadParameters, match="1, 2, 4 or 8"):
        load_deblurrer(tmp_path / "m.safetensors", views=3)


@pytest.mark.parametrize("damage", ["missing", "text", "empty", "cut", "no description", "encoder", "shape", "sizes",
                                    "axes"])
def test_damaged_model_files_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.safetensors"
    model = EvenOddDeblurrer(TINY)
    save_deblurrer(path, model, {})
    info = read_info(path)
    if damage == "missing":
        path.unlink()
    elif damage in ("text", "empty"):
        path.write_text("not a model" if damage == "text" else "")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no description":
        from safetensors.torch import save_file
        save_file(model.state_dict(), path)
    else:
        change = {"encoder": {"model": "antisymmetric"},
                  "shape": {"config": {**info["config"], "width": 8}},
                  "sizes": {"config": {**info["config"], "width": 10**9}},
                  "axes": {"config": {**info["config"], "axes": 1000}}}[damage]
        save_tensors(path, model.state_dict(), {**info, **change})
    with pytest.raises(BadCheckpoint, match=r"m\.safetensors.*To mend it"):
        load_deblurrer(path)
