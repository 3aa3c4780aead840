"""A compiled pipeline as one flat graph: its tasks, and what flows between them through groups and loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Inputs = Mapping[str, "Flow | str"]  # input of a group -> what it is: a task's output, or a pipeline parameter


@dataclass(frozen=True)
class Flow:
    """One output of a task."""

    task: str
    output: str


@dataclass(frozen=True)
class Task:
    """One task that runs a container."""

    name: str
    executor: str
    parameters: frozenset[str]  # pipeline parameters that it is given
    inputs: tuple[Flow, ...]  # what it takes from other tasks
    waits: tuple[str, ...]  # tasks that it waits for and takes nothing from
    loop: str  # pipeline parameter whose items it runs once for each of; "" if it is in no loop
    condition: str  # pipeline parameters that decide whether it runs
    closing: bool  # runs after all others, however they ended
    cached: bool
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)  # its executor's container

    @property
    def upstream(self) -> set[str]:
        return {flow.task for flow in self.inputs} | set(self.waits)


def tasks(spec: Mapping[str, Any]) -> list[Task]:
    """All tasks, each after those that it needs."""
    parameters = {name: name for name in spec["root"].get("inputDefinitions", {}).get("parameters", {})}
    walk = _Walk(spec)
    made: dict[str, dict[str, Flow]] = {}
    return list(walk.dag(spec["root"]["dag"], parameters, made, "", ""))


@dataclass
class _Walk:
    spec: Mapping[str, Any]

    def dag(self, dag: Mapping[str, Any], inputs: Inputs, made: dict[str, dict[str, Flow]], loop: str,
            condition: str) -> Iterator[Task]:
        """The tasks of a group; `made` is filled with every member's outputs."""
        for name in _sorted(dag["tasks"]):
            task = dag["tasks"][name]
            component = self.spec["components"][task["componentRef"]["name"]]
            given = self._given(task, inputs, made)
            if "dag" not in component:
                found = self._task(name, task, component, given, made, loop, condition)
                made[name] = {output: Flow(name, output) for kind in ("artifacts", "parameters")
                              for output in component.get("outputDefinitions", {}).get(kind, {})}
                yield found
                continue
            below: dict[str, dict[str, Flow]] = {}
            items = task.get("parameterIterator", {})
            item = given.get(items.get("items", {}).get("inputParameter", ""), "")
            if items:
                given = {**given, items["itemInput"]: str(item)}
            tested = ", ".join(sorted(str(given[one]) for one in given
                                      if f"'{one}'" in task.get("triggerPolicy", {}).get("condition", "")))
            yield from self.dag(component["dag"], given, below, str(item) if items else loop, tested or condition)
            made[name] = self._handed_on(component["dag"], below)

    def _given(self, task: Mapping[str, Any], inputs: Inputs, made: Mapping[str, Mapping[str, Flow]]
               ) -> dict[str, Flow | str]:
        given: dict[str, Flow | str] = {}
        for kind in ("Artifact", "Parameter"):
            for name, source in task.get("inputs", {}).get(f"{kind.lower()}s", {}).items():
                if f"componentInput{kind}" in source:
                    given[name] = inputs[source[f"componentInput{kind}"]]
                elif f"taskOutput{kind}" in source:
                    produced = source[f"taskOutput{kind}"]
                    given[name] = made[produced["producerTask"]][produced[f"output{kind}Key"]]
        return given

    def _task(self, name: str, task: Mapping[str, Any], component: Mapping[str, Any],
              given: Mapping[str, Flow | str], made: Mapping[str, Mapping[str, Flow]], loop: str,
              condition: str) -> Task:
        flows = tuple(dict.fromkeys(value for value in given.values() if isinstance(value, Flow)))
        takes = {flow.task for flow in flows}
        waits = {flow.task for other in task.get("dependentTasks", []) for flow in made[other].values()} - takes
        closing = any("taskFinalStatus" in source
                      for source in task.get("inputs", {}).get("parameters", {}).values())
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        return Task(name, component["executorLabel"],
                    frozenset(value for value in given.values() if isinstance(value, str)), flows,
                    () if closing else tuple(sorted(waits)), loop, condition, closing,
                    bool(task.get("cachingOptions", {}).get("enableCache")), container)

    @staticmethod
    def _handed_on(dag: Mapping[str, Any], below: Mapping[str, Mapping[str, Flow]]) -> dict[str, Flow]:
        found = {}
        for name, selected in dag.get("outputs", {}).get("artifacts", {}).items():
            for one in selected["artifactSelectors"]:
                found[name] = below[one["producerSubtask"]][one["outputArtifactKey"]]
        return found


def _sorted(members: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in an order in which the tasks may run."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for other in sorted(members[name].get("dependentTasks", [])):
                visit(other)
            order.append(name)

    for name in sorted(members):
        visit(name)
    return order
