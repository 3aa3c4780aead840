"""How clips are cut into the chunks and shards of a Zarr v3 array, and its zarr.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypercut_core.errors import BadParameters

MAX_CHUNK = 2**28  # bytes; a store that asks for more is damaged or hostile
MAX_INDEX = 2**26  # bytes
MAX_SHARD_CLIPS = 4096
CODECS = ("zstd", "lz4", "lz4hc", "blosclz", "zlib")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")  # in the order of Blosc's codes 0, 1, 2
AXES = ("clip", "frame", "height", "width", "channel")


@dataclass(frozen=True)
class Packing:
    """How clips are cut into chunks and compressed. The defaults are those that `benchmarks/clip_reading`
    found smallest on video while reading well above 20 times as fast as PNG files, noisy or not."""

    chunk: int = 64  # px, the longest side of a chunk
    codec: str = "zstd"  # Blosc's inner codec: zstd, lz4, lz4hc
    level: int = 1  # compression level, 1 to 9
    shuffle: str = "noshuffle"  # noshuffle, shuffle, bitshuffle
    shard_bytes: int = 2**30  # bytes of uncompressed frames in one shard file

    def __post_init__(self) -> None:
        if not (8 <= self.chunk <= 1024 and 1 <= self.level <= 9 and self.shard_bytes >= 1
                and self.codec in CODECS and self.shuffle in SHUFFLES):
            raise BadParameters(f"a clip store cannot be packed so: {self}",
                                remedy="set chunk from 8 to 1024, level from 1 to 9, codec to one of "
                                       f"{', '.join(CODECS)}, shuffle to one of {', '.join(SHUFFLES)}")


@dataclass(frozen=True)
class ArrayLayout:
    """Shape and cut of one array. A chunk holds all frames of one tile of one clip."""

    clips: int
    frames: int  # T + 1
    height: int
    width: int
    chunk_height: int
    chunk_width: int
    shard_clips: int
    codec: str = "zstd"
    level: int = 1
    shuffle: str = "noshuffle"

    @property
    def rows(self) -> int:
        return -(-self.height // self.chunk_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.chunk_width)

    @property
    def chunk_bytes(self) -> int:
        return self.frames * self.chunk_height * self.chunk_width * 3

    @property
    def index_entries(self) -> int:
        return self.shard_clips * self.rows * self.columns

    @property
    def shards(self) -> int:
        return -(-self.clips // self.shard_clips)

    @classmethod
    def plan(cls, frames: int, height: int, width: int, packing: Packing) -> ArrayLayout:
        """Cut into chunks of nearly equal size, so that the last row and column hold little padding."""
        chunk_height = math.ceil(height / math.ceil(height / packing.chunk))
        chunk_width = math.ceil(width / math.ceil(width / packing.chunk))
        tiles = math.ceil(height / chunk_height) * math.ceil(width / chunk_width)
        shard_clips = min(packing.shard_bytes // (frames * height * width * 3), MAX_INDEX // 16 // tiles,
                          MAX_SHARD_CLIPS)
        return cls(0, frames, height, width, chunk_height, chunk_width, max(1, shard_clips),
                   packing.codec, packing.level, packing.shuffle)

    def to_json(self) -> dict[str, Any]:
        """The array's zarr.json."""
        inner = [1, self.frames, self.chunk_height, self.chunk_width, 3]
        outer = [self.shard_clips, self.frames, self.rows * self.chunk_height,
                 self.columns * self.chunk_width, 3]
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        compress = {"name": "blosc", "configuration": {
            "typesize": 3, "cname": self.codec, "clevel": self.level, "shuffle": self.shuffle,
            "blocksize": self.chunk_bytes}}
        shard = {"name": "sharding_indexed", "configuration": {
            "chunk_shape": inner, "codecs": [{"name": "bytes"}, compress],
            "index_codecs": [little, {"name": "crc32c"}], "index_location": "end"}}
        return {"zarr_format": 3, "node_type": "array", "data_type": "uint8", "fill_value": 0,
                "shape": [self.clips, self.frames, self.height, self.width, 3],
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "codecs": [shard], "attributes": {}, "dimension_names": list(AXES),
                "storage_transformers": []}

    @classmethod
    def from_json(cls, meta: Any) -> ArrayLayout:
        """Read a zarr.json that `to_json` could have written.

        Raises:
            ValueError: it is something else; the message says what.
        """
        try:
            shape, outer = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
            shard = meta["codecs"][0]["configuration"]
            inner, blosc_settings = shard["chunk_shape"], shard["codecs"][-1]["configuration"]
            numbers = [*shape, *outer, *inner]
            if len(numbers) != 15 or any(type(number) is not int for number in numbers):
                raise ValueError("shape and chunk shapes must be five whole numbers each")
            layout = cls(shape[0], shape[1], shape[2], shape[3], inner[2], inner[3], outer[0],
                         blosc_settings["cname"], blosc_settings["clevel"], blosc_settings["shuffle"])
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"not the metadata of a clip array ({error!r})") from error
        layout._check_bounds()
        expected = layout.to_json()
        # what does not change the meaning of the bytes may differ
        for key in set(expected) - {"attributes", "dimension_names", "storage_transformers", "codecs"}:
            if meta.get(key) != expected[key]:
                raise ValueError(f"{key} is {str(meta.get(key))[:120]}, {expected[key]} expected")
        _check_codecs(meta["codecs"], expected["codecs"])
        return layout

    def _check_bounds(self) -> None:
        if not (0 <= self.clips < 2**31 and 1 <= self.frames <= 64
                and 1 <= self.chunk_height <= self.height < 2**16
                and 1 <= self.chunk_width <= self.width < 2**16 and self.shard_clips >= 1):
            raise ValueError("shape or chunk shape is out of range")
        if self.chunk_bytes > MAX_CHUNK or self.index_entries * 16 > MAX_INDEX:
            raise ValueError("chunks or shards are too large")


def _check_codecs(found: Any, expected: list[dict[str, Any]]) -> None:
    """Blosc settings may be any (each chunk's header carries them); the rest must be ours."""
    try:
        shard = found[0]["configuration"]
        names = [codec["name"] for codec in shard["codecs"]]
        same = (len(found) == 1 and found[0]["name"] == "sharding_indexed" and names == ["bytes", "blosc"]
                and shard["chunk_shape"] == expected[0]["configuration"]["chunk_shape"]
                and [codec["name"] for codec in shard["index_codecs"]] == ["bytes", "crc32c"]
                and shard["index_codecs"][0]["configuration"]["endian"] == "little"
                and shard.get("index_location", "end") == "end")
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"codecs are not those of a clip array ({error!r})") from error
    if not same:
        raise ValueError("codecs are not those of a clip array (sharding_indexed of bytes and blosc)")
