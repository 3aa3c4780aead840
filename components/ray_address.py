"""Whether the head of a Ray cluster answers, within seconds: Ray waits over five minutes for one that does not."""

from __future__ import annotations

import os
import re
import socket
import time

from hypercut_core.errors import ClusterError

PATIENCE = 15.0  # s in which a head that refuses connections may come up
SILENCE = 10.0  # s without a byte
# what any gRPC server answers with its own settings: HTTP/2's greeting and an empty SETTINGS frame
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def expect_head() -> None:
    """Look for the head that RAY_ADDRESS names, if it does.

    Raises:
        ClusterError: nobody answers there, or something else than Ray.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    why = silence(address, PATIENCE)
    if why:
        raise ClusterError(f"no Ray cluster answers ({why})", where=f"RAY_ADDRESS {address}",
                           remedy="start one with 'ray start --head', give its address, or unset RAY_ADDRESS to use "
                                  "this machine alone")


def silence(address: str, patience: float = 0.0) -> str:
    """Why nobody answers as Ray's head does; "" if somebody does, or the address names no host and port.

    Args:
        address: host:port, [IPv6]:port, or ray:// before it.
        patience: seconds in which the host may begin to listen.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if not found:
        return ""  # "auto", "local": Ray looks on this machine, which is quick
    end = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection((found[1], int(found[2])), timeout=SILENCE) as connection:
                return _answer(connection)
        except (OSError, OverflowError) as error:
            if time.monotonic() >= end:
                return str(error)
        time.sleep(0.5)


def _answer(connection: socket.socket) -> str:
    try:
        connection.sendall(GREETING)
        first = connection.recv(64)
    except TimeoutError:
        return f"it says nothing for {SILENCE:g} s"
    except OSError as error:
        return f"it ends the connection: {error}"
    # a head behind TLS answers with an alert or not at all: whether that is the right one is for Ray to say
    return "it is no Ray head, but a web server" if first.startswith(b"HTTP/1") else ""
