"""Restore photos as they appear in a folder: each once, whole or not at all, over restarts and kills.

Everything is made in OUT/.hypercut-watch and moved to its place by one rename. The folder also holds the journal of
what was done (journal.py) and the lock. Files are found by polling, which works on network shares as well.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from hypercut_core.errors import BadParameters, Interrupted, StorageError
from hypercut_core.files import explain_os_errors
from hypercut_core.signals import signals
from pipelines.watch.journal import Journal
from pipelines.watch.lock import only_watcher
from pipelines.watch.watcher import LIST, STATE, Restorer, Say, Stopped, WatchConfig, Watcher


def watch(folder: Path, out: Path, load: Callable[[], Restorer], config: WatchConfig, say: Say) -> int:
    """Watch until SIGTERM or Ctrl-C (or, with `once`, until all is done).

    Args:
        load: gives the function that restores a photo; called once the folder is ours.

    Returns:
        how many photos were set aside in this run.

    Raises:
        StorageError: the folders cannot be used, or another watcher is at work; BadParameters: the outputs cannot be
            made like this; Interrupted: a signal came before all was done, with `once`.
    """
    from hypercut_core.animation import check_output

    check_folders(folder, out)
    check_output(out / f"photo.{config.kind}" if config.kind != "frames" else out / "photo", config.fps, config.frames)
    restored = refused = 0
    stopped = False
    with signals(_once()):
        try:
            with _watcher(folder, out, load, config, say) as watcher:
                say(f"watching {folder} -> {out}" + ("" if config.once else "; Ctrl-C ends"))
                try:
                    watcher.run()
                finally:
                    restored, refused = watcher.restored, watcher.refused
        except Stopped:
            stopped = True
    say(f"{'stopped' if stopped else 'done'}: {restored} restored, {refused} set aside"
        + (f" (see {out / LIST})" if refused else ""))
    if stopped and config.once:
        raise Interrupted("stopped before all photos were done", where=folder,
                          remedy="run the same command again to go on")
    return refused


def with_model(model: str, workspace: Path, tile: int, views: int | None) -> Restorer:
    """Restores photos with a model file, or a registered model.

    Raises:
        BadCheckpoint, BadParameters, RegistryError, MissingExtra.
    """
    from hypercut_core.deblurring.models import load_deblurrer
    from hypercut_core.restore import restore
    from pipelines.models import model_file

    deblurrer = load_deblurrer(model_file(model, workspace), views)
    return lambda photo: restore(deblurrer, photo, tile=tile)


@contextlib.contextmanager
def _watcher(folder: Path, out: Path, load: Callable[[], Restorer], config: WatchConfig, say: Say) -> Iterator[Watcher]:
    """A watcher with its lock and journal; what a killed one left half-made is removed."""
    state = out / STATE
    with explain_os_errors(out):
        state.mkdir(parents=True, exist_ok=True)
    with only_watcher(folder, state):
        with explain_os_errors(state):
            shutil.rmtree(state / "work", ignore_errors=True)
            (state / "work").mkdir(exist_ok=True)
        with Journal(state / "journal.jsonl") as journal:
            if config.retry:
                journal.forget_set_aside()
            watcher = Watcher(folder, out, journal, load(), config, say)
            watcher.write_list()
            yield watcher


def check_folders(folder: Path, out: Path) -> None:
    """Raises StorageError or BadParameters if `folder` cannot be watched with outputs in `out`."""
    if not folder.is_dir():
        raise StorageError("this is no folder" if folder.exists() else "there is no such folder", where=folder,
                           remedy="name the folder that photos are put into")
    if out.exists() and not out.is_dir():
        raise StorageError("a file of this name is in the way of the folder", where=out,
                           remedy="choose another folder")
    if out.resolve() == folder.resolve():
        raise BadParameters("outputs in the watched folder itself would be taken for new photos", where=out,
                            remedy="choose another folder, for instance one inside it")


def _once() -> Callable[[str], None]:
    """Raises Stopped; a second signal changes nothing while the first is being obeyed."""
    asked = False

    def stop(_: str) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise Stopped

    return stop
