"""`deblurrer.start`: the model whose weights a training begins with, wherever it lies."""

from __future__ import annotations

from pathlib import Path

from components.redaction import shown
from components.storage import download, is_remote
from components.storage.objects import cache_name
from hypercut_core.deblurring.start import PLACE, Start, read_start
from hypercut_core.errors import BadCheckpoint, BadParameters


def check_start(start: str, launcher: str) -> None:
    """Refuse a start that the launcher cannot hand to its workers.

    Raises:
        BadParameters: of a RayJob.
    """
    if start and launcher == "rayjob":
        raise BadParameters("a training in a RayJob begins with fresh weights", where=PLACE,
                            remedy="set deblurrer.scale.launcher to local or ray, or leave deblurrer.start empty")


def opened_start(start: str, objective: str, out: Path, work: Path) -> Start | None:
    """The model that `start` names; None for "". ``{objective}`` in it stands for the objective that is trained.

    Args:
        start: a file, or s3://bucket/key, which is fetched anew each time: the object may be another one by now.
        out: the file that the training writes.
        work: folder for a fetched file.

    Raises:
        BadParameters: it is the file that the training writes, or a name of the registry.
        BadCheckpoint, StorageError: it is not there, or no deblurrer.
    """
    name = start.replace("{objective}", objective)
    if not name:
        return None
    if name.startswith("models:/"):
        raise BadParameters("a name of the registry cannot be trained on from", where=PLACE,
                            remedy="give the model file that was registered, or its copy on S3")
    if is_remote(name):
        file = download(name, work / "start" / cache_name(name))
    elif Path(name).resolve() == out.resolve():
        raise BadParameters("the training would write over the model that it begins with", where=f"{PLACE} {name}",
                            remedy="copy it to data/start and name the copy")
    else:
        file = Path(name)
    try:
        return read_start(file, shown(name))
    except BadCheckpoint as error:
        raise BadCheckpoint(error.what, where=f"{PLACE} {shown(name)}",
                            remedy="name a deblurrer that was trained, or leave deblurrer.start empty") from error
