"""The cascade of Jin et al. 2018: its known size, its wiring, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from counting import ODD, PHOTO, count, moving_clips

from hypercut_core.deblurring.cascade import CascadeConfig, CascadeDeblurrer, ChannelNetwork, each_channel
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.training.checkpoint import read_info, save_tensors

TINY = CascadeConfig(width=8, side_width=8, colour=4)


def lively(seed: int = 0) -> CascadeDeblurrer:
    """A narrow cascade whose outputs differ from the blurry image."""
    torch.manual_seed(seed)
    model = CascadeDeblurrer(TINY).eval()
    for module in model.modules():
        if isinstance(module, ChannelNetwork):
            for tap in module.taps:
                torch.nn.init.normal_(tap.weight, std=0.02)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.colour[-1].weight, std=0.02)  # type: ignore[arg-type]
    return model


def test_parameters_and_multiply_adds_are_the_known_ones() -> None:
    parameters, gmac, shape = count(lambda: CascadeDeblurrer(CascadeConfig()), lambda model, x: model(x))
    assert parameters == pytest.approx(18.21, rel=0.01)
    assert gmac == pytest.approx(252, rel=0.05)
    assert shape == (1, 7, 3, 240, 320)


@pytest.mark.parametrize("size", [ODD, PHOTO, (1, 1), (20, 41)])
def test_any_size(size: tuple[int, int]) -> None:
    assert count(lambda: CascadeDeblurrer(TINY), lambda model, x: model(x), size)[2] == (1, 7, 3, *size)


def test_a_padded_image_keeps_what_a_whole_multiple_gives() -> None:
    """37 x 53 is continued to 40 x 60 by its edge pixels: the same pixels come out as from that image itself."""
    model, blurry = lively(), torch.rand(1, 3, 37, 53)
    by_hand = torch.nn.functional.pad(blurry, (0, 7, 0, 3), mode="replicate")
    with torch.no_grad():
        assert torch.equal(model(blurry), model(by_hand)[..., :37, :53])


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(BadParameters, match=r"7 frames, not 5"):
        CascadeDeblurrer(TINY, 5)


def test_a_fresh_cascade_repeats_the_blurry_image_nearly() -> None:
    torch.manual_seed(0)
    blurry = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert (CascadeDeblurrer(TINY)(blurry) - blurry[:, None]).abs().max() < 0.1


def test_frames_2_and_6_share_a_network_and_1_and_7_another_and_3_and_5_share_nothing() -> None:
    """What a change of one network's weights moves: the frame it makes, and those that are built on it."""
    blurry = torch.rand(1, 3, 20, 20)
    touches = {}
    for name in ("middle", "before", "after", "inner", "outer"):
        model = lively()
        with torch.no_grad():
            old = model(blurry)
            for tap in getattr(model, name).taps:
                tap.weight.add_(0.01)
            touches[name] = [k + 1 for k in range(7) if not torch.equal(old[:, k], model(blurry)[:, k])]
    assert touches == {"middle": [1, 2, 3, 4, 5, 6, 7], "before": [1, 2, 3, 5, 6, 7], "after": [5, 6, 7],
                       "inner": [1, 2, 6, 7], "outer": [1, 7]}


def test_with_equal_sides_the_sequence_is_its_own_reverse() -> None:
    """Where frames 3 and 5 are the same, so are 2 and 6, and 1 and 7: only frames 3 and 5 break the symmetry."""
    model, blurry = lively(), torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert not torch.equal(model(blurry)[:, 2], model(blurry)[:, 4])
        for network in (model.before, model.after):
            for tap in network.taps:
                tap.weight.zero_()  # type: ignore[operator]
        out = model(blurry)
    assert not torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out, out.flip(1))


def test_every_colour_goes_through_the_same_weights() -> None:
    network, blurry = lively().middle, torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(each_channel(network, blurry.flip(1)), each_channel(network, blurry).flip(1))


def test_evaluation_is_deterministic_and_the_batch_does_not_matter() -> None:
    model, blurry = lively(), torch.rand(2, 3, 20, 30)
    with torch.no_grad():
        both = model(blurry)
        assert torch.equal(both, model(blurry))
        torch.testing.assert_close(model(blurry[1:]), both[1:], atol=1e-5, rtol=0)


def test_gradients_reach_every_weight() -> None:
    model = lively()
    model(torch.rand(1, 3, 20, 20)).square().sum().backward()
    # a bias before an instance normalisation has no effect
    idle = [name for name, p in model.named_parameters() if (p.grad is None or not p.grad.any())
            and not name.endswith("conv1.bias")]
    assert idle == []


def test_it_learns_a_clip_by_heart() -> None:
    torch.manual_seed(0)
    blurry, sharp = moving_clips(1, 20)
    model = CascadeDeblurrer(CascadeConfig(width=16, side_width=16, colour=8))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    errors = []
    for _ in range(50):
        loss = (model(blurry) - sharp).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    assert errors[-1] < errors[0] / 5


def test_it_survives_its_file(tmp_path: Path) -> None:
    model, path = lively(), tmp_path / "m.safetensors"
    save_deblurrer(path, model, {"seed": 3})
    again = load_deblurrer(path)
    blurry = torch.rand(1, 3, 23, 17)
    with torch.no_grad():
        assert torch.equal(model(blurry), again(blurry))
    assert (type(again), again.frames, again.card, again.config) == (CascadeDeblurrer, 7, {"seed": 3}, TINY)
    with pytest.raises(BadParameters, match="joins no views"):
        load_deblurrer(path, views=4)
    assert isinstance(load_deblurrer(path, views=1), CascadeDeblurrer)


@pytest.mark.parametrize(("key", "value"), [
    ("model", "transformer"), ("frames", 5), ("config", {"width": 10**9}), ("config", {"width": 8, "depth": 3}),
    ("config", {"width": "8"}), ("config", {"response": "log"}), ("config", None),
    ("config", {"width": 16, "side_width": 8, "colour": 4})])
def test_files_that_describe_something_else_are_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "m.safetensors"
    save_deblurrer(path, lively(), {})
    save_tensors(path, lively().state_dict(), {**read_info(path), key: value})
    with pytest.raises(BadCheckpoint, match=r"m\.safetensors.*To mend it"):
        load_deblurrer(path)
