"""What a compiled pipeline must be like to be uploaded: strict shape, no dangling reference, no secret, no tag.

KFP's own parser takes references to tasks, inputs and executors that do not exist; they would only fail on the
cluster, hours into a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hypercut_core.errors import BadPipeline
from pipelines.compile import check_image, read_package

SECRETS = {
    "a login in an address": r"://[^/@\s:{}]+:[^/@\s{}]+@",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a GitHub or Slack token": r"\b(?:gh[pousr]_\w{30,}|xox[abprs]-[\w-]{10,})",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.",
    "a password or token": r"(?i)(?:passw(?:or)?d|secret|token|api_?key|access_?key|credential)\w*"
                           r"[\"']?\s*[:=]\s*[\"'](?!\{\{)[^\"'\s]{6,}[\"']",
}
SECRET_NAME = re.compile(r"(?i)passw|secret|token|credential|api_?key|access_?key|private_?key")


def check_package(path: Path, *, allow_local: bool = False) -> None:
    """Hold a compiled pipeline to all rules.

    Args:
        allow_local: images may have a tag.

    Raises:
        BadPipeline: lists everything that is wrong.
    """
    spec, platform = read_package(path)
    problems = list(_shape(spec, platform))
    if not problems:  # the rest relies on the shape
        problems = [*_references(spec, platform), *_images(spec, allow_local), *_secrets(spec, platform)]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BadPipeline("; ".join(problems[:10]) + more, where=path,
                          remedy="mend pipelines/training_pipeline.py and compile it again")


def _shape(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    from google.protobuf import json_format
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
    from kfp.pipeline_spec import pipeline_spec_pb2

    parts: list[tuple[str, Any, Any]] = [("the pipeline", spec, pipeline_spec_pb2.PipelineSpec())]
    parts.append(("its deployment", spec.get("deploymentSpec", {}), pipeline_spec_pb2.PipelineDeploymentConfig()))
    if platform:
        parts.append(("the platform", platform, pipeline_spec_pb2.PlatformSpec()))
        executors = _at(platform, "platforms", "kubernetes", "deploymentSpec", "executors")
        parts += [(f"the platform's {name}", value, KubernetesExecutorConfig()) for name, value in executors.items()]
    for name, value, message in parts:
        try:
            json_format.ParseDict(value, message, ignore_unknown_fields=False)
        except json_format.ParseError as error:
            yield f"{name} has another shape than KFP's schema ({str(error).splitlines()[0]})"


def _references(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    components, executors = spec.get("components", {}), _at(spec, "deploymentSpec", "executors")
    for name, component in [("root", spec.get("root", {})), *components.items()]:
        yield from _tasks(name, component, components)
        label = component.get("executorLabel")
        if label is not None and label not in executors:
            yield f"{name} is run by '{label}', which does not exist"
        if label is None and "dag" not in component:
            yield f"{name} has neither tasks nor an executor"
    for name in _at(platform, "platforms", "kubernetes", "deploymentSpec", "executors"):
        if name not in executors:
            yield f"the platform configures '{name}', which does not exist"
    used = {component.get("executorLabel") for component in components.values()}
    yield from (f"no component uses the executor '{name}'" for name in executors if name not in used)


def _tasks(name: str, component: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the tasks inside one component."""
    tasks = _at(component, "dag", "tasks")
    for task_name, task in tasks.items():
        where = f"{name}/{task_name}"
        target = _at(task, "componentRef").get("name")
        if target not in components:
            yield f"{where} runs '{target}', which does not exist"
            continue
        yield from (f"{where} waits for '{other}', which does not exist"
                    for other in task.get("dependentTasks", []) if other not in tasks)
        yield from _inputs(where, task, component, tasks, components)
    for kind in ("artifacts", "parameters"):
        for output, selected in _at(component, "dag", "outputs", kind).items():
            for one in selected.get("artifactSelectors", [selected.get("valueFromParameter", {})]):
                key = one.get("outputArtifactKey") or one.get("outputParameterKey")
                if key not in _outputs(tasks, one.get("producerSubtask"), kind, components):
                    yield f"{name} hands on '{output}' of '{one.get('producerSubtask')}', which does not exist"


def _inputs(where: str, task: Mapping[str, Any], parent: Mapping[str, Any], tasks: Mapping[str, Any],
            components: Mapping[str, Any]) -> Iterator[str]:
    """Problems of one task's inputs: every one is known, given if it must be, and comes from somewhere."""
    wanted = components[task["componentRef"]["name"]].get("inputDefinitions", {})
    loop = task.get("parameterIterator", {})
    for kind, single in (("artifacts", "Artifact"), ("parameters", "Parameter")):
        given = _at(task, "inputs", kind)
        for name, source in given.items():
            if name not in _at(wanted, kind):
                yield f"{where} is given '{name}', which it does not take"
            produced = source.get(f"taskOutput{single}")
            above = source.get(f"componentInput{single}")
            if produced and produced.get(f"output{single}Key") not in _outputs(
                    tasks, produced.get("producerTask"), kind, components):
                yield f"{where} takes '{name}' from '{produced.get('producerTask')}', which does not make it"
            if above and above not in _at(parent, "inputDefinitions", kind):
                yield f"{where} takes '{name}' from the input '{above}', which does not exist"
            status = source.get("taskFinalStatus")
            if status and status.get("producerTask") not in tasks:
                yield f"{where} asks how '{status.get('producerTask')}' ended, which does not exist"
            if produced and produced.get("producerTask") not in task.get("dependentTasks", []):
                yield f"{where} takes '{name}' from '{produced.get('producerTask')}' and does not wait for it"
        for name, definition in _at(wanted, kind).items():
            if name not in given and name != loop.get("itemInput") and not definition.get("isOptional"):
                yield f"{where} is not given '{name}'"
    items = _at(loop, "items").get("inputParameter")
    if items and items not in _at(task, "inputs", "parameters"):
        yield f"{where} loops over '{items}', which it is not given"


def _outputs(tasks: Mapping[str, Any], task: str | None, kind: str, components: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a task makes; nothing if there is no such task."""
    target = _at(tasks, task or "", "componentRef").get("name", "")
    return _at(components, target, "outputDefinitions", kind)


def _images(spec: Mapping[str, Any], allow_local: bool) -> Iterator[str]:
    for name, executor in _at(spec, "deploymentSpec", "executors").items():
        image = _at(executor, "container").get("image", "")
        try:
            check_image(image, allow_local=allow_local)
        except BadPipeline:
            yield f"{name} has the image '{image}', which is not named by digest"


def _secrets(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    for place, text in [*_strings(spec, "pipeline"), *_strings(platform, "platform")]:
        yield from (f"{place} holds {what}" for what, pattern in SECRETS.items() if re.search(pattern, text))
    for name, executor in _at(spec, "deploymentSpec", "executors").items():
        for variable in _at(executor, "container").get("env", []):
            if SECRET_NAME.search(variable.get("name", "")):
                yield f"{name} sets {variable['name']} by value; name a Kubernetes secret instead"


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner, f"{place}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, place)


def _at(value: Any, *names: str) -> Mapping[str, Any]:
    """The mapping below these keys; empty where one is missing."""
    for name in names:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return value if isinstance(value, Mapping) else {}
