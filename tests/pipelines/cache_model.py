"""What Kubeflow's backend does with a compiled pipeline and its cache, without a cluster.

Written after backend/src/v2/cacheutils/cache.go and driver/cache.go of Kubeflow Pipelines 2.x: a task's key holds its
input parameters with placeholders resolved, the ids of its input artifacts, its outputs' names and types, image,
command, environment and the names of its PVCs. A task found in the cache hands on the artifacts of the run that
made them; one that runs makes new ones. There is no expectation about Hypercut in here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Says = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]  # task, its parameters -> its output parameters


@dataclass
class Backend:
    """A server with its cache, for any number of runs."""

    says: Says
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    runs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def run(self, package: tuple[dict[str, Any], dict[str, Any]], arguments: Mapping[str, Any]) -> Run:
        spec, platform = package
        made = Run(self, spec, platform, f"run-{next(self.runs)}")
        defaults = {name: one["defaultValue"]
                    for name, one in spec["root"]["inputDefinitions"]["parameters"].items()}
        made.dag(spec["root"]["dag"], {**defaults, **arguments}, {})
        return made


@dataclass
class Run:
    """One run: which tasks it executed and which it took from the cache."""

    backend: Backend
    spec: dict[str, Any]
    platform: dict[str, Any]
    run_id: str
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)

    def dag(self, dag: dict[str, Any], parameters: Mapping[str, Any], artifacts: Mapping[str, Any]) -> dict[str, Any]:
        """Run a group; returns the artifacts that it hands on."""
        done: dict[str, dict[str, Any]] = {}
        left = dict(dag["tasks"])
        while left:
            name = next(one for one in left if all(other in done for other in left[one].get("dependentTasks", [])))
            done[name] = self.task(name, left.pop(name), parameters, artifacts, done)
        return {name: done[one["producerSubtask"]].get(one["outputArtifactKey"])
                for name, output in dag.get("outputs", {}).get("artifacts", {}).items()
                for one in output["artifactSelectors"]}

    def task(self, name: str, task: dict[str, Any], parameters: Mapping[str, Any], artifacts: Mapping[str, Any],
             done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        given = {key: self.parameter(source, parameters, done)
                 for key, source in task.get("inputs", {}).get("parameters", {}).items()}
        taken = {key: self.artifact(source, artifacts, done)
                 for key, source in task.get("inputs", {}).get("artifacts", {}).items()}
        condition = task.get("triggerPolicy", {}).get("condition", "")
        if condition and not self.holds(condition, given):
            return {}
        component = self.spec["components"][task["componentRef"]["name"]]
        if "dag" not in component:
            return self.container(name, task, component, given, taken)
        iterator = task.get("parameterIterator")
        if iterator is None:
            return self.dag(component["dag"], given, taken)
        each = [self.dag(component["dag"], {**given, iterator["itemInput"]: item}, taken)
                for item in given[iterator["items"]["inputParameter"]]]
        return {key: [one[key] for one in each] for key in each[0]} if each else {}

    def parameter(self, source: dict[str, Any], parameters: Mapping[str, Any],
                  done: Mapping[str, Mapping[str, Any]]) -> Any:
        if "componentInputParameter" in source:
            return parameters[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            produced = source["taskOutputParameter"]
            return done[produced["producerTask"]][produced["outputParameterKey"]]
        if "taskFinalStatus" in source:
            return {"state": "SUCCEEDED"}
        value = source["runtimeValue"]["constant"]
        return self.run_id if value == "{{$.pipeline_job_uuid}}" else value

    @staticmethod
    def artifact(source: dict[str, Any], artifacts: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]) -> Any:
        if "componentInputArtifact" in source:
            return artifacts[source["componentInputArtifact"]]
        produced = source["taskOutputArtifact"]
        return done[produced["producerTask"]][produced["outputArtifactKey"]]

    @staticmethod
    def holds(condition: str, given: Mapping[str, Any]) -> bool:
        name, value = condition.removeprefix("inputs.parameter_values['").split("'] == ")
        return bool(given[name] == json.loads(value))

    def container(self, name: str, task: dict[str, Any], component: dict[str, Any], given: dict[str, Any],
                  taken: dict[str, Any]) -> dict[str, Any]:
        outputs = component.get("outputDefinitions", {})
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        pod = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get(
            "executors", {}).get(component["executorLabel"], {})
        key = {"inputParameterValues": given, "inputArtifactNames": taken, "outputs": outputs,
               "image": container["image"], "cmdArgs": [*container["command"], *container["args"]],
               "pvcNames": sorted({one["constant"] for one in pod.get("pvcMount", [])}),
               "env": container.get("env", [])}
        fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        enabled = task.get("cachingOptions", {}).get("enableCache", False)
        if enabled and fingerprint in self.backend.entries:
            self.cached.append(name)
            return self.backend.entries[fingerprint]
        self.executed.append(name)
        made = {artifact: next(self.backend.ids) for artifact in outputs.get("artifacts", {})}
        result = {**made, **self.backend.says(name, given)}
        if enabled:
            self.backend.entries[fingerprint] = result
        return result
