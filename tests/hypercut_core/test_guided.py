"""The guided model of Zhong et al. 2022: its known size, guidance from people, flow and chance, and that the
guidance decides the direction, region by region."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import ODD, PHOTO, count, moving_clips
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan
from PIL import Image

from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guidance import (
    DIRECTIONS,
    describe,
    flip_region,
    guidance_from_flow,
    guidance_from_frames,
)
from hypercut_core.deblurring.guidance_files import paint, painted_guidance, read_guidance, stroke_guidance
from hypercut_core.deblurring.guidance_predictor import GuidancePredictor, smooth_noise
from hypercut_core.deblurring.guided import GuidedConfig, GuidedDeblurrer, best_of, decomposition_loss
from hypercut_core.deblurring.models import build_deblurrer, load_deblurrer, save_deblurrer
from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.errors import BadCheckpoint, BadImage, BadParameters, StorageError
from hypercut_core.restore import restore_command
from hypercut_core.training.checkpoint import read_info, save_tensors

TINY = GuidedConfig(width=4, blocks=2, refine=1, predictor_width=4)


def lively(config: GuidedConfig = TINY, frames: int = 7) -> GuidedDeblurrer:
    """A narrow model whose output and guidance depend on its input."""
    torch.manual_seed(0)
    model = GuidedDeblurrer(config, frames).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("leave.weight", "second.weight")):  # those that start at, or near, zero
            torch.nn.init.normal_(weight, std=0.1)
    return model


def some_guidance(*size: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return DIRECTIONS.guidance(torch.randint(0, 5, (1, *size), generator=draw))


def test_parameters_and_multiply_adds_are_the_known_ones() -> None:
    parameters, gmac, shape = count(lambda: GuidedDeblurrer(GuidedConfig()),
                                    lambda model, x: model.stages(x, torch.zeros(1, 2, 240, 320))[1],
                                    parts=lambda model: [model.first, model.second])  # type: ignore[list-item]
    assert parameters == pytest.approx(129.3, rel=0.01)
    assert gmac == pytest.approx(799, rel=0.05)
    assert shape == (1, 7, 3, 240, 320)


def test_what_the_predictor_adds_is_counted_apart() -> None:
    model = GuidedDeblurrer(TINY)
    assert sum(model.parameters_by_part().values()) == sum(p.numel() for p in model.parameters())
    assert model.parameters_by_part()["predictor"] == sum(p.numel() for p in model.predictor.parameters())


@pytest.mark.parametrize("size", [ODD, PHOTO, (1, 1)])
@pytest.mark.parametrize("frames", [3, 7])
def test_any_size_and_odd_number_of_frames(size: tuple[int, int], frames: int) -> None:
    assert count(lambda: GuidedDeblurrer(TINY, frames), lambda m, x: m(x), size)[2] == (1, frames, 3, *size)


def test_even_numbers_of_frames_and_other_maps_are_refused() -> None:
    with pytest.raises(BadParameters, match="odd number"):
        GuidedDeblurrer(TINY, 4)
    with pytest.raises(BadParameters, match=r"guidance.*\[1, 2, 8, 9\]"):
        lively()(torch.rand(1, 3, 8, 9), torch.zeros(1, 2, 9, 8))


def test_a_fresh_model_repeats_the_blurry_image_nearly() -> None:
    torch.manual_seed(0)
    blurry = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (GuidedDeblurrer(TINY)(blurry, some_guidance(16, 16)) - blurry[:, None]).abs().max() < 0.1


@pytest.mark.parametrize("frames", [5, 7])
def test_symmetric_flipping_the_guidance_reverses_the_output_to_the_bit(frames: int) -> None:
    torch.manual_seed(1)
    model = lively(GuidedConfig(**{**TINY.__dict__, "symmetric": True}), frames)
    plain = lively(TINY, frames)
    blurry, guidance = torch.rand(2, 3, 13, 18), some_guidance(13, 18).expand(2, -1, -1, -1)
    with torch.no_grad():
        assert torch.equal(model(blurry, -guidance), model(blurry, guidance).flip(1))
        assert not torch.allclose(plain(blurry, -guidance), plain(blurry, guidance).flip(1), atol=1e-3)
        # what is at rest everywhere is its own reverse
        still = model(blurry, torch.zeros_like(guidance))
        assert torch.equal(still, still.flip(1))
        assert torch.equal(model.train()(blurry, guidance), plain(blurry, guidance))  # training is the paper's


def test_without_guidance_the_assumption_is_used_and_can_be_told() -> None:
    model, blurry = lively(), torch.rand(1, 3, 20, 28)
    with torch.no_grad():
        assumed = model.assume(blurry)
        assert torch.equal(model(blurry), model(blurry, assumed))
        assert torch.equal(assumed, model.assume(blurry))
    assert (assumed[:, 0] >= 0).all()  # all of it to the right
    assert len(DIRECTIONS.classes(assumed).unique()) > 1
    assert "right" in describe(assumed)
    assert "left" not in describe(assumed)


def test_a_fresh_predictor_assumes_motion_to_the_right_and_down() -> None:
    torch.manual_seed(0)
    predictor = GuidancePredictor(4)
    torch.nn.init.zeros_(predictor.trunk.leave.weight)
    assert describe(predictor.assume(torch.rand(1, 3, 16, 16))) == "100 % right and down"


def test_evaluation_is_deterministic_and_the_batch_does_not_matter() -> None:
    model, blurry, guidance = lively(), torch.rand(2, 3, 12, 16), some_guidance(12, 16).expand(2, -1, -1, -1)
    with torch.no_grad():
        both = model(blurry, guidance)
        assert torch.equal(both, model(blurry, guidance))
        torch.testing.assert_close(model(blurry[1:], guidance[1:]), both[1:], atol=1e-5, rtol=0)


def test_gradients_reach_every_weight() -> None:
    blurry, sharp = moving_clips(1, 16)
    model = lively()
    decomposition_loss(model, blurry, some_guidance(16, 16), sharp).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def two_regions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One blurry image, its four explanations and their guidance: each half may run either way."""
    _, sharp = moving_clips(1, 24)
    both = [torch.cat([sharp.flip(1) if a < 0 else sharp, sharp.flip(1, -1) if b < 0 else sharp.flip(-1)], -1)
            for a in (1, -1) for b in (1, -1)]
    frames = torch.cat(both)
    ones = torch.ones(1, 2, 24, 24)
    guidance = torch.cat([torch.cat([a * ones, b * ones], -1) for a in (1, -1) for b in (1, -1)])
    return frames.mean(1), frames, guidance


def test_it_learns_that_guidance_decides_each_region() -> None:
    """After some steps on one photo, reversing the guidance of one half reverses that half and not the other."""
    torch.manual_seed(0)
    blurry, frames, guidance = two_regions()
    torch.testing.assert_close(blurry[:1].expand_as(blurry), blurry)  # blur alone cannot tell them apart
    model = GuidedDeblurrer(GuidedConfig(width=12, blocks=1, refine=1, predictor_width=4))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    errors = []
    for _ in range(120):
        loss = (model(blurry, guidance) - frames).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        errors.append(loss.item())
    assert errors[-1] < errors[0] / 10
    left = torch.zeros(24, 48, dtype=torch.bool)
    left[:, :24] = True
    with torch.no_grad():
        straight = model(blurry[:1], guidance[:1])[0]
        flipped = model(blurry[:1], flip_region(guidance[:1], left))[0]
    inside, outside = (..., slice(0, 20)), (..., slice(28, 48))
    odd = (straight[inside] - straight[inside].flip(0)).square().mean()
    assert (flipped[inside] - straight[inside].flip(0)).square().mean() < odd / 4
    assert (flipped[outside] - straight[outside]).square().mean() < odd / 20


@given(seed=st.integers(0, 99), static=st.floats(0.0, 2.0))
@settings(max_examples=20, deadline=None)
def test_guidance_is_the_signs_of_the_flow(seed: int, static: float) -> None:
    torch.manual_seed(seed)
    flow = (2 * torch.randn(2, 2, 5, 6)).round(decimals=1)
    guidance = guidance_from_flow(flow, static)
    moves = flow.norm(dim=1) > static
    assert torch.equal(guidance[:, 0] != 0, moves)
    assert torch.equal(guidance[:, 1] != 0, moves)
    clear = moves[:, None] & (flow != 0)
    assert torch.equal(guidance[clear], flow[clear].sign())
    assert torch.equal(guidance_from_flow(-flow, static), -guidance)  # also along an axis
    assert torch.equal(DIRECTIONS.guidance(DIRECTIONS.classes(guidance)), guidance)


def test_opposite_directions() -> None:
    for number, signs in enumerate(DIRECTIONS.signs):
        assert DIRECTIONS.signs[DIRECTIONS.opposite(number)] == (-signs[0], -signs[1])


def test_a_flip_of_a_region_leaves_the_rest() -> None:
    guidance, region = some_guidance(6, 8), torch.zeros(6, 8, dtype=torch.bool)
    region[2:4, 1:5] = True
    flipped = flip_region(guidance, region)
    assert torch.equal(flipped[..., region], -guidance[..., region])
    assert torch.equal(flipped[..., ~region], guidance[..., ~region])
    pair = flip_region(guidance.expand(2, -1, -1, -1), region.expand(2, -1, -1))
    assert torch.equal(pair, flipped.expand(2, -1, -1, -1))


def as_clip(frames: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float() / 255


@pytest.mark.parametrize("speed", [-2.0, 0.4, 1.5])
def test_optical_flow_of_a_pan(speed: float) -> None:
    frames = as_clip(pan(0, 7, speed))[0]
    flow = optical_flow(frames[:1], frames[3:4])[..., 12:-12, 12:-12]
    assert flow[:, 0].median() == pytest.approx(3 * speed, abs=0.1)
    assert flow[:, 1].abs().median() < 0.1


def test_guidance_from_true_frames_and_from_reversed_ones() -> None:
    clip = as_clip(pan(0, 7, 1.0))
    there, back = guidance_from_frames(clip), guidance_from_frames(clip.flip(1))
    assert (there[:, 0] == 1).float().mean() > 0.95
    assert torch.equal(back, -there)
    assert describe(guidance_from_frames(clip[:, :1].expand_as(clip))) == "100 % at rest"


def test_strokes_cover_regions_and_the_rest_is_still() -> None:
    guidance = stroke_guidance({"strokes": [{"points": [[10, 10], [30, 14]], "radius": 4}],
                                "regions": [{"polygon": [[0, 0], [59, 0], [59, 19], [0, 19]], "towards": [-1, -2]}]},
                               40, 60)
    classes = DIRECTIONS.classes(guidance)[0]
    assert guidance.shape == (1, 2, 40, 60)
    names = [DIRECTIONS.names[int(classes[y, x])] for y, x in ((12, 20), (2, 50), (35, 30))]
    assert names == ["right and down", "left and up", "at rest"]


def test_elsewhere_may_follow_the_nearest_stroke() -> None:
    document = {"strokes": [{"points": [[10, 20], [20, 25]]}, {"points": [[110, 20], [100, 15]], "radius": 2}],
                "elsewhere": "nearest"}
    guidance = stroke_guidance(document, 40, 120)
    assert (guidance[..., :55] == 1).all()
    assert (guidance[..., 65:] == -1).all()


def test_strokes_of_another_size_are_scaled() -> None:
    small = stroke_guidance({"size": [60, 40], "strokes": [{"points": [[10, 10], [50, 30]], "radius": 5}]}, 80, 120)
    large = stroke_guidance({"strokes": [{"points": [[20, 20], [100, 60]], "radius": 10}]}, 80, 120)
    assert torch.equal(small, large)


def test_a_stroke_drawn_backwards_is_the_flipped_guidance() -> None:
    there, back = ({"strokes": [{"points": points, "radius": 3}]} for points in ([[5, 9], [30, 9]], [[30, 9], [5, 9]]))
    assert torch.equal(stroke_guidance(back, 20, 40), -stroke_guidance(there, 20, 40))


@pytest.mark.parametrize(("document", "said"), [
    ([], "not an object"), ({}, "neither a stroke nor a region"), ({"stroke": []}, "unknown key 'stroke'"),
    ({"strokes": {}}, "strokes is not a list"), ({"strokes": [{"points": [[1, 2]]}]}, "fewer than 2 points"),
    ({"strokes": [{"points": [[1, 2], [3, "4"]]}]}, "plain numbers"),
    ({"strokes": [{"points": [[1, 2], [3, float("inf")]]}]}, "plain numbers"),
    ({"strokes": [{"points": [[1, 2], [3, 4]], "radius": 0}]}, "radius"),
    ({"strokes": [{"points": [[1, 2], [1, 2]]}]}, "neither a stroke nor a region"),
    ({"regions": [{"polygon": [[1, 2], [3, 4], [5, 5]]}]}, "towards"),
    ({"strokes": [{"points": [[1, 2], [3, 4]]}], "elsewhere": "left"}, "elsewhere"),
    ({"size": [0, 4], "strokes": [{"points": [[1, 2], [3, 4]]}]}, "size"),
    ({"strokes": [{"points": [[k, k] for k in range(20_000)]}]}, "more than 10000")])
def test_malformed_strokes_are_refused(tmp_path: Path, document: object, said: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps(document))
    with pytest.raises(BadParameters, match=rf"g\.json.*{said}.*To mend it"):
        read_guidance(tmp_path / "g.json", 40, 60)


def test_files_that_are_no_guidance_are_refused(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text("{")
    with pytest.raises(StorageError, match=r"g\.json.*JSON"):
        read_guidance(tmp_path / "g.json", 40, 60)
    (tmp_path / "g.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"g\.png"):
        read_guidance(tmp_path / "g.png", 40, 60)
    Image.new("RGB", (60, 40), (90, 90, 90)).save(tmp_path / "grey.png")
    with pytest.raises(BadImage, match="no pixel is painted"):
        read_guidance(tmp_path / "grey.png", 40, 60)
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "square.png")
    with pytest.raises(BadParameters, match="40 x 40 px, the photo 60 x 40"):
        read_guidance(tmp_path / "square.png", 40, 60)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_painted_picture_comes_back_as_it_was(tmp_path: Path, scale: int) -> None:
    guidance = some_guidance(10, 15)
    Image.fromarray(paint(guidance)).resize((15 * scale, 10 * scale), Image.Resampling.NEAREST).save(tmp_path / "g.png")
    assert torch.equal(read_guidance(tmp_path / "g.png", 10, 15), guidance)


def test_what_is_transparent_or_pale_is_at_rest(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (30, 10), (0, 0, 0, 0))
    picture.paste((230, 40, 20, 255), (0, 0, 10, 10))  # a red that is not quite pure
    picture.paste((250, 220, 220, 255), (10, 0, 20, 10))
    picture.save(tmp_path / "g.png")
    guidance = read_guidance(tmp_path / "g.png", 10, 30)
    assert (guidance[..., :10] == 1).all()
    assert (guidance[..., 10:] == 0).all()
    assert torch.equal(painted_guidance(paint(-guidance), 10, 30), -guidance)


def test_smooth_noise_has_variance_one_everywhere_and_is_smooth() -> None:
    fields = smooth_noise((4000, 6, 9), 0)
    assert (fields.var(0) - 1).abs().max() < 0.12
    assert fields.mean(0).abs().max() < 0.08
    assert (fields[:, 3, 4] * fields[:, 3, 5]).mean() > 0.8
    assert torch.equal(smooth_noise((2, 6, 9), 7), smooth_noise((2, 6, 9), 7))


def test_sampled_maps_have_the_predicted_probabilities_and_hang_together() -> None:
    torch.manual_seed(0)
    predictor = GuidancePredictor(4)
    torch.nn.init.zeros_(predictor.trunk.leave.weight)
    chance = torch.tensor([0.1, 0.3, 0.15, 0.4, 0.05])
    with torch.no_grad():
        predictor.trunk.leave.bias.copy_(chance.log().repeat_interleave(16))
    maps = DIRECTIONS.classes(predictor.sample(torch.rand(1, 3, 8, 8), 3000, seed=1)[0])
    found = torch.stack([(maps == k).float().mean(0) for k in range(5)])
    assert (found - chance.view(5, 1, 1)).abs().max() < 0.05  # at every pixel
    alike = (maps[..., 1:] == maps[..., :-1]).float().mean()
    assert alike > 0.75 > chance.square().sum() + 0.3  # independent pixels would agree in 0.28
    again = predictor.sample(torch.rand(1, 3, 8, 8), 3, seed=1)
    assert again.shape == (1, 3, 2, 8, 8)


def test_the_predictor_learns_the_axis_and_leaves_the_direction_open() -> None:
    """Shown both directions of one blurry image it ends near one half for each, and draws both."""
    torch.manual_seed(0)
    blurry, _ = moving_clips(1, 16)
    predictor = GuidancePredictor(8)
    truth = DIRECTIONS.classes(torch.cat([torch.ones(1, 2, 16, 16), -torch.ones(1, 2, 16, 16)]))
    optimiser = torch.optim.Adam(predictor.parameters(), lr=5e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(predictor(blurry.expand(2, -1, -1, -1)), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        chance = predictor(blurry).softmax(1).mean((0, 2, 3))
    assert chance[[1, 4]].sum() > 0.9
    assert abs(chance[1] - chance[4]) < 0.2
    drawn = predictor.sample(blurry, 12)[0, :, 0].mean((1, 2))
    assert drawn.min() < -0.5
    assert drawn.max() > 0.5


def test_the_best_of_more_hypotheses_is_no_worse() -> None:
    model = lively()
    blurry, sharp = moving_clips(2, 16)
    scores = best_of(model, blurry, sharp, (1, 3, 5), seed=4)
    assert all(score.shape == (2,) for score in scores.values())
    assert (scores[1] <= scores[3]).all()
    assert (scores[3] <= scores[5]).all()
    assert (scores[1] < scores[5]).any()
    with torch.no_grad():
        first = model(blurry, model.predictor.sample(blurry, 1, seed=4)[:, 0])
    mse = (first.clamp(0, 1) - sharp).square().flatten(1).mean(1)
    torch.testing.assert_close(best_of(model, blurry, sharp, (1,), seed=4)[1], -10 * mse.log10())


def test_it_survives_its_file(tmp_path: Path) -> None:
    model, path = lively(TINY, 5), tmp_path / "m.safetensors"
    save_deblurrer(path, model, {"seed": 3})
    again = load_deblurrer(path)
    blurry, guidance = torch.rand(1, 3, 11, 17), some_guidance(11, 17)
    with torch.no_grad():
        assert torch.equal(model(blurry, guidance), again(blurry, guidance))
        assert torch.equal(model(blurry), again(blurry))
    assert (again.frames, again.config) == (5, TINY)


@pytest.mark.parametrize("config", [{"blocks": 10**6}, {"width": 4.5}, {"symmetric": "yes"}, {"heads": 4},
                                    {"width": 8, "blocks": 2, "refine": 1, "predictor_width": 4}])
def test_files_that_describe_something_else_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "m.safetensors"
    save_deblurrer(path, lively(dataclasses.replace(TINY, symmetric=True)), {})
    save_tensors(path, lively().state_dict(), {**read_info(path), "config": config})
    with pytest.raises(BadCheckpoint, match=r"m\.safetensors.*To mend it"):
        load_deblurrer(path)


def saved_model(path: Path) -> Path:
    save_deblurrer(path, lively(dataclasses.replace(TINY, symmetric=True)), {})
    return path


def restored(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


@pytest.mark.parametrize("tile", [512, 64])  # whole, and in tiles whose direction the guidance decides
def test_a_photo_is_restored_as_strokes_say(tmp_path: Path, tile: int, capsys: pytest.CaptureFixture[str]) -> None:
    model, photo = saved_model(tmp_path / "m.safetensors"), tmp_path / "photo.png"
    Image.effect_noise((100, 70), 60).convert("RGB").save(photo)
    made = {}
    for name, points in (("there", [[0, 10], [99, 60]]), ("back", [[99, 60], [0, 10]])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"strokes": [{"points": points, "radius": 30}]}))
        made[name] = restored(restore_command(photo, tmp_path / name, model, tile=tile,
                                              guidance=tmp_path / f"{name}.json"))
    assert "guidance:" in capsys.readouterr().err
    assert made["there"].shape == (7, 70, 100, 3)
    assert np.array_equal(made["there"], made["back"][::-1])
    assert not np.array_equal(made["there"], made["back"])
    assumed = restored(restore_command(photo, tmp_path / "assumed", model, tile=tile))
    told = capsys.readouterr().err
    assert "no guidance was given; assumed:" in told
    assert "right" in told
    assert not np.array_equal(assumed, made["there"])


def test_a_model_that_knows_no_guidance_refuses_it(tmp_path: Path) -> None:
    save_deblurrer(tmp_path / "m.safetensors", build_deblurrer(DeblurrerConfig(width=4, blocks=(1, 1))), {})
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    (tmp_path / "g.json").write_text(json.dumps({"strokes": [{"points": [[0, 0], [9, 9]], "radius": 5}]}))
    with pytest.raises(BadParameters, match="takes no guidance"):
        restore_command(tmp_path / "photo.png", tmp_path / "out", tmp_path / "m.safetensors",
                        guidance=tmp_path / "g.json")
    assert not (tmp_path / "out").exists()
