"""`hypercut restore` of a blurry video, or of a folder of its frames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hypercut_core.animation import SHORTEST, check_output, playback, playback_times, write_shown
from hypercut_core.blurry_video.report import LIMITS, Findings, findings, shot_record
from hypercut_core.blurry_video.shots import WINDOW, OrderedVideo, Shot
from hypercut_core.clips.footage import probe
from hypercut_core.clips.frame_folder import read_frames
from hypercut_core.clips.sound import IN_MP4, SoundCopy, sound_codec
from hypercut_core.clips.video import Damage, Frame, Probe, read_video
from hypercut_core.errors import BadFootage, BadParameters
from hypercut_core.files import remove_abandoned, write_json
from hypercut_core.progress import Progress, say
from hypercut_core.restore import restore

AnyPath = str | os.PathLike[str]
FOLDER_FPS = 10.0  # frames a second of the output where the input has no rate
SAME_TIME = 1e-4  # greatest difference of speed at which the sound still fits: 0.4 s an hour
UNEVEN = 1.3  # longest time between two frames over the shortest
MOST_HELD = 512 * 2**20  # bytes of a GIF or WebP, which are held whole


@dataclass(frozen=True)
class Playing:
    """How the restored frames are shown."""

    frames: int | None = None  # for each blurry frame; None: the model's own T
    reverse: bool = False  # every frame's own direction, all of them
    fps: float | None = None  # of the output; None: what shows a video in its own time, `slow` times slower
    slow: float = 1.0


def restore_video_command(video: AnyPath, out: AnyPath, model: AnyPath, playing: Playing | None = None, *,
                          tile: int = 512, overlap: int | None = None, views: int | None = None,
                          report: AnyPath | None = None, window: int = WINDOW, alone: bool = False,
                          device: str = "cpu",
                          tell: Callable[[str], None] = say) -> Path:
    """Restore every frame of a blurry video and turn them so that they follow each other.

    Args:
        video: a video file, or a folder of frames in the order of their names.
        out: .mp4, a folder (no suffix) of PNG files, or, for short ones, .gif and .webp.
        report: JSON of every frame's direction and how sure it is; None: OUT.json beside `out`.
        window: most frames that wait for their direction.
        alone: show what the model makes of each frame by itself, turned, without the motion that neighbours show.

    Returns:
        the path written. Output and report are whole or absent, and the report appears last.

    Raises:
        BadFootage, BadCheckpoint, BadParameters, StorageError.
    """
    playing, source, target = playing or Playing(), Path(video), Path(out)
    report = Path(report) if report else target.with_name(f"{target.name}.json")
    known = probe(source)
    if target.exists() and target.samefile(source):
        raise BadParameters("the output would replace the video that it is made from", where=target,
                            remedy="choose another name with -o")
    suffix = check_output(target, frames=playing.frames, size=(known.width, known.height))
    from hypercut_core.deblurring.models import load_deblurrer

    deblurrer = load_deblurrer(Path(model), views).to(device).eval()
    fps = _rate(playing, known, suffix, int(deblurrer.frames))
    check_output(target, fps=fps if suffix else None)
    _check_length(playing, known, suffix, int(deblurrer.frames))
    sound, silence = _sound(source, suffix, known.fps and fps / (known.fps * (playing.frames or deblurrer.frames)))
    remove_abandoned(target)
    ordered = OrderedVideo(lambda pixels: restore(deblurrer, pixels, tile=tile, overlap=overlap), window,
                           neighbours=not alone)
    damage: list[Damage] = []
    with Progress("restoring frames", known.frames) as progress:
        turned = ordered.turned(_counted(source, damage, progress), source)
        write_shown(_shown(turned, playing), target, suffix, fps, sound)
    found = findings(ordered.shots)
    write_json(report, {
        "source": source.name, "model": Path(model).name, "sharp_frames_a_blurry_one": int(deblurrer.frames),
        "input_fps": known.fps, "output_fps": fps, "reverse": playing.reverse, "alone": alone,
        "sound": "copied" if sound else "left out" if silence else "none", "sound_left_out": silence,
        "found": asdict(found), "damage": [asdict(one) for one in damage], "problems": list(known.problems),
        "limits": LIMITS, "shots": [shot_record(shot) for shot in ordered.shots]})
    for line in _summary(found, damage, known, report) + _heard(sound, silence):
        tell(line)
    uneven = _uneven(ordered.shots)
    if uneven:
        tell("note: the input's frames are not evenly spaced in time, and those of the output are")
    if sound and (uneven or damage):
        tell("note: picture and sound may run apart")
    return target


def _counted(source: Path, damage: list[Damage], progress: Progress) -> Iterator[Frame]:
    read = read_frames if source.is_dir() else read_video
    empty = True
    for frame in read(source, 0, damage):
        empty = False
        yield frame
        progress.advance()
    if empty:
        raise BadFootage("no frame of it can be decoded", where=source,
                         remedy="copy it again from where it came from")


def _shown(turned: Iterator[np.ndarray], playing: Playing) -> Iterator[np.ndarray]:
    for sharp in turned:
        yield from playback(sharp, playing.frames, playing.reverse)


def _rate(playing: Playing, known: Probe, suffix: str, frames: int) -> float:
    """Frames a second of the output."""
    if not 0.01 <= playing.slow <= 1000:
        raise BadParameters(f"{playing.slow:g} times slower cannot be played", where="--slow",
                            remedy="use 0.01 to 1000")
    if playing.fps is not None:
        if playing.slow != 1:
            raise BadParameters("both --fps and --slow say how fast it is shown", remedy="leave one of them out")
        return playing.fps
    if known.fps is None:
        return FOLDER_FPS / playing.slow
    fps = known.fps * (playing.frames or frames) / playing.slow
    if suffix and fps > SHORTEST[suffix]:
        raise BadParameters(f"in its own time it has {fps:g} frames a second, and {suffix} plays at most "
                            f"{SHORTEST[suffix]:g}", where="--slow",
                            remedy=f"show it slower (--slow {np.ceil(fps / SHORTEST[suffix]):g}, or --slow "
                            f"{playing.frames or frames} for the rate of the input), or fewer frames (--frames 1)")
    return fps


def _check_length(playing: Playing, known: Probe, suffix: str, frames: int) -> None:
    """Refuse what Pillow would have to hold whole."""
    count = known.frames * len(playback_times(frames, playing.frames))
    if suffix in (".gif", ".webp") and count * known.width * known.height * 3 > MOST_HELD:
        raise BadParameters(f"{count} frames of {known.width} x {known.height} are too many for {suffix}",
                            remedy="write .mp4, or a folder")


def _uneven(shots: list[Shot]) -> bool:
    """Whether the time between two frames of a shot changes by more than the rounding of time stamps."""
    known = [[time for time in shot.seconds if time is not None] for shot in shots]
    steps = [after - before for times in known for before, after in itertools.pairwise(times)]
    return bool(steps) and max(steps) > UNEVEN * min(steps)


def _summary(found: Findings, damage: list[Damage], known: Probe, report: Path) -> list[str]:
    lines = [f"{found.frames} frames in {found.shots} shot{'s' * (found.shots != 1)}: the direction of "
             f"{found.frames - found.unsure - found.still} is settled by their neighbours, that of {found.unsure} is a "
             f"guess, in {found.still} next to nothing moves; {report}"]
    if damage:
        lines.append(f"{len(damage)} parts could not be decoded and are missing; the first: {damage[0].file} "
                     f"{damage[0].place}: {damage[0].what}")
    return lines + [f"note: {problem}" for problem in known.problems]


def _sound(source: Path, suffix: str, speed: float | None) -> tuple[SoundCopy | None, str]:
    """What copies the sound, or why it is left out: "" where there is none. `speed`: 1 in the video's own time."""
    codec = None if source.is_dir() else sound_codec(source)
    if codec is None:
        return None, ""
    if suffix != ".mp4":
        return None, f"{suffix} holds none" if suffix else "pictures hold none"
    if speed is None or abs(speed - 1) > SAME_TIME:
        return None, "it fits where the video plays in its own time only, without --slow and --fps"
    if codec not in IN_MP4:
        return None, (f"few players know {codec} in an MP4; ffmpeg -i OUT -i IN -map 0:v -map 1:a -c:v copy -c:a aac "
                      "WITH_SOUND.mp4 converts it")
    return SoundCopy(source), ""


def _heard(sound: SoundCopy | None, silence: str) -> list[str]:
    """What became of the sound."""
    if sound is None:
        return [f"the sound is left out: {silence}"] if silence else []
    lines = ["the sound is copied as it is"]
    if sound.broken:
        lines.append(f"note: the sound ends early, the rest of it cannot be read ({sound.broken})")
    if sound.left_out:
        lines.append(f"note: {sound.left_out} packets of sound have no usable time and are missing")
    return lines
