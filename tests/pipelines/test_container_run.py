"""What containers of this machine see of it; the containers themselves: tests/systems/test_image.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.params import Parameters
from pipelines.container_run import _named_files


def named(source: str, others: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...], list[str]]:
    p = Parameters()
    p = replace(p, footage=replace(p.footage, source=source), trajectories=replace(p.trajectories, others=others))
    changed, files = _named_files(p)
    assert replace(changed, footage=p.footage, trajectories=p.trajectories) == p
    return changed.footage.source, changed.trajectories.others, list(map(str, files))


def test_footage_and_models_of_this_machine_are_seen_under_their_whole_paths(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "jin.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    model, twice = str(tmp_path / "jin.safetensors"), "again=" + str(tmp_path / "jin.safetensors")
    assert named("videos", ("cascade=jin.safetensors", twice)) == (
        str(tmp_path / "videos"), (f"cascade={model}", twice), [str(tmp_path / "videos"), model])


@pytest.mark.parametrize("other", ["none", "a=", "=", "a=gone.safetensors", "a=s3://bucket/a.safetensors"])
def test_what_is_elsewhere_or_wrong_stays_as_it_is_and_shows_nothing(other: str, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "builtin").mkdir()  # the word, and no folder
    monkeypatch.chdir(tmp_path)
    for source in ("builtin", "s3://bucket/footage", "/mnt/nothing-there"):
        assert named(source, (other,)) == (source, (other,), [])


def test_footage_at_a_revision_is_fetched_and_not_looked_for_here(tmp_path: Path) -> None:
    p = Parameters()
    p = replace(p, footage=replace(p.footage, source=str(tmp_path), revision="v1"))
    assert _named_files(p) == (p, ())


@pytest.mark.parametrize(("start", "files"), [
    ("models/a.safetensors", ["a"]), ("models/{objective}.safetensors", ["hypercut_targets", "sequence_min"]),
    ("models/gone.safetensors", []), ("s3://bucket/a.safetensors", []), ("", [])])
def test_a_model_to_begin_with_is_seen(start: str, files: list[str], tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    for name in ("a", "hypercut_targets", "sequence_min"):
        (tmp_path / "models" / f"{name}.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    p = Parameters()
    changed, seen = _named_files(replace(p, deblurrer=replace(p.deblurrer, start=start)))
    assert changed.deblurrer.start == (str(tmp_path / start) if files else start)
    assert sorted(seen) == [tmp_path / "models" / f"{name}.safetensors" for name in files]
