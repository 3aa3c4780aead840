"""evaluate-trajectories: faces and hands in restored frames → metrics/evaluate-trajectories.json and a page.

Optional: it needs the landmark tracker, which has an environment (and an image) of its own, and footage with faces or
hands. Switched off, it writes that it is off, an empty table, and nothing else. The metrics hold nothing of the
machine or the day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.files import atomic_directory, write_json, write_text

if TYPE_CHECKING:
    import numpy as np

    from hypercut_core.clips.store import ClipStore
    from hypercut_core.ordering.labels import OrderTable
    from hypercut_core.trajectories.following import Finds, System

Kind = Literal["face", "hand"]


@dataclass(frozen=True)
class TrajectoriesConfig:
    """Whether faces and hands are followed through restored frames, and in which clips."""

    enabled: bool = False  # run evaluate-trajectories; needs the landmark tracker ('make tracker')
    split: Literal["test", "val"] = "test"  # clips that are measured
    kinds: tuple[Kind, ...] = ()  # looked for in every clip; empty: face or hand, as the clip's category says
    most: int = 2  # most faces or hands looked for in a picture, 1 to 8
    max_clips: int = 200  # measure only so many clips, evenly chosen; 0: all
    others: tuple[str, ...] = ()  # more models to compare with, such as a cascade: NAME=FILE or NAME=s3://...
    films: int = 6  # clips shown on the page, from most to least gain
    worst: int = 6  # clips shown among those that gain nothing


def evaluate_trajectories(store: str | Path, models: Mapping[str, Path], orders: Path | None, out_dir: Path,
                          metrics: Path, config: TrajectoriesConfig, work: Path, *, default: str | None = None,
                          provenance: Mapping[str, Any] | None = None, tracker: Finds | None = None,
                          device: str | None = None) -> dict[str, Any]:
    """Follow faces and hands through the frames that models restore, and write figures, a table and a page.

    Args:
        store: clip store: a folder, or s3://bucket/prefix.
        models: name -> model file.
        orders: order table, for the canonical order; None where there is none.
        out_dir: folder for report.html and per_clip.csv; replaced as a whole.
        metrics: JSON file with all figures.
        work: folder of what was found so far, from which a stopped step goes on; may be deleted.
        default: the model that the page is about; the first one if not given.
        tracker: what finds faces and hands; None: the tracker's own environment.
        device: torch device; the GPU if there is one.

    Raises:
        BadParameters: there is no such model, or a setting makes no sense.
        BadClipStore: no clip of the split can be measured.
        BadCheckpoint: a model file is missing, damaged or made for another number of frames.
        TrackerMissing, TrackerError: the tracker is not installed, or does not do its work.
    """
    if not config.enabled:
        return _off(out_dir, metrics)
    _check(config)
    default = default or next(iter(models), "")
    if default not in models:
        raise BadParameters(f"there is no model of the default objective '{default}'", where="deblurrer.objective",
                            remedy=f"choose one of {', '.join(models)}, or train it")
    from components.clip_stores import open_clips
    from components.evaluate_trajectories.study import Study
    from hypercut_core.training.loop import pick_device

    tracker = tracker or _tracker()
    tracker.detect([], "hand")  # says at once if it is not there
    clips = open_clips(store)
    files = {default: models[default], **models, **_others(config, models, work)}
    systems = _systems(files, clips.frames, str(pick_device(device or "auto")))
    chosen = _choose(clips, config, store)
    study = Study(clips, chosen, systems, _directions(clips, [index for index, _ in chosen], orders),
                  tracker, work / "trajectories", config.most)
    figures = {"enabled": True, "split": config.split, **study.figures(systems[0].name)}
    with atomic_directory(out_dir) as folder:
        study.write(folder, figures, config.films, config.worst, dict(provenance or {}))
    write_json(metrics, figures)
    return figures


def _off(out_dir: Path, metrics: Path) -> dict[str, Any]:
    """Every file that a task of a pipeline promises: a page that says that the step is off, and an empty table."""
    from components.evaluate_trajectories.study import write_table
    from hypercut_core.progress import say
    from hypercut_core.trajectories.page import off_page

    say("evaluate-trajectories is switched off (--set trajectories.enabled=true switches it on)")
    with atomic_directory(out_dir) as folder:
        write_text(folder / "report.html", off_page())
        write_table(folder / "per_clip.csv", [])
    write_json(metrics, {"enabled": False})
    return {"enabled": False}


def _check(config: TrajectoriesConfig) -> None:
    from hypercut_core.trajectories.tracker import MOST

    if not 1 <= config.most <= MOST:
        raise BadParameters(f"'trajectories.most' must be from 1 to {MOST}, got {config.most}",
                            where="trajectories.most")
    if len(set(config.kinds)) < len(config.kinds):
        raise BadParameters("'trajectories.kinds' names one twice", where="trajectories.kinds",
                            remedy="remove the copy")


def _tracker() -> Finds:
    from hypercut_core.trajectories.tracker import Tracker

    return Tracker()


def _others(config: TrajectoriesConfig, models: Mapping[str, Path], work: Path) -> dict[str, Path]:
    """The models that are only compared with, by name."""
    from components.storage import is_remote, local_path

    found: dict[str, Path] = {}
    for one in config.others:
        name, equals, address = one.partition("=")
        if not (name and equals and address) or name in models or name in found:
            raise BadParameters(f"'{one}' is no further model", where="trajectories.others",
                                remedy="give each as NAME=FILE, with a name that no other model has")
        found[name] = local_path(address, work / "models") if is_remote(address) else Path(address)
    return found


def _systems(files: Mapping[str, Path], frames: int, device: str) -> list[System]:
    from hypercut_core.trajectories.following import load_system

    return [load_system(name, path, frames, device) for name, path in files.items()]


def _choose(clips: ClipStore, config: TrajectoriesConfig, store: str | Path) -> list[tuple[int, str]]:
    """Clips with what is looked for in each; all of one kind stand together."""
    import numpy as np

    from hypercut_core.trajectories.landmarks import POINTS

    rows = [int(i) for i in clips.indices(config.split)]
    wanted = [(i, kind) for kind in POINTS for i in rows
              if (kind in config.kinds if config.kinds else kind == clips.records[i].category)]
    if not wanted:
        raise BadClipStore(f"no clip of the split '{config.split}' is of the category {' or '.join(POINTS)}",
                           where=store, remedy="give footage in folders of these names, or set trajectories.kinds to "
                                               "look for them in every clip")
    if 0 < config.max_clips < len(wanted):
        wanted = [wanted[k] for k in np.linspace(0, len(wanted) - 1, config.max_clips).round().astype(int)]
    return wanted


def _directions(clips: ClipStore, indices: list[int], orders: Path | None) -> np.ndarray:
    """The canonical direction of each clip; 0 without an order table."""
    import numpy as np

    from hypercut_core.ordering.labels import read_orders

    if orders is None:
        return np.zeros(len(indices), np.int8)
    table: OrderTable = read_orders(orders)
    return table.for_clips(clips, np.array(indices))[:, 0]
