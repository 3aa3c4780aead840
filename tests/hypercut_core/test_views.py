"""Views of one photo: undone exactly, joined in one direction, weighted by how sure each is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hypercut_core.blur.exposure import average, from_linear, to_linear
from hypercut_core.clips.dihedral import DIHEDRAL, apply_dihedral, undo_dihedral
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.views import VIEWS, join_views, view_shares


@pytest.mark.parametrize("code", range(DIHEDRAL))
def test_every_view_is_undone_exactly(code: int) -> None:
    x = torch.rand(2, 3, 5, 8)
    assert torch.equal(undo_dihedral(apply_dihedral(x, code), code), x)
    assert torch.equal(apply_dihedral(undo_dihedral(x, code), code), x)


def test_the_views_are_all_eight_and_the_second_is_a_quarter_turn() -> None:
    assert sorted(VIEWS) == list(range(DIHEDRAL))
    x = torch.rand(3, 4, 6)
    turned = apply_dihedral(x, VIEWS[1])
    assert any(torch.equal(turned, x.rot90(k, (-2, -1))) for k in (1, 3))


def fresh(views: int, seed: int = 0) -> EvenOddDeblurrer:
    torch.manual_seed(seed)
    model = EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1), views=views), 5).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.05)
    return model


@given(code=st.integers(0, DIHEDRAL - 1), seed=st.integers(0, 50))
@settings(max_examples=16, deadline=None)
def test_a_turned_photo_gives_the_turned_sequence_up_to_its_direction(code: int, seed: int) -> None:
    model = fresh(8, seed)
    blurry = torch.rand(1, 3, 12, 20)
    with torch.no_grad():
        straight = apply_dihedral(model(blurry), code)
        turned = model(apply_dihedral(blurry, code))
    error = min(float((turned - straight).abs().max()), float((turned - straight.flip(1)).abs().max()))
    assert error < 1e-4


def moving(strength: Tensor) -> Tensor:
    """Five frames round one picture whose odd part is `strength` (B,) times a fixed one."""
    step = torch.arange(-2.0, 3.0).view(1, 5, 1, 1, 1) * strength.view(-1, 1, 1, 1, 1)
    return from_linear(0.5 + 0.02 * step * torch.ones(1, 1, 3, 4, 4))


def test_views_that_run_backwards_are_turned_and_views_that_hedge_count_less() -> None:
    said = iter([1.0, -1.0, 0.1, -0.1])  # two sure views, two near their seams, half of them reversed
    joined = to_linear(join_views(lambda x: moving(torch.tensor([next(said)])), torch.rand(1, 3, 4, 4), 4, "srgb"))
    odd = float((joined[0, -1] - joined[0, 0]).mean()) / 2 / 0.04
    plain = (1 + 1 + 0.1 + 0.1) / 4
    assert plain < 0.6 < 0.98 < odd <= 1.0


@given(views=st.integers(1, 8), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_shares_add_up_and_keep_the_direction_of_the_photo_as_it_is(views: int, seed: int) -> None:
    odd = torch.randn(3, views, 30, generator=torch.Generator().manual_seed(seed))
    share = view_shares(odd)
    torch.testing.assert_close(share.abs().sum(1), torch.ones(3))
    assert (share[:, 0] >= 0).all()
    torch.testing.assert_close(view_shares(-odd), share, atol=1e-5, rtol=0)


def test_a_still_photo_stays_still_and_finite() -> None:
    blurry = torch.rand(2, 3, 6, 6)
    joined = join_views(lambda x: x[:, None].expand(-1, 5, -1, -1, -1), blurry, 8, "srgb")
    torch.testing.assert_close(joined, blurry[:, None].expand_as(joined), atol=1e-5, rtol=0)


@pytest.mark.parametrize("response", ["srgb", "gamma2.2", "none"])
def test_joined_views_still_reblur_to_the_photo(response: str) -> None:
    torch.manual_seed(0)
    config = DeblurrerConfig(width=4, blocks=(1, 1), response=response)  # type: ignore[arg-type]
    model = EvenOddDeblurrer(config, 7).eval()
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.05)
    blurry = 0.1 + 0.8 * torch.rand(2, 3, 17, 22)
    with torch.no_grad():
        error = to_linear(average(model(blurry), response), response) - to_linear(blurry, response)
    assert -10 * torch.log10(error.square().mean() + 1e-20) >= 60
