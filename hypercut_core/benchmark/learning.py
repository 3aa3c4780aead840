"""The part of the benchmark's page that shows how its trainings went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from hypercut_core.benchmark.curves import CLIPS, Learned, mean_gain
from hypercut_core.evaluation import charts
from hypercut_core.evaluation.charts import SERIES, Series
from hypercut_core.evaluation.protocol_names import BLIND, GIVEN
from hypercut_core.evaluation.tables import table

NOTE = (f"pPSNR above repeating the blurry image on up to {CLIPS} validation clips, measured after the whole training, "
        "after half of it, a quarter and so on; mean of the seeds. What still rises at its end wanted more "
        "training. Measuring it is not counted as CPU time.")


def learning_curves(learned: Sequence[Learned]) -> str:
    """HTML of all curves; nothing where there are none."""
    if not learned:
        return ""
    parts = [f"<p>{NOTE}</p>"]
    for protocol in dict.fromkeys(one.protocol for one in learned):
        told = "" if protocol == BLIND else f"<h3>{escape(protocol)}: {escape(GIVEN[protocol])}</h3>"
        parts.append(told + _gains([one for one in learned if one.protocol == protocol]))
    losses = "".join(_losses(row, group) for row, group in _by_row(learned))
    parts.append(f'<details><summary>Loss of each training</summary><div class="pair">{losses}</div></details>')
    return "".join(parts)


def _by_row(learned: Sequence[Learned]) -> Iterator[tuple[str, list[Learned]]]:
    for row in dict.fromkeys(one.row for one in learned):
        yield row, [one for one in learned if one.row == row]


def _gains(learned: Sequence[Learned]) -> str:
    curves = [(row, points) for row, group in _by_row(learned)
              if (points := mean_gain([one.curve for one in group]))]
    figures = ""
    for start in range(0, len(curves), SERIES):
        series = [Series(row, points, style) for style, (row, points) in enumerate(curves[start:start + SERIES])]
        said = "; ".join(f"{one.name}: {one.points[-1][1]:.2f} after {one.points[-1][0]:.0f} s" for one in series)
        chart = charts.line_chart(series, "CPU-seconds of training", "gain (dB)", f"Gain in dB by CPU-seconds. {said}",
                                  from_zero=True)
        figures += f"<figure>{chart}{charts.legend(series)}</figure>"
    rows = [[escape(row), f"{at:,.1f}", f"{value:.2f}".replace("-", "−")] for row, points in curves
            for at, value in points]
    numbers = table([("Training", ""), ("CPU time", "s"), ("Gain", "dB")], rows, "Learning curves")
    return f'<div class="pair">{figures}</div><details><summary>The numbers</summary>{numbers}</details>'


def _losses(row: str, group: Sequence[Learned]) -> str:
    series = [Series(f"seed {one.seed}", one.curve.mean_loss(), style) for style, one in enumerate(group)]
    chart = charts.line_chart(series, "step", "loss", f"Loss of {row} by step")
    return f"<figure><figcaption>{escape(row)}</figcaption>{chart}{charts.legend(series)}</figure>"
