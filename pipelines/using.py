"""What a trained model is used for: `hypercut restore`, `restore-events`, `trajectories`, `watch` and `ui`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipelines.options import (
    CHAMPION,
    HERE,
    BounceOption,
    FpsOption,
    FramesOption,
    ModelOption,
    ReverseOption,
    TileOption,
    ViewsOption,
    WorkspaceOption,
)

PANEL = "Use and look"
SAY = partial(typer.echo, err=True)


def restore(photo: Annotated[Path, typer.Argument(help="Blurry photo, blurry video, or folder of a video's frames.")],
            out: Annotated[Path, typer.Option("--out", "-o", help=".gif, .webp, .mp4, or a folder.")],
            model: ModelOption = CHAMPION,
            frames: FramesOption = None,
            reverse: ReverseOption = False,
            bounce: BounceOption = False,
            fps: Annotated[float | None, typer.Option(help="Frames a second. [10; of a video: what shows it in its own "
                                                      "time]")] = None,
            slow: Annotated[float, typer.Option(help="Of a video: show it so many times slower.")] = 1.0,
            report: Annotated[Path | None, typer.Option(help="Of a video: JSON of each frame's direction. "
                                                        "[OUT.json]")] = None,
            window: Annotated[int, typer.Option(min=1, max=4096, help="Of a video: most frames that wait for their "
                                                "direction.")] = 64,
            alone: Annotated[bool, typer.Option("--alone", help="Of a video: show what the model makes of each frame "
                                                "alone, without the motion that its neighbours show.")] = False,
            tile: TileOption = 512,
            views: ViewsOption = None,
            guidance: Annotated[Path | None, typer.Option(help="For a motion-guided model: strokes (.json), or a copy "
                                                          "of the photo painted by direction. [its own guess]")] = None,
            workspace: WorkspaceOption = HERE) -> None:
    """Turn one blurry photo into the sharp frames behind it; a blurry video into a sharp one."""
    from pipelines.restoring import Shown, restore_any

    shown = Shown(frames, reverse, bounce, fps, slow)
    written = restore_any(photo, out, model, shown, tile, views, report, window, workspace, guidance, alone)
    typer.echo(f"restored: {written}")


def restore_events(photo: Annotated[Path, typer.Argument(help="Blurry photo.")],
                   events: Annotated[Path, typer.Argument(help="Events of its exposure: .npz, .csv, .txt, .h5 or "
                                                          ".aedat4.")],
                   out: Annotated[Path, typer.Option("--out", "-o", help=".gif, .webp, .mp4, or a folder.")],
                   exposure: Annotated[tuple[float, float] | None, typer.Option(
                       metavar="START END", help="Exposure on the events' clock, s. [first and last event]")] = None,
                   frames: Annotated[int, typer.Option(help="Frames to make, odd.")] = 7,
                   threshold: Annotated[float | None, typer.Option(help="Contrast threshold c. [found]")] = None,
                   per_frame: Annotated[bool, typer.Option("--per-frame", help="Find c for every frame.")] = False,
                   unit: Annotated[str | None, typer.Option(help="Unit of the file's times: s, ms, us or ns. [whole "
                                                            "numbers: us, others: s]")] = None,
                   bounce: BounceOption = False,
                   fps: FpsOption = 10.0) -> None:
    """Turn a blurry photo and an event camera's events into the sharp frames, by the event double integral."""
    from hypercut_core.restore_events import restore_events_command

    written = restore_events_command(photo, events, out, exposure, frames=frames, threshold=threshold,
                                     per_frame=per_frame, unit=unit, bounce=bounce, fps=fps)
    typer.echo(f"restored: {written}")


def trajectories(photo: Annotated[Path | None, typer.Argument(help="Blurry photo; or a video, a folder of frames, a "
                                                              "clip store.")] = None,
                 out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of paths.csv, paths.json, "
                                                          "paths.png and overlay.webp.")] = None,
                 kind: Annotated[str, typer.Option(help="face or hand.")] = "face",
                 most: Annotated[int | None, typer.Option(help="Faces or hands to look for. [one face, two "
                                                          "hands]")] = None,
                 clip: Annotated[str | None, typer.Option(help="Number or clip_id of a clip store's clip.")] = None,
                 model: ModelOption = CHAMPION,
                 frames: Annotated[int | None, typer.Option(help="Moments of the paths. [as many as there are "
                                                            "frames]")] = None,
                 reverse: ReverseOption = False,
                 overlay: Annotated[str, typer.Option(help="Kind of the animation: webp or gif.")] = "webp",
                 tile: TileOption = 512,
                 views: ViewsOption = None,
                 doctor: Annotated[bool, typer.Option("--doctor", help="Only say what is missing, and what installs "
                                                      "it; exit code 2 if anything is.")] = False,
                 json_: Annotated[bool, typer.Option("--json", help="With --doctor: as JSON.")] = False,
                 workspace: WorkspaceOption = HERE) -> None:
    """The paths of a face or of hands over the exposure of one blurry photo."""
    from pipelines.trajectories import examine, find_paths

    if doctor:
        raise typer.Exit(0 if examine(model, workspace, json_, typer.echo) else 2)
    typer.echo(find_paths(photo, out, model, workspace, kind=kind, most=most, clip=clip, moments=frames,
                          reverse=reverse, overlay=overlay, tile=tile, views=views))


def watch(folder: Annotated[Path, typer.Argument(help="Folder that blurry photos are put into.")],
          out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results. "
                                                   "[FOLDER/restored]")] = None,
          model: ModelOption = CHAMPION,
          kind: Annotated[str, typer.Option("--format", help="webp, gif, mp4, or frames: a folder of PNG files a "
                                            "photo.")] = "webp",
          frames: FramesOption = None,
          reverse: ReverseOption = False,
          bounce: BounceOption = False,
          fps: FpsOption = 10.0,
          tile: TileOption = 512,
          views: ViewsOption = None,
          once: Annotated[bool, typer.Option("--once", help="Restore what is there and end; exit code 1 if a photo was "
                                             "set aside.")] = False,
          retry: Annotated[bool, typer.Option("--retry", help="Try again what was set aside.")] = False,
          poll: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks at the folder.")] = 1.0,
          settle: Annotated[float, typer.Option(min=0.0, help="Seconds that a file must have stayed the same.")] = 2.0,
          patience: Annotated[float, typer.Option(min=0.0, help="Seconds that a file which cannot be read has to "
                                                  "become whole.")] = 20.0,
          workspace: WorkspaceOption = HERE) -> None:
    """Restore photos as they appear in a folder: each once, also if this is killed and started again."""
    from pipelines.watch.watch import watch as run_watch
    from pipelines.watch.watch import with_model
    from pipelines.watch.watcher import WatchConfig, known_kind

    config = WatchConfig(known_kind(kind), frames, reverse, bounce, fps, poll, settle, patience, once=once, retry=retry)
    refused = run_watch(folder, out or folder / "restored", lambda: with_model(model, workspace, tile, views), config,
                        SAY)
    if once and refused:
        raise typer.Exit(1)


def ui(model: Annotated[list[str] | None, typer.Option(help="Model file, or models:/name@alias, to offer first; may be "
                                                       "repeated. [the registry's, and those in models/]")] = None,
       host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
       port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 7860,
       name: Annotated[list[str] | None, typer.Option(help="Host name that others reach this by; may be "
                                                      "repeated.")] = None,
       max_mib: Annotated[float, typer.Option(min=0.01, help="Largest file of a photo, MiB.")] = 40.0,
       max_megapixels: Annotated[float, typer.Option(min=0.01, help="Largest photo, million pixels.")] = 60.0,
       photos_a_minute: Annotated[int, typer.Option(min=1, help="Photos that one address may send.")] = 20,
       keep_minutes: Annotated[float, typer.Option(min=0.01, help="How long a page that was not closed properly is "
                                                   "remembered.")] = 15.0,
       workspace: WorkspaceOption = HERE) -> None:
    """A page in the browser: drop a photo, see it move, download the film."""
    from pipelines.ui.config import UiConfig
    from pipelines.ui.serve import serve

    config = UiConfig(host, port, tuple(name or ()), int(max_mib * 2**20), int(max_megapixels * 1e6), photos_a_minute,
                      keep=keep_minutes * 60)
    serve(config, model or (), workspace, SAY)


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this module on the command line."""
    for name, command in (("restore", restore), ("restore-events", restore_events), ("trajectories", trajectories),
                          ("watch", watch), ("ui", ui)):
        app.command(name, rich_help_panel=PANEL)(command)
