from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_footage import pan, write_frames, write_rb2v, write_video
from PIL import Image

from components import storage
from components.collect_footage.split import split_sources
from components.collect_footage.step import CollectConfig, collect_footage
from hypercut_core.clips.manifest import Manifest, files_sha256, read_manifest
from hypercut_core.errors import BadFootage, StorageError


def collected(tmp_path: Path, source: Path | str, **settings_: object) -> Manifest:
    out = tmp_path / "data/footage.json"
    config = CollectConfig(source=str(source), **settings_)  # type: ignore[arg-type]
    assert collect_footage(config, out, 0) == read_manifest(out)
    return read_manifest(out)


def folder(root: Path, names: str = "hand/a hand/b hand/c street/d street/e") -> Path:
    for seed, name in enumerate(names.split()):
        write_video(root / f"{name}.mp4", pan(seed, 8, 2.0, 48, 64))
    return root


def test_built_in_photos(tmp_path: Path) -> None:
    manifest = collected(tmp_path, "builtin")
    assert (manifest.kind, manifest.problems) == ("builtin", [])
    assert {source.split for source in manifest.sources} == {"train", "val", "test"}
    assert all(source.kind == "photo" and source.width > 100 for source in manifest.sources)


def test_a_folder_of_videos(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "SOURCES.md").write_text("| file | licence | facts |\n|---|---|---|\n| hand/a.mp4 | CC-BY 4.0 | x |\n")
    for number in range(3):
        Image.new("RGB", (40 + number, 40)).save(tmp_path / "in" / f"photo{'abc'[number]}.png")
    manifest = collected(tmp_path, root)
    assert [source.source for source in manifest.sources] == ["hand/a.mp4", "hand/b.mp4", "hand/c.mp4",
                                                              "street/d.mp4", "street/e.mp4"]
    first = manifest.sources[0]
    assert (first.width, first.height, first.frames, first.fps) == (64, 48, 8, 25.0)
    assert (first.kind, first.category, first.licence) == ("video", "hand", "CC-BY 4.0")
    assert first.sha256 == files_sha256([root / "hand/a.mp4"])
    assert manifest.sources[3].licence == "unknown"
    assert [manifest.relative(source) for source in manifest.sources][4] == "street/e.mp4"
    assert {source.split for source in manifest.sources if source.category == "hand"} == {"train", "val", "test"}
    assert {source.split for source in manifest.sources if source.category == "street"} == {"train", "test"}
    assert [note.what for note in manifest.notes] == ["3 single photos are left out"]
    assert manifest.problems == []


def test_the_same_footage_gives_the_same_bytes(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    collected(tmp_path, root)
    before = (tmp_path / "data/footage.json").read_bytes()
    collected(tmp_path, root)
    assert (tmp_path / "data/footage.json").read_bytes() == before


def test_the_split_follows_contents_and_not_names(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    before = {source.sha256: source.split for source in collected(tmp_path, root).sources}
    (root / "hand/a.mp4").rename(root / "hand/zz.mp4")
    (root / "hand/b.mp4").rename(root / "hand/0.mp4")
    assert {source.sha256: source.split for source in collected(tmp_path, root).sources} == before


def test_categories_licence_and_category(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    manifest = collected(tmp_path, root, categories=("hand",), licence="own")
    assert {(source.category, source.licence) for source in manifest.sources} == {("hand", "own")}
    assert {source.category for source in collected(tmp_path, root, category="all").sources} == {"all"}


def test_copies_of_a_file_count_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "street/copy.mp4").write_bytes((root / "hand/a.mp4").read_bytes())
    manifest = collected(tmp_path, root)
    assert len(manifest.sources) == 5
    assert "the same bytes as hand/a.mp4" in manifest.notes[0].what


def test_folders_of_frames(tmp_path: Path) -> None:
    for seed, name in enumerate(("walk/one", "walk/two", "walk/three", "four")):
        write_frames(tmp_path / "in" / name, pan(seed, 8, 2.0, 48, 64))
    (tmp_path / "in/walk/two/00000003.png").unlink()
    manifest = collected(tmp_path, tmp_path / "in")
    assert (manifest.kind, manifest.layout) == ("frames", "frames")
    assert [(s.source, s.kind, s.frames, s.fps, s.category) for s in manifest.sources] == [
        ("four", "frames", 8, None, "in"), ("walk/one", "frames", 8, None, "walk"),
        ("walk/three", "frames", 8, None, "walk"), ("walk/two", "frames", 7, None, "walk")]
    assert "frames are missing" in manifest.notes[0].what


def test_a_bad_file_stops_or_is_recorded(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "hand/bad.mp4").write_text("text")
    (root / "hand/empty.mp4").touch()
    with pytest.raises(BadFootage, match=r"bad\.mp4.*footage\.on_bad=skip"):
        collected(tmp_path, root)
    assert not (tmp_path / "data/footage.json").exists()
    manifest = collected(tmp_path, root, on_bad="skip")
    assert [problem.file for problem in manifest.problems] == ["hand/bad.mp4", "hand/empty.mp4"]
    assert len(manifest.sources) == 5


def test_mixed_sizes_stop(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    write_frames(write_frames(root / "walk", pan(1, 4, 2.0, 48, 64)), pan(1, 1, 2.0, 64, 64), 4)
    with pytest.raises(BadFootage, match="mixes sizes"):
        collected(tmp_path, root)


def test_too_little_footage(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", "hand/a hand/b")
    for source in (root, root / "hand/a.mp4", tmp_path / "none"):
        with pytest.raises(BadFootage, match="To mend it"):
            collected(tmp_path, source)
    with pytest.raises(BadFootage, match="no 'reds' data set"):
        collected(tmp_path, root, layout="reds")


def test_rb2v(tmp_path: Path) -> None:
    write_rb2v(tmp_path / "in", ["keep"] * 6, ["train"] * 4 + ["test"] * 2)
    manifest = collected(tmp_path, tmp_path / "in")
    assert (manifest.kind, manifest.layout) == ("paired", "rb2v")
    splits = {source.source: source.split for source in manifest.sources}
    assert splits["seq002"] == "test"
    assert sorted(splits.values()) == ["test", "train", "val"]  # val is taken from the training sources
    assert {(source.kind, source.category, source.frames) for source in manifest.sources} == {("paired", "hand", 2)}


def reds(root: Path, exposed: bool) -> Path:
    for number in range(3):
        sharp = pan(number, 14, 2.0, 48, 64)
        groups = (sharp[:7], sharp[7:])
        blurry = [np.rint(np.mean(group, axis=0)).astype(np.uint8) if exposed else 255 - group[3] for group in groups]
        write_frames(root / f"train/train_sharp/{number:03d}", sharp)
        write_frames(root / f"train/train_blur/{number:03d}", blurry)
    return root


def test_reds_whose_blur_is_the_mean_is_paired(tmp_path: Path) -> None:
    manifest = collected(tmp_path, reds(tmp_path / "in", True))
    assert (manifest.kind, manifest.layout, len(manifest.sources)) == ("paired", "reds", 3)


def test_reds_whose_blur_is_of_other_frames_gives_its_sharp_frames(tmp_path: Path) -> None:
    root = reds(tmp_path / "in", False)
    manifest = collected(tmp_path, root)
    assert {source.kind for source in manifest.sources} == {"frames"}
    assert manifest.relative(manifest.sources[0]) == "train/train_sharp/000"
    assert "footage.layout=reds imports them all the same" in manifest.notes[0].what
    assert {source.kind for source in collected(tmp_path, root, layout="reds").sources} == {"paired"}


def git(folder_: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", *words]
    return subprocess.run(command, check=True, cwd=folder_, capture_output=True, text=True).stdout.strip()


def dvc(root: Path, *words: str) -> None:
    from dvc.cli import main

    assert main(["--cd", str(root), *words, "-q"]) == 0


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two revisions of videos that DVC keeps in a remote: the tag v1, and a newer one on the branch main."""
    place = tmp_path_factory.mktemp("published")
    root = folder(place / "repo/videos").parent
    git(root, "init", "-q")
    dvc(root, "init")
    dvc(root, "remote", "add", "-d", "shared", str(place / "remote"))
    for message in ("five videos", "four videos"):
        dvc(root, "add", "videos")
        dvc(root, "push")
        git(root, "add", "-A")
        git(root, "commit", "-qm", message)
        (root / "videos/hand/a.mp4").unlink(missing_ok=True)
    git(root, "tag", "v1", "HEAD~1")
    shutil.rmtree(root / "videos")  # only git and the remote have them now
    shutil.rmtree(root / ".dvc/cache")
    return root


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "repo")


def test_a_revision_here_is_recorded_by_its_commit(tmp_path: Path, repository: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    manifest = collected(tmp_path, "videos", revision="v1")
    assert (manifest.revision, len(manifest.sources)) == (git(repository, "rev-parse", "v1"), 5)
    assert (manifest.root, manifest.sources[0].uri) == ("videos", "videos/hand/a.mp4")
    assert len(collected(tmp_path, "videos", revision="main").sources) == 4
    with pytest.raises(StorageError, match="no revision 'v2'"):
        collected(tmp_path, "videos", revision="v2")
    with pytest.raises(StorageError, match="cannot be fetched"):
        collected(tmp_path, "nothing", revision="v1")


def test_a_revision_of_another_repository_on_a_clean_folder(tmp_path: Path, repository: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: no checkout here, and later steps fetch what the manifest pins, not what moved on."""
    (tmp_path / "clean").mkdir()
    monkeypatch.chdir(tmp_path / "clean")
    out = Path("data/footage.json")
    collect_footage(CollectConfig(source="videos", revision=f"git+{repository}@main"), out, 0)
    manifest = read_manifest(out)
    commit = git(repository, "rev-parse", "main")
    assert (manifest.revision, len(manifest.sources)) == (f"git+{repository}@{commit}", 4)
    git(repository, "reset", "-q", "--hard", "v1")  # the branch moves
    again = storage.fetch(manifest.root, manifest.revision, tmp_path / "elsewhere")
    assert files_sha256([again / "hand/b.mp4"]) == manifest.sources[0].sha256
    assert not (again / "hand/a.mp4").exists()
    with pytest.raises(StorageError, match="no revision 'v2'"):
        storage.pinned(f"git+{repository}@v2")
    with pytest.raises(StorageError, match="no revision"):
        storage.pinned("git+file:///nonexistent.git@v1")


@pytest.mark.parametrize("revision", ["git+v1", "git+@v1", "git+https://host/repo.git@"])
def test_what_is_no_revision(revision: str) -> None:
    with pytest.raises(StorageError, match="git\\+<address>@<revision>"):
        storage.pinned(revision)


@pytest.mark.parametrize("revision", ["git+https://hunter2@host/repo.git@v1", "git+https://me:hunter2@host/r@v1"])
def test_a_login_in_an_address_is_refused_and_not_shown(revision: str) -> None:
    with pytest.raises(StorageError, match="login") as caught:
        storage.pinned(revision)
    assert "hunter2" not in str(caught.value)


def test_built_in_photos_have_no_revision(tmp_path: Path) -> None:
    with pytest.raises(BadFootage, match=r"set footage\.source"):
        collected(tmp_path, "builtin", revision="v1")


@pytest.mark.parametrize("change", [
    {"version": 2}, {"sources": 3}, {"surprise": 1},
    *({"sources": [{"uri": uri}]} for uri in ("../x.mp4", "/in/../x.mp4", "/inside/x.mp4", 3)),
    {"sources": [{"split": "training"}]}, {"sources": [{"frames": "7"}]}, {"sources": [{"extra": 1}]}])
def test_a_manifest_out_of_shape(tmp_path: Path, change: dict[str, object]) -> None:
    row = {"source": "x", "uri": "/in/x.mp4", "kind": "video", "sha256": "0" * 64, "width": 64, "height": 48,
           "frames": 8, "fps": 25.0, "category": "in", "licence": "unknown", "split": "train"}
    document: dict[str, object] = {"version": 1, "kind": "videos", "layout": "videos", "root": "/in",
                                   "revision": "", "sources": [row], "problems": [], "notes": []}
    path = tmp_path / "footage.json"
    path.write_text(json.dumps(document))
    read_manifest(path)
    if isinstance(change.get("sources"), list):
        change = {"sources": [{**row, **change["sources"][0]}]}  # type: ignore[index]
    path.write_text(json.dumps({**document, **change}))
    with pytest.raises(BadFootage, match="collect-footage"):
        read_manifest(path)


hashes = st.text("0123456789abcdef", min_size=8, max_size=8)


@settings(deadline=None)
@given(st.dictionaries(hashes, st.sampled_from(["hand", "street", "face"]), min_size=3, max_size=40), st.randoms())
def test_every_split_has_sources_whatever_the_order(rows: dict[str, str], random: object) -> None:
    sources = [(category, sha256, "") for sha256, category in rows.items()]
    splits = dict(zip(sources, split_sources(sources), strict=True))
    assert set(splits.values()) == {"train", "val", "test"}
    shuffled = sources[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dict(zip(shuffled, split_sources(shuffled), strict=True)) == splits


@settings(deadline=None)
@given(st.dictionaries(hashes, st.sampled_from(["train", "val", "test", ""]), min_size=3, max_size=40))
def test_given_partitions_are_kept_where_they_can_be(rows: dict[str, str]) -> None:
    sources = [("hand", sha256, partition) for sha256, partition in rows.items()]
    splits = split_sources(sources)
    assert set(splits) == {"train", "val", "test"}
    if {"train", "val", "test"} <= set(rows.values()):
        assert all(split == (partition or "train") for (_, _, partition), split in zip(sources, splits, strict=True))


def test_footage_that_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    """As in a container, whose user is another one than the owner of the footage."""
    videos = tmp_path / "videos"
    videos.mkdir(mode=0)
    user = os.geteuid()
    try:
        if user == 0:  # root may read everything: somebody else for a moment
            os.seteuid(65534)
        with pytest.raises(BadFootage, match="this user may not read the footage"):
            collect_footage(CollectConfig(source=str(videos)), tmp_path / "out.json", 0)
    finally:
        os.seteuid(user)
