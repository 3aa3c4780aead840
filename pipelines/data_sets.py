"""Data sets in and out: `hypercut describe`, `hypercut export`, `hypercut capture`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Data sets"


class Format(StrEnum):
    """Layouts that can be written."""

    rb2v = "rb2v"


def describe(folder: Annotated[Path, typer.Argument(help="Data set (RB2V, B-AIST++, REDS, GoPro) or clip store.")],
             as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
             sample: Annotated[int, typer.Option(help="Clips whose pixels are read.", min=1)] = 12) -> None:
    """Say what a data set or a clip store holds: clips, splits, orders, sizes, motion, response, licence."""
    from hypercut_core.clips.describe import as_text
    from hypercut_core.clips.describe import describe as figures_of

    figures = figures_of(folder, sample)
    typer.echo(json.dumps(figures, indent=2) if as_json else as_text(figures))


def export(out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the data set; a new one.")],
           format_: Annotated[Format, typer.Option("--format", help="Layout to write.")] = Format.rb2v,
           clips: Annotated[Path | None, typer.Option(help="Clip store. [data/clips]")] = None,
           orders: Annotated[Path | None, typer.Option(help="Order table. [data/orders.parquet]")] = None,
           no_orders: Annotated[bool, typer.Option("--no-orders", help="Write the orders that the clips came "
                                                   "with, or 'random'.")] = False,
           name: Annotated[str, typer.Option(help="Name of the data set. [its own, or the category]")] = "",
           min_margin: Annotated[float, typer.Option(help="Clips with a smaller order margin |u| become "
                                                     "'ignore'.")] = 0.0,
           keep_disagreeing: Annotated[bool, typer.Option("--keep-disagreeing", help="Clips whose pairs of frames "
                                                          "disagree do not become 'ignore'.")] = False,
           ignore_test: Annotated[bool, typer.Option("--ignore-test", help="Hold test clips to both rules "
                                                     "too.")] = False,
           workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder of data/.")] = Path()) -> None:
    """Clip store and order table -> an RB2V-like data set (metadata.json, PNG files) for others' code."""
    from hypercut_core.clips.export import export_rb2v
    from hypercut_core.clips.export_plan import ExportConfig
    from hypercut_core.clips.store import ClipStore
    from hypercut_core.ordering.labels import read_orders
    from pipelines.workspace import Workspace

    ws = Workspace(workspace)
    table = None if no_orders else read_orders(orders or ws.orders)
    config = ExportConfig(name=name, min_margin=min_margin, ignore_disagreeing=not keep_disagreeing,
                          ignore_test=ignore_test)
    summary = export_rb2v(ClipStore(clips or ws.clips), table, out, config)
    typer.echo(f"exported: {summary['clips']} clips to {out}")
    for what, count in summary["counts"].items():
        typer.echo(f"  {what}: {count}")


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module on the command line."""
    for name, command in (("describe", describe), ("export", export)):
        app.command(name, rich_help_panel=PANEL)(command)
