"""Champion or not: one pure function from two sets of figures to a decision with its reasons.

A challenger becomes champion if it is measured on the same test set as the champion, is better by a margin on
several figures, much worse on none, and beats the trivial answer (repeat the blurry image) at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hypercut_core.errors import RegistryError
from hypercut_core.evaluation.protocol_names import BLIND, GIVEN, protocol_of
from hypercut_core.files import read_json


@dataclass(frozen=True)
class RegisterConfig:
    """Where models are registered, and what a champion must do."""

    name: str = "hypercut-deblurrer"  # registered model
    experiment: str = "hypercut"  # MLflow experiment of the runs
    min_gain: float = 0.25  # dB of mean pPSNR above repeating the blurry image
    min_gain_ends: float = 0.25  # the same for the first and last frame, dB
    margin_ppsnr: float = 0.05  # dB of mean pPSNR that count as better than the champion
    margin_ends: float = 0.05  # the same for the first and last frame, dB
    margin_pssim: float = 0.001  # the same for mean pSSIM
    wins: int = 2  # of these three figures, how many must be better
    loss_ppsnr: float = 0.1  # dB of mean pPSNR, ends or middle frame that count as much worse
    loss_pssim: float = 0.003  # the same for mean pSSIM


@dataclass(frozen=True)
class Reason:
    """One check of the gate and how it went."""

    check: str  # short stable name
    passed: bool
    text: str  # one sentence for people


@dataclass(frozen=True)
class GateDecision:
    """May the candidate become champion, and why."""

    promote: bool
    reasons: list[Reason]

    def to_json(self) -> dict[str, Any]:
        return {"promote": self.promote, "reasons": [asdict(reason) for reason in self.reasons]}


class Figure(NamedTuple):
    key: str
    title: str
    unit: str


PPSNR = Figure("ppsnr", "mean pPSNR", " dB")
ENDS = Figure("ends", "pPSNR of the first and last frame", " dB")
MIDDLE = Figure("middle", "pPSNR of the middle frame", " dB")
PSSIM = Figure("pssim", "mean pSSIM", "")
FIGURES = (PPSNR, ENDS, MIDDLE, PSSIM)


def gate_metrics(figures: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """What the gate compares, from the content of metrics/evaluate.json.

    Args:
        figures: as `evaluate` writes them.
        name: the model; None: the default one. "champion" for the champion measured beside it.

    Raises:
        RegistryError: the file holds no such figures.
    """
    name = str(figures.get("default")) if name is None else name
    models = figures.get("models")
    model = figures.get("champion") if name == "champion" else \
        models.get(name) if isinstance(models, Mapping) else None
    trivial = figures.get("trivial")
    if not isinstance(model, Mapping) or not isinstance(trivial, Mapping):
        raise RegistryError(f"the metrics hold no figures of the model '{name}' and of the trivial answer",
                            where="metrics/evaluate.json", remedy="run 'hypercut evaluate' again")
    return {
        "test_set": figures.get("test_set"), "clips": figures.get("clips"), "frames": figures.get("frames"),
        "model": name, "model_sha256": model.get("model_sha256"), "not_finite": model.get("not_finite", 0),
        **{figure.key: model.get(figure.key) for figure in FIGURES},
        **{f"trivial_{figure.key}": trivial.get(figure.key) for figure in FIGURES},
        **({} if protocol_of(model) == BLIND else {"protocol": protocol_of(model)}),
    }


def decide(candidate: Mapping[str, Any], champion: Mapping[str, Any] | None,
           config: RegisterConfig) -> GateDecision:
    """Compare two results of `gate_metrics`.

    Args:
        candidate: figures of the new model.
        champion: figures of the present champion; None: there is none.
        config: margins.
    """
    reasons = [_complete(candidate, "candidate"), *_blind(candidate), *_above_trivial(candidate, config)]
    if champion is None:
        reasons.append(Reason("champion", True, "There is no champion to beat."))
    else:
        same = _same_test_set(candidate, champion)
        reasons.append(same)
        if same.passed:
            reasons += [_complete(champion, "champion"), *_against(candidate, champion, config)]
    return GateDecision(all(reason.passed for reason in reasons), reasons)


def explain(decision: GateDecision) -> str:
    """The decision as text: one line of outcome, then one line a reason, the failed ones first."""
    verdict = "Promoted: the candidate is the champion." if decision.promote else \
        "Refused: the candidate stays a candidate."
    ordered = sorted(decision.reasons, key=lambda reason: reason.passed)
    lines = [f"  [{'yes' if reason.passed else 'NO'}] {reason.text}" for reason in ordered]
    return "\n".join([verdict, *lines])


def read_decision(path: Path) -> GateDecision:
    """The decision in metrics/register-model.json.

    Raises:
        StorageError: the file is missing or no JSON; RegistryError: it holds no decision.
    """
    return decision_from_json(read_json(path), path)


def decision_from_json(value: Any, where: Path | str) -> GateDecision:
    """Inverse of `GateDecision.to_json`."""
    try:
        reasons = [Reason(str(one["check"]), bool(one["passed"]), str(one["text"]))
                   for one in value["reasons"]]
        return GateDecision(bool(value["promote"]), reasons)
    except (KeyError, TypeError) as error:
        raise RegistryError("there is no gate decision here", where=where,
                            remedy="run 'hypercut register-model'") from error


def _number(metrics: Mapping[str, Any], key: str) -> float:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _complete(metrics: Mapping[str, Any], who: str) -> Reason:
    missing = [figure.title for figure in FIGURES if not math.isfinite(_number(metrics, figure.key))]
    if not metrics.get("test_set"):
        missing.append("hash of the test set")
    if missing:
        return Reason(f"{who}_figures", False, f"The {who}'s figures are incomplete: {', '.join(missing)}.")
    broken = _number(metrics, "not_finite")
    if broken > 0:
        return Reason(f"{who}_figures", False, f"The {who}'s output is not finite on {broken:.0f} clips.")
    clips = f" on {metrics['clips']} clips" if metrics.get("clips") else ""
    return Reason(f"{who}_figures", True, f"The {who}'s figures are complete{clips}.")


def _blind(candidate: Mapping[str, Any]) -> list[Reason]:
    protocol = protocol_of(candidate)
    return [] if protocol == BLIND else [Reason(
        "protocol", False, f"The candidate was measured by the protocol '{protocol}', given "
                           f"{GIVEN.get(protocol, 'more than the blurry image')}: only blind models are compared.")]


def _above_trivial(candidate: Mapping[str, Any], config: RegisterConfig) -> list[Reason]:
    reasons = []
    for figure, margin in ((PPSNR, config.min_gain), (ENDS, config.min_gain_ends)):
        own, trivial = _number(candidate, figure.key), _number(candidate, f"trivial_{figure.key}")
        passed = own - trivial >= margin  # false for not-a-number
        reasons.append(Reason(
            f"trivial_{figure.key}", passed,
            f"The {figure.title} of {own:.2f}{figure.unit} is {own - trivial:+.2f}{figure.unit} against "
            f"repeating the blurry image; at least {margin:+.2f}{figure.unit} is asked for."))
    return reasons


def _same_test_set(candidate: Mapping[str, Any], champion: Mapping[str, Any]) -> Reason:
    own, other = str(candidate.get("test_set")), str(champion.get("test_set"))
    if own == other:
        return Reason("test_set", True, f"Both were measured on the same test set ({own[:12]}).")
    return Reason("test_set", False,
                  f"The champion was measured on another test set ({other[:12]}) than the candidate "
                  f"({own[:12]}), so their figures cannot be compared. To mend it: run 'hypercut evaluate' "
                  "where the champion can be read, which measures it on this test set too.")


def _against(candidate: Mapping[str, Any], champion: Mapping[str, Any],
             config: RegisterConfig) -> list[Reason]:
    """Several wins, no clear loss."""
    margins = {PPSNR: config.margin_ppsnr, ENDS: config.margin_ends, PSSIM: config.margin_pssim}
    won, all_differences, reasons = [], [], []
    for figure in FIGURES:
        difference = _number(candidate, figure.key) - _number(champion, figure.key)
        shown = f"{difference:+.4f}" if figure is PSSIM else f"{difference:+.2f}{figure.unit}"
        all_differences.append(f"{figure.title} {shown}")
        if figure in margins and difference >= margins[figure]:
            won.append(figure.title)
        allowed = config.loss_pssim if figure is PSSIM else config.loss_ppsnr
        if not difference >= -allowed:
            reasons.append(Reason(f"loss_{figure.key}", False,
                                  f"The {figure.title} is {shown} against the champion, which is much worse "
                                  f"(more than {allowed:g}{figure.unit})."))
    if not reasons:
        reasons.append(Reason("losses", True, "No figure is much worse than the champion's."))
    text = f"Clearly better than the champion on {len(won)} of {len(margins)} figures, {config.wins} are " \
           f"asked for ({'; '.join(all_differences)})."
    return [Reason("wins", len(won) >= config.wins, text), *reasons]
