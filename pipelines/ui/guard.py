"""What stands before the page: only known host names, no requests from other sites, and headers that forbid both.

A page of another site can make a visitor's browser send requests here (CSRF), or have its own name point to this
machine (DNS rebinding). Against the first, every call needs a header of ours, which other sites may not send, and a
session's key, which is in no cookie; against the second, host names are checked. A plain address is no name that
anyone could point elsewhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                               "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()"}


class Guard:
    """ASGI middleware.

    Args:
        names: host names besides localhost that visitors may use.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()):
        self.app = app
        self.names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, problem = self.judge(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self.app if status == 200 else JSONResponse({"what": problem}, status)
        await answer(scope, receive, with_headers)

    def judge(self, scope: Scope) -> tuple[int, str]:
        """200, or the status and reason of a refusal."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.known(hosts[0]):
            return 421, "this server does not answer to that host name (see --name)"
        if scope["path"].startswith("/api/"):
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != hosts[0].lower():
                return 403, "requests of other sites are not answered"
            if headers.get("sec-fetch-site", "same-origin") != "same-origin" or "x-hypercut" not in headers:
                return 403, "requests of other sites are not answered"
        return 200, ""

    def known(self, host: str) -> bool:
        """Whether a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
