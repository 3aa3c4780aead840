"""What a folder holds: videos, folders of frames, or the sequences of a published data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hypercut_core.clips import layouts
from hypercut_core.clips.footage import is_video, probe
from hypercut_core.clips.frame_folder import FEWEST, frame_files, image_size
from hypercut_core.clips.layouts import LayoutCounts, PairedClip
from hypercut_core.clips.manifest import Problem, files_sha256
from hypercut_core.errors import BadFootage
from hypercut_core.progress import track

SEQUENCE_SHARE = 0.8  # share of a folder's images whose names differ in their numbers only: then it is frames
MEAN_PSNR = 28.0  # dB; below it the blurry images are not the mean of the sharp frames beside them


@dataclass(frozen=True)
class Found:
    """A source before its split is decided."""

    path: str  # relative to the root
    kind: str
    sha256: str
    width: int
    height: int
    frames: int
    fps: float | None
    category: str
    partition: str = ""


@dataclass
class Findings:
    """Sources, files that could not be read, and what was left out on purpose."""

    kind: str
    layout: str
    sources: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def add(self, row: Found, categories: tuple[str, ...]) -> None:
        """Keep a source of the wanted categories, unless its bytes are there already."""
        if categories and row.category not in categories:
            return
        twin = next((other for other in self.sources if other.sha256 == row.sha256), None)
        if twin is not None:
            self.notes.append(Problem(row.path, f"left out: the same bytes as {twin.path}"))
            return
        self.sources.append(row)


def discover(root: Path, layout: str, categories: tuple[str, ...], skip_bad: bool) -> Findings:
    """Find and probe everything below `root`.

    Args:
        layout: as in CollectConfig.
        categories: keep only these; empty: all.
        skip_bad: record sources that cannot be read instead of failing.

    Raises:
        BadFootage: see CollectConfig.on_bad; or nothing of the layout is there.
    """
    if not root.exists():
        raise BadFootage("there is no such file or folder", where=root, remedy="check footage.source")
    if layout in ("auto", *layouts.NAMES):
        found = layouts.roots(root, layout)
        if found:
            return _paired(root, found, layout, categories)
        if layout != "auto":
            raise BadFootage(f"this is no '{layout}' data set", where=root,
                             remedy="check footage.source, or set footage.layout to auto")
    findings = Findings("videos", "videos")
    places = list(_moving(root, layout, findings))
    for path in track(places, "probing footage"):
        relative = "" if path == root else path.relative_to(root).as_posix()
        # root/hand/x.mp4 and root/hand/x/0001.png are of "hand"; root/x.mp4 and root/x/0001.png of the root
        category = relative.split("/")[0] if "/" in relative else root.resolve().name
        if categories and category not in categories:
            continue
        try:
            known = probe(path)
        except BadFootage as error:
            if not skip_bad:
                raise
            findings.problems.append(Problem(relative or path.name, error.what))
            continue
        findings.notes += [Problem(relative, what) for what in known.problems]
        files = frame_files(path) if path.is_dir() else [path]
        findings.add(Found(relative, "frames" if path.is_dir() else "video", files_sha256(files), known.width,
                           known.height, known.frames, known.fps, category), categories)
    if findings.sources and all(row.kind == "frames" for row in findings.sources):
        findings.kind = findings.layout = "frames"
    return findings


def _moving(root: Path, layout: str, findings: Findings) -> Iterator[Path]:
    """Videos and folders of frames below `root`, sorted; single photos are left out with a note."""
    if root.is_file():
        yield root
        return
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        relative = folder.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if layout != "frames":
            yield from sorted(file for file in folder.iterdir()
                              if is_video(file) and file.is_file() and not file.name.startswith("."))
        images = frame_files(folder)
        if not images or layout == "videos":
            continue
        if layout == "frames" or _is_sequence(images):
            yield folder
        else:
            findings.notes.append(Problem(relative.as_posix(), f"{len(images)} single photos are left out"))


def _is_sequence(images: list[Path]) -> bool:
    """Whether names differ in their numbers only, as frames' names do and those of single photos do not."""
    patterns = Counter(re.sub(r"[0-9]+", "#", image.stem) for image in images)
    pattern, count = patterns.most_common(1)[0]
    return len(images) >= FEWEST and "#" in pattern and count >= SEQUENCE_SHARE * len(images)


def _paired(root: Path, found: list[tuple[Path, str]], layout: str,
            categories: tuple[str, ...]) -> Findings:
    name = found[0][1]
    if any(other != name for _, other in found):
        raise BadFootage(f"data sets of several layouts lie side by side ({', '.join(n for _, n in found)})",
                         where=root, remedy="collect them one by one: set footage.source to one folder")
    findings = Findings("paired", name)
    counts = LayoutCounts()
    sequences = layouts.by_sequence(root, name, None, counts)
    if layout == "auto" and name not in layouts.WITH_METADATA and not _is_mean(list(sequences.values())):
        _sharp_only(root, found, categories, findings)
        return findings
    for source, clips in track(sequences.items(), "hashing clips", total=len(sequences)):
        width, height = image_size(clips[0].blurry)
        digest = files_sha256([file for clip in clips for file in (clip.blurry, *clip.sharp)])
        row = Found(source, "paired", digest, width, height, len(clips), None, clips[0].category,
                    clips[0].partition)
        findings.add(row, categories)
    findings.notes += [Problem(name, f"{count} clips left out: {reason}")
                       for reason, count in sorted(counts.skipped.items())]
    return findings


def _is_mean(sequences: list[list[PairedClip]]) -> bool:
    """Whether the blurry images of a few clips are the mean of their sharp frames."""
    if not sequences:
        return False
    some = [sequences[place] for place in sorted({0, len(sequences) // 2, len(sequences) - 1})]
    found = [layouts.measured_response(clips[len(clips) // 2].load())[1] for clips in some]
    return sorted(found)[len(found) // 2] >= MEAN_PSNR


def _sharp_only(root: Path, found: list[tuple[Path, str]], categories: tuple[str, ...],
                findings: Findings) -> None:
    """Take the sharp sequences as footage to be blurred: their blurry images belong to no T frames here."""
    findings.kind, name = "frames", findings.layout
    findings.notes.append(Problem(name, "the blurry images are not the mean of the sharp frames beside them "
                                  f"(below {MEAN_PSNR:g} dB), so they are left out and the sharp frames are "
                                  f"blurred anew; footage.layout={name} imports them all the same"))
    for base, _ in found:
        for sequence in track(layouts.sequences(base, name), "probing sequences"):
            known = probe(sequence.sharp)
            findings.add(Found(sequence.sharp.relative_to(root).as_posix(), "frames",
                               files_sha256(frame_files(sequence.sharp)), known.width, known.height,
                               known.frames, None, name if base == root else base.name, sequence.partition),
                         categories)
