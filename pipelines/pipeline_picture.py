"""A picture of the compiled pipeline: every task in order, what flows between them, and what each gets.

    python -m pipelines.pipeline_picture -o docs/pipeline.svg           # of the pipeline here
    python -m pipelines.pipeline_picture pipeline.yaml -o picture.svg   # of a compiled file

Everything in it is read from the compiled graph; the same graph gives the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipelines.package_graph import Flow, Task, tasks

WIDTH, ROW, TOP = 1210, 66, 92
LEFT, BOX_WIDTH, BOX_HEIGHT = 218, 196, 38
LANE, FIRST_LANE = 34, LEFT - 34  # vertical lines on the left, from right to left
TEXT = LEFT + BOX_WIDTH + 30
COLOURS = ("#1f6f8b", "#b3541e", "#5b7f2a", "#7a4fa3", "#a3364f", "#4a5a6a")
DARK = "#39434f"
PLUMBING = {"store", "tracking_folder", "deblurrer_scale"}  # parameters that say where, not what


@dataclass(frozen=True)
class Lane:
    """A flow with a reader that is not the next task: a line down the left side."""

    flow: Flow
    readers: tuple[str, ...]
    place: int


def picture(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> str:
    """The graph as SVG."""
    found = tasks(spec)
    rows = {task.name: place for place, task in enumerate(found)}
    lanes = _lanes(found, rows)
    height = TOP + ROW * len(found) + 22
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
             f'height="{height}" font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif">',
             f'<title>{escape(spec["pipelineInfo"]["name"])}</title>',
             "<defs>", *_heads(), "</defs>",
             f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#ffffff"/>',
             _text(28, 36, spec["pipelineInfo"]["name"], size=18, weight=600),
             _text(28, 58, spec["pipelineInfo"].get("description", ""), colour="#5c6773", size=13)]
    parts += _frame(found, rows)
    entries = _entries(lanes)
    for lane in lanes:
        parts += _drawn_lane(lane, rows, entries)
    for task in found:
        parts += [*_box(task, _y(rows[task.name])), *_words(task, _y(rows[task.name]), platform)]
    parts += _straight(found, rows, lanes)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _heads() -> Iterator[str]:
    """An arrowhead of each colour."""
    for colour in (*COLOURS, DARK):
        yield (f'<marker id="a{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
               f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>')


def _lanes(found: list[Task], rows: Mapping[str, int]) -> list[Lane]:
    """Lines for all flows that pass a task by; those that do not overlap share a place."""
    readers: dict[Flow, list[str]] = {}
    for task in found:
        for flow in task.inputs:
            readers.setdefault(flow, []).append(task.name)
    long = [(flow, names) for flow, names in readers.items() if rows[names[-1]] - rows[flow.task] > 1]
    lanes: list[Lane] = []
    for flow, names in sorted(long, key=lambda one: rows[one[1][-1]] - rows[one[0].task]):
        start, end = rows[flow.task], rows[names[-1]]
        taken = {lane.place for lane in lanes
                 if rows[lane.flow.task] < end and start < rows[lane.readers[-1]]}
        place = next(place for place in range(len(long)) if place not in taken)
        lanes.append(Lane(flow, tuple(names), place))
    return lanes


def _drawn_lane(lane: Lane, rows: Mapping[str, int], entries: Mapping[tuple[str, Flow], int]) -> Iterator[str]:
    x, colour = FIRST_LANE - LANE * lane.place, COLOURS[lane.place % len(COLOURS)]
    line = f'fill="none" stroke="{colour}" stroke-width="1.8"'
    heights = [_y(rows[reader]) + entries[reader, lane.flow] for reader in lane.readers]
    start = _y(rows[lane.flow.task]) + 12
    yield f'<path d="M{LEFT} {start}H{x + 8}q-8 0 -8 8V{heights[-1] - 8}" {line}/>'
    for y in heights:
        yield f'<path d="M{x} {y - 8}q0 8 8 8H{LEFT - 2}" {line} marker-end="url(#a{colour[1:]})"/>'
    middle = (start + _y(rows[lane.flow.task] + 1) - 6) // 2
    yield (f'<text x="{x - 5}" y="{middle}" font-size="11" fill="{colour}" text-anchor="middle" '
           f'transform="rotate(-90 {x - 5} {middle})">{escape(_called(lane.flow))}</text>')


def _entries(lanes: list[Lane]) -> dict[tuple[str, Flow], int]:
    """How far below the middle of its reader each lane ends: outer lanes pass below inner ones."""
    found: dict[tuple[str, Flow], int] = {}
    for reader in sorted({reader for lane in lanes for reader in lane.readers}):
        arriving = sorted((lane for lane in lanes if reader in lane.readers), key=lambda lane: lane.place)
        for number, lane in enumerate(arriving):
            found[reader, lane.flow] = -10 + 7 * number if len(arriving) > 1 else -6
    return found


def _called(flow: Flow) -> str:
    return "manifest" if flow.output == "Output" else flow.output  # a component's unnamed output


def _straight(found: list[Task], rows: Mapping[str, int], lanes: list[Lane]) -> Iterator[str]:
    """Arrows from one task to the next: what only that one reads, or the order alone (dashed)."""
    drawn = {lane.flow for lane in lanes}
    x = LEFT + BOX_WIDTH / 2
    for task in found:
        for source in sorted(task.upstream):
            if rows[task.name] - rows[source] != 1:
                continue
            flows = [_called(flow) for flow in task.inputs
                     if flow.task == source and flow not in drawn]
            if not flows and source not in task.waits:
                continue
            dash = "" if flows else ' stroke-dasharray="4 4"'
            top, bottom = _y(rows[source]) + BOX_HEIGHT / 2, _y(rows[task.name]) - BOX_HEIGHT / 2 - 2
            yield (f'<path d="M{x} {top}V{bottom}" stroke="{DARK}" stroke-width="1.8"{dash} fill="none" '
                   f'marker-end="url(#a{DARK[1:]})"/>')
            yield _text(x + 9, (top + bottom) / 2 + 4, ", ".join(flows) or "only if accepted", colour="#5c6773",
                        size=11)


def _frame(found: list[Task], rows: Mapping[str, int]) -> Iterator[str]:
    """Round what the closing task waits for."""
    inner = [rows[task.name] for task in found if not task.closing]
    if len(inner) == len(found):
        return
    top, bottom = _y(min(inner)) - 29, _y(max(inner)) + 30
    yield (f'<rect x="16" y="{top}" width="{WIDTH - 32}" height="{bottom - top}" rx="10" fill="#f7f9fb" '
           'stroke="#c5cdd6" stroke-dasharray="5 4"/>')
    yield (f'<path d="M{LEFT + BOX_WIDTH / 2} {bottom}V{_y(max(inner) + 1) - BOX_HEIGHT / 2 - 2}" '
           f'stroke="{DARK}" stroke-width="1.8" fill="none" marker-end="url(#a{DARK[1:]})"/>')


def _box(task: Task, y: int) -> Iterator[str]:
    fill = "#fff6e5" if "accelerator" in task.settings.get("resources", {}) else "#eaf3f8"
    fill = "#eef0f2" if task.closing else fill
    top = y - BOX_HEIGHT // 2
    for shift in (8, 4) if task.loop else ():
        yield (f'<rect x="{LEFT + shift}" y="{top + shift}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" '
               f'fill="{fill}" stroke="{DARK}"/>')
    dash = ' stroke-dasharray="6 3"' if task.condition else ""
    yield (f'<rect x="{LEFT}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="{fill}" '
           f'stroke="{DARK}" stroke-width="1.4"{dash}/>')
    yield (f'<text x="{LEFT + BOX_WIDTH // 2}" y="{y + 5}" font-size="14" font-weight="600" fill="#1d2430" '
           f'text-anchor="middle">{escape(task.name)}</text>')


def _words(task: Task, y: int, platform: Mapping[str, Any]) -> Iterator[str]:
    """Lines beside the box: when it runs if that is special, its parameters, and what it gets."""
    how = f"once for each of the {task.loop}, side by side" if task.loop else ""
    how = f"if {task.condition}" if task.condition else how
    how = "always, however the steps ended" if task.closing else how
    lines = [(how, "#1d2430", 12), (", ".join(sorted(task.parameters - PLUMBING - {task.loop})), "#1d2430", 12),
             (_resources(task, platform), "#5c6773", 11)]
    shown = [line for line in lines if line[0]]
    for number, (words, colour, size) in enumerate(shown):
        yield _text(TEXT, y + 5 + 16 * number - 8 * (len(shown) - 1), words, colour=colour, size=size)


def _resources(task: Task, platform: Mapping[str, Any]) -> str:
    asked = task.settings.get("resources", {})
    executor = (platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
                .get(task.executor, {}))
    hours = int(executor.get("activeDeadlineSeconds", 0)) / 3600
    gpus = asked.get("accelerator", {}).get("resourceCount")
    words = [f"{asked['resourceCpuLimit']} CPU" if "resourceCpuLimit" in asked else "",
             asked.get("resourceMemoryLimit", "").replace("Gi", " GiB"), f"{gpus} GPU" if gpus else "",
             f"at most {hours:g} h a try" if hours else "", "may be cached" if task.cached else "never cached"]
    return " · ".join(word for word in words if word)


def _text(x: float, y: float, words: str, *, size: int, colour: str = "#1d2430", weight: int = 400) -> str:
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{bold}>{escape(words)}</text>'


def _y(row: int) -> int:
    """Middle of a row."""
    return TOP + ROW * row + ROW // 2


def draw(package: Path | None, out: Path) -> None:
    """Draw a compiled file, or the pipeline as it is here, into `out`.

    Raises:
        BadPipeline: the file is no compiled pipeline.
    """
    from hypercut_core.files import write_text
    from pipelines.compile import compile_pipeline, read_package

    with tempfile.TemporaryDirectory() as folder:
        if package is None:
            package = Path(folder) / "pipeline.yaml"
            compile_pipeline("hypercut@sha256:" + "0" * 64, package)
        text = picture(*read_package(package))
    write_text(out, text)


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, nargs="?", help="compiled pipeline; default: the one here")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/pipeline.svg"))
    given = parser.parse_args()
    draw(given.package, given.out)


if __name__ == "__main__":
    main()
