"""RayJobs of one namespace through the Kubernetes API: plain HTTPS, as the service account of the pod.

No client library: the five calls below are all that is needed, and every one of them ends within a time limit
and with one of three kinds of error. `RayJob` objects are passed on as the JSON that they are.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from components.redaction import shown
from hypercut_core.errors import RayJobError

Job = dict[str, Any]  # a RayJob, or a pod

ADDRESS = "https://kubernetes.default.svc"  # the same in every cluster, from inside
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # token, ca.crt and namespace, put there by Kubernetes
RAYJOBS, PODS = "/apis/ray.io/v1/namespaces/{}/rayjobs", "/api/v1/namespaces/{}/pods"
MERGE = "application/merge-patch+json"
LARGEST = 16 * 2**20  # bytes of an answer; etcd takes objects of 1.5 MB


class NoAnswer(RayJobError):
    """The server could not be reached or failed: the same request may work a little later."""

    def __init__(self, what: str, *, after: float = 0.0, **others: Any):
        super().__init__(what, **others)
        self.after = after  # s, before which the server does not want to be asked again


class Refused(RayJobError):
    """The server said no."""


class Conflict(Refused):
    """There is such an object already, or it is not any more what the request took it for (409)."""


class Missing(Refused):
    """There is no such object (404)."""


class Expired(Refused):
    """The resource version is too old to watch from (410): list again."""


class RayJobApi:
    """The RayJobs of one namespace.

    Args:
        address: https, or http on loopback (`kubectl proxy`), where no token is sent.
        account: folder of the service account; its token is read again when the server does not take it any more.
        namespace: "": the service account's.
        timeout: longest wait for a connection and for an answer, s.
        now: a clock in s, for the server's time between two answers.

    Raises:
        RayJobError: there is no service account here; NoAnswer and Refused from every call.
    """

    def __init__(self, address: str = ADDRESS, account: Path = ACCOUNT, namespace: str = "", *,
                 timeout: float = 30.0, now: Callable[[], float] = time.monotonic):
        self.address, self.account, self.timeout, self._now = urlsplit(address), account, timeout, now
        if self.address.scheme != "https" and not _loopback(self.address):
            raise RayJobError("the Kubernetes API is spoken to by https only", where=shown(address))
        self.namespace = namespace or self._file("namespace")
        self._token = "" if self.address.scheme == "http" else self._file("token")
        self._date = (time.time(), now())

    def time(self) -> float:
        """The server's time, s since 1970: from its last answer, so that a wrong clock here does not matter."""
        date, then = self._date
        return date + self._now() - then

    def create(self, job: Job) -> Job:
        """Raises Conflict if one of that name is there."""
        return self._json("POST", RAYJOBS, body=job)

    def get(self, name: str) -> Job | None:
        try:
            return self._json("GET", RAYJOBS, name)
        except Missing:
            return None

    def find(self, name: str) -> tuple[str, Job | None]:
        """The resource version to watch from, and the RayJob if it is there."""
        found = self._json("GET", RAYJOBS, query={"fieldSelector": f"metadata.name={name}"})
        return str(found["metadata"]["resourceVersion"]), next(iter(found.get("items") or []), None)

    def watch(self, name: str, version: str, seconds: float) -> Generator[tuple[str, Job], None, None]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) after `version`, until the server closes the stream.

        A connection that is silently gone counts as no answer a little after `seconds`.

        Raises:
            Expired: events after `version` are not kept any more; NoAnswer: the stream broke.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version,
                 "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(max(1, int(seconds)))}
        with self._answer("GET", RAYJOBS, query=query, timeout=seconds + self.timeout) as stream:
            while line := stream.readline(LARGEST):
                kind, found = self._event(line)
                yield kind, found

    def patch(self, name: str, change: Job) -> Job:
        """Merge `change` into the RayJob; with metadata.resourceVersion in it, only if that is still its version."""
        return self._json("PATCH", RAYJOBS, name, body=change, kind=MERGE)

    def delete(self, name: str, uid: str, version: str) -> None:
        """Delete just this object in just this version, its cluster first; fine if it is gone.

        Raises Conflict if it has changed, or if another one has its name.
        """
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground",
                   "preconditions": {"uid": uid, "resourceVersion": version}}
        with contextlib.suppress(Missing):
            self._json("DELETE", RAYJOBS, name, body=options)

    def pod(self, name: str) -> Job | None:
        """A pod of the namespace; None also where that may not be asked."""
        try:
            return self._json("GET", PODS, name)
        except Refused:
            return None

    def pods(self, selector: str) -> list[Job]:
        """Pods by label; none where that may not be asked."""
        try:
            return list(self._json("GET", PODS, query={"labelSelector": selector, "limit": "500"}).get("items") or [])
        except Refused:
            return []

    # -- one request --

    def _json(self, method: str, path: str, name: str = "", **others: Any) -> Job:
        with self._answer(method, path, name, **others) as answer:
            found = self._parsed(answer.read(LARGEST))
        return found

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, name: str = "", *, query: Mapping[str, str] | None = None,
                body: Job | None = None, kind: str = "application/json",
                timeout: float = 0.0) -> Iterator[http.client.HTTPResponse]:
        target = path.format(quote(self.namespace, safe="")) + (f"/{quote(name, safe='')}" if name else "")
        target += f"?{urlencode(query)}" if query else ""
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            headers = {"Accept": "application/json", "User-Agent": "hypercut", "Connection": "close"}
            headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
            headers |= {} if data is None else {"Content-Type": kind}
            with contextlib.closing(self._connection(timeout or self.timeout)) as connection, self._explained():
                connection.request(method, target, data, headers)
                answer = connection.getresponse()
                if answer.status == 401 and self._token and not last:  # tokens are changed about every hour
                    self._token = self._file("token")
                    continue
                self._note_date(answer)
                if not 200 <= answer.status < 300:
                    raise self._refusal(answer)
                yield answer
                return

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = str(self.address.hostname), self.address.port
        if self.address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        except OSError as error:
            raise self._no_account("ca.crt") from error
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        place = self.address.geturl()
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise RayJobError(f"this is not the Kubernetes API that the service account is for "
                              f"({error.verify_message})", where=place) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"the Kubernetes API does not answer ({type(error).__name__}: {error})"[:300].strip(),
                           where=place) from None

    def _refusal(self, answer: http.client.HTTPResponse) -> RayJobError:
        status, place = answer.status, f"{self.address.geturl()} namespace {self.namespace}"
        try:
            told = json.loads(answer.read(LARGEST))
            words = str(told["message"])
        except (ValueError, KeyError, TypeError):
            told, words = {}, ""
        reason = f"{status}: {' '.join(shown(words.replace(self._token or '***', '***')).split())[:600]}".rstrip(": ")
        if status in (408, 429) or status >= 500:
            after = answer.getheader("Retry-After", "")
            return NoAnswer(f"the Kubernetes API failed ({reason})", where=place,
                            after=float(after) if after.isdigit() else 0.0)
        if status == 404 and not words:
            return Refused("this cluster does not know RayJobs (404)", where=place,
                           remedy="install the KubeRay operator, see infra/README.md")
        kind = {404: Missing, 409: Conflict, 410: Expired}.get(status, Refused)
        remedy = {401: "mount a fresh service account token", 422: "see docs/kubeflow.md for what is filled in",
                  403: "bind the pod's service account to the role hypercut-rayjob-launcher of "
                       "infra/kubernetes/access.yaml, or raise the quota if it says so"}.get(status)
        return kind(f"Kubernetes refuses this ({reason})", where=place, remedy=remedy)

    def _event(self, line: bytes) -> tuple[str, Job]:
        event = self._parsed(line)
        kind, found = str(event.get("type")), event.get("object")
        if not isinstance(found, dict):
            raise NoAnswer("the watch of the Kubernetes API broke (no object)", where=self.address.geturl())
        if kind == "ERROR":
            error = Expired if found.get("code") == 410 else NoAnswer
            raise error(f"the watch ended ({found.get('code')}: {shown(str(found.get('message')))[:300]})",
                        where=self.address.geturl())
        return kind, found

    def _parsed(self, data: bytes) -> Job:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise NoAnswer("the Kubernetes API answers with something else than one JSON object",
                           where=self.address.geturl())
        return found

    def _note_date(self, answer: http.client.HTTPResponse) -> None:
        with contextlib.suppress(TypeError, ValueError):
            self._date = (parsedate_to_datetime(answer.getheader("Date", "")).timestamp(), self._now())

    def _file(self, name: str) -> str:
        try:
            return (self.account / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise self._no_account(name) from error

    def _no_account(self, name: str) -> RayJobError:
        return RayJobError("a RayJob is launched from a pod of the cluster, and there is no service account here",
                           where=self.account / name,
                           remedy="run it as a step of the pipeline ('hypercut submit') or in a pod with the account "
                                  "hypercut-rayjob-launcher, or set deblurrer.scale.launcher to local or ray")


def _loopback(address: Any) -> bool:
    host = address.hostname or ""
    with contextlib.suppress(ValueError):
        return address.scheme == "http" and ipaddress.ip_address(host).is_loopback
    return address.scheme == "http" and host == "localhost"
