"""The benchmark as one HTML file that needs nothing else: tables, curves, films."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hypercut_core.benchmark.curves import Learned
from hypercut_core.benchmark.learning import learning_curves
from hypercut_core.benchmark.quoted import NOTE, QUOTED, QUOTED_COST
from hypercut_core.benchmark.table import SOURCES_NOTE, Line, cost_lines, groups, number, source_tables, spread
from hypercut_core.evaluation import charts, films
from hypercut_core.evaluation.charts import SERIES, Series
from hypercut_core.evaluation.page import page
from hypercut_core.evaluation.protocol_names import BLIND, GIVEN
from hypercut_core.evaluation.tables import MISSING, count, pairs, table

FOOT = ("pPSNR and pSSIM take the better of the two directions of time, chosen once a clip; frames are numbered by the "
        "truth; ± is the standard deviation over the seeds. The pictures are compressed: no score was measured on "
        "them.")
FILMS_NOTE = ("The first seed's models on the same clips, each in the direction that scored. The control below stops "
              "them and shows frame by frame.")
COST_NOTE = ("Multiply-adds are those of one photo at 320×240, counted; CPU-seconds and memory are those of one photo "
             "at the size given, all at once, one thread, measured in a process of its own.")
# title, unit, figure, digits, scale, is the best one marked
COLUMNS = (("pPSNR", "mean, dB", "ppsnr", 2, 1.0, True), ("Gain", "over repeating, dB", "gain", 2, 1.0, False),
           ("pPSNR", "first and last, dB", "ends", 2, 1.0, True), ("pPSNR", "middle, dB", "middle", 2, 1.0, True),
           ("pSSIM", "mean", "pssim", 3, 1.0, True), ("Canonical PSNR", "learned order, dB", "canonical", 2, 1.0, True),
           ("Order told right", "learned order, %", "told_right", 1, 100.0, False),
           ("Re-blur", "PSNR, dB", "reblur", 1, 1.0, False))

Curve = tuple[str, Sequence[tuple[float, float]]]  # name, (frame, dB) each


@dataclass(frozen=True)
class Shown:
    """A clip by every row: `films` by label, uint8 [T, H, W, 3]; `clip` uint8 [T+1, H, W, 3]."""

    clip_id: str
    clip: np.ndarray
    films: Mapping[str, np.ndarray]


def render(lines: Sequence[Line], data: Mapping[str, Any], shown: Sequence[Shown],
           learned: Sequence[Learned] = ()) -> str:
    """The page; every text from outside is escaped."""
    about = data["about"]
    sections = [("models", "Models", _models(lines)), ("frames", "Frame by frame", _frames(lines)),
                ("sources", "By source", _sources(lines)),
                ("learning", "Learning curves", learning_curves(learned)),
                ("films", "The same clips by every model", _films(shown, int(about["frames"]))),
                ("cost", "What it costs", _cost(lines, about)), ("quoted", "Quoted from the papers", _quoted()),
                ("provenance", "Provenance", _provenance(data))]
    sections = [one for one in sections if one[2]]
    if data["failed"]:
        sections.insert(1, ("failed", "Failed", _failed(data["failed"])))
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{name}</h2>{html}</section>' for key, name, html in sections)
    head = (f'<header><h1>Hypercut benchmark</h1><p class="headline">{escape(headline(lines))}</p>'
            f'<p class="soft">{escape(about["sentence"])}</p>'
            f'<nav aria-label="Sections">{links}</nav></header>')
    return page("Hypercut benchmark", f"{head}<main>{body}</main><footer><p>{FOOT}</p></footer>")


def headline(lines: Sequence[Line]) -> str:
    """Which blind model is best, in one sentence."""
    blind = [line for line in lines if line.protocol == BLIND and line.objective and line.frames]
    if not blind:
        return "No trained model is among the rows."
    best = max(blind, key=lambda line: line.mean("ppsnr") or 0.0)
    gain = best.mean("gain") or 0.0
    seeds = f", mean of {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
    return (f"Best of the blind models: {best.name}, {best.mean('ppsnr'):.2f} dB{seeds}, {abs(gain):.2f} dB "
            f"{'above' if gain >= 0 else 'below'} repeating the blurry image.")


def _models(lines: Sequence[Line]) -> str:
    parts = []
    for title, group in groups(lines):
        words = dict.fromkeys(line.protocol for line in group if line.protocol != BLIND)
        note = "; ".join(f"{name}: {GIVEN.get(name, '')}" for name in words)
        told = f"<p>{escape(note)}. These figures must not be set beside the blind ones.</p>" if words else ""
        parts.append(f"<h3>{escape(title)}</h3>{told}{_quality(title, group)}")
    return "".join(parts)


def _quality(title: str, lines: Sequence[Line]) -> str:
    helped = any(line.protocol != BLIND for line in lines)
    # best of the blind ones only: those that were given more were given different things
    best = {} if helped else {figure: max((line.mean(figure) or 0.0 for line in lines), default=0.0)
                              for _, _, figure, _, _, marked in COLUMNS if marked and len(lines) > 1}
    heads = [("Model", "objective"), *([("Protocol", "")] if helped else []), ("Seeds", ""),
             *((name, unit) for name, unit, *_ in COLUMNS)]
    rows = []
    for line in lines:
        cells = [_cell(line, figure, digits, scale, best) for _, _, figure, digits, scale, _ in COLUMNS]
        rows.append([escape(line.name), *([escape(line.protocol)] if helped else []), str(len(line.seeds)), *cells])
    return table(heads, rows, title)


def _cell(line: Line, figure: str, digits: int, scale: float, best: Mapping[str, float]) -> str:
    values = line.figures.get(figure)
    if not values:
        return MISSING
    text = spread(values, digits, scale).replace("-", "−")
    wins = figure in best and statistics.fmean(values) >= best[figure] - 1e-9
    return f'<td class="best" title="best of this column">{text}</td>' if wins else text


def _frames(lines: Sequence[Line]) -> str:
    parts = []
    for title, group in groups(lines):
        curves = [(line.name if line.protocol == BLIND else f"{line.name} ({line.protocol})",
                   list(enumerate(line.mean_frames(), 1))) for line in group]
        figures = "".join(_chart(curves[:1], curves[start:start + SERIES - 1])
                          for start in range(1, max(2, len(curves)), SERIES - 1))
        heads = [("Frame", ""), *((str(k), "") for k, _ in curves[0][1])]
        numbers = table(heads, [[escape(name), *(f"{y:.2f}" for _, y in points)] for name, points in curves], title)
        parts.append(f'<h3>{escape(title)}</h3><div class="pair">{figures}</div>'
                     f"<details><summary>The numbers</summary>{numbers}</details>")
    return "".join(parts)


def _sources(lines: Sequence[Line]) -> str:
    found = source_tables(lines)
    tables = "".join(table(heads, [[escape(cell).replace("-", "−") if place else escape(cell)
                                    for place, cell in enumerate(row)] for row in rows], title)
                     for title, heads, rows in found)
    return f"<p>{SOURCES_NOTE}</p>{tables}" if found else ""


def _chart(first: Sequence[Curve], others: Sequence[Curve]) -> str:
    """The first curve of all as a measure, and as many others as can be told apart."""
    series = [Series(name, points, style) for style, (name, points) in enumerate([*first, *others])]
    said = "; ".join(f"{one.name}: {', '.join(f'{y:.1f}' for _, y in one.points)}" for one in series)
    chart = charts.line_chart(series, "frame", "pPSNR (dB)", f"pPSNR in dB by frame. {said}")
    return f"<figure>{chart}{charts.legend(series)}</figure>"


def _films(shown: Sequence[Shown], frames: int) -> str:
    if not shown:
        return "<p>No clips were chosen for display.</p>"
    figures = "".join(
        f"<figure>{films.panels(one.clip[0], [*one.films.items(), ('truth', one.clip[1:])], f'clip {one.clip_id}')}"
        f"<figcaption>{escape(one.clip_id)}</figcaption></figure>" for one in shown)
    return f"<div><p>{FILMS_NOTE}</p>{figures}{films.player(frames)}</div>"


def _cost(lines: Sequence[Line], about: Mapping[str, Any]) -> str:
    rows = []
    for line in cost_lines(lines):
        name = f"{line.model}, {line.views}" if line.views else line.model
        rows.append([escape(name), count(int(line.cost.get("parameters", 0))), number(line.cost.get("gmac")),
                     number(line.cost.get("cpu_seconds")), number(line.cost.get("peak_mib"), 0)])
    heads = [("Model", ""), ("Parameters", ""), ("Multiply-adds", "320×240, GMAC"),
             ("CPU time", f"{about['size']}, s"), ("Peak memory", f"{about['size']}, MiB")]
    trained = {line.row: line for line in lines if line.samples}.values()
    trainings = table([("Training", ""), ("Clips seen", "mean"), ("CPU time", "s")],
                      [[escape(line.row), f"{statistics.fmean(line.samples):,.0f}",
                        f"{statistics.fmean(line.cpu_seconds):,.0f}"] for line in trained], "Trainings")
    return f'<p>{COST_NOTE}</p>{table(heads, rows, "Cost")}<h3>Trainings</h3>{trainings}'


def _quoted() -> str:
    heads = [("Data and model", "quoted"), ("Protocol", ""), *((f"Frame {k}", "dB") for k in range(1, 8))]
    rows = [[escape(f"{one.data}: {one.model}"), escape(one.protocol), *(f"{value:.2f}" for value in one.ppsnr)]
            for one in QUOTED]
    costs = [[escape(model), f"{size:.2f} M", f"{gmac:g}"] for model, size, gmac in QUOTED_COST]
    cost_heads = [("Model", "quoted"), ("Parameters", ""), ("Multiply-adds", "320×240, GMAC")]
    return (f'<p>{NOTE}</p>{table(heads, rows, "Quoted pPSNR")}<h3>Quoted cost</h3>'
            + table(cost_heads, costs, "Quoted cost"))


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    rows = [[escape(str(one["row"])), str(one["seed"]), f'<td class="text bad">{escape(str(one["why"]))}</td>']
            for one in failed]
    return table([("Row", ""), ("Seed", ""), ("Why", "")], rows, "Failed rows")


def _provenance(data: Mapping[str, Any]) -> str:
    encoder = {f"encoder, {key}": f"{spread(values, 1, 100)} %" for key, values in data["encoder"].items()}
    begun = {f"{one['row']}, seed {one['seed']}: training went on from the weights of (sha256)": one["start"]
             for one in data.get("starts", [])}
    return pairs({**{key: value for key, value in data["about"].items() if key != "sentence"}, **encoder, **begun})
