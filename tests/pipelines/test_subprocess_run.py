"""The local engine on a pipeline of two lines: what ran, what came from the cache, and nothing left changed."""

from __future__ import annotations

import builtins
import logging
import re
from pathlib import Path

import pytest

from pipelines.subprocess_run import execute, source_image, subprocess_runner

PIPELINE = '''
from kfp import dsl
from kfp.compiler import Compiler
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image="python", install_kfp_package=False)
def write(words: str, text: Output[Dataset]) -> None:
    print("writing", words)
    open(text.path, "w").write(words)


@dsl.component(base_image="python", install_kfp_package=False)
def read(text: Input[Dataset], fails: bool) -> None:
    assert not fails, open(text.path).read()


@dsl.pipeline(name="two")
def two(words: str = "hello", fails: bool = False) -> None:
    with dsl.ParallelFor([1, 2]) as item:
        write(words=words).set_display_name("a")
    made = write(words=words)
    read(text=made.outputs["text"], fails=fails).set_caching_options(False)


Compiler().compile(two, OUT)
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    source = folder / "two.py"
    source.write_text(PIPELINE.replace("OUT", repr(str(folder / "two.yaml"))))
    import importlib.util

    spec = importlib.util.spec_from_file_location("two", source)
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return folder / "two.yaml"


def test_what_ran_what_was_cached_and_where_its_files_are(package: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    logger, printer = logging.getLogger(), builtins.print
    before = (logger.level, logger.handlers[:], logger.filters[:])
    said: list[str] = []
    first = execute(package, {}, tmp_path, subprocess_runner(), said.append)
    second = execute(package, {}, tmp_path, subprocess_runner(), print)
    assert first.succeeded
    assert second.succeeded
    assert sorted(first.executed) == ["read", "write", "write", "write-2"]
    assert first.cached == []
    assert sorted(said) == sorted([f"{task}: begins" for task in first.executed]
                                  + [line for line in said if " done after " in line])
    assert sorted(second.cached) == ["write", "write", "write-2"]
    assert second.executed == ["read"]
    assert first.output("write-2", "text") == second.output("write-2", "text")
    assert (first.output("write-2", "text") or tmp_path).read_text() == "hello"
    assert len(second.outputs["write", "text"]) == 2
    assert (logger.level, logger.handlers[:], logger.filters[:]) == before
    assert builtins.print is printer
    told = capsys.readouterr()
    assert sorted(re.sub(r" after .*", "", line) for line in told.out.splitlines()) == sorted([
        "write: as before", "write: as before", "write-2: as before", "read: begins", "read: done"])
    assert told.err == ""


def test_a_failure_is_no_success_and_the_log_has_its_reason(package: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = execute(package, {"words": "because", "fails": True}, tmp_path, subprocess_runner(), said.append)
    assert not run.succeeded
    assert any(line.startswith("read: FAILED after") for line in said)
    assert run.log is not None
    assert "AssertionError: because" in run.log.read_text()
    assert "\x1b" not in said[-1]


def test_without_the_cache_everything_runs(package: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run = execute(package, {}, tmp_path, subprocess_runner(), lambda line: None, cache=False)
        assert len(run.executed) == 4
        assert run.cached == []


def test_the_local_image_is_named_after_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines import subprocess_run

    for name in ("hypercut_core", "components", "pipelines"):
        (tmp_path / name).mkdir()
    (tmp_path / "components/a.py").write_text("x = 1\n")
    monkeypatch.setattr(subprocess_run, "__file__", str(tmp_path / "pipelines/subprocess_run.py"))
    first = source_image()
    assert first == source_image()
    (tmp_path / "pipelines/cli.py").write_text("x = 1\n")  # the wiring is no dependency
    assert source_image() == first
    (tmp_path / "components/a.py").write_text("x = 2\n")
    assert source_image() != first
