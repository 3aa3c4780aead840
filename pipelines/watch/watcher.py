"""What happens to one photo of a watched folder: left, restored, or set aside."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from hypercut_core.errors import BadImage, BadParameters, HypercutError, StorageError
from hypercut_core.files import explain_os_errors, file_sha256, write_text
from pipelines.watch.inbox import Inbox
from pipelines.watch.journal import BEGUN, RESTORED, SET_ASIDE, STOPPED, Entry, Journal, Signature, photo_key

if TYPE_CHECKING:
    import numpy as np

STATE = ".hypercut-watch"
LIST = "not-restored.txt"  # in OUT, for people
Kind = Literal["webp", "gif", "mp4", "frames"]
Restorer = Callable[["np.ndarray"], "np.ndarray"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class WatchConfig:
    """How a folder is watched."""

    kind: Kind = "webp"  # of the outputs; frames: a folder of PNG files a photo
    frames: int | None = None  # shown; None: the model's own
    reverse: bool = False  # play backwards
    bounce: bool = False  # play forwards, then backwards
    fps: float = 10.0  # frames a second
    poll: float = 1.0  # between two looks at the folder, s
    settle: float = 2.0  # that a file must have stayed the same before it is read, s
    patience: float = 20.0  # that a file which cannot be read has to become whole, s
    attempts: int = 5  # that a photo has before it is set aside, if the process dies over it each time
    once: bool = False  # end when all that was there is done
    retry: bool = False  # try what was set aside again


def known_kind(kind: str) -> Kind:
    """Raises BadParameters if there is no such kind of output."""
    for known in get_args(Kind):
        if kind == known:
            return known
    raise BadParameters(f"results of kind '{kind}' cannot be made", where="--format",
                        remedy=f"choose one of {', '.join(get_args(Kind))}")


class Stopped(BaseException):
    """A signal asked for the end. No Exception: nothing on the way may take it for a broken photo."""


class Watcher:
    """One folder being watched; see `watch.py`.

    Args:
        restore: uint8 ``[H, W, 3]`` -> uint8 ``[T, H, W, 3]``.
    """

    def __init__(self, folder: Path, out: Path, journal: Journal, restore: Restorer, config: WatchConfig, say: Say):
        self.out, self.journal, self.config, self.say = out, journal, config, say
        self.inbox = Inbox(folder, out, say)
        self.restored = self.refused = 0
        self._restore = restore
        self._work = out / STATE / "work"
        self._doubtful: set[tuple[str, Signature]] = set()  # could not be read so far
        self._unreadable = False

    def run(self) -> None:
        """Until a signal comes; with `once`, until all that is there at the first look is finished."""
        first: set[str] | None = None
        while True:
            photos = self._look()
            first = {name for name, _ in photos} if first is None else first
            waiting = [name for name, signature in photos if not self._tend(name, signature)]
            if self.config.once and not first.intersection(waiting):
                return
            time.sleep(self.config.poll)

    def _look(self) -> list[tuple[str, Signature]]:
        try:
            photos = self.inbox.look()
        except OSError as error:
            if self.config.once:
                raise StorageError(f"the folder cannot be read ({error.strerror})", where=self.inbox.folder,
                                   remedy="check the path") from error
            if not self._unreadable:
                self.say(f"{self.inbox.folder}: cannot be read now ({error.strerror}); looking again")
            self._unreadable = True
            return []
        self._unreadable = False
        return photos

    def _tend(self, name: str, signature: Signature) -> bool:
        """Take one photo as far as it goes now; False: it has to be looked at again."""
        if self.journal.known(name, signature):
            return True
        doubtful = (name, signature) in self._doubtful and not self._waited(name, signature)
        if doubtful or self.inbox.rested(name) < self.config.settle:
            return False
        try:
            sha256 = file_sha256(self.inbox.folder / name)
        except OSError as error:
            return self._could_not_read(name, signature, BadImage(f"the file cannot be read ({error.strerror})",
                                                                  remedy="change its permissions"), "unread")
        if self.inbox.signature(name) != signature:
            return False
        key = photo_key(name, sha256)
        before = self.journal.entry(key)
        if before is not None and before.event in (RESTORED, SET_ASIDE):  # the same bytes, copied there again
            self.journal.write(Entry(key, name, before.event, signature, before.attempts, before.out, before.why))
            return True
        return self._take(name, signature, sha256, before.attempts if before else 0)

    def _take(self, name: str, signature: Signature, sha256: str, attempts: int) -> bool:
        key, target = photo_key(name, sha256), self._target(name, photo_key(name, sha256))
        if target.exists():  # the process was killed between the rename and the line about it
            self.journal.write(Entry(key, name, RESTORED, signature, 0, target.name))
            return True
        if attempts >= self.config.attempts:
            self._set_aside(name, key, signature, f"the process died {attempts} times while it worked on this "
                            "photo. To mend it: scale the photo down, or give the process more memory.")
            return True
        self.journal.write(Entry(key, name, BEGUN, signature, attempts + 1))
        try:
            return self._make(name, signature, sha256, target)
        except (Stopped, HypercutError):  # not the photo's fault
            self.journal.write(Entry(key, name, STOPPED, signature, attempts))
            raise

    def _make(self, name: str, signature: Signature, sha256: str, target: Path) -> bool:
        from hypercut_core.animation import check_output, write_animation
        from hypercut_core.photos import load_photo

        started, made, key = time.monotonic(), self._work / target.name, photo_key(name, sha256)
        try:
            photo = load_photo(self.inbox.folder / name)
            if self.inbox.signature(name) != signature:  # it was changed while it was read
                self.journal.write(Entry(key, name, STOPPED, signature))
                return False
            try:
                check_output(made, size=(photo.shape[1], photo.shape[0]))
            except BadParameters as error:
                raise BadImage(error.what, where=name, remedy=error.remedy) from error
            frames = self._restore(photo)
        except BadImage as error:
            return self._could_not_read(name, signature, error, sha256)
        except MemoryError:
            too_large = BadImage("there is not enough memory for this photo", remedy="scale it down")
            return self._could_not_read(name, signature, too_large, sha256)
        config = self.config
        write_animation(frames, made, bounce=config.bounce, reverse=config.reverse, fps=config.fps,
                        frames_shown=config.frames)
        _publish(made, target)
        self.journal.write(Entry(key, name, RESTORED, signature, 0, target.name))
        self.restored += 1
        self.say(f"restored: {name} -> {target} ({time.monotonic() - started:.1f} s)")
        return True

    def _could_not_read(self, name: str, signature: Signature, error: BadImage, sha256: str) -> bool:
        """It may be a copy that pauses: set aside only after it has stayed the same for long."""
        key = photo_key(name, sha256)
        if not self._waited(name, signature):
            self._doubtful.add((name, signature))
            self.journal.write(Entry(key, name, STOPPED, signature))
            return False
        remedy = f" To mend it: {error.remedy}." if error.remedy else ""
        self._set_aside(name, key, signature, f"{error.what}.{remedy}")
        return True

    def _waited(self, name: str, signature: Signature) -> bool:
        """Whether a file that cannot be read has had its time. By the file's own clock too: if that one is wrong, a
        copy that pauses is reported needlessly, and restored all the same once it changes."""
        age = time.time() - signature[1] / 1e9
        return max(age, self.inbox.rested(name)) >= self.config.patience

    def _set_aside(self, name: str, key: str, signature: Signature, why: str) -> None:
        self.journal.write(Entry(key, name, SET_ASIDE, signature, 0, "", why))
        self.refused += 1
        self.say(f"set aside: {name}: {why}")
        self.write_list()

    def write_list(self) -> None:
        """OUT/not-restored.txt: what was set aside and why; no file if there is nothing."""
        lines = [f"{entry.name}: {entry.why}\n" for entry in self.journal.set_aside()]
        if not lines:
            (self.out / LIST).unlink(missing_ok=True)
            return
        write_text(self._work / LIST, "".join(lines).encode("utf-8", "backslashreplace").decode())
        _publish(self._work / LIST, self.out / LIST)

    def _target(self, name: str, key: str) -> Path:
        """Where the output goes: readable, and another one for every photo."""
        stem = os.fsencode(Path(name).stem)[:100].decode("utf-8", "ignore").strip() or "photo"
        if self.config.kind == "frames":
            return self.out / f"{stem.replace('.', '_')}-{key}"
        return self.out / f"{stem}-{key}.{self.config.kind}"


def _publish(made: Path, target: Path) -> None:
    """Give a finished file or folder its place by one rename that outlives a power cut."""
    with explain_os_errors(target):
        made.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network shares cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
