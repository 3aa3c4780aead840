"""A small S3 server that misbehaves on demand: lists, GETs with ranges, PUTs, and a queue of faults for GETs."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Callable[["Handler", bytes], None]


class FaultyS3:
    """Objects of one bucket, by key; `faults` are used up one for each GET of an object."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults: deque[Fault] = deque()
        self.gets: list[tuple[str, str]] = []  # key, range
        self.conditions = True  # whether it knows If-Match
        self.address = ""

    def etag(self, key: str) -> str:
        return f'"{hashlib.md5(self.objects[key]).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: FaultyS3

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/bucket").lstrip("/")
        if not key:
            self.listing(parse_qs(url.query).get("prefix", [""])[0])
            return
        wanted = self.headers.get("Range", "")
        self.s3.gets.append((key, wanted))
        body = self.s3.objects.get(key, b"")
        bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        part = body[int(bounds[1]):int(bounds[2]) + 1] if bounds else body
        if self.s3.faults:
            self.s3.faults.popleft()(self, part)
        elif key not in self.s3.objects:
            self.error(404, "NoSuchKey")
        elif self.s3.conditions and self.headers.get("If-Match", self.s3.etag(key)) != self.s3.etag(key):
            self.error(412, "PreconditionFailed")
        elif bounds and not part:
            self.error(416, "InvalidRange")
        else:
            self.reply(206 if bounds else 200, part, {"ETag": self.s3.etag(key)})

    def listing(self, prefix: str) -> None:
        rows = "".join(f"<Contents><Key>{key}</Key><Size>{len(body)}</Size><ETag>{self.s3.etag(key)}</ETag>"
                       f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                       for key, body in sorted(self.s3.objects.items()) if key.startswith(prefix))
        self.reply(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode(), {})

    def error(self, status: int, code: str) -> None:
        self.reply(status, f"<Error><Code>{code}</Code></Error>".encode(), {})

    def reply(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) if announced is None else announced), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def dropped(handler: Handler, body: bytes) -> None:
    """No answer at all."""
    handler.close_connection = True


def halved(handler: Handler, body: bytes) -> None:
    """The connection breaks in the middle of the body."""
    handler.reply(206, body[:len(body) // 2], {"ETag": '"x"'}, announced=len(body))
    handler.close_connection = True


def status(number: int, code: str) -> Fault:
    return lambda handler, body: handler.error(number, code)


def chunked(handler: Handler, body: bytes) -> None:
    """A whole answer in chunks, without a length: some proxies make such."""
    handler.send_response(206)
    key = handler.s3.gets[-1][0]
    for name, value in (("Transfer-Encoding", "chunked"), ("ETag", handler.s3.etag(key))):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")


@contextmanager
def faulty_s3(tls: ssl.SSLContext | None = None) -> Iterator[FaultyS3]:
    s3 = FaultyS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"s3": s3}))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    s3.address = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
