"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CHAMPION = "models:/hypercut-deblurrer@champion"

ParamsOption = Annotated[Path | None, typer.Option("--params", help="Parameter file. Default: params.yaml in "
                                                    "the workspace, here, or in the source tree.")]
PresetOption = Annotated[str | None, typer.Option("--preset", help="Recipe laid over the parameters: a name "
                                                   "in params/presets, or a .yaml file.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="GROUP.KEY=VALUE",
                                                     help="Change one parameter; may be repeated.")]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Folder of data/, models/, metrics/ "
                                               "and reports/.")]
ManifestOption = Annotated[Path | None, typer.Option(help="Footage manifest. [data/footage.json]")]
ClipsOption = Annotated[str | None, typer.Option(help="Clip store: a folder, or s3://bucket/prefix. [data/clips]")]
EncoderOption = Annotated[Path | None, typer.Option(help="HyperCUT encoder. [models/encoder.safetensors]")]
OrdersOption = Annotated[Path | None, typer.Option(help="Order table. [data/orders.parquet]")]
VerdictOption = Annotated[Path | None, typer.Option(help="Verdict, JSON; a readable .html beside it. "
                                                    "[reports/<step>.json]")]
MetricsOption = Annotated[Path | None, typer.Option(help="Metrics, JSON. [metrics/<step>.json]")]
ReportOption = Annotated[Path | None, typer.Option(help="Folder of the report. [reports/evaluation]")]
ObjectiveOption = Annotated[str | None, typer.Option(help="Train only this one of deblurrer.objectives.")]
ModelOption = Annotated[str, typer.Option(help="Model file, or models:/name@alias.")]
FramesOption = Annotated[int | None, typer.Option(help="Frames to show. [the model's own]")]
ReverseOption = Annotated[bool, typer.Option("--reverse", help="Play backwards.")]
BounceOption = Annotated[bool, typer.Option("--bounce", help="Play forwards, then backwards.")]
FpsOption = Annotated[float, typer.Option(help="Frames a second.")]
TileOption = Annotated[int, typer.Option(help="Side of the tiles of large photos, px.")]
ViewsOption = Annotated[int | None, typer.Option(help="Mirrored and turned views to join: 1, 2, 4 or 8; 1 is the "
                                                 "fastest. [the model's own]")]
TrackerImageOption = Annotated[str, typer.Option(help="Image of evaluate-trajectories, NAME@sha256:...; without it "
                                                 "that step is left out.")]
HERE = Path()
