"""A clip store on S3, read by byte ranges."""

from __future__ import annotations

import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from components.storage import s3_client
from components.storage.block_cache import BlockCache
from components.storage.objects import listing
from components.storage.ranges import Pin, Ranges
from hypercut_core.errors import BadClipStore

BLOCK = 2**20  # bytes that are fetched and kept together
READERS = 4  # ranges that are fetched at once
GAP = 128 * 2**10  # bytes: reading that much for nothing costs no more than another request


def clip_source(uri: str, cache_mb: int | None = None, cache_folder: str | os.PathLike[str] | None = None,
                memory_mb: int | None = None, patience: float | None = None) -> S3Bytes:
    """The bytes of a clip store on S3, for `ClipStore`. What is None comes from the environment (s3_client.py).

    Args:
        uri: s3://bucket/prefix.
        cache_mb: size of the cache on disk, MiB.
        cache_folder: folder of the cache on a local disk; "": none.
        memory_mb: a store no larger than this is kept in memory as it is read, MiB; of a larger one, this
            much is fetched ahead at most.
        patience: seconds to wait for a server that is away.

    Raises:
        BadClipStore: nothing is there.
        StorageError: refused, or no such bucket.
    """
    limits = s3_client.reading_limits()
    folder = limits.cache_folder if cache_folder is None else os.fspath(cache_folder)
    cache = BlockCache(Path(folder), (limits.cache_mb if cache_mb is None else cache_mb) * 2**20) if folder else None
    memory = limits.memory_mb if memory_mb is None else memory_mb
    return S3Bytes(uri, memory * 2**20, cache, s3_client.patience() if patience is None else patience)


class S3Bytes:
    """A prefix as a ByteSource. Safe for threads; may be pickled, without keys.

    The size and ETag of every object are noted when it is opened, and travel with it to other processes: what
    is read later is of the same store, or an error. Three ways of reading:

    - the store fits into `memory`: blocks of 1 MiB, each fetched once and kept;
    - a cache on disk is given: the same blocks, kept there for all processes of the machine;
    - otherwise exactly the ranges that are asked for.

    Raises: as `clip_source`.
    """

    merge_gap = GAP  # ranges that are nearer to each other are better read as one

    def __init__(self, uri: str, memory: int, cache: BlockCache | None, patience: float,
                 pins: dict[str, Pin] | None = None):
        bucket, prefix = s3_client.split_uri(uri)
        self.name, self.memory, self.cache, self.patience = uri.rstrip("/"), memory, cache, patience
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        self._pins = pins or {name: Pin(*facts) for name, facts in listing(self.name).items()}
        if not self._pins:
            raise BadClipStore("there is no clip store here", where=uri, remedy="run synthesize-blur first")
        self.ranges = Ranges(bucket, patience)
        self._kept: dict[tuple[str, int], bytes] | None = None
        if sum(pin.size for pin in self._pins.values()) <= memory:
            self._kept = {}
        self._ahead: OrderedDict[tuple[str, int, int], Future[bytes | bytearray]] = OrderedDict()
        self._ahead_bytes = 0
        self._lock = threading.Lock()
        self._workers = _Workers(READERS)

    def size(self, key: str) -> int:
        return self._pin(key).size

    def read(self, key: str, offset: int, length: int) -> bytes | bytearray:
        future = None
        if self._ahead:
            with self._lock:
                future = self._ahead.pop((key, offset, length), None)
                self._ahead_bytes -= length if future is not None else 0
        return self._read(key, offset, length) if future is None else future.result()

    def prefetch(self, ranges: Sequence[tuple[str, int, int]]) -> None:
        """Start to fetch ranges (key, offset, bytes) that will be read soon; at most `memory` of them wait."""
        for wanted in ranges:
            if self._is_here(*wanted):
                continue
            with self._lock:
                if wanted in self._ahead or wanted[2] > self.memory:
                    continue
                self._ahead[wanted] = self._workers.submit(self._read, *wanted)
                self._ahead_bytes += wanted[2]
                while self._ahead_bytes > self.memory:
                    dropped, future = self._ahead.popitem(last=False)
                    future.cancel()
                    self._ahead_bytes -= dropped[2]

    def _read(self, key: str, offset: int, length: int) -> bytes | bytearray:
        pin = self._pin(key)
        if offset + length > pin.size:
            raise EOFError(f"{key} ends at byte {pin.size}, {offset + length} expected")
        if length == 0:
            return b""
        if self._kept is None and self.cache is None:
            return self.ranges.read(self._prefix + key, pin, offset, length)
        return self._from_blocks(key, pin, offset, length)

    def _from_blocks(self, key: str, pin: Pin, offset: int, length: int) -> bytes:
        end, numbers = offset + length, range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
        parts: list[bytes | None] = [self._block(key, pin, number, offset, end) for number in numbers]
        place = 0
        while place < len(parts):
            if parts[place] is not None:
                place += 1
                continue
            stop = place
            while stop < len(parts) and parts[stop] is None:
                stop += 1
            parts[place:stop] = self._fetch(key, pin, numbers[place:stop], offset, end)
            place = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)  # type: ignore[return-value, arg-type]

    def _block(self, key: str, pin: Pin, number: int, offset: int, end: int) -> bytes | None:
        """What a block that is kept here has of the bytes offset .. end, or None."""
        start = number * BLOCK
        low, high = max(offset - start, 0), min(end - start, BLOCK)
        if self._kept is not None:
            block = self._kept.get((key, number))
            return None if block is None else block[low:high]
        assert self.cache is not None
        return self.cache.read(self._title(key, pin, number), min(BLOCK, pin.size - start), low, high - low)

    def _is_here(self, key: str, offset: int, length: int) -> bool:
        """Whether these bytes can be had without the server."""
        pin, numbers = self._pin(key), range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
        if self._kept is not None:
            return all((key, number) in self._kept for number in numbers)
        return self.cache is not None and all(self.cache.holds(self._title(key, pin, number)) for number in numbers)

    def _fetch(self, key: str, pin: Pin, numbers: range, offset: int, end: int) -> list[bytes | None]:
        """Fetch neighbouring blocks in one request and keep them; what each has of the bytes offset .. end."""
        begin, parts = numbers[0] * BLOCK, []
        data = self.ranges.read(self._prefix + key, pin, begin, min((numbers[-1] + 1) * BLOCK, pin.size) - begin)
        for number in numbers:
            start = number * BLOCK
            block = bytes(data[start - begin:start - begin + BLOCK])
            if self._kept is not None:
                self._kept[key, number] = block
            elif self.cache is not None:
                self.cache.write(self._title(key, pin, number), block)
            parts.append(block[max(offset - start, 0):max(end - start, 0)])
        return parts  # type: ignore[return-value]

    def _title(self, key: str, pin: Pin, number: int) -> str:
        return f"{self.name}/{key} {pin.etag} {pin.size} {BLOCK} {number}"

    def _pin(self, key: str) -> Pin:
        try:
            return self._pins[key]
        except KeyError:
            raise FileNotFoundError(f"there is no object {self.name}/{key}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.name, "memory": self.memory, "cache": self.cache, "patience": self.patience,
                "pins": self._pins}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _Workers:
    """A few threads that die with the process: one that waits for a server must not keep it from ending."""

    def __init__(self, most: int):
        self._most = most
        self._reset()

    def submit(self, work: Any, *args: Any) -> Future[bytes | bytearray]:
        if self._owner != os.getpid():
            self._reset()  # threads do not live on in a forked process
        future: Future[bytes | bytearray] = Future()
        self._queue.put((future, work, args))
        if self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()
        return future

    def _reset(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[bytes | bytearray], Any, Any]] = queue.SimpleQueue()
        self._threads, self._owner = 0, os.getpid()

    def _work(self) -> None:
        tasks = self._queue
        while True:
            future, work, args = tasks.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args))
                except BaseException as error:
                    future.set_exception(error)
            del future, work, args
