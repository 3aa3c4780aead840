"""`hypercut ui` in a real browser, as a person uses it; screenshots are kept in out/screenshots."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_report_in_browser import browser, contrast, emulate
from ui_server import ROOT, Server, serving, tiny_deblurrer, wait_until

__all__ = ["browser"]
pytestmark = pytest.mark.system
FRAMES = 5
CONTROLS = ["photo", "model", "side", "careful", "again", "moment", "play", "reverse", "bounce", "before", "wipe",
            "count", "fps"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    models = [tiny_deblurrer(folder / f"{name}.safetensors", FRAMES) for name in ("first", "second")]
    with serving(folder, "--model", str(models[0]), "--model", str(models[1]), "--max-mib", "2",
                 "--max-megapixels", "4", "--photos-a-minute", "1000") as one:
        yield one


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos as people have them: a moving one of each colour, a broken and two huge ones."""
    folder = tmp_path_factory.mktemp("photos")
    across = np.linspace(0, 6.28, 480)
    for name, channel in (("red", 0), ("green", 1)):
        pixels = np.full((360, 480, 3), 60, np.uint8)
        pixels[:, :, channel] = (127 + 120 * np.sin(across * 3)[None] * np.cos(across * 2)[:360, None]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95)
    (folder / "broken.jpg").write_bytes((folder / "red.jpg").read_bytes()[:3000])
    (folder / "large.jpg").write_bytes((folder / "red.jpg").read_bytes() + bytes(3 * 2**20))
    Image.new("L", (3000, 3000)).save(folder / "pixels.png")
    return folder


class Visit:
    """The page in the browser's present window."""

    def __init__(self, browser: Any, server: Server):
        self.browser, self.server = browser, server
        for kind in ("performance", "browser"):
            browser.get_log(kind)
        browser.get(server.address)
        wait_until(lambda: self.js("return document.querySelectorAll('#model option').length") == 2)

    def js(self, code: str, *words: Any) -> Any:
        return self.browser.execute_script(code, *words)

    def element(self, key: str) -> Any:
        from selenium.webdriver.common.by import By

        return self.browser.find_element(By.ID, key)

    def click(self, key: str) -> None:
        element = self.element(key)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def text(self, key: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).textContent", key))

    def choose(self, photo: Path) -> None:
        self.js("document.getElementById('status').textContent = ''")
        self.element("photo").send_keys(str(photo))

    def restore(self, photo: Path) -> None:
        self.choose(photo)
        wait_until(lambda: self.text("status").startswith("Done: ") or self.refused())
        assert self.text("status").startswith(f"Done: {FRAMES} frames"), self.text("problem")

    def refused(self) -> bool:
        return not self.js("return document.getElementById('problem').hidden")

    def stop(self) -> None:
        if self.text("play") == "Pause":
            self.click("play")

    def canvas(self) -> str:
        return str(self.js("return document.getElementById('screen').toDataURL()"))

    def at(self, frame: int) -> str:
        """Pause at a frame by the slider's keys; what is seen then."""
        from selenium.webdriver.common.keys import Keys

        slider = self.element("moment")
        slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * (frame - 1))
        assert self.text("shown").startswith(f"frame {frame} of")
        return self.canvas()

    def asked(self) -> list[str]:
        """Addresses that were asked for since the start of the visit."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self, name: str) -> Path:
        path = ROOT / "out/screenshots" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


def test_a_photo_is_restored_played_and_downloaded(browser: Any, server: Server, photos: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visit = Visit(browser, server)
    assert visit.js("return document.getElementById('result').hidden")
    visit.restore(photos / "red.jpg")
    assert visit.text("play") == "Pause"  # it moves at once
    moments: set[str] = set()
    wait_until(lambda: moments.add(visit.text("shown")) or len(moments) == FRAMES)  # type: ignore[func-returns-value]
    visit.stop()

    seen = [visit.at(frame) for frame in range(1, FRAMES + 1)]
    assert len(set(seen)) == FRAMES
    visit.click("reverse")
    assert [visit.at(frame) for frame in range(1, FRAMES + 1)] == seen[::-1]
    visit.click("reverse")
    visit.click("before")
    blurry = visit.canvas()
    assert blurry not in seen
    assert visit.element("screen").get_attribute("aria-label") == "The blurry photo"
    visit.click("before")
    visit.js("const w = document.getElementById('wipe'); w.value = 100; w.dispatchEvent(new Event('input'))")
    assert visit.canvas() == blurry
    visit.js("const w = document.getElementById('wipe'); w.value = 0; w.dispatchEvent(new Event('input'))")
    visit.js("const c = document.getElementById('count'); c.value = 9; c.dispatchEvent(new Event('input'))")
    assert visit.at(9) == seen[-1]
    assert visit.at(3) == seen[1]
    assert visit.at(2) not in seen

    for kind, start in (("gif", b"GIF89a"), ("mp4", b"ftyp"), ("zip", b"PK")):
        browser.find_element(By.CSS_SELECTOR, f"[data-kind={kind}]").click()
        path = tmp_path / f"red-restored.{kind}"
        wait_until(path.is_file)
        assert start in path.read_bytes()[:12]
        wait_until(lambda kind=kind: visit.text("status") == f"red-restored.{kind} is ready.")
    assert Image.open(tmp_path / "red-restored.gif").n_frames == 16  # nine, there and back
    visit.screenshot("desktop")
    ours = server.address, "blob:" + server.address, "data:"
    assert [url for url in visit.asked() if not url.startswith(ours)] == []
    assert browser.get_log("browser") == []


def test_what_cannot_be_read_is_said(browser: Any, server: Server, photos: Path) -> None:
    visit = Visit(browser, server)
    for name, reason in (("broken.jpg", "damaged or cut off"), ("large.jpg", "2 MiB are allowed"),
                         ("pixels.png", "3000 x 3000 pixels")):
        visit.choose(photos / name)
        wait_until(lambda reason=reason: visit.refused() and reason in visit.text("problem"))
        assert "To mend it: " in visit.text("problem")
        assert not visit.js("return document.getElementById('busy').checkVisibility()")
        if name == "broken.jpg":
            visit.screenshot("broken")
    visit.restore(photos / "red.jpg")
    assert not visit.refused()
    assert browser.get_log("browser") == []


def test_two_visitors_see_their_own_photos(browser: Any, server: Server, photos: Path) -> None:
    windows, visits = [browser.current_window_handle], []
    visits.append(Visit(browser, server))
    visits[0].choose(photos / "red.jpg")
    browser.switch_to.new_window("window")
    windows.append(browser.current_window_handle)
    visits.append(Visit(browser, server))
    visits[1].restore(photos / "green.jpg")
    try:
        means = []
        for window, visit in zip(windows, visits, strict=True):
            browser.switch_to.window(window)
            wait_until(lambda visit=visit: visit.text("status").startswith("Done: "))
            visit.stop()
            visit.click("before")
            means.append(visit.js("""
                const c = document.getElementById('screen');
                const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);
                let red = 0, green = 0;
                for (let i = 0; i < d.data.length; i += 4) { red += d.data[i]; green += d.data[i + 1]; }
                return red > green ? 'red' : 'green'"""))
        assert means == ["red", "green"]
        assert len(list(server.temporary.glob("*/session-*"))) >= 2
    finally:
        browser.switch_to.window(windows[1])
        browser.close()
        browser.switch_to.window(windows[0])
    browser.get("about:blank")
    wait_until(lambda: not list(server.temporary.glob("*/session-*")))  # both pages are closed: nothing is kept


def test_every_control_can_be_reached_and_has_a_name(browser: Any, server: Server, photos: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit = Visit(browser, server)
    visit.restore(photos / "red.jpg")
    visit.stop()
    visit.js("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(25):
        ActionChains(browser).send_keys(Keys.TAB).perform()  # to whatever has the focus
        reached.append(visit.js("const e = document.activeElement; return e.id || e.dataset.kind || e.tagName"))
    assert set(reached) >= {*CONTROLS, "gif", "mp4", "zip"}
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "slider", "spinbutton", "img"}
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree
             if not node.get("ignored") and node.get("role", {}).get("value", "").lower() in roles]
    assert len(named) >= len(CONTROLS) + 3
    assert [role for role, name in named if not name.strip()] == []
    assert ("slider", "Moment of the exposure") in named
    browser.find_element(By.ID, "play").send_keys(Keys.SPACE)
    assert visit.text("play") == "Pause"
    visit.stop()
    assert visit.element("status").get_attribute("aria-live") == "polite"
    assert visit.element("problem").get_attribute("role") == "alert"


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1280, "dark")])
def test_it_fits_and_can_be_read(browser: Any, server: Server, photos: Path, width: int, scheme: str) -> None:
    emulate(browser, "setDeviceMetricsOverride", width=width, height=780, deviceScaleFactor=1, mobile=width < 600)
    emulate(browser, "setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        visit = Visit(browser, server)
        visit.restore(photos / "green.jpg")
        visit.stop()
        assert visit.js("return document.documentElement.scrollWidth") <= width
        for selector in ("p", "h2", "footer p", ".soft", ".problem", "#play", "#bounce", ".fields label", "output"):
            assert contrast(browser, selector) >= 4.5, selector
        small = visit.js("return [...document.querySelectorAll('button, select, input')].filter(e => "
                         "e.getBoundingClientRect().height < 36).map(e => e.id)")
        assert small == []
        visit.screenshot(f"{'phone' if width < 600 else 'desktop'}-{scheme}")
    finally:
        emulate(browser, "setEmulatedMedia", features=[])
        emulate(browser, "clearDeviceMetricsOverride")


def test_nothing_moves_where_motion_is_not_wanted(browser: Any, server: Server, photos: Path) -> None:
    emulate(browser, "setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    try:
        visit = Visit(browser, server)
        visit.restore(photos / "red.jpg")
        assert visit.text("play") == "Play"
    finally:
        emulate(browser, "setEmulatedMedia", features=[])


def test_a_server_that_went_away_is_said(browser: Any, server: Server, photos: Path) -> None:
    visit = Visit(browser, server)
    visit.restore(photos / "red.jpg")
    assert server.end(signal.SIGINT) == 0
    assert list(server.temporary.iterdir()) == []
    visit.choose(photos / "green.jpg")
    wait_until(lambda: "the server does not answer" in visit.text("problem").lower())
