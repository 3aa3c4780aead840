"""Waiting for a server that is away: exponential pauses with jitter, said once, and an end to it."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from hypercut_core.errors import StorageError

Result = TypeVar("Result")
FIRST, LONGEST = 0.2, 5.0  # s between two tries
QUIET = 10.0  # s in which a server that comes and goes is not told again
PATIENCE = 120.0  # s from the first failure to giving up


class Away(Exception):
    """The server did not answer, or said that it cannot now: worth another try."""


class _Outage:
    """Tells that the server is away and that it is back, once each, however many threads wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = -QUIET

    def begin(self, where: str, why: str, patience: float) -> None:
        with self._lock:
            if self._since is None:
                self._since = now = time.monotonic()
                if now - self._told >= QUIET:
                    self._told = now
                    print(f"hypercut: {where}: the S3 server does not answer as it should ({why}); trying again "
                          f"for up to {patience:.0f} s", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._since is not None and self._told >= self._since:
                print(f"hypercut: the S3 server answers again after {time.monotonic() - self._since:.0f} s",
                      file=sys.stderr, flush=True)
            self._since = None


_outage = _Outage()


def patiently(work: Callable[[], Result], where: str, patience: float,
              sleep: Callable[[float], None] = time.sleep) -> Result:
    """The result of `work`, which is tried again while it raises `Away`.

    Args:
        where: the URI, for messages.
        patience: seconds from the first failure to giving up; 0: one try.

    Raises:
        StorageError: the server was away for longer than that.
    """
    tries, failed = 0, 0.0
    while True:
        try:
            result = work()
        except Away as error:
            now = time.monotonic()
            failed = failed or now
            left = patience - (now - failed)
            if left <= 0:
                waited = f" for {now - failed:.0f} s" if tries else ""
                raise StorageError(f"the S3 server did not answer as it should{waited} ({error})", where=where,
                                   remedy="check AWS_ENDPOINT_URL and the network, then run it again; "
                                          "HYPERCUT_S3_PATIENCE says how many seconds are waited") from None
            _outage.begin(where, str(error), left)
            sleep(min(left, random.uniform(0.5, 1.0) * min(LONGEST, FIRST * 2**tries)))
            tries += 1
        else:
            _outage.end()
            return result
