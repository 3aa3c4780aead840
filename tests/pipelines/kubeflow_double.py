"""A Kubeflow Pipelines server in the test process: the v2beta1 calls that the real client makes.

Every request and every answer is held against the API's own description (Swagger), unknown fields refused. It
can also fail as servers and networks do, once or for ever, before or after it has done what was asked.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

SWAGGER = Path(__file__).resolve().parents[3] / "shared/schemas/kfp_api_v2beta1.swagger.json"
TIME = "2025-01-01T00:00:00Z"


def swagger() -> dict[str, Any]:
    """The API's description, with fields that it does not name refused."""
    if not SWAGGER.is_file():
        reason = f"the description of the API is not there: {SWAGGER.name} in shared/schemas beside the checkout"
        if os.environ.get("REQUIRE_SYSTEMS"):
            pytest.fail(reason)
        pytest.skip(reason)
    document: dict[str, Any] = json.loads(SWAGGER.read_text(encoding="utf-8"))
    for definition in document["definitions"].values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    return document


@dataclass
class Failure:
    """What goes wrong with the next `times` calls of one operation."""

    operation: str
    status: int = 0  # answer with this status ...
    body: bytes = b'{"code": 13, "message": "made to fail", "details": []}'
    hang: bool = False  # or with nothing, until the client goes
    drop: bool = False  # or close the connection
    page: bool = False  # or answer 200 with a page
    done: bool = False  # after what was asked is done
    times: int = 1


@dataclass
class Operation:
    name: str
    pattern: re.Pattern[str]
    method: str
    description: dict[str, Any]


@dataclass
class KubeflowDouble:
    """State of the server, open to the tests."""

    description: dict[str, Any]
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    script: list[dict[str, Any]] = field(default_factory=lambda: [{"state": "SUCCEEDED"}])  # of a run, look by look
    failures: list[Failure] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    multi_user: bool = False
    before: Callable[[str], None] = lambda operation: None  # called with each operation's name
    stopping: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.operations = [
            Operation(what["operationId"].split("_")[-1], re.compile(
                re.sub(r"\\{([\w.]+)\\}", lambda found: f"(?P<{found[1].replace('.', '_')}>[^/:]+)", re.escape(path))
                + "$"), method.upper(), what)
            for path, methods in self.description["paths"].items() for method, what in methods.items()]

    # -- what the server does --

    def GetHealthz(self, **_: Any) -> dict[str, Any]:
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    def ListPipelines(self, query: dict[str, str], **_: Any) -> dict[str, Any]:
        return _listed("pipelines", [one for one in self.pipelines if one.get("namespace") == query.get("namespace")],
                       query)

    def UploadPipeline(self, query: dict[str, str], body: Any, **_: Any) -> dict[str, Any]:
        if any(one["display_name"] == query["name"] for one in self.pipelines):
            raise Conflict(f"pipeline {query['name']} already exists")
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": query["name"], "name": query["name"],
                "created_at": TIME, **({"namespace": query["namespace"]} if "namespace" in query else {})}
        self.pipelines.append(made)
        self._version(made["pipeline_id"], query["name"], body)
        return made

    def UploadPipelineVersion(self, query: dict[str, str], body: Any, **_: Any) -> dict[str, Any]:
        if any((one["pipeline_id"], one["display_name"]) == (query["pipelineid"], query["name"])
               for one in self.versions):
            raise Conflict(f"version {query['name']} already exists")
        return self._version(query["pipelineid"], query["name"], body)

    def _version(self, pipeline_id: str, name: str, package: bytes) -> dict[str, Any]:
        from google.protobuf import json_format
        from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

        spec, *platform = yaml.safe_load_all(package)
        json_format.ParseDict(spec, PipelineSpec(), ignore_unknown_fields=False)
        stored = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
        made = {"pipeline_id": pipeline_id, "pipeline_version_id": str(uuid.uuid4()), "display_name": name,
                "name": name, "created_at": TIME, "pipeline_spec": json.loads(json.dumps(stored))}
        self.versions.insert(0, made)
        return made

    def ListPipelineVersions(self, query: dict[str, str], pipeline_id: str, **_: Any) -> dict[str, Any]:
        return _listed("pipeline_versions", [one for one in self.versions if one["pipeline_id"] == pipeline_id], query)

    def GetPipelineVersion(self, pipeline_version_id: str, **_: Any) -> dict[str, Any]:
        return _found(self.versions, "pipeline_version_id", pipeline_version_id)

    def GetPipeline(self, pipeline_id: str, **_: Any) -> dict[str, Any]:
        return _found(self.pipelines, "pipeline_id", pipeline_id)

    def ListExperiments(self, query: dict[str, str], **_: Any) -> dict[str, Any]:
        return _listed("experiments", self.experiments, query)

    def GetExperiment(self, experiment_id: str, **_: Any) -> dict[str, Any]:
        return _found(self.experiments, "experiment_id", experiment_id)

    def CreateExperiment(self, body: Any, **_: Any) -> dict[str, Any]:
        if any(one["display_name"] == body["display_name"] for one in self.experiments):
            raise Conflict("experiment already exists")
        made = {**body, "experiment_id": str(uuid.uuid4()), "created_at": TIME, "storage_state": "AVAILABLE"}
        self.experiments.append(made)
        return made

    def CreateRun(self, body: Any, **_: Any) -> dict[str, Any]:
        version = body["pipeline_version_reference"]
        _found(self.versions, "pipeline_version_id", version["pipeline_version_id"])
        _found(self.experiments, "experiment_id", body["experiment_id"])
        made = {**body, "run_id": str(uuid.uuid4()), "created_at": TIME, "state": "PENDING"}
        self.runs.insert(0, made)
        return made

    def GetRun(self, run_id: str, **_: Any) -> dict[str, Any]:
        run = _found(self.runs, "run_id", run_id)
        run.update(self.script.pop(0) if len(self.script) > 1 else self.script[0])
        return run

    def ListRuns(self, query: dict[str, str], **_: Any) -> dict[str, Any]:
        return _listed("runs", [one for one in self.runs
                                if one["experiment_id"] == query.get("experiment_id", one["experiment_id"])], query)

    # -- how it is spoken to --

    def answer(self, method: str, target: str, content_type: str, content: bytes) -> tuple[int, bytes, Failure | None]:
        """Status, body, and what goes wrong on the way."""
        address = urlsplit(target)
        found = [(one, match) for one in self.operations if one.method == method
                 and (match := one.pattern.fullmatch(address.path))]
        found.sort(key=lambda pair: len(pair[1].groups()))  # ".../upload" before ".../{pipeline_id}"
        if not found:
            return 404, b'{"code": 5, "message": "Not Found", "details": []}', None
        operation, match = found[0]
        self.calls.append(operation.name)
        self.before(operation.name)
        failure = next((one for one in self.failures if one.operation in (operation.name, "*") and one.times), None)
        if failure:
            failure.times -= 1
            if not failure.done:
                return failure.status, failure.body, failure
        query = dict(parse_qsl(address.query))
        try:
            body = self._checked(operation, query, content_type, content)
            made = getattr(self, operation.name)(query=query, body=body, **match.groupdict())
            self._check(made, operation.description["responses"]["200"]["schema"], f"answer of {operation.name}")
            return 200, json.dumps(made).encode(), failure
        except Conflict as error:
            return 409, json.dumps({"code": 6, "message": str(error), "details": []}).encode(), failure
        except LookupError as error:
            return 404, json.dumps({"code": 5, "message": f"{error} not found", "details": []}).encode(), failure
        except Exception as error:
            self.violations.append(f"{operation.name}: {type(error).__name__}: {error}")
            return 400, json.dumps({"code": 3, "message": str(error), "details": []}).encode(), failure

    def _checked(self, operation: Operation, query: dict[str, str], content_type: str, content: bytes) -> Any:
        known = {one["name"]: one for one in operation.description.get("parameters", [])}
        for name, value in query.items():
            if known.get(name, {}).get("in") != "query":
                raise ValueError(f"there is no query parameter '{name}'")
            if known[name]["type"] == "integer":
                int(value)
        if query.get("filter"):
            asked = json.loads(query["filter"])
            for predicate in asked["predicates"]:  # KFP's client writes these two as protobuf also reads them
                predicate["operation"] = {1: "EQUALS"}.get(predicate["operation"], predicate["operation"])
                if "stringValue" in predicate:
                    predicate["string_value"] = predicate.pop("stringValue")
            self._check(asked, {"$ref": "#/definitions/v2beta1Filter"}, "filter")
        for name, what in known.items():
            if what["in"] == "body":
                body = json.loads(content)
                self._check(body, what["schema"], f"request of {operation.name}")
                return body
            if what["in"] == "formData":
                whole = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + content,
                                                 policy=email.policy.HTTP)
                parts = {part.get_param("name", header="content-disposition"): part for part in whole.iter_parts()}
                assert list(parts) == [name]
                return parts[name].get_payload(decode=True)
        return None

    def _check(self, value: Any, schema: dict[str, Any], what: str) -> None:
        from jsonschema import Draft4Validator

        whole = {**schema, "definitions": self.description["definitions"]}
        faults = [error.message for error in Draft4Validator(whole).iter_errors(value)]
        if faults:
            self.violations.append(f"{what}: {faults}")
            raise ValueError(f"{what}: {faults[0]}")


class Conflict(Exception):
    """It is there already."""


def _found(rows: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    for row in rows:
        if row[key] == value:
            return row
    raise LookupError(value)


def _listed(name: str, rows: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        assert predicate["operation"] in (1, "EQUALS")
        wanted = predicate.get("string_value", predicate.get("stringValue"))
        rows = [row for row in rows if row.get(predicate["key"]) == wanted]
    rows = rows[:int(query.get("page_size", 10))]
    return {name: rows, "total_size": len(rows)} if rows else {}  # as protobuf leaves empty lists out


def serve(double: KubeflowDouble, tls: Any = None) -> ThreadingHTTPServer:
    """Start it on a free loopback port, with `tls` as its SSL context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do()

        def do_POST(self) -> None:
            self._do()

        def _do(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            double.headers.append(dict(self.headers))
            status, body, failure = double.answer(self.command, self.path, self.headers.get("Content-Type", ""),
                                                  content)
            if failure and failure.hang:
                double.stopping.wait(60)
            if failure and (failure.hang or failure.drop):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if failure and failure.page:
                status, body = 200, b"<html><title>Log in</title></html>"
            elif failure and failure.done:
                status, body = failure.status, failure.body
            with contextlib.suppress(ConnectionError):  # the client was interrupted
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if failure and failure.page else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    double.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


