"""What a compiled pipeline would run: tasks with what they ask for, and which Kubeflow's cache should know.

Read from the package alone, so that it also holds for one that was compiled elsewhere. A task is expected from
the cache if it may be cached and if a task of the last successful run had the same fingerprint: the same image and
command, the same parameters, and inputs from tasks of which the same is true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypercut_core.errors import BadParameters

SCALE = "deblurrer_scale"  # the parameter that may make a task launch a RayJob
YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True)
class Planned:
    """One task of the graph; a loop makes one of each of its items."""

    name: str
    image: str
    cpu: str
    memory: str
    gpus: int  # with those of the RayJob that it launches
    try_seconds: int  # longest time of one try; 0: unlimited
    tries: int
    cacheable: bool
    anew: bool  # an input is a new file in every run, so that the cache cannot know it
    fingerprint: str
    assumes: frozenset[str]  # tasks that run anyway and are taken to find the same as last time
    launched: int = 0  # GPUs of that RayJob

    @property
    def seconds(self) -> int:
        return self.try_seconds * self.tries


@dataclass(frozen=True)
class Package:
    """A compiled pipeline: the two documents of its YAML."""

    spec: Mapping[str, Any]
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameter definitions by name."""
        return dict(self.spec["root"].get("inputDefinitions", {}).get("parameters", {}))

    def as_stored(self) -> dict[str, Any]:
        """As the server tells a version's `pipeline_spec`."""
        return {"pipeline_spec": self.spec, "platform_spec": self.platform} if self.platform else dict(self.spec)


def read_package(file: Path) -> Package:
    """Read a package.

    Raises:
        BadParameters: it is no compiled pipeline.
    """
    import yaml

    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadParameters(f"the package cannot be read ({type(error).__name__})", where=file,
                            remedy="give the YAML file that 'hypercut compile' writes") from error
    try:
        return stored_package({"pipeline_spec": documents[0], "platform_spec": (documents[1:] or [{}])[0]})
    except (KeyError, TypeError, IndexError) as error:
        raise BadParameters("this is no compiled pipeline", where=file,
                            remedy="give the YAML file that 'hypercut compile' writes") from error


def stored_package(content: Mapping[str, Any]) -> Package:
    """The package of a version's `pipeline_spec`, which is the spec itself or holds it.

    Raises:
        KeyError, TypeError: it is none.
    """
    package = Package(content.get("pipeline_spec", content), content.get("platform_spec") or {})
    _ = package.name, package.spec["root"]["dag"]["tasks"], package.spec["deploymentSpec"]["executors"]
    return package


def checked_arguments(package: Package, arguments: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The arguments, if the package takes them and lacks none.

    Raises:
        BadParameters
    """
    known = package.parameters
    strange = sorted(set(arguments) - set(known))
    missing = sorted(name for name, what in known.items()
                     if name not in arguments and "defaultValue" not in what and not what.get("isOptional"))
    if strange or missing:
        words = [f"it does not take {', '.join(strange)}" if strange else "",
                 f"it also needs {', '.join(missing)}" if missing else ""]
        raise BadParameters(f"the package does not go with this version of Hypercut: "
                            f"{' and '.join(word for word in words if word)}", where=where,
                            remedy="compile it again with 'hypercut compile'")
    return dict(arguments)


def plan(package: Package, arguments: Mapping[str, Any]) -> list[Planned]:
    """All tasks, in an order in which they may run."""
    values = {name: ("value", arguments.get(name, what.get("defaultValue")))
              for name, what in package.parameters.items()}
    return list(_Walk(package).dag(package.spec["root"]["dag"], values, {}))


def expected_from_cache(tasks: list[Planned], last: list[Planned] | None) -> list[str]:
    """For every task: "yes", "yes, if X finds the same", "no", or "unknown" (`last` is None).

    Args:
        last: the plan of the last run that succeeded; [] if none did.
    """
    known = {task.fingerprint for task in last or [] if task.cacheable}
    words = []
    for task in tasks:
        if not task.cacheable or task.anew:
            words.append(NO)
        elif last is None:
            words.append(UNKNOWN)
        elif task.fingerprint not in known:
            words.append(NO)
        else:
            words.append(f"{YES}, if {' and '.join(sorted(task.assumes))} finds the same" if task.assumes else YES)
    return words


def table(tasks: list[Planned], cached: list[str]) -> list[str]:
    """The plan as lines of text: the steps, then what they come to."""
    rows = [("step", "cpu", "memory", "gpu", "hours at most", "from the cache")]
    rows += [(task.name, task.cpu or "-", task.memory or "-", str(task.gpus or "-"), _limit(task), word)
             for task, word in zip(tasks, cached, strict=True)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    run = [task for task, word in zip(tasks, cached, strict=True) if not word.startswith(YES)]
    unlimited = sorted({task.name for task in tasks if not task.seconds})
    lines += ["", f"tasks: {len(tasks)}, of which {len(tasks) - len(run)} are expected from the cache",
              f"GPUs: {sum(task.gpus for task in tasks)} if all tasks ran at once, {sum(t.gpus for t in run)} "
              "without the cached ones",
              f"hours cap: {_hours(sum(task.seconds for task in tasks))} h of tasks, "
              f"{_hours(sum(task.seconds * task.gpus for task in tasks))} h of GPUs"
              + (f" (no limit is set for {', '.join(unlimited)})" if unlimited else "")]
    launched = sum(task.launched for task in tasks)
    lines += [f"of the GPUs, {launched} are those of RayJobs, which their tasks launch"] if launched else []
    return lines + [f"image: {image}" for image in sorted({task.image for task in tasks})]


def _limit(task: Planned) -> str:
    tries = f" ({task.tries} tries of {_hours(task.try_seconds)})" if task.tries > 1 and task.try_seconds else ""
    return (_hours(task.seconds) if task.seconds else "-") + tries


def _hours(seconds: int) -> str:
    return f"{seconds / 3600:.1f}".removesuffix(".0")


Inputs = dict[str, tuple[str, Any]]  # name → ("value", it) or ("digest", of what makes it)


class _Walk:
    """One walk through the graph, with the fingerprint of each output as it is made."""

    def __init__(self, package: Package):
        self.spec = package.spec
        self.executors = package.spec["deploymentSpec"]["executors"]
        self.limits = package.platform.get("platforms", {}).get("kubernetes", {}).get(
            "deploymentSpec", {}).get("executors", {})
        self.assumed: dict[str, frozenset[str]] = {}  # digest → what it takes for granted
        self.anew: set[str] = set()  # digests of what is new in every run

    def dag(self, dag: Mapping[str, Any], inputs: Inputs, made: dict[str, str], label: str = "") -> Iterator[Planned]:
        """Tasks below a group; `made` takes name of task → fingerprint."""
        tasks = dict(dag["tasks"])
        while tasks:
            ready = [name for name, task in tasks.items() if not (_needs(task) & set(tasks) - {name})]
            for name in ready or list(tasks):
                yield from self._task(name, tasks.pop(name), inputs, made, label)

    def _task(self, name: str, task: Mapping[str, Any], inputs: Inputs, made: dict[str, str],
              label: str) -> Iterator[Planned]:
        component = self.spec["components"][task["componentRef"]["name"]]
        items = _items(task, inputs)
        digests = []
        for item in items:
            given = self._given(task, inputs, made)
            if item is not None:
                given[task["parameterIterator"]["itemInput"]] = ("value", item)
            mark = label if item is None else f"{label} [{item}]" if isinstance(item, str) else label
            if "dag" in component:
                below: dict[str, str] = {}
                yield from self.dag(component["dag"], given, below, mark)
                digests.append(self._joined(list(below.values())))
            else:
                planned = self._planned(name, task, component, given, mark)
                digests.append(planned.fingerprint)
                yield planned
        made[name] = digests[0] if len(digests) == 1 else self._joined(digests)

    def _joined(self, digests: list[str]) -> str:
        """One fingerprint for a group of tasks."""
        joined = _digest(digests)
        self.assumed[joined] = frozenset().union(*(self.assumed[one] for one in digests))
        if self.anew & set(digests):
            self.anew.add(joined)
        return joined

    def _planned(self, name: str, task: Mapping[str, Any], component: Mapping[str, Any], given: Inputs,
                 label: str) -> Planned:
        executor = self.executors[component["executorLabel"]]["container"]
        cacheable = bool(task.get("cachingOptions", {}).get("enableCache"))
        digests = [value for kind, value in given.values() if kind == "digest"]
        assumes: frozenset[str] = frozenset().union(*(self.assumed.get(one, frozenset()) for one in digests))
        own = [executor["image"], executor.get("command"), executor.get("args"),
               sorted((key, kind, value) for key, (kind, value) in given.items())]
        if any("{{$.pipeline_job" in json.dumps(value) for _, value in given.values()):
            own.append("differs in every run")
            cacheable = False
        fingerprint = _digest(own)
        anew = bool(self.anew & set(digests))
        runs = anew or not cacheable
        self.assumed[fingerprint] = frozenset({name}) if runs else assumes
        if runs:
            self.anew.add(fingerprint)
        asked = executor.get("resources", {})
        accelerator = asked.get("accelerator", {})
        launched = _launched(given)
        limit = self.limits.get(component["executorLabel"], {}).get("activeDeadlineSeconds", 0)
        return Planned(name + label, executor["image"], str(asked.get("resourceCpuLimit", "")),
                       str(asked.get("resourceMemoryLimit", "")),
                       int(accelerator.get("resourceCount") or accelerator.get("count") or 0) + launched, int(limit),
                       1 + int(task.get("retryPolicy", {}).get("maxRetryCount", 0)), cacheable, anew, fingerprint,
                       assumes, launched)

    def _given(self, task: Mapping[str, Any], inputs: Inputs, made: Mapping[str, str]) -> Inputs:
        """A task's inputs with values, or with the fingerprints of those that make them."""
        given: Inputs = {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                given[name] = inputs.get(source["componentInputParameter"], ("value", None))
            elif "taskOutputParameter" in source:
                given[name] = self._output(source["taskOutputParameter"], "outputParameterKey", made)
            else:
                given[name] = ("value", source.get("runtimeValue", source))
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            if "componentInputArtifact" in source:
                given[name] = inputs.get(source["componentInputArtifact"], ("value", None))
            else:
                given[name] = self._output(source["taskOutputArtifact"], "outputArtifactKey", made)
        return given

    def _output(self, source: Mapping[str, Any], key: str, made: Mapping[str, str]) -> tuple[str, Any]:
        producer = made.get(source["producerTask"], "")
        digest = _digest([producer, source[key]])
        self.assumed[digest] = self.assumed.get(producer, frozenset())
        if producer in self.anew and key == "outputArtifactKey":  # a parameter may well be the same again
            self.anew.add(digest)
        return "digest", digest


def _launched(given: Inputs) -> int:
    """GPUs of the RayJob that a task with these inputs launches."""
    value = given.get(SCALE, ("", None))[1]
    scale = json.loads(value) if isinstance(value, str) and value.startswith("{") else {}
    return int(scale["workers"]) * int(scale["gpus_per_worker"]) if scale.get("launcher") == "rayjob" else 0


def _needs(task: Mapping[str, Any]) -> set[str]:
    sources = [*task.get("inputs", {}).get("parameters", {}).values(),
               *task.get("inputs", {}).get("artifacts", {}).values()]
    producers = {found["producerTask"] for source in sources for found in source.values()
                 if isinstance(found, Mapping) and "producerTask" in found}
    return producers | set(task.get("dependentTasks", []))


def _items(task: Mapping[str, Any], inputs: Inputs) -> list[Any]:
    """The items of a loop; [None] for a task that is no loop; one unknown item if only the run knows."""
    iterator = task.get("parameterIterator")
    if iterator is None:
        return [None]
    items = iterator["items"]
    value: Any = json.loads(items["raw"]) if "raw" in items else inputs.get(items["inputParameter"], ("", None))[1]
    found = json.loads(value) if isinstance(value, str) and value.startswith("[") else value
    return list(found) if isinstance(found, list) else ["?"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(same_numbers(value), sort_keys=True, default=str).encode()).hexdigest()


def same_numbers(value: Any) -> Any:
    """`value` with 4.0 as 4: a server gives back either for either."""
    if isinstance(value, Mapping):
        return {key: same_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [same_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
