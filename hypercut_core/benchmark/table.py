"""All finished rows as one table: one line a model, objective, protocol and number of views; seeds side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hypercut_core.benchmark.quoted import NOTE, QUOTED, QUOTED_COST
from hypercut_core.benchmark.rows import REPEAT
from hypercut_core.evaluation.protocol_names import BLIND, labelled

if TYPE_CHECKING:
    from hypercut_core.benchmark.curves import Learned

SOURCES = 12  # sources that are shown by themselves
SOURCES_NOTE = "Gain over repeating the blurry image, dB: mean / first and last frame."
FIGURES = ("ppsnr", "ends", "middle", "pssim", "reblur", "gain", "gain_ends", "odd_strength")


@dataclass
class Line:
    """One line of the table; every figure has one value a seed."""

    row: str
    model: str
    objective: str
    protocol: str
    views: str = ""
    seeds: list[int] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)  # also canonical and told_right, in the learned order
    frames: list[list[float]] = field(default_factory=list)  # pPSNR of each frame
    samples: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # of the training
    cost: dict[str, float] = field(default_factory=dict)
    sources: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # name -> clips, ppsnr, gain, gain_ends

    @property
    def name(self) -> str:
        """Row and number of views."""
        return f"{self.row}, {self.views}" if self.views else self.row

    def mean(self, figure: str) -> float | None:
        values = self.figures.get(figure)
        return statistics.fmean(values) if values else None

    def mean_frames(self) -> list[float]:
        return [statistics.fmean(values) for values in zip(*self.frames, strict=True)]


def gather(results: Sequence[Mapping[str, Any]], costs: Mapping[tuple[str, str], Mapping[str, float]]) -> list[Line]:
    """Lines in the order of the results, those that are not blind last.

    Args:
        results: contents of the rows' `result.json`.
        costs: (model, views) -> parameters, gmac, cpu_seconds, peak_mib.
    """
    lines: dict[tuple[str, str, str], Line] = {}
    for result in results:
        for one in result["results"]:
            key = (result["row"], one["protocol"], one["views"])
            line = lines.setdefault(key, Line(result["row"], result["model"], result["objective"], one["protocol"],
                                              one["views"], cost=dict(costs.get((result["model"], one["views"]), {}))))
            line.seeds.append(result["seed"])
            line.frames.append(one["ppsnr_frames"])
            learned = {}
            if result["objective"]:  # the others know of no order
                learned = {"canonical": one["canonical"].get("learned"), "told_right": one["agreement"].get("learned")}
            for figure, value in {**{name: one.get(name) for name in FIGURES}, **learned}.items():
                if value is not None:
                    line.figures.setdefault(figure, []).append(value)
            for source, one_source in one.get("sources", {}).items():
                for figure, value in one_source.items():
                    line.sources.setdefault(source, {}).setdefault(figure, []).append(value)
            if "samples" in result:
                line.samples.append(result["samples"])
                line.cpu_seconds.append(result["cpu_seconds"])
    return sorted(lines.values(), key=lambda line: line.protocol != BLIND)


def document(lines: Sequence[Line], about: Mapping[str, Any], encoders: Mapping[str, Sequence[float]],
             failed: Sequence[Mapping[str, Any]], learned: Sequence[Learned] = (),
             begun: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The table as JSON.

    Args:
        encoders: hit, con2, con3, joint3 of the encoder of each seed.
        begun: the results whose training went on from a model's weights; `start` is its sha256.
    """
    return {
        **({"starts": [{key: one[key] for key in ("row", "seed", "start")} for one in begun]} if begun else {}),
        "learning": [one.document() for one in learned],
        "about": dict(about), "encoder": {key: list(values) for key, values in encoders.items()},
        "lines": [asdict(line) for line in lines], "failed": [dict(one) for one in failed],
        "quoted": {"note": NOTE, "ppsnr": [asdict(one) for one in QUOTED],
                   "cost": [{"model": model, "parameters_million": size, "gmac": gmac}
                            for model, size, gmac in QUOTED_COST]},
    }


def spread(values: Sequence[float] | None, digits: int = 2, scale: float = 1.0) -> str:
    """ "27.55 ± 0.10": mean and sample standard deviation over the seeds; the mean alone for one seed."""
    if not values:
        return "–"
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def markdown(data: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """The table for people."""
    about = data["about"]
    parts = [f"# Models side by side\n\n{about['sentence']}"]
    for title, group in groups(lines):
        parts.append(f"## {title}\n\n" + _quality(group))
    for title, heads, rows in source_tables(lines):
        named = [", ".join(filter(None, head)) for head in heads]
        parts.append(f"## {title}\n\n{SOURCES_NOTE}\n\n" + _table(named, rows))
    parts.append("## Cost\n\n" + _costs(lines, about) + "\n\n" + _trainings(lines))
    order = ", ".join(f"{key} {spread(values, 1, 100)} %" for key, values in data["encoder"].items())
    if order:
        parts.append(f"The encoder's order on the scored clips' split: {order}.")
    if data.get("starts"):
        parts.append("Training went on from the weights of (sha256):\n\n"
                     + "\n".join(f"- {one['row']}, seed {one['seed']}: {one['start']}" for one in data["starts"]))
    if data["failed"]:
        parts.append("## Failed\n\n" + "\n".join(f"- {one['row']}, seed {one['seed']}: {one['why']}"
                                                 for one in data["failed"]))
    parts.append(f"## Quoted\n\n{NOTE}\n\n" + _quoted())
    return "\n\n".join(parts) + "\n"


def groups(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Blind lines, and those that were given more: never in one table."""
    blind = [line for line in lines if line.protocol == BLIND]
    more = [line for line in lines if line.protocol != BLIND]
    return [(title, group) for title, group in (("Blind: the blurry image alone", blind),
                                                ("Given more than the blurry image", more)) if group]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|",
                      *("| " + " | ".join(row) + " |" for row in rows)])


def _quality(lines: Sequence[Line]) -> str:
    helped = any(line.protocol != BLIND for line in lines)
    frames = len(lines[0].frames[0])
    heads = ["row", *(["protocol"] if helped else []), "seeds", "mean pPSNR, dB", "gain", "ends", "pSSIM",
             "canonical, dB", "order told right, %", "re-blur, dB", *(f"{k}" for k in range(1, frames + 1))]
    rows = [[line.name, *([line.protocol] if helped else []), str(len(line.seeds)), spread(line.figures.get("ppsnr")),
             spread(line.figures.get("gain")), spread(line.figures.get("ends")), spread(line.figures.get("pssim"), 3),
             spread(line.figures.get("canonical")), spread(line.figures.get("told_right"), 1, 100),
             spread(line.figures.get("reblur"), 1), *(f"{value:.2f}" for value in line.mean_frames())]
            for line in lines]
    return _table(heads, rows)


def source_tables(lines: Sequence[Line]) -> list[tuple[str, list[tuple[str, str]], list[list[str]]]]:
    """Title, heads (name, unit) and rows of the gain by source, for each group of lines that has it: first
    what repeating the blurry image reaches, then mean gain / gain of the ends. Of many sources those with most clips.
    """
    found = []
    for title, group in groups(lines):
        told = [line for line in group if line.sources and line.model != REPEAT]
        if not told or len(told[0].sources) < 2:
            continue
        clips = {name: max(figures["clips"]) for name, figures in told[0].sources.items()}
        names = sorted(clips, key=lambda name: -clips[name])[:SOURCES]
        heads = [("Source", ""), ("Clips", ""), ("Repeat", "dB"),
                 *((labelled(line.name, line.protocol), "") for line in told)]
        first = told[0].sources
        rows = [[name.replace("|", "/"), f"{clips[name]:,.0f}",
                 f"{statistics.fmean(first[name]['ppsnr']) - statistics.fmean(first[name]['gain']):.2f}",
                 *(_gains(line.sources.get(name)) for line in told)] for name in names]
        which = f", the {SOURCES} of {len(clips)} with most clips" if len(clips) > SOURCES else ""
        found.append((f"By source{which}. {title}", heads, rows))
    return found


def _gains(figures: Mapping[str, Sequence[float]] | None) -> str:
    return f"{spread(figures['gain'])} / {spread(figures['gain_ends'])}" if figures else "–"


def cost_lines(lines: Sequence[Line]) -> list[Line]:
    """One line for each model and number of views, whatever the objective."""
    return list({(line.model, line.views): line for line in reversed(lines) if line.cost}.values())[::-1]


def _costs(lines: Sequence[Line], about: Mapping[str, Any]) -> str:
    rows = [[f"{line.model}, {line.views}" if line.views else line.model, f"{line.cost.get('parameters', 0):,.0f}",
             number(line.cost.get("gmac")), number(line.cost.get("cpu_seconds")), number(line.cost.get("peak_mib"), 0)]
            for line in cost_lines(lines)]
    return _table(["model", "parameters", "GMAC at 320x240", f"CPU-s at {about['size']}", "peak memory, MiB"], rows)


def _trainings(lines: Sequence[Line]) -> str:
    rows = [[line.row, f"{statistics.fmean(line.samples):,.0f}", f"{statistics.fmean(line.cpu_seconds):,.0f}"]
            for line in {line.row: line for line in lines if line.samples}.values()]
    return _table(["training", "clips seen", "CPU-seconds"], rows)


def _quoted() -> str:
    rows = [[f"{one.data}: {one.model}", one.protocol, *(f"{value:.2f}" for value in one.ppsnr)] for one in QUOTED]
    costs = [[model, f"{size:.2f} M", f"{gmac:g}"] for model, size, gmac in QUOTED_COST]
    return _table(["quoted", "protocol", *map(str, range(1, 8))], rows) + "\n\n" + \
        _table(["quoted", "parameters", "GMAC at 320x240"], costs)


def number(value: float | None, digits: int = 2) -> str:
    """A cost, or a dash where it was not measured."""
    return "–" if value is None else f"{value:,.{digits}f}"
