"""The report: one HTML file that needs nothing else, to be opened, mailed or kept beside the model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from hypercut_core.evaluation import charts, films, tables
from hypercut_core.evaluation.charts import SERIES, Series
from hypercut_core.evaluation.page import page
from hypercut_core.evaluation.protocol_names import BLIND, GIVEN, protocol_of
from hypercut_core.evaluation.report_data import ClipLabel, Example, ReportData
from hypercut_core.files import write_text

__all__ = ["ClipLabel", "Example", "ReportData", "headline", "render", "write_report"]
LEARNED = "learned"  # name of the order table's order among the directions of the scores
FOOT = ("Blind protocol, unless a row says another: a model is given the blurry image and nothing else. "
        "pPSNR and pSSIM take the better of the two directions of time, chosen once per clip; frames are "
        "numbered by the truth; pictures are rounded to 8 bits before they are scored. The pictures on this page are "
        "compressed: no score was measured on them.")
TABLE_NOTE = ("Marked: the best of each column. <em>Order told right</em>: how often the predicted "
              "motion goes the way that an order says, judged from the blurry image alone. For a "
              "model trained on that order this is the order’s predictability; for the others about "
              "half is what chance gives. <em>Strength of motion</em>: length of the predicted odd "
              "part over the true one; near 0 a model hedges between both directions.")
MOTION_NOTE = ("<em>Motion error</em>: mean length of the difference between the optical flow from the "
               "first to the last predicted frame and the true one; for frames that do not move it is "
               "the mean true motion.")
FILMS_NOTE = ("An even choice by rank, from the clip that gains most to the clip that gains least. "
              "Films play in the direction that scored; the control below stops them and shows frame "
              "by frame.")
SEAM_NOTE = ("Every order has a seam: turn the motion through 180° and the blurry image is the same "
             "while the sequence is reversed. Near the seam the margin is small, and a model that "
             "must tell the direction averages the two.")


def write_report(path: str | os.PathLike[str], data: ReportData) -> None:
    """Write the report as one HTML file, whole or not at all."""
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """The report as HTML; every text from outside is escaped."""
    sections = [
        ("objectives", "All objectives", _objectives(data)),
        ("frames", "Frame by frame", _frames(data)),
        ("films", "Recovered clips", _films(data)),
        ("worst", "Worst clips", _worst(data)),
        ("order", "The order of time", _order(data)),
        ("where", "Where it works, and where not", _where(data)),
        ("provenance", "Provenance", _provenance(data)),
    ]
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    parts = [f'<section id="{key}"><h2>{name}</h2>{html}</section>' for key, name, html in sections]
    if data.examples or data.worst:  # the control stays in sight as long as there are films
        parts[2:4] = [f"<div>{''.join(parts[2:4])}{films.player(data.frames)}</div>"]
    return page(data.title, f'<header>{_header(data)}<nav aria-label="Sections">{links}</nav></header>'
                            f"<main>{''.join(parts)}</main><footer><p>{FOOT}</p></footer>")


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    gain = float(data.gain.mean())
    if abs(gain) < 0.05:
        result = "is level with repeating the blurry image"
    else:
        result = f"is {abs(gain):.1f} dB {'above' if gain > 0 else 'below'} repeating the blurry image"
    clips = f"{len(data.clips):,} unseen clip{'s' * (len(data.clips) != 1)}"
    return f"{data.frames} sharp frames from one blurry image: {data.default} {result}, on {clips}."


def _header(data: ReportData) -> str:
    mine, trivial = data.summaries[data.default], data.trivial_summary
    better = 100 * float((data.gain > 0).mean())
    facts = [("pPSNR, mean of all frames", f"{mine['ppsnr']:.2f} dB"),
             ("repeating the blurry image", f"{trivial['ppsnr']:.2f} dB"),
             (f"gain on frames 1 and {data.frames}", f"{tables.signed(mine['gain_ends'])} dB"),
             ("clips that gain", f"{better:.0f} %"), ("pSSIM", f"{mine['pssim']:.3f}"),
             ("parameters", tables.count(mine.get("parameters")))]
    low, high = (tables.signed(value) for value in mine["gain_interval"])
    best = max(data.summaries, key=lambda name: data.summaries[name]["ppsnr"])
    other = "" if best == data.default else (
        f" The best mean below is that of <strong>{escape(best)}</strong>, "
        f"{data.summaries[best]['ppsnr']:.2f} dB.")
    return (f'<h1>{escape(data.title)}</h1><p class="headline">{escape(headline(data))}</p>'
            f'<p class="soft">95 % interval of the mean gain, over clips: {low} to {high} dB.{other}</p>'
            + _facts(facts))


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _objectives(data: ReportData) -> str:
    blind = {name: one for name, one in data.summaries.items() if protocol_of(one) == BLIND}
    more = {name: one for name, one in data.summaries.items() if name not in blind} | dict(data.given_more)
    parts = [tables.objectives(data.default, blind, data.trivial_summary)] if blind else []
    if more:
        known = dict.fromkeys(protocol_of(one) for one in more.values())
        words = "; ".join(f"{name}: {GIVEN.get(name, 'more than the blurry image')}" for name in known)
        parts.append(f"<h3>Given more than the blurry image</h3><p>These were helped ({escape(words)}) and must not "
                     f"be set beside the others.</p>{tables.objectives(data.default, more, data.trivial_summary)}")
    said = TABLE_NOTE + (f" {MOTION_NOTE}" if "motion_error" in data.trivial_summary else "")
    notes = "".join(f'<p class="small bad">{escape(note)}.</p>' for note in data.notes)
    return f'{"".join(parts)}<p class="small soft">{said}</p>{notes}'


def _frames(data: ReportData) -> str:
    series = [Series(name, list(enumerate(one["ppsnr_frames"], start=1)), style % (SERIES - 1))
              for style, (name, one) in enumerate(data.summaries.items())]
    trivial = list(enumerate(data.trivial_summary["ppsnr_frames"], start=1))
    series.append(Series(tables.TRIVIAL, trivial, SERIES - 1))
    said = "; ".join(f"{one.name}: {', '.join(f'{y:.1f}' for _, y in one.points)}" for one in series)
    chart = charts.line_chart(series, "frame", "pPSNR (dB)", f"pPSNR in dB by frame. {said}")
    return (f'<figure class="wide">{chart}{charts.legend(series)}</figure>'
            f"<details><summary>The numbers</summary>{tables.frames(series)}</details>")


def _films(data: ReportData) -> str:
    if not data.examples:
        return "<p>No clips were chosen for display.</p>"
    shown = "".join(_example(data, one) for one in data.examples)
    parts = [f'<p>{FILMS_NOTE}</p><div class="clips">{shown}</div>']
    several = [example for example in data.examples if len(example.recovered) > 1]
    if several:
        parts.append("<h3>The same clips by every objective</h3>")
    parts += [_comparison(data, one) for one in several]
    return "".join(parts)


def _comparison(data: ReportData, example: Example) -> str:
    """One clip by every model, each with its own pPSNR."""
    shown = [(f"{name}, {data.scores[name].ppsnr[example.place].mean():.1f}\N{NO-BREAK SPACE}dB", frames)
             for name, frames in example.recovered.items()]
    return _figure(data, example, [*shown, ("truth", example.clip[1:])])


def _example(data: ReportData, example: Example) -> str:
    recovered = example.recovered[data.default]
    return _figure(data, example, [("recovered", recovered), ("truth", example.clip[1:])])


def _figure(data: ReportData, example: Example, shown: Sequence[tuple[str, np.ndarray]]) -> str:
    label, gain = data.clips[example.place], float(data.gain[example.place])
    mean = data.scores[data.default].ppsnr[example.place].mean()
    known = data.margins is not None and np.isfinite(data.margins[example.place])
    margin = f", margin {data.margins[example.place]:.2f}" if known else ""  # type: ignore[index]
    bad = ' class="bad"' if gain < 0 else ""
    about = f"{label.clip_id}: {label.category}, {label.motion:.0f} px{margin}"
    return (f"<figure>{films.panels(example.clip[0], shown, f'clip {label.clip_id}')}<figcaption>"
            f"<strong>{mean:.1f} dB</strong>, <span{bad}>{tables.signed(gain, 1)} dB</span> against the "
            f"blurry image<br>{escape(about)}</figcaption></figure>")


def _order(data: ReportData) -> str:
    figures = sorted(data.order_figures.items(), key=lambda item: (item[0] != "hit", item[0]))
    facts = [(_order_name(key), f"{100 * value:.1f} %") for key, value in figures]
    facts += [(f"{order} order, told from blur", f"{100 * value:.1f} %")
              for order, value in data.predictability.items()]
    head = _facts(facts) if facts else ""
    if data.margins is None or not (known := np.isfinite(data.margins)).any():
        return head + "<p>No order table was given: there are no margins to show.</p>"
    margins = data.margins[known]
    bars = charts.histogram(margins, "order margin |u|", "clips",
                            f"Histogram of the order margin of {len(margins)} clips")
    names = [label.clip_id for label, keep in zip(data.clips, known, strict=True) if keep]
    dots = charts.scatter_with_means(margins, data.gain[known], "order margin |u|", "gain (dB)",
                                     f"Gain of {data.default} by order margin, a dot a clip", names)
    captions = ("Margins of the learned order: how far each clip is from the seam",
                f"Gain of {data.default} by margin: a dot a clip, the curve the mean of equal groups")
    return (f'{head}<p>{SEAM_NOTE}</p><div class="pair">{_captioned(bars, captions[0])}'
            f"{_captioned(dots, captions[1])}{_told_right(data, known)}</div>")


def _order_name(key: str) -> str:
    """con3 -> Con@3, as the paper writes it."""
    return re.sub(r"^(con|joint)(\d+)$", lambda found: f"{found[1].title()}@{found[2]}", key)


def _told_right(data: ReportData, known: np.ndarray) -> str:
    """How often each model tells the learned order right, by margin."""
    series = []
    for style, (name, scores) in enumerate(data.scores.items()):
        direction = scores.directions.get(LEARNED, np.zeros(len(known)))
        use = known & (direction != 0)
        if use.any():
            right = 100.0 * (scores.agreement * direction > 0)[use]
            margins = np.asarray(data.margins)[use]
            series.append(Series(name, charts.binned_means(margins, right, 6), style % (SERIES - 1)))
    if not series:
        return ""
    chart = charts.line_chart(series, "order margin |u|", "order told right (%)",
                              "Share of clips whose learned direction each model tells right, by margin",
                              from_zero=True, y_range=(0, 100))
    return _captioned(chart + charts.legend(series),
                      "How often each model moves the way that the learned order says")


def _where(data: ReportData) -> str:
    motion = np.array([label.motion for label in data.clips])
    dots = charts.scatter_with_means(motion, data.gain, "motion over the exposure (px)", "gain (dB)",
                                     f"Gain of {data.default} by motion, a dot a clip",
                                     [label.clip_id for label in data.clips])
    caption = f"Gain of {data.default} by motion: a dot a clip, the curve the mean of equal groups"
    table = tables.categories(data.categories)
    return f'<div class="pair">{_captioned(dots, caption)}<div>{table}</div></div>'


def _captioned(html: str, caption: str) -> str:
    return f"<figure>{html}<figcaption>{escape(caption)}</figcaption></figure>"


def _worst(data: ReportData) -> str:
    below = np.flatnonzero(data.gain < 0)
    said = f"{len(below):,} of {len(data.clips):,} clips are worse than repeating the blurry image." \
        if len(below) else "No clip is worse than repeating the blurry image."
    broken = int(data.summaries[data.default]["not_finite"])
    if broken:
        said += f' <span class="bad">{broken:,} outputs held infinite values or no numbers.</span>'
    shown = "".join(_example(data, one) for one in data.worst)
    rows = below[np.argsort(data.gain[below], kind="stable")][:50]
    failures = tables.failures([data.clips[i] for i in rows], data.gain[rows].tolist())
    more = f"<details><summary>Failures, worst first</summary>{failures}</details>" if len(rows) else ""
    return f'<p>{said}</p><div class="clips">{shown}</div>{more}'


def _provenance(data: ReportData) -> str:
    everything = data.provenance.items()
    nested = {key: value for key, value in everything if isinstance(value, Mapping | list | tuple)}
    plain = {key: value for key, value in everything if key not in nested}
    blocks = []
    for key, value in nested.items():
        text = json.dumps(value, indent=2, default=str, sort_keys=True)
        blocks.append(f'<details><summary>{escape(str(key))}</summary><div class="scroll">'
                      f"<pre>{escape(text)}</pre></div></details>")
    return tables.pairs(plain) + "".join(blocks)
