"""`hypercut restore`: a photo, or a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypercut_core.errors import BadParameters
from pipelines.models import model_file

PHOTO_FPS = 10.0


@dataclass(frozen=True)
class Shown:
    """How the restored frames are shown, as it was asked for."""

    frames: int | None
    reverse: bool
    bounce: bool
    fps: float | None
    slow: float


def restore_any(given: Path, out: Path, model: str, shown: Shown, tile: int, views: int | None, report: Path | None,
                window: int, workspace: Path, guidance: Path | None = None, alone: bool = False) -> Path:
    """Restore a photo, or a video file or folder of frames; returns the path written.

    Raises:
        HypercutError: see `restore_command` and `restore_video_command`; BadParameters where an option does not
            go with what was given.
    """
    from hypercut_core.blurry_video.restore_video import Playing, restore_video_command
    from hypercut_core.clips.footage import is_moving
    from hypercut_core.restore import restore_command

    if is_moving(given):
        if shown.bounce:
            raise BadParameters("a video cannot bounce: it would have to be held whole", where="--bounce",
                                remedy="leave it out, or restore a single photo")
        if guidance is not None:
            raise BadParameters("guidance is drawn on one photo, and this is a video", where="--guidance",
                                remedy="leave it out: the neighbours settle the direction")
        playing = Playing(shown.frames, shown.reverse, shown.fps, shown.slow)
        return restore_video_command(given, out, model_file(model, workspace), playing, tile=tile, views=views,
                                     report=report, window=window, alone=alone)
    if shown.slow != 1 or report is not None or alone:
        raise BadParameters("--slow, --report and --alone are for videos, and this is a photo", where=given,
                            remedy="use --fps to show it slower")
    return restore_command(given, out, model_file(model, workspace), frames=shown.frames, reverse=shown.reverse,
                           bounce=shown.bounce, fps=shown.fps or PHOTO_FPS, tile=tile, views=views, guidance=guidance)
