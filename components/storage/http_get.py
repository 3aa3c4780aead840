"""GET over a kept connection, for answers with a known length: what a range of an object is.

A third of the CPU time of http.client (benchmarks/s3_reading), whose header parser is that of e-mail. It knows
no more of HTTP/1.1 than this needs; anything else is `Unusual`, and boto3 is asked instead.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass

LONGEST_HEAD = 65536  # bytes
LONGEST_ERROR = 2**20  # bytes


class Unusual(Exception):
    """An answer that this client does not understand."""


@dataclass(frozen=True)
class Answer:
    status: int
    etag: str
    body: bytes | bytearray
    last: bool  # the server closes the connection after it


class Connection:
    """One connection to a server.

    Args:
        context: for https; None: http.
        timeout: seconds without a byte.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, timeout: float):
        self._socket = socket.create_connection((host, port), timeout=10.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flags = 0
        self.used = False
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname=host)
            self._socket.settimeout(timeout)
        else:  # the kernel's own timeout: Python's costs a poll() for each read, and cannot wait for all bytes
            self._socket.settimeout(None)
            limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, option, limit)
            self._flags = socket.MSG_WAITALL

    def get(self, host: str, target: str, headers: str, length: int) -> Answer:
        """Ask for `target`.

        Args:
            host: the Host header.
            headers: further header lines, each ended by CR LF.
            length: bytes of a body that is wanted (status 200 and 206); any other body is read up to 1 MiB.

        Raises:
            OSError: the connection broke or timed out, also in the middle of the body.
            Unusual: an answer without a length, or not of HTTP/1.
        """
        self.used = True
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode("ascii"))
        head, rest = self._head()
        status, fields = _parsed(head)
        if not fields.get("content-length", "").isdigit() or "transfer-encoding" in fields:
            raise Unusual("an answer without a length")
        size = int(fields["content-length"])
        if size > (length if status in (200, 206) else LONGEST_ERROR):
            raise Unusual(f"{size} bytes with status {status}")
        return Answer(status, fields.get("etag", ""), self._body(rest, size),
                      "close" in fields.get("connection", "").lower())

    def close(self) -> None:
        self._socket.close()

    def _head(self) -> tuple[bytes, bytes]:
        """Status line and headers, and what came after them."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > LONGEST_HEAD:
                raise Unusual("a head without an end")
            more = self._socket.recv(LONGEST_HEAD)
            if not more:
                raise ConnectionResetError("the server closed the connection")
            data += more
        return data[:end], data[end + 4:]

    def _body(self, begun: bytes, size: int) -> bytes | bytearray:
        if len(begun) >= size:
            return begun[:size]
        body = bytearray(size)
        view = memoryview(body)
        got = len(begun)
        view[:got] = begun
        while got < size:
            count = self._socket.recv_into(view[got:], size - got, self._flags)
            if not count:
                raise ConnectionResetError(f"{got} bytes came instead of {size}")
            got += count
        return body


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit() or int(words[1]) < 200:
        raise Unusual("not an answer of HTTP/1")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return int(words[1]), fields
