"""The manifests of infra/kubernetes: strictly valid, every name has its object, nothing careless in them."""

from __future__ import annotations

import copy
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import FOLDER, KUBERNETES, ROOT, TEMPLATE, at, containers, everything, label, load, mappings, validate
from references import DIGEST, allowed, careless, dangling, names, pods, unmatched, values_from

DOCUMENTS = everything()
APPLIED = [document for document in DOCUMENTS if document["kind"] != "RayJob"]
REFUSED = (jsonschema.ValidationError, kubernetes_validate.ValidationError)
# mappings whose keys are free: an unknown one is no mistake
FREE = {"labels", "annotations", "matchLabels", "data", "hard", "limits", "requests", "nodeSelector",
        "rayStartParams"}


def documented_secrets() -> dict[str, set[str]]:
    """Secret → keys, from the commands in infra/README.md."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "infra/README.md").read_text(encoding="utf-8"))
    found = {}
    for line in re.findall(r"create secret generic (.+)", text):
        found[line.split()[0]] = set(re.findall(r"--from-(?:file|literal)=([\w.-]+)=", line))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_a_manifest_is_strictly_valid(document: dict[str, Any]) -> None:
    validate(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_an_unknown_field_anywhere_in_it_is_refused(document: dict[str, Any]) -> None:
    places = [path for path in mappings(document) if not path or path[-1] not in FREE]
    if document["kind"] == "Service":
        places.remove(("spec", "selector"))  # labels
    assert places
    passed = []
    for path in places:
        wrong = copy.deepcopy(document)
        at(wrong, path)["unknownField"] = "x"
        try:
            validate(wrong, KUBERNETES[-1:])
        except REFUSED:
            continue
        passed.append(path)
    assert passed == []


@pytest.mark.parametrize(("kind", "path", "value"), [
    ("Namespace", ("metadata", "labels"), ["restricted"]),
    ("ResourceQuota", ("spec", "hard"), "8 GPUs"),
    ("ServiceAccount", ("automountServiceAccountToken",), "no"),
    ("Role", ("rules",), {"verbs": ["get"]}),
    ("RoleBinding", ("roleRef", "name"), None),
    ("PersistentVolumeClaim", ("spec", "accessModes"), "ReadWriteMany"),
    ("ConfigMap", ("data", "MLFLOW_TRACKING_URI"), 5000),
    ("Service", ("spec", "ports", 0, "port"), "http"),
    ("StatefulSet", ("spec", "replicas"), "one"),
    ("Deployment", ("spec", "template", "spec", "containers", 0, "args"), "--host=0.0.0.0"),
    ("PodDisruptionBudget", ("spec", "selector"), "mlflow"),
    ("NetworkPolicy", ("spec", "policyTypes"), "Ingress"),
    ("RayJob", ("spec", "backoffLimit"), "none"),
])
def test_a_wrong_value_is_refused(kind: str, path: tuple[Any, ...], value: Any) -> None:
    wrong = copy.deepcopy(next(document for document in DOCUMENTS if document["kind"] == kind))
    at(wrong, path[:-1])[path[-1]] = value
    with pytest.raises(REFUSED):
        validate(wrong)


def test_every_kind_has_its_wrong_value() -> None:
    marks = {mark.name: mark for mark in test_a_wrong_value_is_refused.pytestmark}
    assert {row[0] for row in marks["parametrize"].args[1]} == {document["kind"] for document in DOCUMENTS}


def test_a_key_that_stands_twice_is_refused() -> None:
    from manifests import StrictLoader

    with pytest.raises(yaml.YAMLError, match="twice"):
        yaml.load("a: {b: 1, b: 2}", StrictLoader)


def test_the_kustomization_lists_every_file_and_every_image() -> None:
    [kustomization] = load("kustomization.yaml")
    assert set(kustomization) == {"apiVersion", "kind", "resources", "images"}
    assert kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    files = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml", TEMPLATE}
    assert sorted(kustomization["resources"]) == sorted(files)
    assert all(set(image) == {"name", "newName", "digest"} for image in kustomization["images"])
    used = {container["image"].split("@")[0] for _, template in pods(APPLIED) for container in containers(template)}
    assert {image["name"] for image in kustomization["images"]} == used
    assert all(DIGEST.fullmatch(f"{image['newName']}@{image['digest']}") for image in kustomization["images"])


def test_everything_lies_in_one_restricted_namespace() -> None:
    [namespace] = names(DOCUMENTS, "Namespace").values()
    assert {namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"]
            for mode in ("enforce", "audit", "warn")} == {"restricted"}
    assert {document["metadata"].get("namespace") for document in DOCUMENTS if document["kind"] != "Namespace"} == \
        {namespace["metadata"]["name"]}
    assert len({label(document) for document in DOCUMENTS}) == len(DOCUMENTS)


def test_every_name_has_its_object() -> None:
    assert dangling(DOCUMENTS, documented_secrets()) == []
    assert unmatched(DOCUMENTS) == []


def test_nothing_is_careless() -> None:
    assert careless(DOCUMENTS) == []


def workload(documents: list[dict[str, Any]], kind: str = "Deployment") -> dict[str, Any]:
    return next(document for document in documents if document["kind"] == kind)


def pod(documents: list[dict[str, Any]], kind: str = "Deployment") -> dict[str, Any]:
    return workload(documents, kind)["spec"]["template"]["spec"]


# one mistake at a time, and what the checks above say to it
MISTAKES: dict[str, tuple[Any, str]] = {
    "account": (lambda d: pod(d).update(serviceAccountName="nobody"), "no service account nobody"),
    "role": (lambda d: workload(d, "RoleBinding")["roleRef"].update(name="admin"), "no role admin"),
    "subject": (lambda d: workload(d, "RoleBinding")["subjects"][0].update(name="x"), "no service account x"),
    "claim": (lambda d: workload(d, "PersistentVolumeClaim")["metadata"].update(name="x"), "no claim hypercut-store"),
    "volume": (lambda d: pod(d).update(volumes=[]), "no volume tmp"),
    "config map": (lambda d: workload(d, "ConfigMap")["data"].pop("AWS_DEFAULT_REGION"), "no key AWS_DEFAULT_REGION"),
    "secret": (lambda d: pod(d)["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"].update(key="pw"),
               "is documented nowhere"),
    "port": (lambda d: pod(d)["containers"][0]["ports"][0].update(name="web"), "no port http"),
    "labels": (lambda d: workload(d)["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/name"),
               "does not select its own pods"),
    "root": (lambda d: pod(d)["securityContext"].update(runAsUser=0), "may run as root"),
    "seccomp": (lambda d: pod(d)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    "token": (lambda d: pod(d).pop("automountServiceAccountToken"), "gets a token"),
    "privileges": (lambda d: pod(d)["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
                   "may gain privileges"),
    "capabilities": (lambda d: pod(d)["containers"][0]["securityContext"]["capabilities"].update(add=["NET_RAW"]),
                     "keeps capabilities"),
    "file system": (lambda d: pod(d)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
                    "may write to its root file system"),
    "limits": (lambda d: pod(d)["containers"][0]["resources"]["limits"].pop("memory"), "no limits of memory"),
    "tag": (lambda d: pod(d)["containers"][0].update(image="registry.example.org/hypercut:latest"),
            "not named by digest"),
    "password": (lambda d: pod(d)["containers"][0]["env"][0].update(value="x"), "stands in the manifest"),
    "login": (lambda d: pod(d)["containers"][0]["args"].append("postgresql://mlflow:pw@host/mlflow"),
              "looks like a secret"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_found(name: str) -> None:
    change, says = MISTAKES[name]
    documents = copy.deepcopy(DOCUMENTS)
    change(documents)
    problems = dangling(documents, documented_secrets()) + unmatched(documents) + careless(documents)
    assert any(says in problem for problem in problems), problems


def test_servers_are_probed() -> None:
    for kind in ("Deployment", "StatefulSet"):
        for container in pod(DOCUMENTS, kind)["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), kind


def test_documented_secrets_are_used() -> None:
    used = {name for _, name, _, _ in values_from(DOCUMENTS, "Secret")}
    policy = ROOT / "pipelines/task_policy.py"
    if policy.is_file():
        used |= set(re.findall(r'_SECRET = "([\w-]+)"', policy.read_text(encoding="utf-8")))
    assert used <= set(documented_secrets())
    assert set(documented_secrets()) <= used | {"hypercut-mlflow"}  # a login is only for servers that want one


def test_rights_are_named_one_by_one_and_few() -> None:
    assert names(DOCUMENTS, "ClusterRole") == names(DOCUMENTS, "ClusterRoleBinding") == {}
    roles = names(DOCUMENTS, "Role")
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
                assert rule["resourceNames"]
    assert roles["hypercut-rayjob-launcher"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"],
         "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    holders = {subject["name"] for binding in names(DOCUMENTS, "RoleBinding").values()
               for subject in binding["subjects"]}
    for name, account in names(DOCUMENTS, "ServiceAccount").items():
        assert account["automountServiceAccountToken"] is (name in holders), name


MLFLOW = {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/part-of": "hypercut"}
POSTGRES = {**MLFLOW, "app.kubernetes.io/name": "postgres"}
RAY = {**MLFLOW, "app.kubernetes.io/name": "ray"}
STEP = {"workflows.argoproj.io/workflow": "hypercut-abc"}
STRANGER = {"app": "notebook"}


@pytest.mark.parametrize(("source", "target", "port", "may"), [
    (MLFLOW, POSTGRES, 5432, True), (STEP, MLFLOW, 5000, True), (RAY, MLFLOW, 5000, True), (RAY, RAY, 31337, True),
    (STEP, POSTGRES, 5432, False), (RAY, POSTGRES, 5432, False), (STRANGER, MLFLOW, 5000, False),
    (STRANGER, POSTGRES, 5432, False), (STEP, RAY, 8265, False), (STRANGER, RAY, 8265, False),
    (POSTGRES, MLFLOW, 5000, False), (MLFLOW, RAY, 8265, False), (STEP, STEP, 80, False),
    (MLFLOW, POSTGRES, 22, False), (RAY, MLFLOW, 22, False),
])
def test_who_may_talk_to_whom(source: dict[str, str], target: dict[str, str], port: int, may: bool) -> None:
    assert allowed(DOCUMENTS, source, target, port) is may


def test_without_the_policies_everybody_may_talk_to_everybody() -> None:
    assert allowed([], STRANGER, POSTGRES, 5432)
    deny = [document for document in DOCUMENTS if document["metadata"]["name"] == "hypercut-default-deny"]
    assert not allowed(deny, MLFLOW, POSTGRES, 5432)
