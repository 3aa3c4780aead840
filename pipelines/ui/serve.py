"""Serve the page until SIGTERM or Ctrl-C."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from hypercut_core.errors import BadParameters, MissingExtra, StorageError
from pipelines.ui.choices import offered
from pipelines.ui.config import UiConfig


def serve(config: UiConfig, models: Sequence[str], workspace: Path, say: Callable[[str], None]) -> None:
    """Offer the page; returns once it was told to end, and leaves no file.

    Args:
        models: files or models:/ names, offered before those that are found in the workspace.

    Raises:
        MissingExtra, RegistryError, BadCheckpoint; BadParameters: the address cannot be used.
    """
    try:
        import uvicorn

        from pipelines.ui.app import Page, application
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "ui") from error
    from pipelines.ui.restoring import Restorer
    from pipelines.ui.sessions import Sessions, temporary_root

    with _listening(config.host, config.port) as listening:
        choices = offered(models, workspace, say)
        with temporary_root() as root, Restorer() as restorer:
            restorer.warm_up(choices[0].path)
            page = Page(config, choices, Sessions(root, config.keep, config.sessions), restorer)
            server = uvicorn.Server(uvicorn.Config(
                application(page), log_level="warning", access_log=False, server_header=False, proxy_headers=False,
                limit_concurrency=4 * config.sessions, timeout_keep_alive=15, timeout_graceful_shutdown=3))
            # uvicorn raises its signals again once it has ended: they have done their work by then
            before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                say(f"the page is at {_address(listening, config)} (Ctrl-C ends); models: "
                    + ", ".join(choice.label for choice in choices))
                server.run(sockets=[listening])
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
    say("ended; nothing was kept")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise StorageError("this port may not be used", where=f"{host}:{port}",
                               remedy="choose one above 1023: --port") from error
        raise BadParameters(f"the page cannot be served here ({error.strerror or error})", where=f"{host}:{port}",
                            remedy="choose another --port or --host") from error


def _address(listening: socket.socket, config: UiConfig) -> str:
    port = listening.getsockname()[1]
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
