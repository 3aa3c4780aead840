"""Small videos, folders of frames and data sets for tests: a textured picture that moves as told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96


def texture(seed: int, height: int = SIDE, width: int = SIDE + 32) -> np.ndarray:
    """Soft coloured noise, float [H, W, 3] in 0..255, that wraps round."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    fy, fx = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[None, :, None]
    soft = np.fft.ifft2(spectrum * np.exp(-180 * (fy**2 + fx**2)), axes=(0, 1)).real
    soft /= soft.std()
    # mostly grey, because videos keep colour at half the size
    return np.clip(128 + 50 * soft[..., :1] + 8 * soft, 0, 255)


def shifted(picture: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """The picture moved by any part of a pixel, exactly; uint8."""
    height, width = picture.shape[:2]
    fy, fx = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[None, :, None]
    moved = np.fft.fft2(picture, axes=(0, 1)) * np.exp(-2j * np.pi * (fy * dy + fx * dx))
    return np.clip(np.rint(np.fft.ifft2(moved, axes=(0, 1)).real), 0, 255).astype(np.uint8)


def pan(seed: int, count: int, speed: float, height: int = SIDE, width: int = SIDE + 32) -> list[np.ndarray]:
    """`count` frames of a picture that moves to the right by `speed` px a frame."""
    picture = texture(seed, height, width)
    return [shifted(picture, 0.0, speed * number) for number in range(count)]


def write_video(path: Path, frames: Iterable[np.ndarray], codec: str = "libx264", fps: int = 25,
                times: Sequence[int] | None = None, options: dict[str, str] | None = None) -> Path:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = None
        for number, pixels in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
                stream.codec_context.gop_size = 10
                stream.bit_rate = 4_000_000
                if codec == "libx264":
                    stream.options = {"preset": "ultrafast", "crf": "12", "tune": "zerolatency"}
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_video_with_sound(path: Path, frames: Sequence[np.ndarray], beep: tuple[float, float], codec: str = "aac",
                           fps: int = 25, rate: int = 48000) -> Path:
    """A video whose sound is as long as its picture: silence, but for a tone from `beep[0]` to `beep[1]` s."""
    import av

    with av.open(str(path), "w") as container:
        stream, sound = container.add_stream("libx264", rate=fps), container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        sound.codec_context.layout = "mono"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        time = np.arange(rate * len(frames) // fps) / rate
        tone = 20000 * np.sin(2 * np.pi * 440 * time) * ((time > beep[0]) & (time < beep[1]))
        whole = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        convert = av.AudioResampler(sound.codec_context.format, "mono", rate, sound.codec_context.frame_size or None)
        for part in convert.resample(whole) + convert.resample(None):
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, frames: Iterable[np.ndarray], first: int = 0,
                 name: str = "{:08d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(frames, start=first):
        Image.fromarray(pixels).save(folder / name.format(number), compress_level=1)
    return folder


def write_rb2v(root: Path, orders: Sequence[str], partitions: Sequence[str], frames: int = 7,
               name: str = "hand") -> dict[str, object]:
    """An RB2V-like data set of small clips, two a sequence; returns the metadata that was written."""
    data = []
    for number, (order, partition) in enumerate(zip(orders, partitions, strict=True)):
        sequence, clip = f"seq{number // 2:03d}", f"{number % 2:04d}"
        sharp = pan(number, frames, 2.0, 48, 64)
        blurry = np.rint(np.mean(sharp, axis=0)).astype(np.uint8)
        entry: dict[str, object] = {"id": f"{sequence}_{clip}", "order": order, "partition": partition,
                                    "blur_path": f"{sequence}/blur/{clip}.png"}
        write_frames(root / sequence / "blur", [blurry], number % 2, "{:04d}.png")
        write_frames(root / sequence / "sharp", sharp, 1, clip + "_{:d}.png")
        for place in range(1, frames + 1):
            entry[f"frame{place:03d}_path"] = f"{sequence}/sharp/{clip}_{place}.png"
        data.append(entry)
    document: dict[str, object] = {"name": name, "frame_per_seq": frames, "data": data}
    (root / "metadata.json").write_text(json.dumps(document))
    return document


def packets(path: Path) -> list[tuple[int, int, float]]:
    """Place in the file, size and time of each packet of a video."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(packet.pos, packet.size, float(packet.pts * packet.time_base))
                for packet in container.demux(stream) if packet.size]


def face_videos(folder: Path, frames: int = 22, side: int = 192) -> Path:
    """Three videos of a face, from a photo that a package ships: steady pans, one in a mirror, one brighter."""
    from hypercut_core.clips.photos import photo_path

    with Image.open(photo_path("skimage/astronaut.png")) as image:
        photo = np.asarray(image.convert("RGB"))
    left, mirrored = 130, photo[:, ::-1]
    ways = {"right": (photo, left, 2, 1), "bright": (np.minimum(photo, 215) + 40, left, -2, 1),
            "mirrored": (mirrored, photo.shape[1] - left - side, 1, 2)}
    for name, (picture, begin, across, down) in ways.items():
        corners = [(8 + down * t, begin + across * (t - frames // 2)) for t in range(frames)]
        write_video(folder / f"{name}.mp4", [np.ascontiguousarray(picture[y:y + side, x:x + side])
                                             for y, x in corners])
    return folder
