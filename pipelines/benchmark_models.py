"""`hypercut benchmark`: every chosen row with every seed on one clip store, into one table.

    <workspace>/benchmark/seed-0/                     encoder and order table of a seed
    <workspace>/benchmark/rows/<row>/seed-0/          plan, checkpoint, model, figures, films; `--start` reads the model
    <workspace>/benchmark/cost/<model>.json           measured once
    <workspace>/benchmark/benchmark.{json,md,html}    written again after every row

What is finished is not done again. A row that fails, or whose process dies, is told in the table and the others go
on; the command then ends with exit code 1.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.own_process import in_own_process
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from components.params import Parameters
    from hypercut_core.benchmark.config import BenchmarkConfig
    from hypercut_core.benchmark.curves import Learned
    from hypercut_core.benchmark.rows import Row, Shapes
    from hypercut_core.benchmark.run import Job
    from hypercut_core.benchmark.table import Line

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the command line asks for; empty: as the parameters say."""

    rows: Sequence[str] = ()  # names or patterns
    seeds: Sequence[int] = ()
    budget: str = ""  # samples=N or seconds=S
    load: Mapping[str, Path] = field(default_factory=dict)  # row -> model file, instead of training
    ray: bool = False
    start: Path | None = None  # another benchmark's workspace: its models' weights are the first ones


def listing(request: Request, p: Parameters) -> list[dict[str, Any]]:
    """Every chosen row with what it is and its number of parameters; nothing is trained."""
    from hypercut_core.benchmark.rows import MODELS, chosen
    from hypercut_core.deblurring.cost import parameters_of

    shapes, found = _shapes(p), []
    for row in chosen(p.benchmark.rows, request.rows):
        size = parameters_of(shapes.config(row.model), p.frames) if row.objective else 0
        found.append({"row": row.name, "model": row.model, "objective": row.objective, "parameters": size,
                      "what": MODELS[row.model]})
    return found


def listed(request: Request, p: Parameters, as_json: bool) -> str:
    """The listing as JSON, or as a table for people."""
    rows = listing(request, p)
    if as_json:
        return json.dumps(rows, indent=2)
    return "\n".join(f"{one['row']:32} {one['parameters']:>12,}  {one['what']}" for one in rows)


def loads(given: Sequence[str]) -> dict[str, Path]:
    """``ROW=FILE`` each, as a mapping.

    Raises:
        BadParameters: another form, or no such row.
    """
    from hypercut_core.benchmark.rows import parse_row
    from hypercut_core.errors import BadParameters

    found = {}
    for item in given:
        row, equals, file = item.partition("=")
        if not equals or not file or not parse_row(row).objective:
            raise BadParameters(f"'{item}' names no row and model file", where="--load",
                                remedy="write ROW=FILE, such as even_odd/sequence_min=models/mine.safetensors")
        found[row] = Path(file)
    return found


def starts(request: Request, ws: Workspace, rows: Sequence[Row], seeds: Sequence[int]) -> dict[tuple[str, int], Path]:
    """The model that each trained row and seed goes on from, by row name and seed; empty without `request.start`.

    Raises:
        BadParameters: a model is not there, or the other workspace is this one.
    """
    from hypercut_core.errors import BadParameters

    if request.start is None:
        return {}
    if request.start.resolve() == ws.root.resolve():
        raise BadParameters("a benchmark cannot go on from the models that it overwrites", where="--start",
                            remedy="choose a new --workspace; --clips names clips that lie elsewhere")
    found = {(row.name, seed): request.start.resolve() / _row_folder(row, seed) / "model.safetensors"
             for row in rows if row.objective and row.name not in request.load for seed in seeds}
    missing = [f"{name}, seed {seed}" for (name, seed), file in found.items() if not file.is_file()]
    if missing:
        raise BadParameters(f"there is no trained model of {'; '.join(missing)}", where=f"--start {request.start}",
                            remedy="choose --rows and --seed that were trained there (not loaded by --load), or train "
                                   "them there first")
    return found


def benchmark(ws: Workspace, p: Parameters, request: Request, say: Say) -> bool:
    """Run what is not finished and write the table; False if a row failed.

    Raises:
        HypercutError: no clips, or wrong parameters: nothing can be run.
    """
    from hypercut_core.benchmark.config import with_budget
    from hypercut_core.benchmark.rows import chosen
    from pipelines.local import alone

    config = with_budget(p.benchmark, request.budget) if request.budget else p.benchmark
    rows, seeds = chosen(config.rows, request.rows), tuple(request.seeds) or config.seeds
    begun = _Benchmark(ws, p, config, rows, seeds, request, say)
    ws.root.mkdir(parents=True, exist_ok=True)
    with alone(ws):
        return begun.run()


class _Benchmark:
    def __init__(self, ws: Workspace, p: Parameters, config: BenchmarkConfig, rows: list[Row],
                 seeds: tuple[int, ...], request: Request, say: Say):
        self.ws, self.p, self.config, self.rows, self.seeds, self.say = ws, p, config, rows, seeds, say
        self.request, self.starts = request, starts(request, ws, rows, seeds)
        self.folder = (ws.root / "benchmark").resolve()
        self.shapes, self.failed = _shapes(p), list[dict[str, Any]]()
        self.encoders: dict[str, list[float]] = {}
        self.costs: dict[tuple[str, str], dict[str, float]] = {}

    def run(self) -> bool:
        from hypercut_core.benchmark.run import finished

        self._clips()
        for seed in self.seeds:
            self._order(seed)
        self._measure_costs()
        jobs = [self._job(row, seed) for seed in self.seeds for row in self.rows]
        waiting = [job for job in jobs if not finished(job)]
        self.say(f"{len(jobs)} rows, {len(jobs) - len(waiting)} of them finished before")
        self._write(jobs)
        started = time.monotonic()
        for number, (job, why) in enumerate(self._run_all(waiting), start=1):
            if why:
                self.failed.append({"row": job.row, "seed": job.seed, "why": why})
            self.say(f"[{number}/{len(waiting)}] {job.row}, seed {job.seed}: {why or 'done'}, "
                     f"{time.monotonic() - started:.0f} s")
            self._write(jobs)
        self.say(f"table: {self.folder / 'benchmark.html'}, .md and .json")
        return not self.failed

    def _run_all(self, jobs: list[Job]) -> Iterator[tuple[Job, str]]:
        if self.request.ray:
            from components.train_deblurrer.ray_rows import each_on_ray
            from hypercut_core.benchmark.run import run_job

            yield from each_on_ray(run_job, jobs)
            return
        for job in jobs:
            yield job, in_own_process(job)

    def _clips(self) -> None:
        from pipelines import local

        if not Path(self.ws.clips).exists():
            self.say("making the clips")
            local.collect_footage(self.ws, self.p)
            local.synthesize_blur(self.ws, self.p)

    def _order(self, seed: int) -> None:
        """Encoder, its figures and the order table of a seed, unless they are there for these clips and settings."""
        from components.assign_order.step import assign_order
        from components.train_encoder.step import train_encoder
        from hypercut_core.clips.store import ClipStore
        from hypercut_core.files import read_json
        from hypercut_core.training.checkpoint import read_info
        from hypercut_core.training.loop import training_facts

        folder = self.folder / f"seed-{seed}"
        encoder, figures = folder / "encoder.safetensors", folder / "encoder.json"
        settings = {"data": ClipStore(self.ws.clips).sha256, "seed": seed, "recolour": self.p.encoder.recolour,
                    "training": json.loads(json.dumps(training_facts(self.p.encoder.training)))}
        card = read_info(encoder).get("card", {}) if encoder.is_file() else {}
        if {key: card.get(key) for key in settings} != settings:
            (folder / "orders.parquet").unlink(missing_ok=True)
            train_encoder(self.ws.clips, self.p.encoder, encoder, figures, seed, folder / "work")
        if not (folder / "orders.parquet").is_file():
            assign_order(self.ws.clips, encoder, self.p.order, folder / "orders.parquet", folder / "orders.json")
        found = read_json(figures).get(self.p.evaluate.split, {})
        for key in ("hit", "con2", "con3", "joint3"):
            if key in found:
                self.encoders.setdefault(key, []).append(found[key])

    def _job(self, row: Row, seed: int) -> Job:
        from hypercut_core.benchmark.run import Job

        folder, load = self.folder / f"seed-{seed}", self.request.load.get(row.name)
        d = self.p.deblurrer
        return Job(row.name, seed, Path(self.ws.clips).resolve(), folder / "encoder.safetensors",
                   folder / "orders.parquet", self.ws.root.resolve() / _row_folder(row, seed), self.config, self.shapes,
                   d.loss, d.training, self.p.evaluate.split, self.p.evaluate.max_clips,
                   load.resolve() if load else None, self.starts.get((row.name, seed)))

    def _measure_costs(self) -> None:
        """Once for each model and number of views; kept, as it takes minutes for the large ones."""
        from hypercut_core.errors import HypercutError

        for model in dict.fromkeys(row.model for row in self.rows):
            for views, shapes in _with_views(model, self.shapes):
                try:
                    self.costs[model, views] = self._cost(model, views, shapes)
                except HypercutError as error:
                    self.failed.append({"row": model, "seed": "cost", "why": str(error)})

    def _cost(self, model: str, views: str, shapes: Shapes) -> dict[str, float]:
        from hypercut_core.benchmark.cost import count_cost, measure_cost
        from hypercut_core.benchmark.rows import TRAINED
        from hypercut_core.files import read_json, write_json

        height, width, frames = self.config.cost_height, self.config.cost_width, self.p.frames
        shape = dataclasses.asdict(shapes.config(model)) if model in TRAINED else {}
        asked = json.loads(json.dumps({"shape": shape, "size": [height, width], "frames": frames}))
        file = self.folder / f"cost/{model}{'-' + views.replace(' ', '-') if views else ''}.json"
        if file.is_file() and (known := read_json(file)).get("asked") == asked:
            return dict(known["cost"])
        self.say(f"measuring what {model} costs{', ' + views if views else ''}")
        cost = count_cost(model, shapes, frames, height, width)
        if width:
            cost |= measure_cost(model, shapes, frames, height, width)
        write_json(file, {"asked": asked, "cost": cost})
        return cost

    def _write(self, jobs: list[Job]) -> None:
        """The table of all rows that are finished, in three forms."""
        from hypercut_core.benchmark.page import render
        from hypercut_core.benchmark.run import finished
        from hypercut_core.benchmark.table import document, gather, markdown
        from hypercut_core.files import read_json, write_json, write_text

        done = [job for job in jobs if finished(job)]
        by_row = {row.name: place for place, row in enumerate(self.rows)}
        done.sort(key=lambda job: by_row[job.row])
        results = [read_json(job.result) for job in done]
        lines = gather(results, self.costs)
        learned = self._learned(done, results)
        data = document(lines, self._about(), self.encoders, self.failed, learned,
                        [one for one in results if "start" in one])
        write_json(self.folder / "benchmark.json", data)
        write_text(self.folder / "benchmark.md", markdown(data, lines))
        write_text(self.folder / "benchmark.html", render(lines, data, self._shown(done, lines), learned))

    def _learned(self, done: list[Job], results: list[dict[str, Any]]) -> list[Learned]:
        """The curves of the rows that have one."""
        from hypercut_core.benchmark.curves import FILE, Learned, read_curve

        return [Learned(one["row"], one["model"], one["seed"], (job.folder / FILE).relative_to(self.folder).as_posix(),
                        curve) for job, one in zip(done, results, strict=True)
                if one.get("curve") == FILE and (curve := read_curve(job.folder / FILE)).steps]

    def _about(self) -> dict[str, Any]:
        import torch

        from hypercut_core.benchmark.config import budget_text
        from hypercut_core.benchmark.scoring import scored_clips
        from hypercut_core.clips.store import ClipStore
        from pipelines.local import git_revision

        store, width = ClipStore(self.ws.clips), self.config.cost_width
        size = f"{width}x{self.config.cost_height}" if width else "no size"
        count = len(scored_clips(store, self.p.evaluate.split, self.p.evaluate.max_clips))
        learned = len(store.indices("train"))
        sentence = (f"{count:,} {self.p.evaluate.split} clips scored, {learned:,} to learn from; "
                    f"{budget_text(self.config)}; seeds {', '.join(map(str, self.seeds))}."
                    + (f" Training went on from the weights of the same row and seed in {self.request.start}."
                       if self.starts else ""))
        return {"sentence": sentence, "budget": budget_text(self.config), "clips": count, "frames": store.frames,
                "split": self.p.evaluate.split, "clip store (sha256)": store.sha256, "seeds": list(self.seeds),
                "size": size, "torch": torch.__version__,
                "revision": git_revision()}

    def _shown(self, done: list[Job], lines: list[Line]) -> list[Any]:
        import numpy as np

        from hypercut_core.benchmark.page import Shown
        from hypercut_core.benchmark.scoring import scored_clips, shown_places
        from hypercut_core.clips.store import ClipStore
        from hypercut_core.evaluation.films import shrink

        store, order = ClipStore(self.ws.clips), [row.name for row in self.rows]
        indices = scored_clips(store, self.p.evaluate.split, self.p.evaluate.max_clips)
        films: dict[int, dict[str, np.ndarray]] = {}
        for job in sorted((one for one in done if one.seed == self.seeds[0]), key=lambda one: order.index(one.row)):
            if (job.folder / "films.npz").is_file():
                with np.load(job.folder / "films.npz", allow_pickle=False) as kept:
                    for key in kept.files:
                        place, _, way = key.partition(": ")
                        label = job.row if way == "blind" else f"{job.row} ({way.removeprefix('blind, ')})"
                        films.setdefault(int(place), {})[label] = kept[key]
        return [Shown(store.records[int(indices[place])].clip_id, shrink(store.read(int(indices[place]))), films[place])
                for place in shown_places(len(indices), self.config.films).tolist() if place in films]


def _row_folder(row: Row, seed: int) -> Path:
    """Of a row and seed, below a workspace."""
    return Path("benchmark/rows") / row.file / f"seed-{seed}"


def _shapes(p: Parameters) -> Shapes:
    from hypercut_core.benchmark.rows import Shapes

    return Shapes(p.deblurrer.model, p.deblurrer.peers)


def _with_views(model: str, shapes: Shapes) -> list[tuple[str, Shapes]]:
    """The numbers of views that a model is measured with, as `scoring` names them."""
    from hypercut_core.benchmark.rows import measured_views

    own = shapes.even_odd
    if model != "even_odd" or own.views == 1:
        return [("", shapes)]
    return [(word, dataclasses.replace(shapes, even_odd=dataclasses.replace(own, views=count)))  # type: ignore[arg-type]
            for word, count in measured_views(own.views).items()]
