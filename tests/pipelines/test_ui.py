"""The page's server, a real one, spoken to as a browser would and as an attacker would."""

from __future__ import annotations

import io
import json
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from ui_server import Server, serving, tiny_deblurrer, wait_until

from pipelines.ui.guard import Guard
from pipelines.ui.rate import RateLimit
from pipelines.ui.restoring import shrink
from pipelines.ui.sessions import PREFIX, Sessions, temporary_root

WANTED = "/api/photo?model=0&side=640&careful=0"


def png(width: int = 48, height: int = 36, shade: int = 0) -> bytes:
    pixels = np.full((height, width, 3), shade, np.uint8)
    pixels[:, ::2] = 255 - shade
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ui")
    with serving(folder, "--model", str(tiny_deblurrer(folder / "tiny.safetensors")), "--max-mib", "0.05",
                 "--max-megapixels", "0.5", "--photos-a-minute", "60", "--name", "photos.example") as one:
        yield one


def restore(server: Server, photo: bytes, key: str | None = None) -> tuple[str, dict]:
    key = key or server.visitor()
    status, body, _ = server.ask("POST", WANTED, key, photo)
    assert status == 202, body
    return key, server.restored(key)


def test_a_photo_becomes_frames_and_every_download(server: Server) -> None:
    key, state = restore(server, png())
    assert (state["stage"], state["frames"], state["width"], state["height"]) == ("done", 5, 48, 36)
    blurry = Image.open(io.BytesIO(server.ask("GET", "/api/frame/0", key)[1])).convert("RGB")
    assert np.abs(np.asarray(blurry)[:, ::2].astype(int) - 255).max() < 20
    assert server.ask("GET", "/api/frame/5", key)[0] == 200
    assert server.ask("GET", "/api/frame/6", key)[0] == 404
    gif = server.ask("GET", "/api/film/gif?frames=4&bounce=1&fps=10", key)[1]
    assert Image.open(io.BytesIO(gif)).n_frames == 6
    with av.open(io.BytesIO(server.ask("GET", "/api/film/mp4?frames=9&fps=5", key)[1])) as film:
        assert len(list(film.decode(video=0))) == 9
    frames = {}
    for reverse in "01":
        with zipfile.ZipFile(io.BytesIO(server.ask("GET", f"/api/film/zip?reverse={reverse}", key)[1])) as archive:
            frames[reverse] = [archive.read(name) for name in sorted(archive.namelist())]
    assert len(frames["0"]) == 5
    assert frames["0"] == frames["1"][::-1]
    assert not list(server.temporary.rglob("*.gif")) + list(server.temporary.rglob("*.zip"))


@pytest.mark.parametrize(("photo", "reason"), [
    (b"dear all\n", "text file"), (b"\xff\xd8\xff" + bytes(200), "damaged"), (b"", "empty"),
    (png(900, 900), "900 x 900 pixels"), (png()[:90], "damaged")])
def test_what_cannot_be_read_is_explained_without_paths(server: Server, photo: bytes, reason: str) -> None:
    _, state = restore(server, photo)
    assert state["stage"] == "failed"
    assert reason in state["what"]
    assert state["remedy"]
    assert "/" not in state["what"] + state["remedy"]


@pytest.mark.parametrize("size", [60_000, 400_000])
def test_a_file_that_is_too_large_is_refused_and_not_kept(server: Server, size: int) -> None:
    key = server.visitor()
    before = set(server.temporary.rglob("upload"))
    try:
        status, body, _ = server.ask("POST", WANTED, key, bytes(size))
    except ConnectionError:  # cut off while sending: far too much
        assert size > 2 * 0.05 * 2**20
    else:
        assert status == 413
        assert "larger than 0.05 MiB" in json.loads(body)["what"]
    assert json.loads(server.ask("GET", "/api/state", key)[1]) == {"stage": "none"}
    assert set(server.temporary.rglob("upload")) <= before


def test_visitors_do_not_meet(server: Server) -> None:
    one, _ = restore(server, png(shade=0))
    two, _ = restore(server, png(40, 40, shade=120))
    pictures = [server.ask("GET", "/api/frame/0", key)[1] for key in (one, two)]
    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(48, 36), (40, 40)]
    for key in ("", "new", one[:-1], two[:-1] + "!"):
        assert server.ask("GET", "/api/frame/0", key)[0] == 410
    assert len({server.visitor() for _ in range(5)}) == 5
    assert all(len(key) >= 43 for key in (one, two))


def test_a_closed_session_leaves_nothing(server: Server) -> None:
    before = set(server.temporary.rglob("*"))
    key, _ = restore(server, png())
    assert set(server.temporary.rglob("*")) > before
    assert server.ask("DELETE", "/api/session", key)[0] == 204
    assert set(server.temporary.rglob("*")) == before
    assert server.ask("GET", "/api/state", key)[0] == 410


@pytest.mark.parametrize("path", ["?model=9&side=640", "?model=0&side=99999", "?model=0&side=-1", "?side=640", "",
                                  "?model=0&side=%00"])
def test_choices_that_do_not_exist(server: Server, path: str) -> None:
    assert server.ask("POST", "/api/photo" + path, server.visitor(), png())[0] == 400


@pytest.mark.parametrize("path", ["avi", "gif?frames=0", "gif?frames=61", "gif?frames=%D9%A3", "mp4?fps=1000",
                                  "gif?fps=x", "..%2f..%2fetc"])
def test_downloads_that_do_not_exist(server: Server, path: str) -> None:
    key, _ = restore(server, png())
    assert server.ask("GET", f"/api/film/{path}", key)[0] in (400, 404)


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.example"}, 421), ({"Host": "127.0.0.1.evil.example"}, 421), ({"Host": ""}, 421),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Host": "photos.example", "Origin": "https://photos.example"}, 201), ({"Host": "localhost:1"}, 201),
    ({"Host": "[::1]:80"}, 201), ({"Host": "192.0.2.7"}, 201)])
def test_other_sites_and_names_are_refused(server: Server, headers: dict[str, str], status: int) -> None:
    assert server.ask("POST", "/api/session", **headers)[0] == status


def test_a_call_without_our_header_is_refused(server: Server) -> None:
    assert server.ask("POST", "/api/session", key=None)[0] == 403
    assert server.ask("GET", "/api/offer", key=None)[0] == 403


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/offer", "/none", "/api/frame/x"])
def test_every_answer_forbids_what_is_not_needed(server: Server, path: str) -> None:
    _, _, headers = server.ask("GET", path)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "set-cookie" not in headers


def test_too_many_photos_of_one_address_and_the_end(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    left = tmp_path / "tmp" / f"{PREFIX}of-a-killed-server"
    left.mkdir()
    (left / "lock").touch()
    model = tiny_deblurrer(tmp_path / "tiny.safetensors")
    with serving(tmp_path, "--model", str(model), "--photos-a-minute", "2", "--keep-minutes", "0.02") as server:
        assert not left.exists()
        key, _ = restore(server, png())
        restore(server, png(), key)
        status, body, headers = server.ask("POST", WANTED, key, png())
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 30
        assert "too much" in json.loads(body)["what"]
        wait_until(lambda: not list(server.temporary.glob("*/session-*")))  # no sign of life: its time runs out
        assert server.ask("GET", "/api/state", key)[0] == 410
        server.visitor()
        assert server.end(signal.SIGTERM) == 0
        assert list(server.temporary.iterdir()) == []
        assert "Traceback" not in server.said()


def test_a_port_that_is_taken_and_a_model_that_is_missing(server: Server, cli) -> None:
    taken = cli("ui", "--port", server.port, "--model", "x")
    assert (taken.returncode, "another --port" in taken.stderr) == (2, True)
    missing = cli("ui", "--port", 0)
    assert (missing.returncode, "no model to offer" in missing.stderr) == (2, True)


def test_the_rate_of_an_address() -> None:
    now = 0.0
    limit = RateLimit(3, clock=lambda: now)
    assert [limit.wait("192.0.2.1") for _ in range(3)] == [0, 0, 0]
    assert limit.wait("192.0.2.1") == pytest.approx(20)
    assert limit.wait("192.0.2.2") == 0
    now = 20.5
    assert limit.wait("192.0.2.1") == 0
    assert limit.wait("192.0.2.1") > 0
    assert [limit.wait(f"2001:db8::{n}") for n in range(4)][-1] > 0
    assert limit.wait("2001:db8:0:1::") == 0


def test_sessions_end_in_time_and_are_limited(tmp_path: Path) -> None:
    now = 0.0
    sessions = Sessions(tmp_path, keep=10, most=2, clock=lambda: now)
    one, two = sessions.new(), sessions.new()
    assert one is not None
    assert two is not None
    assert sessions.new() is None
    now = 8.0
    assert sessions.get(one)
    now = 12.0
    sessions.expire()
    assert sessions.get(one)
    assert sessions.get(two) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_two_servers_leave_each_other_alone(tmp_path: Path) -> None:
    with temporary_root(tmp_path) as first:
        assert first.stat().st_mode & 0o077 == 0
        with temporary_root(tmp_path) as second:
            assert first.is_dir()
            assert second.is_dir()
        assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize(("size", "shown"), [((1000, 500), (640, 320)), ((640, 480), (640, 480)),
                                             ((3, 6400), (1, 640))])
def test_large_photos_are_scaled_down(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shrink(np.zeros((size[1], size[0], 3), np.uint8), 640).shape == (shown[1], shown[0], 3)


@pytest.mark.parametrize("host", ["[::1", "a b", "localhost.evil", "[v1.x]", ":80"])
def test_hosts_that_are_none(host: str) -> None:
    assert not Guard(lambda *_: None, ()).known(host)  # type: ignore[arg-type, return-value]
