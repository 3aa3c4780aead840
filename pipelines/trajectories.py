"""`hypercut trajectories`: the model behind a name, what is said at the end, and what the command needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypercut_core.errors import BadParameters, HypercutError, MissingExtra
from hypercut_core.trajectories.tracker import INSTALL, Tracker
from pipelines.doctor import MARKS, Finding


def find_paths(source: Path | None, out: Path | None, model: str, workspace: Path, clip: str | None = None,
               **options: Any) -> str:
    """Run the command (options: those of `trajectories_command`) and say in a few lines what was found.

    Raises:
        BadParameters: `source` or `out` is missing; otherwise see `trajectories_command`.
    """
    from hypercut_core.trajectories.command import trajectories_command
    from pipelines.models import model_file

    if source is None or out is None:
        raise BadParameters("a photo and an output folder are needed",
                            remedy="'hypercut trajectories PHOTO -o FOLDER', or --doctor")
    paths = trajectories_command(source, out, clip=clip, model=lambda: model_file(model, workspace), **options)
    lines = []
    for number, track in enumerate(paths.tracks):
        name = f"{track.handedness} {paths.kind}".strip()
        marked = ", ".join(f"{region.name} {region.mark}" for region in track.regions if region.mark)
        lines.append(f"{name} {number}: {track.length:.1f} px over the exposure, found in {track.seen.sum()} of "
                     f"{len(track.seen)} frames" + (f" ({marked})" if marked else "")
                     + ("; may run the other way than the rest" if track.may_run_otherwise else ""))
    if paths.ambiguous:
        lines.append("blur does not tell the direction of time: --reverse gives the other one")
    return "\n".join([*lines, f"paths: {out}"])


def examine(model: str, workspace: Path, as_json: bool, say: Callable[[str], None],
            tracker: Tracker | None = None) -> bool:
    """Say what the command needs and what is missing; true if nothing is."""
    tracker = Tracker() if tracker is None else tracker
    findings = [*_tracker(tracker), _model(model, workspace)]
    fine = all(finding.state != "bad" for finding in findings)
    if as_json:
        say(json.dumps({"ok": fine, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return fine
    for finding in findings:
        cure = f" ({finding.remedy})" if finding.state != "ok" and finding.remedy else ""
        say(f"{MARKS[finding.state]} {finding.what:20} {finding.found}{cure}")
    return fine


def _tracker(tracker: Tracker) -> Iterator[Finding]:
    missing = tracker.missing()
    if missing is not None:
        yield Finding("tracker", f"{missing} ({tracker.python})", "bad", INSTALL)
        return
    installed = sorted(tracker.python.parent.parent.glob("lib/python3*/site-packages/mediapipe-*.dist-info"))
    version = installed[0].name.removesuffix(".dist-info").replace("-", " ") if installed else "no mediapipe"
    yield Finding("tracker", f"{version} at {tracker.python}", "ok" if installed else "bad",
                  "" if installed else INSTALL)
    if installed:
        yield _trial(tracker)


def _trial(tracker: Tracker) -> Finding:
    """Let it look at a face, where a photo of one is installed, else at nothing."""
    import numpy as np

    from hypercut_core.clips.photos import photo_path
    from hypercut_core.photos import load_photo

    try:
        picture, faces = load_photo(photo_path("skimage/astronaut.png")), 1
    except MissingExtra:
        picture, faces = np.full((256, 256, 3), 128, np.uint8), 0
    try:
        found = tracker.detect([picture], "face")[0]
    except HypercutError as error:
        return Finding("trial", error.what, "bad", error.remedy or INSTALL)
    if len(found) != faces:
        return Finding("trial", f"it found {len(found)} faces where there is {faces}", "bad", f"{INSTALL} again")
    return Finding("trial", f"it found {faces} of {faces} faces")


def _model(model: str, workspace: Path) -> Finding:
    """A model is needed for photos only."""
    from pipelines.models import model_file

    try:
        file = model_file(model, workspace)
    except HypercutError as error:
        return Finding("model for photos", f"{model}: {error.what}", "note", "'hypercut demo' makes one, or --model")
    if not file.is_file():
        return Finding("model for photos", f"there is no file {file}", "note", "'hypercut demo' makes one, or --model")
    return Finding("model for photos", model)
