"""The report in a real browser: no request, no error, every picture there, films that obey their control."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from components.evaluate.step import EvaluateConfig, evaluate
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder
from hypercut_core.ordering.labels import assign_orders, write_orders

pytestmark = pytest.mark.system
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
         "--window-size=1280,1000")
T = 5


def install_chromium() -> tuple[str, str]:
    """Paths of browser and driver; installs Debian's packages if they are missing."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            for command in (["apt-get", "update", "-qq"],
                            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium",
                             "chromium-driver"]):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=600,
                               env=environment)
        except (OSError, subprocess.SubprocessError) as error:
            _not_here(f"Chromium cannot be installed: {error}\n{getattr(error, 'stderr', '') or ''}")
        found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        _not_here("Chromium is not there after its installation")
    return str(found[0]), str(found[1])


def _not_here(why: str) -> None:
    if os.environ.get("REQUIRE_SYSTEMS") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    chromium, driver = install_chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    try:
        chrome = webdriver.Chrome(options=options, service=service)
    except WebDriverException as error:
        service.stop()
        _not_here(f"Chromium does not start: {error.msg}")
        return
    try:
        yield chrome
    finally:
        chrome.quit()
        service.stop()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two untrained models on rendered clips, made by the step itself."""
    folder = tmp_path_factory.mktemp("report")
    with ClipStoreWriter(folder / "clips", T) as writer:
        for n, clip in enumerate(render_clips(MovingPhotosConfig(size=40), "test", 14, 0, T)):
            writer.add(clip.frames, clip_id=f"test-{n} <i>", source=clip.source, split="test",
                       category=clip.category, motion=clip.motion)
    torch.manual_seed(0)
    write_orders(folder / "orders.parquet", assign_orders(build_encoder(EncoderConfig()),
                                                          ClipStore(folder / "clips")))
    models = {}
    for name in ("sequence_min", "naive"):
        model = EvenOddDeblurrer(DeblurrerConfig(width=8, blocks=(1, 1), block="conv"), T)
        torch.nn.init.normal_(model.trunk.leave.weight, std=0.03)
        models[name] = folder / f"{name}.safetensors"
        save_deblurrer(models[name], model, {})
    evaluate(folder / "clips", models, folder / "orders.parquet", folder / "out", folder / "evaluate.json",
             EvaluateConfig(films=4, worst=2), provenance={"git": "<script>", "parameters": {"seed": 1}},
             device="cpu")
    return folder / "out" / "report.html"


def visit(browser: Any, url: str) -> tuple[list[str], list[dict]]:
    """Open a page; the addresses that it asked for, and what it logged."""
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    browser.get(url)
    browser.execute_async_script("const done = arguments[0]; setTimeout(done, 400)")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events
             if event["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")], browser.get_log("browser")


def emulate(browser: Any, command: str, **settings: Any) -> None:
    browser.execute_cdp_cmd(f"Emulation.{command}", settings)


def test_the_report_asks_for_nothing_and_logs_nothing(browser: Any, report: Path):
    asked, logged = visit(browser, report.as_uri())
    assert asked == [report.as_uri()]
    assert logged == []


def test_a_request_or_an_error_would_be_seen(browser: Any, tmp_path: Path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/a.png"><script>throw new Error("no")</script>')
    asked, logged = visit(browser, page.as_uri())
    assert "http://127.0.0.1:9/a.png" in asked
    assert any("no" in entry["message"] for entry in logged)


def test_every_picture_is_decoded_and_every_film_shows_one_frame(browser: Any, report: Path):
    visit(browser, report.as_uri())
    pictures = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])")
    # films and worst: blurry, recovered, truth; the comparison on two clips: naive as well
    assert len(pictures) == (4 + 2) * 3 + 2 * 4
    assert all(complete and width == 40 and alt for complete, width, _, alt in pictures)
    assert {height for _, _, height, _ in pictures} == {40, 40 * T}
    boxes = browser.execute_script("return [...document.querySelectorAll('.film')].map(f => "
                                   "[f.getBoundingClientRect().width, f.getBoundingClientRect().height])")
    assert all(abs(width - height) < 1 and width > 60 for width, height in boxes)


def test_the_control_stops_films_and_goes_through_the_frames(browser: Any, report: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit(browser, report.as_uri())
    button = browser.find_element(By.CSS_SELECTOR, ".player button")
    slider = browser.find_element(By.CSS_SELECTOR, ".player input")
    shown = browser.find_element(By.CSS_SELECTOR, ".player output")

    def offset() -> float:
        """How far the first film is moved, in frames."""
        return browser.execute_script(
            "const f = document.querySelector('.film.moving'); return (f.getBoundingClientRect().top - "
            "f.firstChild.getBoundingClientRect().top) / f.getBoundingClientRect().height")

    assert button.text == "Pause"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    browser.execute_script("arguments[0].click()", button)
    assert button.text == "Play"
    slider.send_keys(Keys.HOME)
    for frame in range(1, T + 1):
        assert shown.text == f"frame {frame} of {T}"
        assert offset() == pytest.approx(frame - 1, abs=0.02)
        slider.send_keys(Keys.ARROW_RIGHT)
    button.click()
    assert button.text == "Pause"
    before = {offset()}
    for _ in range(4):
        browser.execute_async_script("const done = arguments[0]; setTimeout(done, 130)")
        before.add(round(offset(), 2))
    assert len(before) > 2


def test_films_play_without_scripts(browser: Any, report: Path):
    """As in the artifact viewers that show a report in a sandboxed frame."""
    emulate(browser, "setScriptExecutionDisabled", value=True)
    try:
        browser.get(report.as_uri())
        shown = browser.execute_script("return getComputedStyle(document.querySelector('.player')).display")
        assert shown == "none"
        seen = set()
        for _ in range(8):
            seen.add(browser.execute_script(
                "return getComputedStyle(document.querySelector('.film.moving img')).transform"))
            time.sleep(0.1)
        assert len(seen) > 2
    finally:
        emulate(browser, "setScriptExecutionDisabled", value=False)


def test_films_rest_where_motion_is_not_wanted(browser: Any, report: Path):
    emulate(browser, "setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    try:
        visit(browser, report.as_uri())
        assert browser.execute_script("return document.querySelector('.player button').textContent") == "Play"
    finally:
        emulate(browser, "setEmulatedMedia", features=[])


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Any, report: Path, width: int, scheme: str):
    emulate(browser, "setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
            mobile=width < 600)
    emulate(browser, "setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        visit(browser, report.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for selector in ("p", "h2", "td", "td.best", "figcaption", "summary", ".soft", ".bad"):
            assert contrast(browser, selector) >= 4.5, selector
    finally:
        emulate(browser, "setEmulatedMedia", features=[])
        emulate(browser, "clearDeviceMetricsOverride")


def contrast(browser: Any, selector: str) -> float:
    """WCAG contrast of an element's text and the nearest background that is painted."""
    colours = browser.execute_script("""
        let e = document.querySelector(arguments[0]);
        if (!e) { e = document.createElement('span'); e.className = arguments[0].slice(1);
                  document.querySelector('figure').append(e); }
        const ink = getComputedStyle(e).color;
        while (getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
        return [ink, getComputedStyle(e).backgroundColor]""", selector)
    light, dark = sorted((_luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(float(part)) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
