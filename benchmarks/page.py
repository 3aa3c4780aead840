"""The first photo on the page of `hypercut ui`, in a real browser: how long it takes, and what it looks like.

    .venv/bin/python -m benchmarks.page [--model models/deblurrer-hypercut_targets.safetensors] [--tries 5]

A server and a browser of their own for each try: the time runs from choosing the photo to the film on the screen,
the model's loading included. Beside it `hypercut restore` on the same photo, a process of its own too. Writes
docs/page.webp (what a person sees) and benchmarks/results/page.{md,json}. Needs Chromium and its driver.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from components.params import load
from hypercut_core.clips.moving_photos import render_clips
from hypercut_core.files import write_json, write_text

OUT, RESULTS = Path("docs/page.webp"), Path(__file__).parent / "results"
SIDE, PATIENCE, LIMIT = (640, 480), 120.0, 5.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--window-size=940,1500")


def photo() -> Image.Image:
    """A moving photo that no model has learnt from."""
    p = load(Path("params.yaml"))
    moving = dataclasses.replace(p.blur.photos, size=384, camera=1.0, both=0.0, motion_min=9.0, motion_max=12.0)
    clip = next(iter(render_clips(moving, "test", 1, 7, p.frames, exposure=p.blur.exposure)))
    return Image.fromarray(clip.frames[0])


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {PATIENCE:.0f} s")
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def page(model: Path, folder: Path) -> Iterator[str]:
    """Address of a server that has just been started."""
    log = folder / "ui.log"
    with log.open("wb") as stream:
        server = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "ui", "--port", "0", "--model", str(model)],
                                  stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        yield until(lambda: re.search(r"http://\S+/", log.read_text()), "the server")[0]
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        sys.exit("Chromium is not here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def restored(chrome: Any, address: str, file: Path) -> float:
    """Seconds from choosing the photo to the film."""
    from selenium.webdriver.common.by import By

    def said(code: str) -> Any:
        return chrome.execute_script(f"return {code}")

    chrome.get(address)
    until(lambda: said("document.querySelectorAll('#model option').length > 0"), "the list of models")
    started = time.monotonic()
    chrome.find_element(By.ID, "photo").send_keys(str(file))
    until(lambda: said("document.getElementById('status').textContent.startsWith('Done: ')"), "the film")
    return time.monotonic() - started


def screenshot(chrome: Any) -> None:
    chrome.execute_script("if (document.getElementById('play').textContent == 'Pause') "
                          "document.getElementById('play').click()")
    image = Image.open(io.BytesIO(chrome.get_screenshot_as_png())).convert("RGB")
    OUT.parent.mkdir(exist_ok=True)
    image.save(OUT, quality=85)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/deblurrer-hypercut_targets.safetensors"))
    parser.add_argument("--tries", type=int, default=5)
    asked = parser.parse_args()
    here: list[float] = []
    command: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        moving = photo()
        moving.save(folder / "shown.png")
        moving.resize(SIDE, Image.Resampling.BICUBIC).save(folder / "photo.jpg", quality=95)
        for _ in range(asked.tries):
            with page(asked.model, folder) as address, browser() as chrome:
                here.append(restored(chrome, address, folder / "photo.jpg"))
            started = time.monotonic()
            subprocess.run([sys.executable, "-m", "pipelines.cli", "restore", str(folder / "photo.jpg"), "--model",
                            str(asked.model), "-o", str(folder / "film.webp")], check=True, capture_output=True)
            command.append(time.monotonic() - started)
        with page(asked.model, folder) as address, browser() as chrome:
            restored(chrome, address, folder / "shown.png")
            screenshot(chrome)
    write(here, command)


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write(here: list[float], command: list[float]) -> None:
    slowest, ratios = max(here), [a / b for a, b in zip(here, command, strict=True)]
    rows = [("page, first photo", spread(here, 1), f"**{spread(ratios, 2)}**"),
            ("`hypercut restore`", spread(command, 1), "1")]
    write_json(RESULTS / "page.json", {"page_seconds": here, "command_seconds": command, "size": list(SIDE)})
    write_text(RESULTS / "page.md", f"""# The first photo on the page

A photo of {SIDE[0]}x{SIDE[1]} px in Chromium, from choosing it to the film on the screen, right after the server has
started (the model is loaded for it); one view, as the page does by default. Beside it `hypercut restore` on the same
photo, with its own start and all of the model's views. {len(here)} tries, lowest to highest.

Command: `.venv/bin/python -m benchmarks.page`

| way | seconds | against the command |
|---|---|---|
{chr(10).join(f"| {way} | {seconds} | {ratio} |" for way, seconds, ratio in rows)}

Wanted: at most {LIMIT:.0f} s on two cores; the slowest try took {slowest:.1f} s.
""")
    print((RESULTS / "page.md").read_text())


if __name__ == "__main__":
    main()
