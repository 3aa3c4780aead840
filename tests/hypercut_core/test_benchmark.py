"""The benchmark's table: what may stand in one table, what a budget is, and what it costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypercut_core.benchmark.config import ROWS, BenchmarkConfig, budget_text, with_budget
from hypercut_core.benchmark.cost import count_cost, measure_cost
from hypercut_core.benchmark.page import Shown, headline, render
from hypercut_core.benchmark.quoted import QUOTED
from hypercut_core.benchmark.rows import Shapes, chosen, known_rows, measured_views, parse_row
from hypercut_core.benchmark.scoring import by_source
from hypercut_core.benchmark.table import document, gather, groups, markdown, spread
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.peers import CascadeSettings, PeerSettings
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.errors import BadParameters, HypercutError
from hypercut_core.evaluation.protocol import evaluate_clips, repeat_blurry, summarise

ABOUT = {"sentence": "2 <clips>", "size": "64x64", "frames": 3}


def figures(protocol: str, ppsnr: float, views: str = "") -> dict[str, Any]:
    frames = [ppsnr - 1, ppsnr + 2, ppsnr - 1]
    return {"protocol": protocol, "views": views, "ppsnr": ppsnr, "ppsnr_frames": frames, "ends": ppsnr - 1,
            "middle": ppsnr + 2, "pssim": 0.9, "reblur": 50.0, "gain": 1.0, "gain_ends": 1.0, "odd_strength": 0.5,
            "canonical": {"learned": ppsnr - 0.5}, "agreement": {"learned": 0.75}}


def result(row: str, seed: int, *results: dict[str, Any]) -> dict[str, Any]:
    model, _, objective = row.partition("/")
    trained = {"samples": 80, "cpu_seconds": 3.5} if objective else {}
    return {"row": row, "model": model, "objective": objective, "seed": seed, "results": list(results), **trained}


RESULTS = [result("repeat", 0, figures("blind", 20.0)), result("repeat", 1, figures("blind", 20.0)),
           result("guided/naive", 0, figures("blind", 24.0), figures("oracle-guidance", 30.0)),
           result("guided/naive", 1, figures("blind", 25.0), figures("oracle-guidance", 31.0)),
           result("even_odd/naive", 0, figures("blind", 26.0, "4 views"), figures("blind", 25.0, "1 view"))]
COSTS = {("guided", ""): {"parameters": 130e6, "gmac": 782.0}, ("even_odd", "1 view"): {"parameters": 7e5, "gmac": 1.8}}


def test_every_row_has_a_name_that_leads_back_to_it() -> None:
    assert set(ROWS) <= set(known_rows())
    for name in known_rows():
        assert parse_row(name).name == name
    with pytest.raises(BadParameters, match="did you mean 'cascade/naive'"):
        parse_row("cascade/naiv")


def test_rows_are_chosen_by_name_and_pattern() -> None:
    assert [row.name for row in chosen(ROWS, ["cascade/*", "repeat", "guided/rule_targets"])] \
        == ["cascade/order_invariant", "cascade/hypercut_targets", "repeat", "guided/rule_targets"]
    assert [row.name for row in chosen(ROWS, [])] == list(ROWS)
    with pytest.raises(BadParameters, match="no row fits 'recurent"):
        chosen(ROWS, ["repeat", "recurent/*"])


@pytest.mark.parametrize("text", ["", "600", "seconds=0", "samples=1.5", "samples=-3", "hours=2", "seconds=1e9x"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BadParameters, match="samples=24000 or seconds=600"):
        with_budget(BenchmarkConfig(), text)


def test_a_budget_is_samples_or_seconds() -> None:
    by_samples = with_budget(BenchmarkConfig(), "samples=1600")
    assert budget_text(by_samples) == "1,600 clips seen by each training"
    assert budget_text(with_budget(by_samples, "seconds=90.5")) == "90.5 CPU-seconds for each training"


def test_blind_and_helped_lines_never_stand_together() -> None:
    lines = gather(RESULTS, COSTS)
    for _, group in groups(lines):
        assert len({line.protocol == "blind" for line in group}) == 1
    blind, helped = groups(lines)
    assert [line.name for line in blind[1]] == ["repeat", "guided/naive", "even_odd/naive, 4 views",
                                                "even_odd/naive, 1 view"]
    assert [(line.name, line.protocol) for line in helped[1]] == [("guided/naive", "oracle-guidance")]
    text = markdown(document(lines, ABOUT, {}, []), lines)
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert "oracle-guidance" not in next(one for one in sections if one.startswith("Blind"))
    assert "| guided/naive | oracle-guidance | 2 | 30.50 ± 0.71 |" in text
    assert "4 views" not in headline([line for line in lines if line.views != "4 views"])


def test_seeds_are_told_with_their_spread() -> None:
    line = next(line for line in gather(RESULTS, COSTS) if line.row == "guided/naive")
    assert line.seeds == [0, 1]
    assert line.figures["ppsnr"] == [24.0, 25.0]
    assert line.mean_frames() == [23.5, 26.5, 23.5]
    assert line.cost == COSTS["guided", ""]
    assert spread([27.0, 28.0]) == "27.50 ± 0.71"
    assert spread([0.5], 1, 100) == "50.0"
    assert spread(None) == "–"


def test_quoted_figures_are_marked_and_stay_apart() -> None:
    lines = gather(RESULTS, COSTS)
    data = document(lines, ABOUT, {"hit": [1.0, 1.0]}, [])
    assert len(data["quoted"]["ppsnr"]) == len(QUOTED)
    assert not any("quoted" in line for line in data["lines"])
    html = render(lines, data, [])
    models, quoted = html.index('id="models"'), html.index('id="quoted"')
    assert "20.65" not in html[models:quoted]
    assert "20.65" in html[quoted:]
    assert all(one.protocol == "oracle-middle" for one in QUOTED if "Purohit" in one.model)


def test_the_table_says_which_weights_a_training_went_on_from() -> None:
    lines, begun = gather(RESULTS, COSTS), [{**RESULTS[2], "start": "5f" * 32}]
    data = document(lines, ABOUT, {}, [], begun=begun)
    assert data["starts"] == [{"row": "guided/naive", "seed": 0, "start": "5f" * 32}]
    assert f"went on from the weights of (sha256):\n\n- guided/naive, seed 0: {'5f' * 32}\n" in markdown(data, lines)
    assert f"guided/naive, seed 0: training went on from the weights of (sha256)</th><td>{'5f' * 32}" \
        in render(lines, data, [])
    assert "went on" not in render(lines, document(lines, ABOUT, {}, []), [])


def test_gains_by_source_add_up_to_the_gain(tmp_path: Path) -> None:
    """Each source is compared with its own clips' trivial answer; together, weighted, they are the whole."""
    rng = np.random.default_rng(0)
    with ClipStoreWriter(tmp_path / "clips", 3) as writer:
        for number, source in enumerate(["b.mp4", "a.mp4", "b.mp4", "b.mp4"]):
            clip = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
            clip[0] = clip[1:].mean(0)
            writer.add(clip, clip_id=str(number), source=source, split="test", category="c", motion=1.0)
    store = ClipStore(tmp_path / "clips")
    trivial = evaluate_clips(repeat_blurry(3), store, store.indices("test"))
    worse = evaluate_clips(lambda blurry: repeat_blurry(3)(blurry) * 0.9, store, store.indices("test"))
    found = by_source(store, worse, trivial)
    assert [(name, one["clips"]) for name, one in found.items()] == [("b.mp4", 3), ("a.mp4", 1)]
    whole = summarise(worse, trivial)
    for figure in ("ppsnr", "gain", "gain_ends"):
        assert sum(one["clips"] * one[figure] for one in found.values()) / 4 == pytest.approx(whole[figure], abs=1e-9)
    assert by_source(store, trivial, trivial)["a.mp4"]["gain"] == 0


def test_the_table_shows_which_sources_gain() -> None:
    def told(gain: float) -> dict[str, Any]:
        return {"<i>|.mp4": {"clips": 3, "ppsnr": 30 + gain, "gain": gain, "gain_ends": 2 * gain},
                "b.mp4": {"clips": 5, "ppsnr": 25.0, "gain": -1.0, "gain_ends": -2.0}}

    results = [RESULTS[0], *(result("even_odd/naive", seed, {**figures("blind", 26.0), "sources": told(seed + 1.0)})
                             for seed in (0, 1))]
    lines = gather(results, COSTS)
    data = document(lines, ABOUT, {}, [])
    assert data["lines"][1]["sources"]["b.mp4"]["gain"] == [-1.0, -1.0]
    text = markdown(data, lines)
    assert "| Source | Clips | Repeat, dB | even_odd/naive |" in text
    assert "| <i>/.mp4 | 3 | 30.00 | 1.50 ± 0.71 / 3.00 ± 1.41 |" in text
    assert text.index("| b.mp4 | 5 |") < text.index("| <i>/.mp4 | 3 |")  # most clips first
    helped = gather([result("guided/naive", 0, {**figures("best of 5", 26.0), "sources": told(1.0)},
                            {**figures("oracle-guidance", 26.0), "sources": told(2.0)})], COSTS)
    assert "| guided/naive (best of 5) | guided/naive (oracle-guidance) |" in markdown(document(helped, ABOUT, {}, []),
                                                                                      helped)
    many = {f"{number}.mp4": {"clips": 20 - number, "ppsnr": 30.0, "gain": 1.0, "gain_ends": 1.0}
            for number in range(13)}
    crowd = gather([result("even_odd/naive", 0, {**figures("blind", 26.0), "sources": many})], COSTS)
    text = markdown(document(crowd, ABOUT, {}, []), crowd)
    assert "## By source, the 12 of 13 with most clips. Blind" in text
    assert ("| 11.mp4 |" in text, "| 12.mp4 |" in text) == (True, False)
    html = render(lines, data, [])
    assert "&lt;i&gt;/.mp4" in html
    assert "<i>/" not in html
    assert 'id="sources"' not in render(gather(RESULTS, COSTS), document([], ABOUT, {}, []), [])  # made before


def test_the_page_needs_nothing_else_and_escapes_what_comes_from_outside() -> None:
    lines = gather(RESULTS, COSTS)
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    shown = [Shown("<b>clip</b>", clip, {"guided/naive": clip[1:]})]
    failed = [{"row": "cascade/naive", "seed": 1, "why": "<script>alert(1)</script>"}]
    html = render(lines, document(lines, ABOUT, {"hit": [1.0]}, failed), shown)
    assert "<b>clip</b>" not in html
    assert "<script>alert" not in html
    assert "2 &lt;clips&gt;" in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert html.count("class=\"film moving\"") == 2


SMALL = Shapes(DeblurrerConfig(width=4, blocks=(1, 1), views=2),
               PeerSettings(cascade=CascadeSettings(model=CascadeConfig(width=4, side_width=4, colour=4))))


def test_a_model_is_measured_with_its_views_and_every_half_of_them() -> None:
    assert measured_views(1) == {"1 view": 1}
    assert measured_views(4) == {"4 views": 4, "2 views": 2, "1 view": 1}


def test_cost_is_counted_without_computing() -> None:
    two, one = (count_cost("even_odd", Shapes(DeblurrerConfig(views=views)), 7, 0, 0) for views in (2, 1))
    assert two["parameters"] == one["parameters"]
    assert two["gmac"] == pytest.approx(2 * one["gmac"], rel=0.02)  # joining the views is a small product
    assert count_cost("recurrent_oracle", Shapes(), 7, 0, 0)["gmac"] == pytest.approx(105, rel=0.05)


def test_the_oracle_row_is_the_recurrent_model_without_its_own_middle_frame() -> None:
    config = Shapes().config("recurrent_oracle")
    assert config == RecurrentConfig(protocol="oracle")
    assert Shapes().rate("recurrent_oracle", 1e-3) == PeerSettings().recurrent.rate


def test_cost_is_measured_in_a_process_of_its_own() -> None:
    found = measure_cost("even_odd", SMALL, 3, 96, 96)
    assert found["cpu_seconds"] > 0
    assert 0 <= found["peak_mib"] < 1000
    with pytest.raises(HypercutError, match="could not be measured"):
        measure_cost("cascade", SMALL, 3, 96, 96)  # which has seven frames only
