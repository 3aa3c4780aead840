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
           clips: Annotated[str | None, typer.Option(help="Clip store: a folder, or s3://bucket/prefix. "
                                                    "[data/clips]")] = None,
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
    from components.clip_stores import open_clips
    from hypercut_core.clips.export import export_rb2v
    from hypercut_core.clips.export_plan import ExportConfig
    from hypercut_core.ordering.labels import read_orders
    from pipelines.workspace import Workspace

    ws = Workspace(workspace)
    table = None if no_orders else read_orders(orders or ws.orders)
    config = ExportConfig(name=name, min_margin=min_margin, ignore_disagreeing=not keep_disagreeing,
                          ignore_test=ignore_test)
    summary = export_rb2v(open_clips(clips or ws.clips), table, out, config)
    typer.echo(f"exported: {summary['clips']} clips to {out}")
    for what, count in summary["counts"].items():
        typer.echo(f"  {what}: {count}")


class Colours(StrEnum):
    """How the colours of two cameras are matched."""

    matrix = "matrix"
    gain = "gain"
    none = "none"


def capture(folder: Annotated[Path, typer.Argument(help="Captures: blurry.mp4 and sharp.mp4 (or folders of frames), "
                                                   "or a folder of such folders, one for each scene.")],
            out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the data set; a new one.")],
            frames: Annotated[int, typer.Option(help="Sharp frames in one exposure: odd, 3 to 15.")] = 7,
            rate: Annotated[float, typer.Option(help="Sharp frames per blurry image, within 4 %. [from the frame "
                                                "rates]")] = 0.0,
            min_psnr: Annotated[float, typer.Option(help="Leave out clips whose frames explain their blur worse, "
                                                    "dB.")] = 30.0,
            height: Annotated[int, typer.Option(help="Scale clips down to this height, px. [as captured]")] = 0,
            colours: Annotated[Colours, typer.Option(help="How colours are matched.")] = Colours.matrix,
            name: Annotated[str, typer.Option(help="Name of the data set.")] = "captured") -> None:
    """A blurry and a sharp camera's streams -> an RB2V-like data set: synchronised, registered, with residuals."""
    from hypercut_core.clips.capture_fit import FitConfig
    from hypercut_core.clips.captures import STAGES, CaptureConfig, build_data_set

    fit = FitConfig(frames=frames, rate=rate, colour=colours.value)
    summary = build_data_set(folder, out, CaptureConfig(fit, name, min_psnr, height))
    for scene, one in summary["scenes"].items():
        left = ", ".join(f"{count} {reason}" for reason, count in one["left out"].items()) or "none"
        typer.echo(f"{scene}: {one['clips']} clips, left out: {left}")
        typer.echo(f"  exposure i begins at sharp frame {one['offset']:.2f} + {one['rate']:.4f} i; blur explained, dB: "
                   + ", ".join(f"{stage} {one['psnr'][stage]:.1f}" for stage in STAGES if one["psnr"]))
    typer.echo(f"captured: {summary['clips']} clips to {out}; the report is {out / 'capture.html'}")


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module on the command line."""
    for name, command in (("describe", describe), ("export", export), ("capture", capture)):
        app.command(name, rich_help_panel=PANEL)(command)
