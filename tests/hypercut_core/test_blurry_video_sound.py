"""The sound of a blurry video: real files in and out, whose tone is heard at the same time as before."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_footage import pan, write_frames, write_video, write_video_with_sound
from torch import nn

from hypercut_core.animation import write_shown
from hypercut_core.blurry_video.restore_video import Playing, restore_video_command
from hypercut_core.clips.sound import SoundCopy, sound_codec
from hypercut_core.errors import BadFootage

FPS, COUNT, T = 10, 8, 3
BEEP = (0.3, 0.5)  # s
NEAR = 0.003  # s; some containers round times to 1 ms


class Repeat(nn.Module):
    frames, response = T, "srgb"

    def forward(self, blurry: torch.Tensor) -> torch.Tensor:
        return blurry[:, None].expand(-1, T, -1, -1, -1)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from hypercut_core.deblurring import models

    monkeypatch.setattr(models, "load_deblurrer", lambda path, views: Repeat())
    return tmp_path / "model"


def made(path: Path, codec: str = "aac") -> Path:
    return write_video_with_sound(path, pan(3, COUNT, 4.0, 48, 48), BEEP, codec, FPS)


def tone(path: Path) -> tuple[float, float]:
    """When the tone begins and ends, s from the first picture."""
    with av.open(str(path)) as container:
        pictures = container.streams.video[0]
        begin = float((pictures.start_time or 0) * pictures.time_base)
        parts = [(frame.time, frame.sample_rate, frame.to_ndarray().astype(float).mean(0))
                 for frame in container.decode(container.streams.audio[0])]
    time = np.concatenate([start - begin + np.arange(len(wave)) / rate for start, rate, wave in parts])
    loud = np.abs(np.concatenate([wave for _, _, wave in parts]))
    found = time[loud > loud.max() / 2]
    return float(found[0]), float(found[-1])


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


@pytest.mark.parametrize(("name", "codec"), [("in.mp4", "aac"), ("in.ts", "aac"), ("in.mkv", "libopus"),
                                             ("in.mkv", "flac"), ("in.avi", "libmp3lame")])
def test_the_tone_is_heard_when_it_was(tmp_path: Path, model: Path, name: str, codec: str) -> None:
    said: list[str] = []
    film = made(tmp_path / name, codec)
    out = restore_video_command(film, tmp_path / "out.mp4", model, tell=said.append)
    assert sound_codec(out) == sound_codec(film)
    assert tone(out) == pytest.approx(tone(film), abs=NEAR)
    assert "the sound is copied as it is" in said
    assert json.loads((tmp_path / "out.mp4.json").read_text())["sound"] == "copied"
    if name != "in.ts":  # whose packets carry headers that MP4 keeps once
        heard = packets(out)
        assert heard == packets(film)[:len(heard)]
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames == COUNT * T


@pytest.mark.parametrize(("name", "out", "codec", "playing", "why"), [
    ("in.mp4", "out.mp4", "aac", Playing(slow=3), "in its own time only"),
    ("in.mp4", "out.mp4", "aac", Playing(fps=12), "in its own time only"),
    ("in.mp4", "out.gif", "aac", Playing(), r".gif holds none"),
    ("in.mp4", "out", "aac", Playing(), "pictures hold none"),
    ("in.mov", "out.mp4", "pcm_s16le", Playing(), "few players know pcm_s16le"),
])
def test_sound_that_does_not_fit_is_left_out_and_said(tmp_path: Path, model: Path, name: str, out: str, codec: str,
                                                      playing: Playing, why: str) -> None:
    said: list[str] = []
    target = restore_video_command(made(tmp_path / name, codec), tmp_path / out, model, playing, tell=said.append)
    assert any(line.startswith("the sound is left out") and why in line for line in said), said
    assert json.loads((tmp_path / f"{out}.json").read_text())["sound"] == "left out"
    if target.suffix == ".mp4":
        assert sound_codec(target) is None


def test_the_rate_may_be_said_where_it_is_the_own_one(tmp_path: Path, model: Path) -> None:
    out = restore_video_command(made(tmp_path / "in.mp4"), tmp_path / "out.mp4", model, Playing(frames=5, fps=5 * FPS))
    assert sound_codec(out) == "aac"


def test_what_has_no_sound_says_nothing_of_it(tmp_path: Path, model: Path) -> None:
    said: list[str] = []
    film = write_video(tmp_path / "in.mp4", pan(3, 3, 4.0, 48, 48), fps=FPS)
    for source in (film, write_frames(tmp_path / "frames", pan(3, 3, 4.0, 48, 48))):
        restore_video_command(source, tmp_path / "out.mp4", model, tell=said.append)
        assert json.loads((tmp_path / "out.mp4.json").read_text())["sound"] == "none"
    assert not [line for line in said if "the sound" in line]
    with pytest.raises(BadFootage, match="no such video"):
        sound_codec(tmp_path / "absent.mp4")


def test_sound_goes_as_far_as_the_picture(tmp_path: Path) -> None:
    film = made(tmp_path / "in.mp4")
    write_shown(iter(pan(3, 4, 4.0, 48, 48)), tmp_path / "out.mp4", ".mp4", FPS, SoundCopy(film))
    heard, whole = packets(tmp_path / "out.mp4"), packets(film)
    assert 0 < len(heard) < len(whole)
    assert heard == whole[:len(heard)]


def test_a_file_that_ends_within_its_sound_gives_the_rest(tmp_path: Path, model: Path) -> None:
    """MPEG-TS goes on where it can; what is there of the sound is copied, and the output is whole."""
    film = made(tmp_path / "in.ts")
    torn = film.read_bytes()
    (tmp_path / "torn.ts").write_bytes(torn[:len(torn) // 2] + bytes(376) + torn[len(torn) // 2 + 376:])
    out = restore_video_command(tmp_path / "torn.ts", tmp_path / "out.mp4", model)
    assert sound_codec(out) == "aac"
    assert len(packets(out)) > 2
