"""validate-footage: each rule with a manifest that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.validate_footage.step import ValidateFootageConfig, validate_footage
from hypercut_core.errors import DataRejected, StorageError

Row = dict[str, Any]


def rows() -> list[Row]:
    """Six good sources, two a split."""
    return [{"source": f"clip{i}", "uri": f"/footage/{i}.mp4", "kind": "video", "sha256": f"{i + 1:064x}",
             "width": 640, "height": 480, "fps": 25.0, "frames": 100, "category": "hand",
             "licence": "CC BY 4.0", "split": ("train", "val", "test")[i % 3]} for i in range(6)]


def judge(folder: Path, sources: list[Row], config: ValidateFootageConfig | None = None,
          problems: int = 0) -> dict[str, Any]:
    manifest = folder / "footage.json"
    unreadable = [{"file": f"bad{i}.mp4", "what": "truncated"} for i in range(problems)]
    manifest.write_text(json.dumps({"version": 1, "kind": "videos", "layout": "videos", "root": "/footage",
                                    "revision": "", "sources": sources, "problems": unreadable}))
    validate_footage(manifest, config or ValidateFootageConfig(), folder / "verdict.json",
                     folder / "verdict.html")
    return json.loads((folder / "verdict.json").read_text())


def test_good_footage_is_accepted_and_described(tmp_path: Path) -> None:
    verdict = judge(tmp_path, rows())
    assert verdict["passed"]
    assert all(check["passed"] for check in verdict["checks"])
    assert verdict["figures"]["test sources"] == 2
    page = (tmp_path / "verdict.html").read_text()
    assert "accepted" in page
    assert "http" not in page
    assert "<script" not in page


def test_the_verdict_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    judge(tmp_path, rows())
    judge(tmp_path / "other", rows())
    for name in ("verdict.json", "verdict.html"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def changed(place: int, **values: Any) -> Callable[[list[Row]], None]:
    return lambda sources: sources[place].update(values)


def without(*splits: str) -> Callable[[list[Row]], None]:
    def change(sources: list[Row]) -> None:
        sources[:] = [row for row in sources if row["split"] not in splits]
    return change


@pytest.mark.parametrize(("change", "rule", "culprit"), [
    (lambda sources: sources.clear(), "at least 2 sources", ""),
    (without("test"), "footage to test on", "train"),
    (without("train"), "footage to train on", "test"),
    (changed(1, sha256=None), "every source has its 'sha256'", "clip1"),
    (changed(1, sha256="abc"), "checksums are SHA-256", "clip1: abc"),
    (changed(1, uri=""), "every source has its 'uri'", "clip1"),
    (changed(1, source="clip0"), "listed once", "clip0"),
    (changed(3, source="clip1"), "no source is in two splits", "clip1"),
    (changed(1, sha256=f"{1:064x}"), "no two splits hold the same file", "clip0"),
    (changed(1, kind="hologram"), "kinds are", "clip1: hologram"),
    (changed(1, split="holdout"), "splits are train, val, test", "clip1: holdout"),
    (changed(1, width=16), "widths are 64 to 8192 px", "clip1: 16"),
    (changed(1, height=10**6), "heights are 64 to 8192 px", "clip1: 1"),
    (changed(1, frames=3), "at least 7 frames", "clip1: 3"),
    (changed(1, fps=0.01), "frame rates are", "clip1: 0.01"),
])
def test_a_broken_rule_names_the_row_and_the_remedy(tmp_path: Path, change: Callable[[list[Row]], None],
                                                    rule: str, culprit: str) -> None:
    sources = rows()
    change(sources)
    with pytest.raises(DataRejected) as caught:
        judge(tmp_path, sources)
    text = str(caught.value)
    assert rule in text
    assert culprit in text
    assert "To mend it: " in text
    assert "footage.json" in text
    assert not json.loads((tmp_path / "verdict.json").read_text())["passed"]
    assert "rejected" in (tmp_path / "verdict.html").read_text()


def test_unreadable_files_are_tolerated_up_to_a_share(tmp_path: Path) -> None:
    assert judge(tmp_path, rows(), ValidateFootageConfig(problems_share_max=0.2), problems=1)["passed"]
    with pytest.raises(DataRejected, match="unreadable"):
        judge(tmp_path, rows(), problems=2)
    assert "bad1.mp4" in (tmp_path / "verdict.html").read_text()


@pytest.mark.parametrize("licence", ["", "unknown", None])
def test_an_unknown_licence_is_noted_or_refused(tmp_path: Path, licence: str | None) -> None:
    sources = rows()
    sources[2]["licence"] = licence
    verdict = judge(tmp_path, sources)
    noted = [check for check in verdict["checks"] if not check["passed"]]
    assert verdict["passed"]
    assert [check["rows"] for check in noted] == [["clip2: None"]]
    with pytest.raises(DataRejected, match="licence"):
        judge(tmp_path, sources, ValidateFootageConfig(licence_required=True))


def test_names_from_outside_cannot_write_html(tmp_path: Path) -> None:
    sources = rows()
    sources[1] |= {"source": "<img src=//evil>", "frames": 1}
    with pytest.raises(DataRejected):
        judge(tmp_path, sources)
    page = (tmp_path / "verdict.html").read_text()
    assert "<img" not in page
    assert "&lt;img" in page


@pytest.mark.parametrize("content", ["[]", "{}", '{"sources": 3}', '{"sources": [3]}'])
def test_another_json_file_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "footage.json").write_text(content)
    with pytest.raises(DataRejected, match="not a footage manifest"):
        validate_footage(tmp_path / "footage.json", ValidateFootageConfig(), tmp_path / "a", tmp_path / "b")


def test_a_missing_manifest_names_the_step_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        validate_footage(tmp_path / "none.json", ValidateFootageConfig(), tmp_path / "a", tmp_path / "b")
