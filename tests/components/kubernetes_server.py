"""A server that plays the Kubernetes API for RayJobs, over real HTTP: create, get, list, watch (a stream of JSON
lines in chunks, with bookmarks, that expires with 410), patch, delete. It fails as servers and networks do, before or
after it has done what was asked; what it keeps is a `Cluster`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kubernetes_cluster import NAMESPACE, Cluster, Failure, Object, Status

VERBS = {("GET", True): "get", ("GET", False): "list", ("POST", False): "create", ("PATCH", True): "patch",
         ("DELETE", True): "delete"}


def operation_of(method: str, path: str, query: dict[str, str]) -> tuple[str, str]:
    """("create", name) and the like; ("", "") for what no such API has."""
    found = re.fullmatch(rf"(/apis/ray\.io/v1/namespaces/{NAMESPACE}/rayjobs|/api/v1/namespaces/{NAMESPACE}/pods)"
                         r"(?:/([^/]+))?", path)
    if not found:
        return "", ""
    name = unquote(found[2] or "")
    verb = VERBS.get((method, bool(name)), "")
    if found[1].endswith("pods"):
        return {"get": "pod", "list": "pods"}.get(verb, ""), name
    return "watch" if verb == "list" and query.get("watch") == "true" else verb, name


class Server(ThreadingHTTPServer):
    """On a free loopback port; `cluster` may be exchanged between two tests."""

    daemon_threads = True

    def __init__(self, cluster: Cluster, tls: Any = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cluster = cluster
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.cluster.stopping.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.cluster = self.server.cluster

    def do(self) -> None:
        self.close_connection = True
        cluster = self.cluster
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        operation, name = operation_of(self.command, address.path, query)
        cluster.calls.append(operation or f"{self.command} {address.path}")
        if cluster.tokens and self.headers.get("Authorization", "").removeprefix("Bearer ") not in cluster.tokens:
            self.reply(401, Status(401, "Unauthorized").body)
            return
        failure = next((one for one in cluster.failures if one.times and one.operation in (operation, "*")), None)
        if failure:
            failure.times -= 1
        if failure and not failure.done:
            if failure.late:
                cluster.defer(failure.late, lambda: self.made(operation, name, query, content))
            self.fail(failure)
        elif not operation or not cluster.installed:
            self.reply(404, b"404 page not found\n")
        elif operation == "watch":
            self.stream(query)
        else:
            made = self.made(operation, name, query, content)
            if failure:
                self.fail(failure)
            else:
                self.reply(*made)

    do_GET = do_POST = do_PATCH = do_DELETE = do

    def made(self, operation: str, name: str, query: dict[str, str], content: bytes) -> tuple[int, Object]:
        try:
            if operation == "patch" and self.headers["Content-Type"] != "application/merge-patch+json":
                raise Status(415, "UnsupportedMediaType")
            return 200, self.cluster.answer(operation, name, query, json.loads(content or b"{}"))
        except Status as error:
            return error.code, error.body

    def reply(self, status: int, body: Object | bytes, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.suppress(ConnectionError):  # the client was stopped
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)),
                               **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

    def fail(self, failure: Failure) -> None:
        if failure.hang:
            self.cluster.stopping.wait(60)
        if failure.hang or failure.drop or failure.late:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.reply(failure.status, failure.body, failure.headers)

    def stream(self, query: dict[str, str]) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.left = self.cluster.cut
            self.cluster.watch(query, self.write_event)
            self.wfile.write(b"0\r\n\r\n")

    def write_event(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        if self.cluster.cut and len(line) > self.left:  # the connection breaks in the middle of a chunk
            self.wfile.write(b"%x\r\n%s" % (len(line), line[:self.left]))
            raise ConnectionAbortedError
        self.left -= len(line)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.cluster.now(), usegmt=True)

    def log_message(self, *_: object) -> None:
        pass
