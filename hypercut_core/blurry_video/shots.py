"""The frames of a blurry video, restored and turned the right way, with bounded memory.

Shots are settled alone: a cut, a frame that cannot be decoded or a hole in the numbering ends one. Restored frames wait
for their direction in a file that is kept in memory while it is small; then what their neighbours show is put in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir

import numpy as np

from hypercut_core.blurry_video.cuts import one_scene
from hypercut_core.blurry_video.evidence import Glimpse, Pace, glimpse, link_evidence
from hypercut_core.blurry_video.neighbours import Way, exposed_share, joined, mixed
from hypercut_core.blurry_video.signs import SignChain
from hypercut_core.clips.frame_folder import scaled
from hypercut_core.clips.motion import GreyFrame, frame_motion, grey_frame
from hypercut_core.clips.video import Frame
from hypercut_core.errors import BadFootage
from hypercut_core.files import explain_os_errors

WINDOW = 64  # most frames that wait for their direction
MEMORY = 256 * 2**20  # bytes of waiting frames; more than that is in a temporary file
CUT_HEIGHT = 256  # px, at which cuts are sought
CUT_REACH = 32.0  # px at that height: faster motion looks like a cut
SMALLEST = 32  # px

Restore = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] -> uint8 [T, H, W, 3]


@dataclass
class Shot:
    """Frames in a row, what they said about each other, and how each was turned."""

    why: str  # it begins here: "start", "cut", "corrupt_frames" or "missing_frames"
    frames: list[int] = field(default_factory=list)  # places in the source
    seconds: list[float | None] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)  # px during the exposure, as the model has it
    speed: list[float] = field(default_factory=list)  # the same as the neighbours show it; NaN without one
    restored: list[float] = field(default_factory=list)  # share of the picture in which the model is asked
    still: list[bool] = field(default_factory=list)
    links: list[np.ndarray] = field(default_factory=list)  # (2, 2) costs, nats
    states: list[int] = field(default_factory=list)  # 0 kept, 1 reversed
    forced: int = 0  # frames that could not wait long enough


class OrderedVideo:
    """Iterate over the restored frames, uint8 [T, H, W, 3] each, in order and turned the right way.

    Args:
        restore: restores one frame; its direction is a guess.
        window: most frames that wait for their direction.
        neighbours: put in what neighbours show of a frame's motion (`neighbours.py`); else frames are only turned.
    """

    def __init__(self, restore: Restore, window: int = WINDOW, neighbours: bool = True):
        self.restore, self.window, self.neighbours = restore, window, neighbours
        self.shots: list[Shot] = []
        self._pace = Pace()
        self._ways: deque[list[Way]] = deque()  # of the frames that wait

    def turned(self, frames: Iterable[Frame], where: Path) -> Iterator[np.ndarray]:
        """Restore `frames` as they come; `shots` is complete at the end.

        Raises:
            BadFootage: a frame is of another size than the first, or too small; StorageError: the disk is full.
        """
        with explain_os_errors(Path(gettempdir())), SpooledTemporaryFile(max_size=MEMORY) as file:
            waiting = _Waiting(file)
            chain, before, size = SignChain(self.window), None, None
            for frame in frames:
                size = _same_size(frame, size, where)
                grey = grey_frame(scaled(frame.pixels, CUT_HEIGHT))
                why = _why_new_shot(frame, before[1] if before else None, grey)
                if why:
                    yield from self._ready(waiting, self._end(chain))
                    chain, before, self._pace = SignChain(self.window), None, Pace()
                    self.shots.append(Shot(why))
                sharp = self.restore(frame.pixels)
                seen = glimpse(sharp)
                waiting.put(sharp, frame.pixels)
                decided = self._one_more(chain, frame, seen, before[0] if before else None)
                yield from self._ready(waiting, decided)
                before = (seen, grey)
            yield from self._ready(waiting, self._end(chain))

    def _ready(self, waiting: _Waiting, states: list[int]) -> Iterator[np.ndarray]:
        """The oldest frames, turned as their states say, with what the neighbours show."""
        for sharp, pixels in waiting.take(states):
            ways, shot = self._ways.popleft(), self.shots[-1]
            if not ways:
                shot.speed.append(float("nan"))
                shot.restored.append(1.0)
                yield sharp
                continue
            motion = joined(ways, exposed_share(len(sharp), self._pace.best), pixels.shape[:2])
            shot.speed.append(motion.speed)
            shot.restored.append(float(motion.model.mean()) if self.neighbours else 1.0)
            yield mixed(sharp, pixels, motion) if self.neighbours else sharp

    def _one_more(self, chain: SignChain, frame: Frame, seen: Glimpse, before: Glimpse | None) -> list[int]:
        shot = self.shots[-1]
        shot.frames.append(frame.index)
        shot.seconds.append(frame.seconds)
        shot.motion.append(seen.motion)
        shot.still.append(seen.still)
        link = None
        self._ways.append([])
        if before is not None:
            evidence = link_evidence(before, seen, self._pace)
            link = evidence.cost()
            shot.links.append(link)
            for place, one in zip((-2, -1), evidence.ways, strict=True):
                self._ways[place].append(one)
        decided = chain.add(link)
        shot.states += decided
        return decided

    def _end(self, chain: SignChain) -> list[int]:
        """The rest of the shot that ends here."""
        if not self.shots:
            return []
        decided = chain.finish()
        self.shots[-1].states += decided
        self.shots[-1].forced = chain.forced
        return decided


def _same_size(frame: Frame, size: tuple[int, ...] | None, where: Path) -> tuple[int, ...]:
    height, width = frame.pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise BadFootage(f"its frames are {width} x {height}, too small to see motion in", where=where,
                         remedy=f"use frames of at least {SMALLEST} pixels a side")
    if size is not None and size != frame.pixels.shape:
        raise BadFootage(f"frame {frame.index} is {width} x {height}, and those before are {size[1]} x {size[0]}",
                         where=where, remedy="cut it where the size changes, and restore the parts one by one")
    return frame.pixels.shape


def _why_new_shot(frame: Frame, before: GreyFrame | None, grey: GreyFrame) -> str:
    if frame.broken or before is None:
        return frame.broken or "start"
    cut = frame_motion(before, grey, CUT_REACH).cut and not one_scene(before, grey)
    return "cut" if cut else ""


class _Waiting:
    """Restored frames and their blurry ones in a file, first in, first out; places are used again."""

    def __init__(self, file: SpooledTemporaryFile[bytes]):
        self.file = file
        self._used: deque[int] = deque()
        self._free: list[int] = []
        self._shape: tuple[int, ...] = ()

    def put(self, sharp: np.ndarray, blurry: np.ndarray) -> None:
        self._shape = (len(sharp) + 1, *blurry.shape)
        place = self._free.pop() if self._free else len(self._used)
        self.file.seek(place * (sharp.nbytes + blurry.nbytes))
        self.file.write(sharp.tobytes())
        self.file.write(blurry.tobytes())
        self._used.append(place)

    def take(self, states: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The oldest frames, each turned as its state says, and the blurry ones."""
        size = int(np.prod(self._shape))
        for state in states:
            place = self._used.popleft()
            self._free.append(place)
            self.file.seek(place * size)
            held = np.frombuffer(self.file.read(size), np.uint8).reshape(self._shape)
            yield held[-2::-1] if state else held[:-1], held[-1]
