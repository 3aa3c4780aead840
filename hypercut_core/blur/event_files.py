"""Events read from files, with distrust: NPZ and CSV always, HDF5 and AEDAT4 with the extra `events`.

==========  =================================================================================
.npz        arrays x, y, t, p of one length (perhaps height, width, channel), or one array
            (N, 4) "events" with the columns t, x, y, p
.csv, .txt  columns t, x, y, p, or as a first line names them; comma, tab or space between
.h5, .hdf5  data sets x, y, t, p (or xs, ys, ts, ps) at the top, in "events" or in "CD/events",
            or one data set "events" (N, 4) with the columns t, x, y, p
.aedat4     the first stream of events (iniVation)
==========  =================================================================================

Times are seconds in the result. In a file, whole numbers are microseconds and others seconds, unless `unit`
says otherwise (in text, whole numbers below 1000 are seconds too). Polarities may be 0 and 1, -1 and 1, or booleans.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hypercut_core.blur.events import Events
from hypercut_core.errors import BadFootage, MissingExtra
from hypercut_core.files import atomic_file

Unit = Literal["s", "ms", "us", "ns"]
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
MAX_BYTES = 8 * 2**30  # of arrays, unpacked
MAX_TEXT = 2 * 2**30
WHOLE = 1000  # in text, whole numbers that end below this are taken for seconds
LARGEST_SIDE = 16_384  # px of a sensor
COLUMNS = ("t", "x", "y", "p")
NAMES = {"t": ("t", "ts", "time", "timestamp"), "x": ("x", "xs"), "y": ("y", "ys"),
         "p": ("p", "ps", "pol", "polarity", "on")}
Columns = dict[str, Any]
AnyPath = str | os.PathLike[str]


def read_events(path: AnyPath, height: int | None = None, width: int | None = None,
                unit: Unit | None = None) -> Events:
    """Read the events of one file, in temporal order, t in seconds.

    Args:
        height, width: of the sensor, px; None: as the file says, else just large enough for its events.
        unit: of the file's times; None: whole numbers are microseconds, others seconds.

    Raises:
        BadFootage: the file is missing, damaged, too large, of no known kind, or its events make no sense.
        MissingExtra: the reader of such files is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise _bad("there is no such file", file)
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise _bad(f"files of events end in {', '.join(READERS)}", file)
    try:
        columns = reader(file)
    except (ValueError, UserWarning, KeyError, OSError, EOFError, RuntimeError, MemoryError,
            zipfile.BadZipFile) as error:
        raise _bad(f"the events cannot be read ({str(error).splitlines()[0][:120] if str(error) else 'damaged'})",
                   file) from error
    return _checked(columns, file, height, width, unit)


def write_events(path: AnyPath, events: Events) -> None:
    """Write events as .npz, or as .csv with a first line of names (a colour sensor's only as .npz)."""
    file = Path(path)
    with atomic_file(file) as partial, partial.open("wb") as stream:
        if file.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {key: getattr(events, key) for key in ("x", "y", "t", "p", "height", "width")}
            if events.channel is not None:
                arrays["channel"] = events.channel
            np.savez_compressed(stream, **arrays)
        else:
            stream.write(b"t,x,y,p\n")
            np.savetxt(stream, np.column_stack([events.t, events.x, events.y, events.p]),
                       fmt=["%.9f", "%d", "%d", "%d"], delimiter=",")


def _npz(file: Path) -> Columns:
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise ValueError("it unpacks to more than 8 GiB")
    with np.load(file, allow_pickle=False) as arrays:
        if "events" in arrays.files:
            return _matrix(arrays["events"])
        found = _named({name: arrays[name] for name in arrays.files})
        for key in ("height", "width", "channel"):
            if key in arrays.files:
                found[key] = arrays[key]
        return found


def _text(file: Path) -> Columns:
    if file.stat().st_size > MAX_TEXT:
        raise ValueError("it is larger than 2 GiB")
    with file.open(encoding="utf-8-sig") as stream:
        first = stream.readline(1000).strip()
    separator = "," if "," in first else None
    names = [name.strip().lower() for name in first.lstrip("# ").split(separator)]
    headed = any(name in known for name in names for known in NAMES.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no data
        table = np.loadtxt(file, delimiter=separator, skiprows=int(headed), ndmin=2, encoding="utf-8-sig")
    if table.shape[1] < 4:
        raise ValueError(f"it has {table.shape[1]} columns, not 4")
    named = _named(dict(zip(names if headed else COLUMNS, table.T, strict=False)))
    whole = (named["t"] % 1 == 0).all() and named["t"][-1] >= WHOLE  # times such as 0 and 1 may be seconds
    return {**named, "t": named["t"].astype(np.int64)} if whole else named


def _hdf5(file: Path) -> Columns:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "events") from error
    with h5py.File(file, "r") as root:
        for place in ("CD/events", "events", "/"):
            node = root.get(place)
            if isinstance(node, h5py.Dataset):
                _expect_size(node.nbytes)
                values = node[()]
                return _named({n: values[n] for n in values.dtype.names}) if values.dtype.names else _matrix(values)
            if isinstance(node, h5py.Group):
                sets = {name: one for name, one in node.items() if isinstance(one, h5py.Dataset)}
                _expect_size(sum(one.nbytes for one in sets.values()))
                if {key for key in COLUMNS for name in sets if name in NAMES[key]} == set(COLUMNS):
                    return _named({name: one[()] for name, one in sets.items()})
    raise ValueError("it holds no events in a known place")


def _aedat4(file: Path) -> Columns:
    try:
        import aedat
    except ImportError as error:
        raise MissingExtra("aedat", "events") from error
    decoder = aedat.Decoder(str(file))
    streams = [(number, about) for number, about in decoder.id_to_stream().items() if about["type"] == "events"]
    if not streams:
        raise ValueError("it has no stream of events")
    number, about = streams[0]
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == number]
    joined = np.concatenate(packets) if packets else np.zeros(0, [("t", "u8"), ("x", "u2"), ("y", "u2"), ("on", "?")])
    return {**{key: joined[name] for key, name in zip(COLUMNS, ("t", "x", "y", "on"), strict=True)},
            "height": about["height"], "width": about["width"]}


READERS: dict[str, Callable[[Path], Columns]] = {".npz": _npz, ".csv": _text, ".txt": _text, ".h5": _hdf5,
                                                 ".hdf5": _hdf5, ".aedat4": _aedat4}


def _matrix(values: np.ndarray) -> Columns:
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"'events' is {list(values.shape)}, not (N, 4)")
    return dict(zip(COLUMNS, values.T, strict=True))


def _named(columns: dict[str, Any]) -> Columns:
    found = {key: columns[name] for key in COLUMNS for name in NAMES[key] if name in columns}
    if missing := [key for key in COLUMNS if key not in found]:
        raise ValueError(f"the column '{missing[0]}' is missing")
    return found


def _expect_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError("it unpacks to more than 8 GiB")


def _checked(columns: Columns, file: Path, height: int | None, width: int | None, unit: Unit | None) -> Events:
    t, x, y, p = (np.asarray(columns[key]) for key in COLUMNS)
    if not (t.ndim == 1 and t.shape == x.shape == y.shape == p.shape) or any(a.dtype.kind not in "iufb"
                                                                             for a in (t, x, y, p)):
        raise _bad("the columns are not numbers of one length", file)
    if not np.isfinite(t).all():
        raise _bad("a time is not a finite number", file)
    tall = _side(y, height, columns.get("height"), file, "row")
    wide = _side(x, width, columns.get("width"), file, "column")
    if not np.isin(p, (-1, 0, 1)).all() or ((p == 0).any() and (p == -1).any()):
        raise _bad("polarities are neither 0 and 1 nor -1 and 1", file)
    scale = SECONDS[unit or ("us" if t.dtype.kind in "iu" else "s")]
    seconds = t.astype(np.float64) * scale
    order = np.argsort(seconds, kind="stable")
    return Events(x[order].astype(np.int32), y[order].astype(np.int32), seconds[order],
                  np.where(p[order] > 0, 1, -1).astype(np.int8), tall, wide, _channel(columns, order, file))


def _side(place: np.ndarray, asked: int | None, told: Any, file: Path, name: str) -> int:
    values = place.astype(np.float64)
    if values.size and not (np.isfinite(values).all() and (values % 1 == 0).all() and values.min() >= 0):
        raise _bad(f"a {name} is not a whole number from 0 on", file)
    needed = int(values.max()) + 1 if values.size else 1
    side = asked if asked is not None else int(told) if told is not None else needed
    if not needed <= side <= LARGEST_SIDE:
        raise _bad(f"an event lies in {name} {needed - 1} of a sensor of {side}", file)
    return side


def _channel(columns: Columns, order: np.ndarray, file: Path) -> np.ndarray | None:
    if "channel" not in columns:
        return None
    channel = np.asarray(columns["channel"])
    if channel.shape != order.shape or not np.isin(channel, (0, 1, 2)).all():
        raise _bad("the channels are not 0, 1 or 2 for each event", file)
    return channel[order].astype(np.uint8)


def _bad(what: str, file: Path) -> BadFootage:
    return BadFootage(what, where=file, remedy="see hypercut_core/blur/event_files.py for the forms that are read")
