"""The recurrent model of Purohit et al. 2019: its known size, exact warping, two protocols, three stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from counting import ODD, PHOTO, count, moving_clips
from torch import Tensor

from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.recurrent import RecurrentConfig, RecurrentDeblurrer, render
from hypercut_core.deblurring.recurrent_stages import (
    VideoEncoder,
    autoencoder_loss,
    embedding_loss,
    joint_loss,
    multiscale_error,
    stage_parameters,
)
from hypercut_core.deblurring.warping import warp
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.training.checkpoint import read_info, save_tensors

BLIND = RecurrentConfig(width=16, middle_width=4)
ORACLE = RecurrentConfig(width=16, protocol="oracle")


def lively(config: RecurrentConfig, frames: int = 7) -> RecurrentDeblurrer:
    """A narrow model whose flows are a few px long."""
    torch.manual_seed(0)
    model = RecurrentDeblurrer(config, frames).eval()
    for head in model.decoder.flow_decoder.heads:
        torch.nn.init.normal_(head.weight, std=3.0)  # type: ignore[arg-type]
    if model.middle is not None:
        for name, weight in model.middle.named_parameters():  # those that start at zero
            if name.endswith(("leave.weight", "second.weight")):
                torch.nn.init.normal_(weight, std=0.05)
    return model


def test_parameters_and_multiply_adds_are_the_known_ones() -> None:
    parameters, gmac, shape = count(lambda: RecurrentDeblurrer(RecurrentConfig(protocol="oracle")),
                                    lambda model, x: model(x, x))
    assert parameters == pytest.approx(4.55, rel=0.01)
    assert gmac == pytest.approx(105, rel=0.05)
    assert shape == (1, 7, 3, 240, 320)


def test_what_the_blind_protocol_adds_is_counted_apart() -> None:
    with torch.device("meta"):
        blind, oracle = (RecurrentDeblurrer(RecurrentConfig(protocol=name)) for name in ("blind", "oracle"))  # type: ignore[arg-type]
    assert oracle.parameters_by_part()["middle"] == 0
    assert blind.parameters_by_part()["backbone"] == oracle.parameters_by_part()["backbone"]
    assert sum(blind.parameters_by_part().values()) == sum(p.numel() for p in blind.parameters())
    parts = oracle.encoder, oracle.decoder
    for part, known in zip(parts, (1.65, 2.90), strict=True):
        assert sum(p.numel() for p in part.parameters()) / 1e6 == pytest.approx(known, rel=0.015)


@pytest.mark.parametrize("size", [ODD, PHOTO, (1, 1)])
@pytest.mark.parametrize("frames", [3, 7])
def test_any_size_and_odd_number_of_frames(size: tuple[int, int], frames: int) -> None:
    assert count(lambda: RecurrentDeblurrer(BLIND, frames), lambda m, x: m(x), size)[2] == (1, frames, 3, *size)


def test_numbers_of_frames_and_widths_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadParameters, match="odd number"):
        RecurrentDeblurrer(BLIND, 4)
    with pytest.raises(BadParameters, match="multiple of 8"):
        RecurrentDeblurrer(RecurrentConfig(width=12))
    with pytest.raises(BadParameters, match="blind or oracle"):
        RecurrentDeblurrer(RecurrentConfig(protocol="both"))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(7, 5), (720, 1280)])
def test_warping_is_exact_at_zero_flow_and_copies_at_whole_pixels(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, *size)
    assert torch.equal(warp(image, torch.zeros(1, 2, *size)), image)
    shift = torch.stack([torch.full(size, 2.0), torch.full(size, -1.0)])[None]
    assert torch.equal(warp(image, shift)[..., 1:, :-2], image[..., :-1, 2:])


def test_warping_is_the_bilinear_look_up_of_torch() -> None:
    torch.manual_seed(0)
    image, flow = torch.rand(2, 3, 9, 12, dtype=torch.double), 4 * torch.randn(2, 2, 9, 12, dtype=torch.double)
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing="ij")
    grid = torch.stack([(x + flow[:, 0]) * 2 / 11 - 1, (y + flow[:, 1]) * 2 / 8 - 1], -1)
    known = F.grid_sample(image, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(image, flow), known)


def test_warping_has_right_gradients() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    flow = (torch.rand(1, 2, 4, 5, dtype=torch.double) * 0.8 + 0.1).requires_grad_()  # between pixels
    assert torch.autograd.gradcheck(warp, (image, flow))


@pytest.mark.parametrize("size", [(16, 24), (19, 21)])
def test_the_middle_frame_is_passed_on_to_the_bit(size: tuple[int, int]) -> None:
    blurry, truth = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
    oracle, blind = lively(ORACLE), lively(BLIND)
    with torch.no_grad():
        out = oracle(blurry, truth)
        assert torch.equal(out[:, 3], truth)
        assert all((out[:, k] - truth).abs().max() > 0.01 for k in (0, 1, 2, 4, 5, 6))
    padded = F.pad(blurry, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate")
    with torch.no_grad():
        assert torch.equal(blind(blurry)[:, 3], blind.middle_frame(padded)[..., :size[0], :size[1]])
        assert not torch.equal(blind(blurry)[:, 3], blurry)


def test_a_decoder_at_rest_repeats_the_middle_frame_to_the_bit() -> None:
    model, truth = lively(ORACLE), torch.rand(1, 3, 24, 16)
    for head in model.decoder.flow_decoder.heads:
        torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(model(torch.rand(1, 3, 24, 16), truth), truth[:, None].expand(1, 7, 3, 24, 16))


def test_flows_at_four_scales_with_none_at_the_middle() -> None:
    model = lively(ORACLE)
    with torch.no_grad():
        flows = model.decoder(torch.randn(2, 16, 3, 4))
    assert [tuple(flow.shape) for flow in flows] == [(2, 7, 2, 3 * s, 4 * s) for s in (1, 2, 4, 8)]
    assert all(bool((flow[:, 3] == 0).all()) and flow.abs().max() > 0.1 for flow in flows)


def test_the_protocols_are_never_mixed() -> None:
    blurry = torch.rand(1, 3, 16, 16)
    with pytest.raises(BadParameters, match="oracle protocol was not given"):
        lively(ORACLE)(blurry)
    with pytest.raises(BadParameters, match="blind protocol was given"):
        lively(BLIND)(blurry, blurry)


def test_evaluation_is_deterministic_and_the_batch_does_not_matter() -> None:
    model, blurry = lively(BLIND), torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        both = model(blurry)
        assert torch.equal(both, model(blurry))
        torch.testing.assert_close(model(blurry[1:]), both[1:], atol=1e-4, rtol=0)


def test_gradients_reach_every_weight() -> None:
    blurry, sharp = moving_clips(1, 16)
    for config in (BLIND, ORACLE):
        model = lively(config)
        middle = None if config is BLIND else sharp[:, 3]
        (model(blurry, middle) - sharp).square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def fit(loss: Callable[[], Tensor], parameters: list[torch.nn.Parameter], steps: int, rate: float = 5e-3) -> float:
    """Train for some steps; how many times smaller the loss is after them."""
    optimiser = torch.optim.Adam(parameters, lr=rate)
    values = []
    for _ in range(steps):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        values.append(value.item())
    return values[0] / (sum(values[-5:]) / 5)


def test_the_three_stages_learn_two_clips_by_heart() -> None:
    """Each stage improves what it trains, and leaves alone what it does not."""
    torch.manual_seed(0)
    blurry, sharp = moving_clips(2, 16, step=1)
    model, video = RecurrentDeblurrer(RecurrentConfig(width=16, protocol="oracle")), VideoEncoder(16)
    before = {name: p.clone() for name, p in model.encoder.named_parameters()}
    stages: dict[int, Callable[[], Tensor]] = {1: lambda: autoencoder_loss(model, video, sharp),
                                               2: lambda: embedding_loss(model, video, blurry, sharp),
                                               3: lambda: joint_loss(model, blurry, sharp)}
    assert fit(stages[1], list(stage_parameters(model, video, 1)), 80) > 2
    assert all(torch.equal(p, before[name]) for name, p in model.encoder.named_parameters())
    taught = {name: p.clone() for name, p in model.decoder.named_parameters()}
    with torch.no_grad():
        untaught = joint_loss(model, blurry, sharp).item()
    assert fit(stages[2], list(stage_parameters(model, video, 2)), 40) > 3
    assert all(torch.equal(p, taught[name]) for name, p in model.decoder.named_parameters())
    with torch.no_grad():
        matched = joint_loss(model, blurry, sharp).item()
    assert matched < untaught  # the embedding that was matched opens the decoder
    fit(stages[3], list(stage_parameters(model, video, 3)), 40, rate=1e-3)
    with torch.no_grad():
        assert joint_loss(model, blurry, sharp).item() < untaught / 2
        still = (sharp[:, 3:4] - sharp).abs().mean()
        assert (model(blurry, sharp[:, 3]) - sharp).abs().mean() < still / 2


def test_the_blind_model_learns_its_middle_frame() -> None:
    torch.manual_seed(0)
    blurry, sharp = moving_clips(1, 16)
    model = RecurrentDeblurrer(RecurrentConfig(width=8, middle_width=8))
    video = VideoEncoder(8)
    fit(lambda: joint_loss(model, blurry, sharp), list(stage_parameters(model, video, 3)), 60)
    with torch.no_grad():
        assert (model(blurry)[:, 3] - sharp[:, 3]).abs().mean() < (blurry - sharp[:, 3]).abs().mean() / 2


def test_embeddings_may_be_matched_in_either_direction() -> None:
    blurry, sharp = moving_clips(2, 16)
    model, video = lively(BLIND), VideoEncoder(16)
    with torch.no_grad():
        there, back = (embedding_loss(model, video, blurry, clip, either_direction=True)
                       for clip in (sharp, sharp.flip(1)))
        as_shot = [embedding_loss(model, video, blurry, clip) for clip in (sharp, sharp.flip(1))]
    torch.testing.assert_close(there, back)
    assert there <= min(as_shot)
    assert as_shot[0] != as_shot[1]


def test_multiscale_error_is_nothing_for_the_truth() -> None:
    _, sharp = moving_clips(1, 16)
    still = sharp[:, 3:4].expand_as(sharp)
    flows = [torch.zeros(1, 7, 2, s, s) for s in (2, 4, 8, 16)]
    assert multiscale_error(flows, sharp[:, 3], still) == 0
    assert multiscale_error(flows, sharp[:, 3], sharp) > 0
    assert torch.equal(render(sharp[:, 3], flows[-1]), still)


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(BadParameters, match="1, 2 or 3"):
        list(stage_parameters(lively(BLIND), VideoEncoder(16), 4))


@pytest.mark.parametrize("config", [BLIND, ORACLE])
def test_it_survives_its_file(tmp_path: Path, config: RecurrentConfig) -> None:
    model, path = lively(config, 5), tmp_path / "m.safetensors"
    save_deblurrer(path, model, {"seed": 3})
    again = load_deblurrer(path)
    blurry, truth = torch.rand(1, 3, 23, 17), None if config is BLIND else torch.rand(1, 3, 23, 17)
    with torch.no_grad():
        assert torch.equal(model(blurry, truth), again(blurry, truth))
    assert (again.frames, again.config) == (5, config)


@pytest.mark.parametrize("config", [{"width": 12}, {"width": 10**9}, {"protocol": "both"}, {"layers": 2},
                                    {"width": 16, "middle_width": 4, "protocol": "oracle"}])
def test_files_that_describe_something_else_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "m.safetensors"
    save_deblurrer(path, lively(BLIND), {})
    save_tensors(path, lively(BLIND).state_dict(), {**read_info(path), "config": config})
    with pytest.raises(BadCheckpoint, match=r"m\.safetensors.*To mend it"):
        load_deblurrer(path)
