"""The report: what it says, that it asks for nothing, and that names from outside stay text."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hypercut_core.evaluation import charts, films, tables
from hypercut_core.evaluation.protocol import ClipScores, summarise
from hypercut_core.evaluation.report import ClipLabel, Example, ReportData, headline, render, write_report

T, N = 5, 12
NASTY = '"><script>alert(1)</script>&\'='
VOID = {"meta", "link", "img", "input", "br"}


def scores(name: str, level: float, seed: int) -> ClipScores:
    rng = np.random.default_rng(seed)
    forward = level + rng.normal(0, 1, (N, T)) - abs(np.arange(T) - T // 2)
    sign = np.where(rng.random(N) < 0.5, -1, 1)
    backward = forward - rng.normal(0, 2, (N, 1))
    return ClipScores(name, np.arange(N), forward, backward, np.full((N, T), level / 30), np.full(N, 55.0),
                      rng.uniform(-1, 1, N), np.full(N, 0.7), np.ones(N, bool),
                      {"learned": sign, "rule": -sign})


def make_report(gain: float = 3.0, name: str = "sequence_min", **more) -> ReportData:
    rng = np.random.default_rng(3)
    trivial = scores("trivial", 22, 0)
    models = {name: scores(name, 22 + gain, 0), "naive": scores("naive", 21, 1), NASTY: scores(NASTY, 23, 2)}
    summaries = {key: {**summarise(one, trivial), "parameters": 1_250_000} for key, one in models.items()}
    clip = rng.integers(0, 256, (T + 1, 20, 30, 3), dtype=np.uint8)
    example = Example(2, clip, dict.fromkeys(models, clip[1:]))
    settings = {"margins": np.linspace(0, 1, N), "order_figures": {"con3": 0.98, "hit": 1.0, "joint3": 0.97},
                "categories": {"face": {"clips": N, "ppsnr": 25.0, "gain": gain}},
                "examples": [example], "worst": [example],
                "provenance": {"git": NASTY, "seed": 7, "parameters": {"blur": {NASTY: 1}}}}
    return ReportData(default=name, scores=models, summaries=summaries, trivial=trivial,
                      trivial_summary=summarise(trivial),
                      clips=[ClipLabel(f"clip {i} {NASTY}", NASTY, NASTY, float(i)) for i in range(N)],
                      **{**settings, **more})


class Page(HTMLParser):
    """Collects tags and refuses unbalanced ones."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing():
    text = render(make_report())
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)
    assert len({attributes["id"] for _, attributes in page.tags if "id" in attributes}) == 7


def test_names_from_outside_stay_text():
    text = render(make_report())
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert [tag for tag, _ in Page(text).tags].count("script") == 1


def test_the_policy_allows_the_one_script_and_pictures_only():
    text = render(make_report())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_same_data_same_page(tmp_path):
    write_report(tmp_path / "a.html", make_report())
    write_report(tmp_path / "b.html", make_report())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").stat().st_size < 200_000


@pytest.mark.parametrize(("gain", "words"), [(3.04, "is 3.0 dB above repeating"), (-0.7, "is 0.7 dB below"),
                                             (0.01, "is level with")])
def test_the_headline_says_how_it_went(gain: float, words: str):
    data = make_report(gain)
    assert f"5 sharp frames from one blurry image: sequence_min {words}" in headline(data)
    assert headline(data).endswith("on 12 unseen clips.")


def test_a_default_that_is_not_the_best_is_said_so():
    assert "The best mean below is that of" in render(make_report(-3))
    assert "The best mean below" not in render(make_report(9))


def test_failures_are_counted_and_listed():
    text = render(make_report(-3))
    assert "12 of 12 clips are worse than repeating the blurry image" in text
    assert "Failures, worst first" in text
    assert "No clip is worse" in render(make_report(3))
    broken = make_report(3)
    broken.summaries["sequence_min"]["not_finite"] = 2  # type: ignore[index]
    assert "2 outputs held infinite" in render(broken)


def test_the_best_of_each_column_is_marked_once():
    data = make_report(4)
    html = tables.objectives(data.default, data.summaries, data.trivial_summary)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html)
    first = [re.findall(r"<td(?: class=\"(best)\"[^>]*)?>([^<]*)", row)[0] for row in rows]
    assert [mark for mark, _ in first] == ["best", "", "", ""]
    assert float(first[0][1]) == max(float(value) for _, value in first)
    # a model below the trivial answer is not the best of anything that both are measured by
    poor = make_report(-4)
    html = tables.objectives(poor.default, {"x": poor.summaries["sequence_min"]}, poor.trivial_summary)
    model, trivial = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html)
    assert 'class="best"' not in model.split("<td>0.700")[0]
    assert trivial.count('class="best"') >= 4


def test_little_data_still_makes_a_page():
    bare = make_report(margins=None, order_figures={}, examples=[], worst=[], categories={}, provenance={})
    text = render(bare)
    assert "No order table was given" in text
    assert "No clips were chosen" in text
    assert '<div class="player"' not in text
    Page(render(make_report(margins=np.full(N, np.nan))))
    Page(render(make_report(margins=np.zeros(N))))


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (720, 1280)])
def test_a_film_strip_holds_every_frame(size: tuple[int, int]):
    frames = np.stack([np.full((*size, 3), 40 * t, np.uint8) for t in range(T)])
    html = films.panel("truth", frames, "clip 1")
    encoded = re.search(r'base64,([^"]+)"', html)[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    assert max(picture.shape[0] // T, picture.shape[1]) <= films.LARGEST_SIDE
    assert picture.shape[0] % T == 0
    assert picture.shape[1] / (picture.shape[0] / T) == pytest.approx(size[1] / size[0], rel=0.01)
    levels = picture.reshape(T, -1).mean(1)
    assert levels == pytest.approx([40 * t for t in range(T)], abs=2)
    assert ("small-pixels" in html) == (max(size) <= films.SMALL)


@pytest.mark.parametrize(("low", "high"), [(20.3, 27.9), (-1.2, 0.4), (0, 1e-4), (5, 5), (0, 123456)])
def test_ticks_are_round_and_cover_the_range(low: float, high: float):
    marks = charts.ticks(low, high)
    assert marks[0] <= low + 1e-9
    assert marks[-1] >= high - 1e-9
    assert 2 <= len(marks) <= 9
    steps = np.diff(marks)
    assert steps == pytest.approx(steps[0], rel=1e-6)


def test_binned_means_use_every_point_once():
    x, y = np.arange(50.0)[::-1], np.arange(50.0)
    means = charts.binned_means(x, y, 5)
    assert len(means) == 5
    assert np.mean([one for _, one in means]) == pytest.approx(y.mean())
    assert [one for one, _ in means] == sorted(one for one, _ in means)
    assert charts.binned_means(x[:1], y[:1], 5) == [(49.0, 0.0)]
