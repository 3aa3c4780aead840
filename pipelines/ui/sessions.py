"""Visitors: each page has a session with a key that cannot be guessed, and a folder that goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pipelines.ui.restoring import Job

PREFIX = "hypercut-ui-"


class Session:
    """One page of one visitor."""

    def __init__(self, folder: Path, now: float):
        self.folder, self.seen = folder, now
        self.job: Job | None = None
        self.open = True

    def replace_job(self, job: Job | None) -> None:
        """A new photo: the one before it is given up, and its files go."""
        if self.job is not None:
            self.job.given_up = True
            shutil.rmtree(self.job.folder, ignore_errors=True)
        self.job = job


class Sessions:
    """All sessions of this server.

    Args:
        root: the folder of their folders.
        keep: seconds that a session lives without being asked for.
        most: sessions at once.
    """

    def __init__(self, root: Path, keep: float, most: int, clock: Callable[[], float] = time.monotonic):
        self.root, self.keep, self.most = root, keep, most
        self._clock, self._all, self._lock = clock, dict[str, Session](), threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def new(self) -> str | None:
        """Its key, 256 random bits; None: there are too many already."""
        self.expire()
        key = secrets.token_urlsafe(32)
        with self._lock:
            if len(self._all) >= self.most:
                return None
            self._all[key] = Session(Path(tempfile.mkdtemp(prefix="session-", dir=self.root)), self._clock())
        return key

    def get(self, key: str) -> Session | None:
        """The session of a key, which then lives on."""
        with self._lock:
            session = self._all.get(key)
            if session is not None:
                session.seen = self._clock()
            return session

    def close(self, key: str) -> None:
        """Forget a session and remove its files; an unknown one is fine."""
        with self._lock:
            session = self._all.pop(key, None)
        if session is not None:
            session.open = False
            session.replace_job(None)
            shutil.rmtree(session.folder, ignore_errors=True)

    def expire(self) -> None:
        """Close every session that has not been asked for in time."""
        now = self._clock()
        with self._lock:
            old = [key for key, session in self._all.items() if now - session.seen > self.keep]
        for key in old:
            self.close(key)


@contextlib.contextmanager
def temporary_root(parent: Path | None = None) -> Iterator[Path]:
    """A private folder for all sessions, gone afterwards. Those that killed servers left behind are removed too."""
    above = Path(tempfile.gettempdir()) if parent is None else parent
    for left in above.glob(f"{PREFIX}*"):
        _remove_if_abandoned(left)
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    try:
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # while this server lives
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _remove_if_abandoned(left: Path) -> None:
    with contextlib.suppress(OSError):
        if left.is_symlink() or left.stat().st_uid != os.getuid():
            return
        lock: IO[str]
        with (left / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
