"""The tables of a report as HTML; every text from outside is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from hypercut_core.evaluation.charts import Series

Summary = Mapping[str, Any]
MISSING = '<span class="soft" title="not known">–</span>'
TRIVIAL = "repeat the blurry image"


@dataclass(frozen=True)
class Column:
    """One figure of the table of objectives: where it lies in a summary, and what is better."""

    title: str
    unit: str
    key: tuple[str, ...]
    digits: int = 2
    scale: float = 1.0
    better: str = "high"  # "high", "low", "one" (nearest to 1) or "" (no better or worse)
    trivial: bool = True  # does it mean something for the trivial answer

    def merit(self, value: float) -> float:
        return {"one": -abs(value - 1), "low": -value}.get(self.better, value)


COLUMNS = (
    Column("pPSNR", "mean, dB", ("ppsnr",)),
    Column("Gain", "over repeating, dB", ("gain",), trivial=False),
    Column("pPSNR", "first and last, dB", ("ends",)),
    Column("pPSNR", "middle, dB", ("middle",)),
    Column("pSSIM", "mean", ("pssim",), 3),
    Column("Re-blur", "PSNR, dB", ("reblur",), 1, better=""),
    Column("Strength of motion", "ratio", ("odd_strength",), better="one", trivial=False),
)
ON_REQUEST = (
    Column("pLPIPS", "mean, less is better", ("plpips",), 3, better="low"),
    Column("Motion error", "end point, px", ("motion_error",), better="low"),
)


def objectives(default: str, summaries: Mapping[str, Summary], trivial: Summary) -> str:
    """All models beside the trivial answer, the best of each column marked."""
    orders = list(dict.fromkeys(order for one in summaries.values() for order in one.get("canonical", {})))
    columns = [*COLUMNS, *(column for column in ON_REQUEST if any(column.key[0] in one for one in summaries.values()))]
    columns += [Column("Canonical PSNR", f"{order} order, dB", ("canonical", order)) for order in orders]
    columns += [Column("Order told right", f"{order} order, %", ("agreement", order), 1, 100, trivial=False)
                for order in orders]
    best = [_best(column, summaries, trivial) for column in columns]
    rows = []
    for name, one in summaries.items():
        tag = ' <span class="tag">default</span>' if name == default else ""
        cells = [_cell(column, _figure(column, one), top) for column, top in zip(columns, best, strict=True)]
        rows.append([escape(name) + tag, *cells, count(one.get("parameters"))])
    plain = [_cell(column, _figure(column, trivial) if column.trivial else None, top)
             for column, top in zip(columns, best, strict=True)]
    rows.append([TRIVIAL, *plain, MISSING])
    heads = [("Objective", ""), *((column.title, column.unit) for column in columns), ("Parameters", "")]
    return table(heads, rows, "All objectives")


def frames(series: Sequence[Series]) -> str:
    """pPSNR of every curve at every frame."""
    heads = [("Frame", ""), *((str(int(x)), "") for x, _ in series[0].points)]
    rows = [[escape(one.name), *(f"{y:.2f}" for _, y in one.points)] for one in series]
    return table(heads, rows, "pPSNR by frame, dB")


def categories(figures: Mapping[str, Summary]) -> str:
    """pPSNR and gain of the default model by category of clip."""
    rows = [[escape(name), f"{one['clips']:,}", f"{one['ppsnr']:.2f}", signed(one["gain"])]
            for name, one in figures.items()]
    return table([("Category", ""), ("Clips", ""), ("pPSNR", "dB"), ("Gain", "dB")], rows, "By category")


def failures(labels: Iterable[Any], gains: Iterable[float]) -> str:
    """Clips that are worse than the trivial answer."""
    rows = [[escape(one.clip_id), escape(one.source), escape(one.category), f"{one.motion:.1f}", signed(gain)]
            for one, gain in zip(labels, gains, strict=True)]
    heads = [("Clip", ""), ("Source", ""), ("Category", ""), ("Motion", "px"), ("Gain", "dB")]
    return table(heads, rows, "Failures")


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values."""
    rows = "".join(f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(str(value))}</td></tr>'
                   for key, value in values.items())
    return f'<div class="scroll"><table class="provenance"><tbody>{rows}</tbody></table></div>'


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table that scrolls by itself on a narrow screen. `rows` are HTML, `heads` and `label` text."""
    top = "".join(f'<th scope="col">{escape(title)}<span class="unit">{escape(unit)}</span></th>'
                  for title, unit in heads)
    body = ""
    for first, *rest in rows:
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in rest)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table>'
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>")


def signed(value: float, digits: int = 2) -> str:
    """With its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def count(value: int | None) -> str:
    """1536 -> 1,536; 1.5e6 -> 1.50 M."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,}"


def _best(column: Column, summaries: Mapping[str, Summary], trivial: Summary) -> float | None:
    """Merit of the best cell, the trivial answer included; None where there is nothing to compare."""
    rivals = [*summaries.values(), *([trivial] if column.trivial else [])]
    values = [value for one in rivals if (value := _figure(column, one)) is not None]
    return max(map(column.merit, values)) if column.better and len(values) > 1 else None


def _cell(column: Column, value: float | None, best: float | None) -> str:
    if value is None:
        return MISSING
    shown = f"{value * column.scale:.{column.digits}f}".replace("-", "−")
    if best is None or column.merit(value) < best - 1e-6:
        return shown
    return f'<td class="best" title="best of this column">{shown}</td>'


def _figure(column: Column, one: Summary) -> float | None:
    value: Any = one
    for key in column.key:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and math.isfinite(value) else None
