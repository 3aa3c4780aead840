"""`hypercut compile`: what it refuses, and that every rule of the package check bites."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled import IMAGE, compiled
from source_imports import ROOT

from hypercut_core.errors import BadPipeline
from pipelines.compile import check_image, compile_pipeline, read_package
from pipelines.package_checks import check_package

Spec = dict[str, Any]


@pytest.mark.parametrize("image", ["hypercut", "hypercut:latest", "hypercut:1.2", "r.example/h@sha256:abc", "",
                                   "r.example/h:1@sha256:" + "A" * 64, "r.example/h @sha256:" + "0" * 64,
                                   "r.example/h@sha256:" + "0" * 65, "@sha256:" + "0" * 64])
def test_an_image_without_digest_is_refused(image: str, tmp_path: Path) -> None:
    with pytest.raises(BadPipeline, match="may mean another one tomorrow"):
        compile_pipeline(image, tmp_path / "out.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image", ["h@sha256:" + "0" * 64, "r.example:5000/a/h@sha256:" + "0" * 64,
                                   "r.example/h:1.2@sha256:" + "f" * 64])
def test_an_image_with_digest_is_taken(image: str) -> None:
    check_image(image)


def test_a_local_image_may_have_a_tag_but_none_that_moves() -> None:
    check_image("hypercut:test", allow_local=True)
    check_image("hypercut", allow_local=True)
    for image in ("hypercut:latest", "", "--help me"):
        with pytest.raises(BadPipeline):
            check_image(image, allow_local=True)


def test_two_compiles_are_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    compile_pipeline(IMAGE, one)
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", "compile", "--image", IMAGE, "-o", str(two)],
                          cwd=ROOT, capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "77"})
    assert done.returncode == 0, done.stderr
    assert one.read_bytes() == two.read_bytes()
    assert done.stdout == f"compiled: {two}\n"


def test_the_command_tells_a_bad_image_in_one_paragraph(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("compile", "--image", "hypercut:latest", "-o", "out.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("hypercut: hypercut:latest: the image may mean another one tomorrow")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_package_holds_all_rules(tmp_path: Path) -> None:
    check_package(written(tmp_path, *compiled()))


def written(folder: Path, spec: Spec, platform: Spec) -> Path:
    file = folder / "package.yaml"
    file.write_text(yaml.safe_dump_all([spec, platform]), encoding="utf-8")
    return file


def inside(spec: Spec) -> Spec:
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def first_executor(spec: Spec) -> Spec:
    return spec["deploymentSpec"]["executors"]["exec-evaluate"]["container"]


def pod(platform: Spec, name: str = "exec-evaluate") -> Spec:
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]


Change = Callable[[Spec, Spec], Any]
WRONG: dict[str, tuple[Change, str]] = {
    "unknown field": (lambda s, p: s.update(pipelineinfo={}), "another shape"),
    "unknown field of a task": (lambda s, p: inside(s)["evaluate"].update(retrypolicy={}), "another shape"),
    "unknown field of an executor": (lambda s, p: first_executor(s).update(img="x"), "another shape"),
    "unknown field of a pod": (lambda s, p: pod(p).update(pvcMounts=[]), "another shape"),
    "wrong type": (lambda s, p: inside(s)["evaluate"]["cachingOptions"].update(enableCache="maybe"), "another shape"),
    "no such component": (lambda s, p: inside(s)["evaluate"]["componentRef"].update(name="comp-x"), "runs 'comp-x'"),
    "no such executor": (lambda s, p: s["components"]["comp-evaluate"].update(executorLabel="exec-x"),
                         "run by 'exec-x'"),
    "executor of nobody": (lambda s, p: s["deploymentSpec"]["executors"].update(
        {"exec-x": {"container": {"image": IMAGE}}}), "no component uses the executor 'exec-x'"),
    "pod of nobody": (lambda s, p: p["platforms"]["kubernetes"]["deploymentSpec"]["executors"].update(
        {"exec-x": {}}), "configures 'exec-x'"),
    "no such task to wait for": (lambda s, p: inside(s)["evaluate"]["dependentTasks"].append("ghost"),
                                 "waits for 'ghost'"),
    "no such producer": (lambda s, p: inside(s)["evaluate"]["inputs"]["artifacts"]["orders"]["taskOutputArtifact"]
                         .update(producerTask="ghost"), "takes 'orders' from 'ghost'"),
    "no such output": (lambda s, p: inside(s)["evaluate"]["inputs"]["artifacts"]["orders"]["taskOutputArtifact"]
                       .update(outputArtifactKey="ghost"), "takes 'orders' from 'assign-order'"),
    "no such output parameter": (lambda s, p: inside(s)["synthesize-blur"]["inputs"]["parameters"]["manifest"]
                                 ["taskOutputParameter"].update(outputParameterKey="ghost"),
                                 "takes 'manifest' from 'collect-footage'"),
    "no such input above": (lambda s, p: inside(s)["evaluate"]["inputs"]["parameters"]["store"].update(
        componentInputParameter="ghost"), "from the input 'ghost'"),
    "input that nobody takes": (lambda s, p: inside(s)["evaluate"]["inputs"]["parameters"].update(
        ghost={"componentInputParameter": "pipelinechannel--store"}), "given 'ghost'"),
    "input that is missing": (lambda s, p: inside(s)["evaluate"]["inputs"]["parameters"].pop("store"),
                              "not given 'store'"),
    "producer that is not waited for": (lambda s, p: inside(s)["evaluate"]["dependentTasks"].remove("assign-order"),
                                        "does not wait for it"),
    "loop over nothing": (lambda s, p: inside(s)["for-loop-2"]["parameterIterator"]["items"].update(
        inputParameter="ghost"), "loops over 'ghost'"),
    "status of nobody": (lambda s, p: s["root"]["dag"]["tasks"]["close-run"]["inputs"]["parameters"]["status"]
                         ["taskFinalStatus"].update(producerTask="ghost"), "asks how 'ghost' ended"),
    "handed on from nobody": (lambda s, p: s["components"]["comp-for-loop-2"]["dag"]["outputs"]["artifacts"]
                              ["pipelinechannel--train-deblurrer-model"]["artifactSelectors"][0].update(
                                  producerSubtask="ghost"), "of 'ghost'"),
    "tag": (lambda s, p: first_executor(s).update(image="r.example/hypercut:1.0"), "not named by digest"),
    "login": (lambda s, p: first_executor(s).update(env=[
        {"name": "ADDRESS", "value": "http://" + "ann:hunter22@mlflow.example"}]), "a login in an address"),
    "AWS key": (lambda s, p: s["root"]["inputDefinitions"]["parameters"]["store"].update(
        defaultValue="AKIA" + "ABCDEFGHIJKLMNOP"), "an AWS key"),
    "secret by value": (lambda s, p: first_executor(s).update(env=[
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]), "by value"),
    "password in code": (lambda s, p: first_executor(s)["command"].append('password = "correct-horse"'),
                         "a password or token"),
    "private key": (lambda s, p: first_executor(s)["command"].append("-----BEGIN RSA PRIVATE KEY-----"),
                    "a private key"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_every_rule_of_the_package_check_bites(name: str, tmp_path: Path) -> None:
    spec, platform = compiled()
    change, message = WRONG[name]
    change(spec, platform)
    with pytest.raises(BadPipeline) as told:
        check_package(written(tmp_path, spec, platform))
    assert message in str(told.value)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "--- 1\n--- 2\n--- 3\n"])
def test_what_is_no_package_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(BadPipeline):
        read_package(tmp_path / "x.yaml")


def test_a_compiled_file_that_would_be_wrong_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import task_policy

    monkeypatch.setattr(task_policy, "STORE_CLAIM", "http://" + "a:secret99@x")
    with pytest.raises(BadPipeline, match="a login in an address"):
        compile_pipeline(IMAGE, tmp_path / "out.yaml")
    assert list(tmp_path.iterdir()) == []
