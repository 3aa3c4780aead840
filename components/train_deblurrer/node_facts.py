"""What a node of a cluster finds out about itself for `hypercut doctor --cluster`.

This code travels to the nodes by value (see cluster_probe.py), so that it also runs where another version of
Hypercut is installed, or none: nothing of Hypercut and nothing heavy is imported at the top.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from components.train_deblurrer.versions import versions

SMALL_TABLE = 32 * 2**20  # bytes; a larger table of clips is not read whole
TAIL = 64 * 2**10  # bytes at the end of the table that tell stores apart
LATENCY_READS = 5


class NodeProbe:
    """One on each node, as a Ray actor. All it returns is plain data."""

    def __init__(self) -> None:
        self._listening: socket.socket | None = None
        self._store: Any = None

    def machine(self) -> dict[str, Any]:
        """Hardware, room and versions."""
        total, available = _memory()
        temporary = tempfile.gettempdir()
        return {"hostname": socket.gethostname(), "cpus": len(os.sched_getaffinity(0)), "memory": total,
                "memory_available": available, "gpus": _gpus(), "cuda": _cuda_of_driver(),
                "disk_free": shutil.disk_usage(temporary).free, "disk": temporary, "shm": _size_of("/dev/shm"),
                "versions": versions()}

    def clock(self) -> float:
        return time.time()

    def read_store(self, uri: str, budget: int, seconds: float, seed: int) -> dict[str, Any]:
        """Read up to `budget` bytes of a clip store, for at most about `seconds`."""
        return read_store(uri, budget, seconds, seed)

    def listen(self, address: str) -> int:
        """A port on which others may try to reach this node."""
        self._listening = socket.create_server((address, 0), backlog=512)
        return int(self._listening.getsockname()[1])

    def reach(self, others: dict[str, tuple[str, int]], seconds: float) -> dict[str, str]:
        """For each of `others` "", or why it cannot be reached."""
        with ThreadPoolExecutor(max_workers=max(1, min(64, len(others)))) as pool:
            return dict(zip(others, pool.map(lambda to: _connect(to, seconds), others.values()), strict=True))

    def meeting_point(self, address: str, world: int, seconds: float) -> int:
        """The port of a store at which the members of a process group meet; held until they have met."""
        from torch.distributed import TCPStore

        self._store = TCPStore(address, 0, world, is_master=True, timeout=timedelta(seconds=seconds),
                               wait_for_workers=False)
        return int(self._store.port)

    def all_reduce(self, backend: str, meeting: tuple[str, int], rank: int, world: int, size: int,
                   seconds: float) -> dict[str, Any]:
        """A real process group with all other nodes: GB/s of an all-reduce of `size` bytes."""
        return all_reduce(backend, meeting, rank, world, size, seconds)

    def cuda(self) -> str:
        """Nothing ("") if this process can use its GPU, or why not."""
        try:
            import torch

            torch.ones(1, device="cuda").sum().item()
        except Exception as error:  # a driver that is too old, a device of another architecture, ...
            return _first_line(error)
        return ""

    def interface(self) -> str:
        """The address that this node's own name leads to: gloo binds to it if no interface is named."""
        try:
            return socket.gethostbyname(socket.gethostname())
        except OSError as error:
            return str(error)


def all_reduce(backend: str, meeting: tuple[str, int], rank: int, world: int, size: int,
               seconds: float) -> dict[str, Any]:
    """GB/s that cross each node's network card, 2 (n-1)/n of `size` for each all-reduce, best of three."""
    import torch
    import torch.distributed as dist

    patience = timedelta(seconds=seconds)
    store = dist.TCPStore(*meeting, world, is_master=False, timeout=patience)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience)
    try:
        values = torch.ones(size // 4, device="cuda" if backend == "nccl" else "cpu")
        times = []
        for _ in range(3):
            values.fill_(1)
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            right = bool((values == world).all())  # reading it waits for a GPU
            times.append(time.perf_counter() - start)
        return {"right": right, "gb_s": 2 * (world - 1) / world * size / min(times) / 1e9}
    finally:
        dist.destroy_process_group()


def read_store(uri: str, budget: int, seconds: float, seed: int) -> dict[str, Any]:
    """MB/s, ms to the first byte, and a fingerprint that is the same for the same store.

    Clips are read as a training reads them, in random order; of a store of millions only its table.
    """
    from random import Random

    from hypercut_core.clips.clip_table import TABLE
    from hypercut_core.clips.store import ClipStore

    source = _open(uri, seconds)
    group, size = source.read("zarr.json", 0, source.size("zarr.json")), source.size(TABLE)
    tail = source.read(TABLE, max(0, size - TAIL), min(size, TAIL))
    latency = statistics.median(_timed(lambda: source.read(TABLE, 0, 1)) for _ in range(LATENCY_READS))
    counted, order = _Counted(source), Random(seed)
    end = time.monotonic() + seconds
    clips = ClipStore(counted) if size <= SMALL_TABLE else None
    while counted.bytes < budget and time.monotonic() < end:
        if clips is not None:
            clips.read(order.randrange(len(clips)))
        else:
            counted.read(TABLE, order.randrange(size - 2**20), 2**20)
    fingerprint = hashlib.sha256(group + f"{size}".encode() + tail).hexdigest()[:12]
    return {"mb_s": counted.bytes / max(counted.seconds, 1e-9) / 1e6, "latency_ms": latency * 1e3,
            "bytes": counted.bytes, "clips": None if clips is None else len(clips), "fingerprint": fingerprint}


class _Counted:
    """A ByteSource that counts what is read and how long that takes."""

    def __init__(self, source: Any):
        self.source, self.name = source, source.name
        self.bytes, self.seconds = 0, 0.0

    def size(self, key: str) -> int:
        return int(self.source.size(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        start = time.perf_counter()
        data = bytes(self.source.read(key, offset, length))
        self.seconds += time.perf_counter() - start
        self.bytes += length
        return data


def _open(uri: str, patience: float) -> Any:
    """A ByteSource that keeps nothing: each read is one over the network."""
    if "://" in uri:
        from components.storage import clip_source

        return clip_source(uri, cache_folder="", memory_mb=0, patience=patience)
    from hypercut_core.clips.byte_source import LocalBytes

    return LocalBytes(uri)


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _connect(to: tuple[str, int], seconds: float) -> str:
    try:
        socket.create_connection(to, timeout=seconds).close()
    except OSError as error:
        return str(error)
    return ""


def _memory() -> tuple[int, int]:
    """Bytes, total and available; a container's own limit counts."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no container, or "max"
        return total, available
    return min(total, limit), min(available, limit - used)


def _size_of(place: str) -> int:
    try:
        return shutil.disk_usage(place).total
    except OSError:
        return 0


def _gpus() -> list[dict[str, Any]]:
    """As the driver tells them: a Ray process without a GPU of its own sees none through torch."""
    lines = _nvidia_smi("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")
    rows = [[word.strip() for word in line.rsplit(",", 2)] for line in lines.splitlines()]
    return [{"name": name, "driver": driver, "memory": int(memory) * 2**20 if memory.isdigit() else 0}
            for name, driver, memory in (row for row in rows if len(row) == 3)]


def _cuda_of_driver() -> str:
    """The newest CUDA that the driver can run; "" without one."""
    words = _nvidia_smi().partition("CUDA Version:")[2].split()
    return words[0] if words else ""


def _nvidia_smi(*words: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
