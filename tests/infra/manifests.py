"""The Kubernetes manifests of infra/kubernetes, and their strict validation: an unknown field is an error."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra/kubernetes"
SCHEMAS = ROOT.parent / "shared/schemas"
KUBERNETES = ("1.29", "1.33")  # oldest and newest that infra/README.md speaks of
TEMPLATE = "rayjob.yaml"  # of one training, so not applied with the rest

Document = dict[str, Any]


def load(name: str) -> list[Document]:
    return list(yaml.load_all((FOLDER / name).read_text(encoding="utf-8"), StrictLoader))


def everything() -> list[Document]:
    """All documents but the kustomization, in the order in which they are applied."""
    files = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for name in files for document in load(name)]


def label(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


# it parses its schemas, megabytes of JSON, at every call
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def validate(document: Document, versions: tuple[str, ...] = KUBERNETES) -> None:
    """Raise if the document is not exactly what the API server knows."""
    if document["apiVersion"].startswith("ray.io/"):
        validate_ray(document)
        return
    for version in versions:
        kubernetes_validate.validate(document, version, strict=True)


def validate_ray(document: Document) -> None:
    validator = ray_validator(document["kind"], document["apiVersion"].split("/")[1])
    for error in validator.iter_errors(document):
        raise error
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    kubernetes_validate.validate(named, KUBERNETES[-1], strict=True)  # a custom resource leaves its metadata open
    for template in pod_templates(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template.get("metadata", {}), "spec": template["spec"]}
        for version in KUBERNETES:
            kubernetes_validate.validate(pod, version, strict=True)


@functools.cache
def ray_validator(kind: str, version: str) -> jsonschema.protocols.Validator:
    """KubeRay's own schema, closed: skips, or fails where systems are required, if it is not at hand."""
    file = SCHEMAS / f"ray.io_{kind.lower()}s.yaml"
    if not file.is_file():
        reason = f"no KubeRay schemas at {SCHEMAS}"
        if os.environ.get("REQUIRE_SYSTEMS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    definition = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [found] = [one for one in definition["spec"]["versions"] if one["name"] == version and one["served"]]
    schema: dict[str, Any] = found["schema"]["openAPIV3Schema"]
    close(schema)
    return jsonschema.Draft202012Validator(schema)


def close(schema: Any) -> None:
    """Refuse unknown fields everywhere that fields are listed and not declared open."""
    if isinstance(schema, list):
        for one in schema:
            close(one)
    if not isinstance(schema, dict):
        return
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict):
        if not open_ended:
            schema["additionalProperties"] = False
        for inner in schema["properties"].values():
            close(inner)
    for name in ("items", "additionalProperties", "allOf", "anyOf", "oneOf"):
        close(schema.get(name))


def pod_templates(document: Document) -> Iterator[Document]:
    """Every pod template of a workload or a RayJob."""
    spec = document.get("spec", {})
    if document["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield spec["template"]
    if document["kind"] == "RayJob":
        yield spec["submitterPodTemplate"]
        yield spec["rayClusterSpec"]["headGroupSpec"]["template"]
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
            yield group["template"]


def containers(template: Document) -> list[Document]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def mappings(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every mapping in a document."""
    if isinstance(node, dict):
        yield path
        for name, inner in node.items():
            yield from mappings(inner, (*path, name))
    elif isinstance(node, list):
        for place, inner in enumerate(node):
            yield from mappings(inner, (*path, place))


def at(node: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        node = node[step]
    return node


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key stands once: the API server would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)
