"""Published data sets as they lie on disk: RB2V/HyperCUT, B-AIST++, REDS and GoPro.

Their clips are already pairs of a blurry image and T sharp frames; they are imported, never blurred again.

* ``rb2v``: `metadata.json` with `name`, `frame_per_seq` and `data`, one entry a clip: `id`, `order`,
  `partition`, `blur_path` and `frame001_path` … `frame00T_path`, relative to the metadata file. `order`:
  "reverse" takes the frames backwards, "ignore" leaves the clip out, "keep" and "random" take them as they
  are.
* ``b-aist++``: the same form; known by its `name`, which holds "aist".
* ``reds``: `<root>/<split>/<split>_sharp/<seq>/00000000.png` beside `<split>_blur` (or `_blur_gamma`).
* ``gopro``: `<root>/<split>/GOPR…/sharp/000001.png` beside `blur` or `blur_gamma`.

**Convention** for `reds` and `gopro`. Where a sequence has n times as many sharp frames as blurry images,
n >= T, blurry image i goes with the middle T of the sharp frames n*i … n*i + n - 1. Where it has as many
sharp frames as blurry images, it goes with the T sharp frames centred on its own place; those nearer to an
end than T // 2 are left out and counted. Whether that is how the blur was made, only the pixels tell:
`measured_response` compares them.

**Response.** Whether a data set averages light or encoded values is a convention of its makers (`convention`)
where one is known; the pixels are asked too, and where they say otherwise by `SURE` dB, they are believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hypercut_core.blur.exposure import RESPONSES, blur_error
from hypercut_core.clips.frame_folder import frame_files, gaps_before, image_size, scaled
from hypercut_core.clips.rb2v import read_document, read_rb2v
from hypercut_core.clips.video import MAX_PIXELS
from hypercut_core.errors import BadFootage, BadImage
from hypercut_core.photos import load_photo

NAMES = ("rb2v", "b-aist++", "reds", "gopro")
WITH_METADATA = ("rb2v", "b-aist++")
SURE = 0.5  # dB by which another response curve must fit better to be believed against the convention
NOTICES = {
    "rb2v": "RB2V: research and education only, not redistributable",
    "b-aist++": "B-AIST++: made of AIST dance videos, whose terms allow research only; check them before use",
    "reds": "REDS: CC BY 4.0 by its makers' page; check it before use",
    "gopro": "GoPro: CC BY 4.0 by its makers' page; check it before use",
}
_COPY = "copy the clip again from where it came from, or remove it"
_BLUR_FOLDERS = ("blur_gamma", "blur")  # linear light first: it is the nearer to a camera


@dataclass(frozen=True)
class PairedClip:
    """One blurry image and its T sharp frames, in order, as files."""

    clip_id: str  # unique in its data set
    source: str  # the sequence it belongs to
    partition: str  # "train", "val", "test", or "" where the layout does not say
    category: str
    order: str  # "keep", "reverse" (applied to `sharp` already) or "random"
    blurry: Path
    sharp: tuple[Path, ...]

    def load(self, height: int = 0) -> np.ndarray:
        """(T + 1, H, W, 3) uint8, the blurry image first, scaled down to `height` px (0: as it is).

        Raises:
            BadFootage: an image is damaged or missing, or they are of several sizes.
        """
        sizes = {image_size(path) for path in (self.blurry, *self.sharp)}
        if len(sizes) > 1:
            raise BadFootage(f"the images of clip '{self.clip_id}' are of {len(sizes)} sizes",
                             where=self.blurry, remedy=_COPY)
        try:
            images = [load_photo(path, MAX_PIXELS) for path in (self.blurry, *self.sharp)]
            return np.stack([scaled(image, height) for image in images])
        except BadImage as error:
            raise BadFootage(error.what, where=error.where,
                             remedy=_COPY) from error


@dataclass
class LayoutCounts:
    """What was left out, by reason."""

    clips: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def detect(root: Path) -> str | None:
    """The layout of a folder: "rb2v", "b-aist++", "reds", "gopro" or None."""
    if not root.is_dir():
        return None
    if (root / "metadata.json").is_file():
        return _with_metadata(root)
    if next(_reds_pairs(root), None):
        return "reds"
    return "gopro" if next(_gopro_pairs(root), None) else None


def roots(root: Path, layout: str = "auto") -> list[tuple[Path, str]]:
    """Data sets at `root`, or else in its folders (RB2V comes as three), each with its layout."""
    for folders in ([root], _folders(root) if root.is_dir() else []):
        found = [(folder, name) for folder in folders
                 if (name := detect(folder)) and layout in ("auto", name)]
        if found:
            return found
    return []


def read(root: Path, layout: str, frames: int | None,
         counts: LayoutCounts | None = None) -> Iterator[PairedClip]:
    """Yield the clips of a data set, in a stable order, no image decoded.

    Args:
        layout: "rb2v", "b-aist++", "reds" or "gopro".
        frames: T; None takes what the data set has (`gopro`-like single frames: 7).

    Raises:
        BadFootage: the layout is damaged, unsafe, or of another number of frames.
    """
    counts = LayoutCounts() if counts is None else counts
    root = root.resolve()
    if layout in WITH_METADATA:
        entries = read_rb2v(root, frames, counts.skipped)
        clips: Iterator[PairedClip] = (PairedClip(*entry) for entry in entries)
    elif layout in ("reds", "gopro"):
        clips = _read_sequences(root, layout, frames, counts)
    else:
        raise BadFootage(f"unknown layout '{layout}'", where=root, remedy=f"choose one of {', '.join(NAMES)}")
    for clip in clips:
        counts.clips += 1
        yield clip


def by_sequence(root: Path, layout: str, frames: int | None,
                counts: LayoutCounts | None = None) -> dict[str, list[PairedClip]]:
    """Clips of all data sets at `root` by their sequence's path, in a stable order; see `roots` and `read`.

    A sequence is in one partition only: of one that is in several, the test clips are kept, else those for
    validation, and the others are counted as "in_another_partition".
    """
    counts = LayoutCounts() if counts is None else counts
    found: dict[str, list[PairedClip]] = {}
    for base, name in roots(root, layout):
        prefix = base.relative_to(root).as_posix()
        for clip in read(base, name, frames, counts):
            if prefix != ".":
                clip = replace(clip, clip_id=f"{prefix}/{clip.clip_id}", source=f"{prefix}/{clip.source}",
                               category=prefix)
            found.setdefault(clip.source, []).append(clip)
    for source, clips in found.items():
        partition = min((clip.partition for clip in clips), key=("test", "val", "train", "").index)
        found[source] = [clip for clip in clips if clip.partition == partition]
        if len(found[source]) < len(clips):
            counts.skipped["in_another_partition"] += len(clips) - len(found[source])
    return dict(sorted(found.items()))


def measured_response(clip: np.ndarray) -> tuple[str, float]:
    """The response curve under which the mean of the sharp frames is nearest to the blurry image; its PSNR.

    Args:
        clip: (T + 1, H, W, 3) uint8, the blurry image first.

    Returns:
        ("srgb" | "gamma2.2" | "none", dB). Well below 30 dB: the blur is not the mean of these frames.
    """
    errors = {response: blur_error(clip[0], clip[1:], response) for response in RESPONSES}
    best = max(errors, key=lambda response: errors[response])
    return best, errors[best]


def convention(layout: str, blurry: Path) -> str | None:
    """The response curve that a data set's makers averaged in; None where it is not known, as with a camera's
    own blur (RB2V). GoPro comes in both: its folder says which."""
    if layout == "b-aist++":
        return "none"
    if layout == "gopro":
        return "gamma2.2" if blurry.parent.name == "blur_gamma" else "none"
    return "srgb" if layout == "reds" else None


def response_of(clips: Iterable[np.ndarray], known: str | None) -> tuple[str, float]:
    """The response curve of clips that were made alike, and how well it explains their blur, mean dB.

    Args:
        clips: (T + 1, H, W, 3) uint8 each, the blurry image first.
        known: the convention, kept unless another curve fits better by `SURE` dB on average.
    """
    errors = [[blur_error(clip[0], clip[1:], response) for response in RESPONSES] for clip in clips]
    fit = dict(zip(RESPONSES, np.mean(errors, axis=0).tolist(), strict=True))
    best = max(fit, key=lambda response: fit[response])
    if known is not None and fit[best] < fit[known] + SURE:
        best = known
    return best, fit[best]


@dataclass(frozen=True)
class Sequence:
    """A folder of sharp frames with its folder of blurry images."""

    name: str
    partition: str
    blurry: Path
    sharp: Path


def sequences(root: Path, layout: str) -> list[Sequence]:
    """Sequences of a `reds` or `gopro` layout, sorted by name."""
    pairs = _reds_pairs(root) if layout == "reds" else _gopro_pairs(root)
    return sorted(pairs, key=lambda sequence: sequence.name)


def _with_metadata(root: Path) -> str:
    try:
        name = read_document(root).get("name")
    except BadFootage:  # whoever reads it will hear what is wrong
        return "rb2v"
    return "b-aist++" if isinstance(name, str) and "aist" in name.lower() else "rb2v"


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _reds_pairs(root: Path) -> Iterator[Sequence]:
    for base in [root, *_folders(root)]:
        for sharp in base.glob("*_sharp"):
            split = sharp.name.removesuffix("_sharp")
            blurry = next((base / f"{split}_{kind}" for kind in _BLUR_FOLDERS
                           if (base / f"{split}_{kind}").is_dir()), None)
            if blurry is None:
                continue
            for sequence in _folders(sharp):
                beside = blurry / sequence.name
                if beside.is_dir():
                    yield Sequence(f"{split}/{sequence.name}", _partition(split), beside, sequence)


def _gopro_pairs(root: Path) -> Iterator[Sequence]:
    for base in [root, *_folders(root)]:
        if (base / "metadata.json").is_file():  # RB2V's folders are called the same, and its orders count
            continue
        for folder in _folders(base):
            blurry = next((folder / kind for kind in _BLUR_FOLDERS if (folder / kind).is_dir()), None)
            if blurry is not None and (folder / "sharp").is_dir():
                split = "" if base == root else _partition(base.name)
                yield Sequence(folder.relative_to(root).as_posix(), split, blurry, folder / "sharp")


def _partition(name: str) -> str:
    return {"valid": "val", "validation": "val"}.get(name, name if name in ("train", "val", "test") else "")


def _read_sequences(root: Path, layout: str, wanted: int | None,
                    counts: LayoutCounts) -> Iterator[PairedClip]:
    for sequence in sequences(root, layout):
        for path in (sequence.blurry, sequence.sharp):
            inside(root, path)
        blurry, sharp = frame_files(sequence.blurry), frame_files(sequence.sharp)
        if not blurry or len(sharp) % len(blurry):
            raise BadFootage(f"sequence '{sequence.name}' has {len(blurry)} blurry images and {len(sharp)} "
                             "sharp frames: frames are missing", where=sequence.blurry,
                             remedy="copy the sequence again from where it came from, or remove it")
        each = len(sharp) // len(blurry)
        frames = wanted or (7 if each < 3 else min(15, each - 1 + each % 2))
        gaps = gaps_before(sharp)
        for place, image in enumerate(blurry):
            if 1 < each < frames:
                counts.skipped["too_few_sharp_frames"] += 1
                continue
            middle = place if each == 1 else place * each + (each - 1) // 2
            first = middle - frames // 2
            if first < 0 or first + frames > len(sharp):
                counts.skipped["at_the_end_of_its_sequence"] += 1
                continue
            if any(first < gap < first + frames for gap in gaps):
                counts.skipped["missing_frames"] += 1
                continue
            if each == 1:
                _same_number(image, sharp[place])
            files = (image, *sharp[first:first + frames])
            for path in files:
                inside(root, path)
            yield PairedClip(f"{sequence.name}/{image.stem}", sequence.name, sequence.partition, layout,
                             "keep", image, files[1:])


def _same_number(blurry: Path, sharp: Path) -> None:
    if blurry.stem != sharp.stem:
        raise BadFootage(f"the sharp frame beside it is '{sharp.name}': frames are missing", where=blurry,
                         remedy="copy the sequence again from where it came from, or remove it")


def inside(root: Path, path: Path) -> Path:
    """`path` with links followed, if that is still below `root`.

    Raises:
        BadFootage: the path, or a link on its way, leads out of the data set.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise BadFootage(f"'{path.name}' leads out of the data set", where=path,
                         remedy="put the file itself there instead of a link")
    return real
