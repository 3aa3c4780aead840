"""The gate: what is promoted, what is refused, and that the reason says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.register_model.gate import (
    GateDecision,
    RegisterConfig,
    decide,
    decision_from_json,
    explain,
    gate_metrics,
    read_decision,
)
from hypercut_core.errors import RegistryError, StorageError
from hypercut_core.files import write_json
from tests.components.registry_fixtures import evaluation, scores

CONFIG = RegisterConfig()


def figures(ppsnr: float = 27.0, **others: Any) -> dict[str, Any]:
    test_set = others.pop("test_set", "a" * 64)
    return gate_metrics(evaluation(ppsnr, test_set=test_set, **others))


def failed(decision: GateDecision) -> set[str]:
    return {reason.check for reason in decision.reasons if not reason.passed}


def test_the_first_good_model_is_promoted() -> None:
    decision = decide(figures(), None, CONFIG)
    assert decision.promote
    assert not failed(decision)


def test_a_clearly_better_challenger_is_promoted() -> None:
    assert decide(figures(27.5), figures(27.0), CONFIG).promote


def test_a_worse_challenger_is_refused() -> None:
    decision = decide(figures(26.0), figures(27.0), CONFIG)
    assert not decision.promote
    assert failed(decision) == {"wins", "loss_ppsnr", "loss_ends", "loss_middle", "loss_pssim"}


@pytest.mark.parametrize("gain", [0.0, 0.01, 0.049])
def test_an_equal_challenger_is_refused(gain: float) -> None:
    decision = decide(figures(27.0 + gain), figures(27.0), CONFIG)
    assert failed(decision) == {"wins"}


def test_better_on_one_figure_alone_is_not_enough() -> None:
    champion = figures(27.0)
    decision = decide(figures(27.5, ends=25.0, middle=29.0, pssim=0.675), champion, CONFIG)
    assert failed(decision) == {"wins"}
    assert "better than the champion on 1 of 3" in explain(decision)


@pytest.mark.parametrize("lost", [{"middle": 28.8}, {"pssim": 0.670}, {"ends": 24.0}])
def test_much_worse_on_any_figure_is_refused_however_good_the_rest(lost: dict[str, float]) -> None:
    decision = decide(figures(29.0, **lost), figures(27.0), CONFIG)
    assert failed(decision) == {f"loss_{next(iter(lost))}"}


def test_another_test_set_is_refused_with_that_reason_and_nothing_is_compared() -> None:
    decision = decide(figures(35.0, test_set="b" * 64), figures(27.0), CONFIG)
    assert failed(decision) == {"test_set"}
    assert "another test set" in explain(decision)
    assert "aaaaaaaaaaaa" in explain(decision)
    assert "bbbbbbbbbbbb" in explain(decision)
    assert not any(reason.check in ("wins", "losses") for reason in decision.reasons)


@pytest.mark.parametrize("champion", [None, 20.0])
def test_no_better_than_repeating_the_blurry_image_is_refused(champion: float | None) -> None:
    decision = decide(figures(24.1), None if champion is None else figures(champion), CONFIG)
    assert failed(decision) == {"trivial_ppsnr", "trivial_ends"}
    assert "repeating the blurry image" in explain(decision)


@pytest.mark.parametrize("broken", [{"ppsnr": None}, {"ends": float("nan")}, {"pssim": "good"},
                                    {"middle": True}])
def test_incomplete_figures_are_refused(broken: dict[str, Any]) -> None:
    decision = decide({**figures(30.0), **broken}, figures(27.0), CONFIG)
    assert not decision.promote
    assert "candidate_figures" in failed(decision)
    refused = decide(figures(30.0), {**figures(27.0), **broken}, CONFIG)
    assert "champion_figures" in failed(refused)


def test_missing_test_set_and_output_that_is_not_finite_are_refused() -> None:
    assert "candidate_figures" in failed(decide({**figures(), "test_set": None}, None, CONFIG))
    assert "not finite on 3 clips" in explain(decide(figures(not_finite=3), None, CONFIG))


@given(one=st.floats(20, 40), other=st.floats(20, 40))
def test_two_models_never_both_beat_each_other(one: float, other: float) -> None:
    forth = decide(figures(one), figures(other), CONFIG).promote
    back = decide(figures(other), figures(one), CONFIG).promote
    assert not (forth and back)
    if forth:
        assert one > other


@given(ppsnr=st.floats(0, 60), champion=st.none() | st.floats(0, 60))
def test_decision_survives_json_and_its_text_names_every_reason(
        ppsnr: float, champion: float | None) -> None:
    decision = decide(figures(ppsnr), None if champion is None else figures(champion), CONFIG)
    assert decision_from_json(decision.to_json(), "here") == decision
    assert decision.promote == (not failed(decision))
    text = explain(decision)
    assert all(reason.text in text for reason in decision.reasons)
    assert text.startswith("Promoted" if decision.promote else "Refused")
    assert text.count("[NO]") == len(failed(decision))


def test_the_champion_measured_today_stands_beside_the_candidate() -> None:
    content = evaluation(27.0)
    content["champion"] = {**scores(26.0), "model_sha256": "c" * 64}
    assert gate_metrics(content, "champion")["ppsnr"] == 26.0
    assert gate_metrics(content, "champion")["test_set"] == gate_metrics(content)["test_set"]


@pytest.mark.parametrize("content", [{}, {"default": "x", "models": {}, "trivial": {}},
                                     {"default": "x", "models": 3}])
def test_metrics_of_another_kind_are_an_error(content: dict[str, Any]) -> None:
    with pytest.raises(RegistryError, match="hypercut evaluate"):
        gate_metrics(content)


def test_reading_a_decision_back(tmp_path: Path) -> None:
    decision = decide(figures(), None, CONFIG)
    write_json(tmp_path / "register-model.json", {**decision.to_json(), "name": "hypercut-deblurrer"})
    assert read_decision(tmp_path / "register-model.json") == decision
    with pytest.raises(StorageError, match="does not exist"):
        read_decision(tmp_path / "none.json")
    for content in ({}, [], {"promote": True, "reasons": [1]}):
        write_json(tmp_path / "bad.json", content)
        with pytest.raises(RegistryError, match="register-model"):
            read_decision(tmp_path / "bad.json")
