"""What a package would run, read from the compiled YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercut_core.errors import BadParameters
from pipelines.package_plan import (
    Package,
    checked_arguments,
    expected_from_cache,
    plan,
    read_package,
    stored_package,
    table,
)
from tests.pipelines.sample_package import DIGEST, write_package

pytest.importorskip("kfp")
ARGUMENTS = {"source": "videos", "seed": 1}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(write_package(tmp_path_factory.mktemp("package") / "p.yaml"))


def test_tasks_with_what_they_ask_for(package: Package) -> None:
    tasks = {task.name: task for task in plan(package, ARGUMENTS)}
    assert list(tasks)[:2] == ["collect", "blur"]
    assert set(tasks) == {"collect", "blur", "train [one]", "train [two]", "score", "ship", "close"}
    blur, train = tasks["blur"], tasks["train [one]"]
    assert (blur.cpu, blur.memory, blur.gpus, blur.seconds, blur.cacheable) == ("4", "8Gi", 0, 7200, True)
    assert (train.gpus, train.tries, train.seconds, train.cacheable) == (2, 4, 4 * 3600, False)
    assert not tasks["close"].cacheable  # its argument is another one in every run
    assert {task.image for task in tasks.values()} == {f"registry.example/hypercut@sha256:{DIGEST}"}


def test_a_loop_has_a_task_for_each_item_of_the_argument(package: Package) -> None:
    tasks = plan(package, {**ARGUMENTS, "objectives": ["a", "b", "c"]})
    assert [task.name for task in tasks if task.gpus] == ["train [a]", "train [b]", "train [c]"]


def cached(package: Package, now: dict[str, object], before: dict[str, object] | None) -> dict[str, str]:
    tasks = plan(package, now)
    last = [] if before is None else plan(package, before)
    return dict(zip((task.name for task in tasks), expected_from_cache(tasks, last), strict=True))


def test_the_cache_is_expected_where_nothing_changed(package: Package) -> None:
    same = cached(package, ARGUMENTS, {**ARGUMENTS, "seed": 1.0})
    assert same["blur"] == "yes, if collect finds the same"
    assert {name for name, word in same.items() if word == "no"} == {"collect", "train [one]", "train [two]", "score",
                                                                      "close"}
    assert same["ship"] == "yes, if score finds the same"
    # score may be cached, but its inputs are new files, made by trainings that run every time
    assert next(task for task in plan(package, ARGUMENTS) if task.name == "score").cacheable
    for change in ({"seed": 2}, {"source": "others"}):
        assert cached(package, {**ARGUMENTS, **change}, ARGUMENTS)["blur"] == "no"
    assert cached(package, ARGUMENTS, None)["blur"] == "no"
    assert set(expected_from_cache(plan(package, ARGUMENTS), None)) == {"no", "unknown"}


def test_another_image_is_no_match(package: Package, tmp_path: Path) -> None:
    other = read_package(write_package(tmp_path / "o.yaml", f"registry.example/hypercut@sha256:{'b' * 64}"))
    assert expected_from_cache(plan(other, ARGUMENTS), plan(package, ARGUMENTS)).count("no") == 7


def test_the_table_sums_up(package: Package) -> None:
    tasks = plan(package, ARGUMENTS)
    text = "\n".join(table(tasks, expected_from_cache(tasks, plan(package, ARGUMENTS))))
    for part in ("tasks: 7, of which 2 are expected from the cache", "GPUs: 4 if all", "hours cap: 10 h of tasks, "
                 "16 h of GPUs", "4 (4 tries of 1)", f"image: registry.example/hypercut@sha256:{DIGEST}",
                 "no limit is set for close, collect, score, ship"):
        assert part in text


def test_arguments_are_checked_against_the_package(package: Package) -> None:
    assert checked_arguments(package, ARGUMENTS, "p.yaml") == ARGUMENTS
    with pytest.raises(BadParameters, match="does not take sede and it also needs source"):
        checked_arguments(package, {"sede": 1}, "p.yaml")


@pytest.mark.parametrize("content", ["", "a: [", "- 1", "a: 1", "pipelineInfo: {name: x}\nroot: {dag: {}}", "\0"])
def test_what_is_no_package(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(BadParameters, match=r"p\.yaml: .*hypercut compile"):
        read_package(tmp_path / "p.yaml")


def test_a_stored_version_is_the_same_package(package: Package) -> None:
    again = stored_package(package.as_stored())
    assert plan(again, ARGUMENTS) == plan(package, ARGUMENTS)
