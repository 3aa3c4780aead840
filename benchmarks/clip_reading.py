"""Random 256-pixel crops of 8-frame 720p clips: the clip store against eight PNG files.

    .venv/bin/python -m benchmarks.clip_reading

Prints a table and writes benchmarks/results/clip_reading.md and .json. CPU time is that of the
process, all threads; every way of reading gets its turn in each round, and the medians over the
rounds are reported. Files are read from the page cache on both sides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from PIL import Image

from hypercut_core.clips.array_layout import ArrayLayout, Packing
from hypercut_core.clips.byte_source import LocalBytes
from hypercut_core.clips.shards import ShardReader, ShardWriter
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"
HEIGHT, WIDTH, SHARP, CROP = 720, 1280, 7, 256
VIDEOS = ("hand/sam2_02_cups.mp4", "other/sam2_01_dog.mp4", "face/mpsamples_gesture_face_thumb.mp4")
PACKINGS = {
    "default": Packing(),  # zstd 1, no shuffle, chunks of 64
    "zstd 2": Packing(level=2), "zstd 5": Packing(level=5),
    "shuffle": Packing(shuffle="shuffle"), "bitshuffle": Packing(shuffle="bitshuffle"),
    "lz4 5": Packing(codec="lz4", level=5), "lz4hc 5": Packing(codec="lz4hc", level=5),
    "lz4 5, bitshuffle": Packing(codec="lz4", level=5, shuffle="bitshuffle"),
    "lz4hc 3, bitshuffle": Packing(codec="lz4hc", level=3, shuffle="bitshuffle"),
    "chunks of 96": Packing(chunk=96), "chunks of 128": Packing(chunk=128),
    "chunks of 256": Packing(chunk=256),
}
Read = Callable[[int, int, int], np.ndarray]  # clip, top, left -> uint8 [8, 256, 256, 3]


@dataclass
class Way:
    """One way to store and read the clips."""

    name: str
    read: Read
    size: int  # bytes on disk
    write_seconds: float  # CPU-seconds to write one clip
    seconds: list[float] = field(default_factory=list)  # CPU-seconds a sample, of each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=24, help="crops a round")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"crop": CROP, "clip": [SHARP + 1, HEIGHT, WIDTH, 3], "rounds": options.rounds,
                              "samples": options.samples, "contents": []}
    sharp, what = content()
    for noise in (0.0, 1.5):
        clips = [finish(frames, noise) for frames in sharp]
        with tempfile.TemporaryDirectory() as folder:
            ways = list(prepare(clips, Path(folder)))
            measure(ways, clips, options.rounds, options.samples)
        title = what if not noise else f"{what}, with sensor noise of {noise} grey levels"
        result["contents"].append({"content": title, "noise": noise, "clips": len(clips),
                                   "ways": compare(ways, clips[0].nbytes * len(clips))})
    text = table(result)
    print(text)
    write_json(RESULTS / "clip_reading.json", result, digits=4)
    write_text(RESULTS / "clip_reading.md", text)


def content() -> tuple[list[np.ndarray], str]:
    """Sharp sequences uint8 [7, 720, 1280, 3], and what they are."""
    repository = Path(__file__).resolve().parent.parent
    root = Path(os.environ.get("HYPERCUT_FOOTAGE", repository.parent / "shared" / "footage"))
    videos = [root / name for name in VIDEOS if (root / name).is_file()]
    if videos:
        names = ", ".join(video.stem for video in videos)
        return [w for video in videos for w in video_windows(video)], f"real 720p video ({names})"
    return [w for photo in ("chelsea", "coffee", "astronaut") for w in photo_windows(photo)], \
        "photos of scikit-image enlarged to 720p, moving"


def video_windows(path: Path, starts: tuple[int, ...] = (20, 50)) -> Iterator[np.ndarray]:
    import av

    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame, _ in
                  zip(video.decode(video=0), range(max(starts) + SHARP), strict=False)]
    yield from (np.stack(frames[start:start + SHARP]) for start in starts)


def photo_windows(name: str) -> Iterator[np.ndarray]:
    from skimage import data

    photo = cv2.resize(getattr(data, name)(), (WIDTH + 100, HEIGHT + 100), interpolation=cv2.INTER_CUBIC)
    for step in ((2.3, 1.1), (-5.2, 3.4)):
        moves = [np.array([[1, 0, -50 + step[0] * k], [0, 1, -50 + step[1] * k]], np.float32) for k in range(-3, 4)]
        yield np.stack([cv2.warpAffine(photo, move, (WIDTH, HEIGHT)) for move in moves])


def finish(sharp: np.ndarray, noise: float) -> np.ndarray:
    """Put the mean in front and add noise: uint8 [8, 720, 1280, 3]."""
    clip = np.concatenate([sharp.mean(0, dtype=np.float32)[None], sharp.astype(np.float32)])
    if noise:
        clip += np.random.default_rng(0).normal(0, noise, clip.shape).astype(np.float32)
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def prepare(clips: list[np.ndarray], folder: Path) -> Iterator[Way]:
    yield from png_ways(clips, folder / "png")
    write_store(clips[:1], folder / "warm-up", Packing())  # imports must not count as writing
    for name, packing in PACKINGS.items():
        start = time.process_time()
        write_store(clips, folder / name, packing)
        spent = (time.process_time() - start) / len(clips)
        store = ClipStore(folder / name)
        yield Way(f"store, {name}", crops_of(store), tree_size(folder / name), spent)
        if name == "default":
            array = zarr.open_group(folder / name, mode="r")[f"{HEIGHT}x{WIDTH}"]
            size = tree_size(folder / name)
            yield Way("the same store read by zarr-python", crops_of_zarr(array), size, spent)
    yield frame_chunks(clips, folder / "frames")


def write_store(clips: list[np.ndarray], path: Path, packing: Packing) -> None:
    with ClipStoreWriter(path, SHARP, packing) as writer:
        for k, clip in enumerate(clips):
            writer.add(clip, clip_id=str(k), source="s", split="train", category="c", motion=0.0)


def png_ways(clips: list[np.ndarray], folder: Path) -> Iterator[Way]:
    folder.mkdir()
    start = time.process_time()
    for k, clip in enumerate(clips):
        for t, frame in enumerate(clip):
            cv2.imwrite(str(folder / f"{k}_{t}.png"), frame[..., ::-1])
    spent = (time.process_time() - start) / len(clips)

    def opencv(clip: int, top: int, left: int) -> np.ndarray:
        frames = [cv2.imread(str(folder / f"{clip}_{t}.png")) for t in range(SHARP + 1)]
        return np.stack([frame[top:top + CROP, left:left + CROP, ::-1] for frame in frames])  # type: ignore[index]

    def pillow(clip: int, top: int, left: int) -> np.ndarray:
        parts = []
        for t in range(SHARP + 1):
            with Image.open(folder / f"{clip}_{t}.png") as image:
                parts.append(np.asarray(image.crop((left, top, left + CROP, top + CROP))))
        return np.stack(parts)

    yield Way("eight PNG files, OpenCV", opencv, tree_size(folder), spent)
    yield Way("eight PNG files, Pillow", pillow, tree_size(folder), spent)


def frame_chunks(clips: list[np.ndarray], folder: Path) -> Way:
    """One frame a chunk instead of all: each frame stored as a clip of one."""
    start = time.process_time()
    writer = ShardWriter(folder / "a", ArrayLayout.plan(1, HEIGHT, WIDTH, Packing()))
    for clip in clips:
        for frame in clip:
            writer.add(frame[None])
    writer.finish()
    spent = (time.process_time() - start) / len(clips)
    reader = ShardReader(LocalBytes(folder), "a")

    def read(clip: int, top: int, left: int) -> np.ndarray:
        frames = range(clip * (SHARP + 1), (clip + 1) * (SHARP + 1))
        return np.concatenate([reader.read(k, top, left, CROP, CROP) for k in frames])

    return Way("store, one frame a chunk", read, tree_size(folder), spent)


def crops_of(store: ClipStore) -> Read:
    return lambda clip, top, left: store.read_crop(clip, top, left, CROP, CROP)


def crops_of_zarr(array: Any) -> Read:
    return lambda clip, top, left: array[clip, :, top:top + CROP, left:left + CROP]


def measure(ways: list[Way], clips: list[np.ndarray], rounds: int, samples: int) -> None:
    rng = np.random.default_rng(0)
    for turn in range(rounds):
        draws = rng.integers(0, (len(clips), HEIGHT - CROP + 1, WIDTH - CROP + 1), (samples, 3)).tolist()
        for way in ways:
            if turn == 0:
                clip, top, left = draws[0]
                wanted = clips[clip][:, top:top + CROP, left:left + CROP]
                assert np.array_equal(way.read(clip, top, left), wanted), way.name
            few = draws[:4] if "PNG" in way.name or "zarr-python" in way.name else draws
            start = time.process_time()
            for clip, top, left in few:
                way.read(clip, top, left)
            way.seconds.append((time.process_time() - start) / len(few))


def compare(ways: list[Way], raw: int) -> list[dict[str, Any]]:
    """Per way: figures, and the ratio to the faster PNG reader, taken round by round."""
    png = [min(pair) for pair in zip(*(way.seconds for way in ways if "PNG" in way.name), strict=True)]
    rows = []
    for way in ways:
        ratios = [base / own for base, own in zip(png, way.seconds, strict=True)]
        rows.append({"name": way.name, "samples_per_cpu_second": 1 / statistics.median(way.seconds),
                     "ratio": statistics.median(ratios), "ratio_lowest": min(ratios),
                     "ratio_highest": max(ratios), "size": way.size / raw,
                     "write_cpu_seconds_per_clip": way.write_seconds})
    return rows


def tree_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(result: dict[str, Any]) -> str:
    lines = ["# Reading clips", "",
             f"Random {CROP}-pixel crops of {SHARP + 1}-frame {HEIGHT}p clips, blurry image included; "
             f"medians of {result['rounds']} rounds. Ratio: samples per CPU-second against the faster of the "
             "two PNG readers in the same round (lowest to highest round). Size: of the raw pixels. Write: "
             "CPU-seconds a clip. The default is zstd 1 without shuffle, chunks of about 64 px with all "
             "frames in one; the other rows change what they name.", "",
             "Command: `.venv/bin/python -m benchmarks.clip_reading`", ""]
    for part in result["contents"]:
        lines += [f"## {part['content']}, {part['clips']} clips", "",
                  "| way | samples per CPU-s | ratio | size | write |", "|---|---|---|---|---|"]
        lines += [f"| {row['name']} | {row['samples_per_cpu_second']:.1f} | **{row['ratio']:.1f}** "
                  f"({row['ratio_lowest']:.1f}–{row['ratio_highest']:.1f}) | {row['size']:.1%} "
                  f"| {row['write_cpu_seconds_per_clip']:.2f} |" for row in part["ways"]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
