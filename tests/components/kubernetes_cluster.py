"""What a cluster keeps of RayJobs, without the HTTP: objects with uid, generation and resource version, merge-patch,
deletion with preconditions and finalizers, and the events that watches tell, until they are forgotten.

Bodies that a cluster would not take are refused and noted in `violations`.
"""

from __future__ import annotations

import copy
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
NAMESPACE, TOKEN = "hypercut", "a-token-of-the-test"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")


class Status(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str = ""):
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                     "message": message or reason}
        super().__init__(self.body["message"])


@dataclass
class Failure:
    """What goes wrong with the next `times` calls of one operation; "*" is any."""

    operation: str
    status: int = 0  # answer with this status ...
    body: bytes = b'{"kind": "Status", "message": "made to fail"}'
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # or close the connection
    hang: bool = False  # or answer nothing until the client goes
    done: bool = False  # after what was asked is done
    late: float = 0.0  # or close the connection, and do what was asked so many s later
    times: int = 1


@dataclass
class Cluster:
    """Open to the tests; `now` is its clock."""

    now: Callable[[], float] = time.time
    live: bool = False  # watches stay open for their time, as real ones do; else they end when all is told
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    validate: Callable[[Object], None] = lambda body: None
    defer: Callable[[float, Callable[[], object]], None] = lambda seconds, action: None  # do it so many s later
    jobs: dict[str, Object] = field(default_factory=dict)
    pod_objects: dict[str, Object] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    made: list[Object] = field(default_factory=list)  # every RayJob as it was created
    installed: bool = True  # KubeRay
    cut: int = 0  # bytes of a watch after which it breaks off; 0: never
    version: int = 100
    events: list[tuple[int, str, Object]] = field(default_factory=list)
    forgotten: int = 0  # events up to this version are not kept any more
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    stopping: threading.Event = field(default_factory=threading.Event)

    # -- what is in it --

    def store(self, kind: str, job: Object) -> Object:
        """Keep a new state of an object and tell the watchers."""
        with self.changed:
            self.version += 1
            job["metadata"]["resourceVersion"] = str(self.version)
            name = job["metadata"]["name"]
            if kind == "DELETED":
                self.jobs.pop(name, None)
            else:
                self.jobs[name] = job
            self.events.append((self.version, kind, copy.deepcopy(job)))
            self.changed.notify_all()
        return copy.deepcopy(job)

    def set_status(self, name: str, **fields: Any) -> None:
        """What the operator does."""
        with self.changed:
            job = self.jobs[name]
            job["status"] = {**job.get("status", {}), **fields}
            self.store("MODIFIED", job)

    def finish_deletion(self, name: str) -> None:
        """The operator and the garbage collector are done: the finalizers go, and the object with them."""
        with self.changed:
            job = self.jobs[name]
            if "deletionTimestamp" in job["metadata"]:
                job["metadata"]["finalizers"] = []
                self.store("DELETED", job)

    def remove(self, name: str) -> None:
        """As `kubectl delete` by somebody, with everything that follows."""
        with self.changed:
            self.begin_deletion(self.jobs[name])
            if name in self.jobs:
                self.finish_deletion(name)

    def forget(self) -> None:
        """Compaction: watches from before now get 410."""
        with self.changed:
            self.version += 1
            self.forgotten, self.events = self.version, []

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # -- what it is asked --

    def create(self, body: Object) -> Object:
        metadata = body.get("metadata", {})
        name = metadata.get("name", "")
        try:
            assert (body["apiVersion"], body["kind"], metadata["namespace"]) == ("ray.io/v1", "RayJob", NAMESPACE)
            assert NAME.fullmatch(name), f"name {name}"
            assert not {"uid", "resourceVersion", "creationTimestamp"} & set(metadata)
            self.validate(body)
        except Exception as error:
            self.violations.append(f"create: {error}")
            raise Status(422, "Invalid", str(error)[:500]) from error
        if name in self.jobs:
            raise Status(409, "AlreadyExists", f'rayjobs.ray.io "{name}" already exists')
        job = copy.deepcopy(body)
        job["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.stamp(), "generation": 1}
        self.made.append(copy.deepcopy(job))
        return self.store("ADDED", job)

    def get(self, name: str) -> Object:
        if name not in self.jobs:
            raise Status(404, "NotFound", f'rayjobs.ray.io "{name}" not found')
        return copy.deepcopy(self.jobs[name])

    def patch(self, name: str, body: Object) -> Object:
        job = self.jobs.get(name)
        if job is None:
            return self.get(name)
        wanted = body.get("metadata", {}).pop("resourceVersion", None)
        if wanted is not None and wanted != job["metadata"]["resourceVersion"]:
            raise Status(409, "Conflict", "the object has been modified; please apply your changes to the latest")
        after = _merged(job, body)
        if after["spec"] != job["spec"]:
            after["metadata"]["generation"] += 1
        self.validate({key: value for key, value in after.items() if key != "status"})
        return self.store("MODIFIED", after)

    def delete(self, name: str, options: Object) -> Object:
        job = self.jobs.get(name)
        if job is None:
            return self.get(name)
        conditions = options.get("preconditions", {})
        way = options.get("propagationPolicy")
        if options.get("kind") != "DeleteOptions" or way not in ("Foreground", "Background"):
            self.violations.append(f"delete: {options}")
        for key, value in conditions.items():
            if job["metadata"][key] != value:
                raise Status(409, "Conflict", f"Precondition failed: {key} in precondition: {value}")
        self.begin_deletion(job, foreground=way == "Foreground")
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def begin_deletion(self, job: Object, foreground: bool = False) -> None:
        finalizers = job["metadata"].setdefault("finalizers", [])
        if foreground and job.get("status", {}).get("rayClusterName") and "foregroundDeletion" not in finalizers:
            finalizers.append("foregroundDeletion")
        if finalizers:
            job["metadata"].setdefault("deletionTimestamp", self.stamp())
            self.store("MODIFIED", job)
        else:
            self.store("DELETED", job)

    def pods(self, selector: str) -> Object:
        key, _, value = selector.partition("=")
        return {"kind": "PodList", "items": [pod for pod in self.pod_objects.values()
                                             if pod["metadata"].get("labels", {}).get(key) == value]}

    # -- how it is spoken to --

    def answer(self, operation: str, name: str, query: dict[str, str], body: Object) -> Object:
        with self.changed:
            if operation == "create":
                return self.create(body)
            if operation == "patch":
                return self.patch(name, body)
            if operation == "delete":
                return self.delete(name, body)
            if operation == "pod":
                return self.pod_objects.get(name) or self.get(name)
            if operation == "pods":
                return self.pods(query["labelSelector"])
            if operation == "get":
                return self.get(name)
            return {"kind": "RayJobList", "metadata": {"resourceVersion": str(self.version)},
                    "items": [copy.deepcopy(job) for job in self.jobs.values() if selected(query, job)]}

    def watch(self, query: dict[str, str], write: Callable[[Object], None]) -> None:
        """Write events until the time is over or, where not `live`, until all are told."""
        seen, until = int(query["resourceVersion"]), time.monotonic() + float(query["timeoutSeconds"])
        if seen < self.forgotten:
            write({"type": "ERROR", "object": Status(410, "Expired", "too old resource version").body})
            return
        while not self.stopping.is_set():
            with self.changed:
                found = [(version, kind, job) for version, kind, job in self.events if version > seen]
                if not found and self.live and time.monotonic() < until:
                    self.changed.wait(0.02)
                    continue
            for version, kind, job in found:
                seen = version
                if selected(query, job):
                    write({"type": kind, "object": job})
            if not (found and self.live) and query.get("allowWatchBookmarks") == "true":
                write({"type": "BOOKMARK", "object": {"kind": "RayJob",
                                                      "metadata": {"resourceVersion": str(self.version)}}})
            if not self.live or time.monotonic() >= until:
                return


def selected(query: dict[str, str], job: Object) -> bool:
    key, _, value = query.get("fieldSelector", "").partition("=")
    return not key or (key == "metadata.name" and job["metadata"]["name"] == value)


def _merged(base: Object, change: Object) -> Object:
    """RFC 7396."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result
