"""What manifests say of each other: each check returns the sentences of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from manifests import Document, containers, label, pod_templates

# pods that others make in our namespace, by the label that they carry
FOREIGN = {"workflows.argoproj.io/workflow": "a Kubeflow run's pods, made by Argo"}
DIGEST = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")
SECRET_NAME = re.compile(r"passw|secret|token|credential|api_?key|access_?key", re.IGNORECASE)
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^/@\s]*:[^/@\s]*@|eyJ[\w-]{20,}\.")


def names(documents: Iterable[Document], kind: str) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in documents if one["kind"] == kind}


def pods(documents: Iterable[Document]) -> list[tuple[str, Document]]:
    return [(label(one), template) for one in documents for template in pod_templates(one)]


def values_from(documents: Iterable[Document], kind: str) -> list[tuple[str, str, str, bool]]:
    """(who, name, key, optional) of every variable taken from a Secret or ConfigMap."""
    field = {"Secret": "secretKeyRef", "ConfigMap": "configMapKeyRef"}[kind]
    found = []
    for who, template in pods(documents):
        for container in containers(template):
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get(field)
                if source:
                    found.append((who, source["name"], source["key"], bool(source.get("optional"))))
    return found


def dangling(documents: list[Document], secrets: Mapping[str, set[str]]) -> list[str]:
    """Names that nothing has: accounts, roles, claims, config maps, secrets (documented ones), volumes, ports."""
    accounts, roles = names(documents, "ServiceAccount"), names(documents, "Role")
    maps, claims = names(documents, "ConfigMap"), names(documents, "PersistentVolumeClaim")
    wrong = []
    for who, template in pods(documents):
        spec = template["spec"]
        if spec.get("serviceAccountName") not in accounts:
            wrong.append(f"{who}: no service account {spec.get('serviceAccountName')}")
        volumes = {one["name"]: one for one in spec.get("volumes", [])}
        owner = next((one for one in documents if label(one) == who), {})
        made = {one["metadata"]["name"] for one in owner["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claim not in claims:
                wrong.append(f"{who}: no claim {claim}")
        for container in containers(template):
            wrong += [f"{who}: no volume {mount['name']}" for mount in container.get("volumeMounts", [])
                      if mount["name"] not in volumes and mount["name"] not in made]
            wrong += _probe_ports(who, container)
    for binding in names(documents, "RoleBinding").values():
        if binding["roleRef"]["name"] not in roles:
            wrong.append(f"{label(binding)}: no role {binding['roleRef']['name']}")
        wrong += [f"{label(binding)}: no service account {subject['name']}" for subject in binding["subjects"]
                  if subject["name"] not in accounts]
    wrong += [f"{who}: no key {key} in config map {name}" for who, name, key, _ in values_from(documents, "ConfigMap")
              if key not in maps.get(name, {}).get("data", {})]
    wrong += [f"{who}: secret {name} with {key} is documented nowhere"
              for who, name, key, _ in values_from(documents, "Secret") if key not in secrets.get(name, set())]
    return wrong


def _probe_ports(who: str, container: Document) -> list[str]:
    ports = {one["name"] for one in container.get("ports", [])}
    wanted = [container.get(probe, {}).get("httpGet", {}).get("port")
              for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    return [f"{who}: no port {port}" for port in wanted if port is not None and port not in ports]


def selects(selector: Document, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector."""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        if rule["operator"] == "Exists" and rule["key"] not in labels:
            return False
        if rule["operator"] == "In" and labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def unmatched(documents: list[Document]) -> list[str]:
    """Selectors that select no pod, workloads that do not select their own, services without the port."""
    templates = pods(documents)
    labels = [template["metadata"]["labels"] for _, template in templates] + [{name: "x"} for name in FOREIGN]
    wrong = []
    for document in documents:
        spec, kind = document.get("spec", {}), document["kind"]
        if kind in ("Deployment", "StatefulSet") and \
                not selects(spec["selector"], spec["template"]["metadata"]["labels"]):
            wrong.append(f"{label(document)} does not select its own pods")
        if kind == "StatefulSet" and spec["serviceName"] not in names(documents, "Service"):
            wrong.append(f"{label(document)}: no service {spec['serviceName']}")
        if kind == "Service":
            wrong += _service(document, templates)
        if kind == "PodDisruptionBudget" and not any(selects(spec["selector"], one) for one in labels):
            wrong.append(f"{label(document)} selects no pod")
        if kind == "NetworkPolicy":
            wrong += [f"{label(document)} selects no pod by {selector}" for selector in pod_selectors(spec)
                      if not any(selects(selector, one) for one in labels)]
    return wrong


def _service(document: Document, templates: list[tuple[str, Document]]) -> list[str]:
    chosen = [template for _, template in templates
              if selects({"matchLabels": document["spec"]["selector"]}, template["metadata"]["labels"])]
    if len(chosen) != 1:
        return [f"{label(document)} selects {len(chosen)} workloads"]
    ports = {port["name"] for container in containers(chosen[0]) for port in container.get("ports", [])}
    return [f"{label(document)}: no port {port['targetPort']}" for port in document["spec"]["ports"]
            if port["targetPort"] not in ports]


def pod_selectors(spec: Document) -> list[Document]:
    """The selectors of a network policy that are about our own namespace."""
    peers = [peer for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
    peers += [peer for rule in spec.get("egress", []) for peer in rule.get("to", [])]
    return [spec["podSelector"]] + [peer["podSelector"] for peer in peers if "namespaceSelector" not in peer]


def careless(documents: list[Document]) -> list[str]:
    """Pods that a restricted namespace would refuse or that could take what they like; mutable images; secrets."""
    wrong = [f"{label(one)}: secrets are created by hand, not committed" for one in documents
             if one["kind"] == "Secret"]
    for who, template in pods(documents):
        wrong += [f"{who}: {what}" for what in _pod(template["spec"])]
    for document in documents:
        wrong += [f"{label(document)}: '{text[:12]}...' looks like a secret" for text in texts(document)
                  if SECRET_VALUE.search(text)]
    return wrong


def _pod(spec: Document) -> list[str]:
    context = spec.get("securityContext", {})
    wrong = [] if context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0 else ["may run as root"]
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        wrong.append("no seccomp profile")
    wrong += [f"uses {name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    wrong += [f"volume {one['name']} is the node's" for one in spec.get("volumes", []) if "hostPath" in one]
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("gets a token of the Kubernetes API")
    for container in containers({"spec": spec}):
        wrong += [f"{container['name']}: {what}" for what in _container(container)]
    return wrong


def _container(container: Document) -> list[str]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    wrong = []
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        wrong.append("may gain privileges")
    if context.get("readOnlyRootFilesystem") is not True:
        wrong.append("may write to its root file system")
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("capabilities", {}).get("add"):
        wrong.append("keeps capabilities")
    wrong += [f"no {what} of {name}" for what in ("requests", "limits") for name in ("cpu", "memory")
              if name not in resources.get(what, {})]
    if not DIGEST.fullmatch(container["image"]):
        wrong.append(f"image {container['image']} is not named by digest")
    if "/tmp" not in [mount["mountPath"] for mount in container.get("volumeMounts", [])]:
        wrong.append("has no place for temporary files")
    wrong += [f"{one['name']} stands in the manifest" for one in container.get("env", [])
              if SECRET_NAME.search(one["name"]) and "value" in one]
    return wrong


def texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for inner in node.values() for text in texts(inner)]
    if isinstance(node, list):
        return [text for inner in node for text in texts(inner)]
    return [node] if isinstance(node, str) else []


def allowed(documents: list[Document], source: Mapping[str, str], target: Mapping[str, str], port: int) -> bool:
    """Whether the network policies let a pod of our namespace open a connection to another one."""
    policies = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]

    def passes(side: str, peers: str, pod: Mapping[str, str], other: Mapping[str, str]) -> bool:
        at_work = [one for one in policies if side in one["policyTypes"] and selects(one["podSelector"], pod)]
        return not at_work or any(_rule(rule, peers, other, port)
                                  for one in at_work for rule in one.get(side.lower(), []))

    return passes("Egress", "to", source, target) and passes("Ingress", "from", target, source)


def _rule(rule: Document, peers: str, other: Mapping[str, str], port: int) -> bool:
    if "ports" in rule and port not in [one["port"] for one in rule["ports"]]:
        return False
    return peers not in rule or any("namespaceSelector" not in peer and selects(peer["podSelector"], other)
                                    for peer in rule[peers])
