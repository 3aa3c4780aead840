"""The Kubeflow Pipelines server through KFP's own client, with time limits and errors that say what to do.

KFP's client waits for ever on a silent server, prints addresses, and takes a login page for an empty answer;
all requests pass through `Server._answer`, which mends the three.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from components.redaction import has_login, shown
from hypercut_core.errors import MissingExtra, PipelineServerError

CONNECT_SECONDS, READ_SECONDS = 10, 60  # longest wait for a connection, and for an answer


class NoAnswer(PipelineServerError):
    """The server could not be reached or failed: the same request may work a little later."""


class Refused(PipelineServerError):
    """The server said no."""

    def __init__(self, what: str, status: int, **others: Any):
        super().__init__(what, **others)
        self.status = status


@dataclass(frozen=True)
class Address:
    """Where the server is and who we are; a token or cookie is never shown."""

    host: str
    namespace: str = ""  # of a multi-user server
    token: str = field(default="", repr=False)
    cookie: str = field(default="", repr=False)
    certificates: str = ""  # file of the authorities that sign the server's certificate

    def __post_init__(self) -> None:
        if not self.host.startswith(("http://", "https://")):
            raise PipelineServerError("this is no address of a server", where=shown(self.host),
                                      remedy="write it as https://<name>, with /pipeline behind it if the "
                                             "Kubeflow dashboard is there")
        if has_login(self.host):
            raise PipelineServerError("the address holds a login, which would be shown in logs",
                                      where=shown(self.host), remedy="put a token into KFP_TOKEN instead")

    @property
    def base(self) -> str:
        return self.host.rstrip("/")

    def run_page(self, run_id: str) -> str:
        return f"{self.base}/#/runs/details/{run_id}"


class Server:
    """One server; `client` is the real `kfp.Client`.

    Raises:
        MissingExtra: KFP is not installed.
        NoAnswer, Refused: here, and from every call of the client.
    """

    def __init__(self, address: Address, timeouts: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS)):
        self.address, self.timeouts = address, timeouts
        with quietly():
            self.client = _client(address)
        rest = self.client._run_api.api_client.rest_client
        self._send: Callable[..., Any] = rest.request
        rest.request = self._answer
        rest.pool_manager.connection_pool_kw["retries"] = _retries()
        health = self.client._healthz_api.healthz_service_get_healthz()
        if health.multi_user and not address.namespace:
            raise PipelineServerError("this server has several users, each with a namespace", where=address.base,
                                      remedy="say yours with --namespace")

    def _answer(self, method: str, url: str, **others: Any) -> Any:
        import urllib3
        from kfp_server_api import ApiException

        if not others.get("_request_timeout"):
            others["_request_timeout"] = self.timeouts
        try:
            answer = self._send(method, url, **others)
        except ApiException as error:
            raise self._refused(error, url) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreached(error) from None
        try:
            if not isinstance(json.loads(answer.data), dict):
                raise ValueError
        except ValueError:
            raise NoAnswer("the server answers with something else than JSON, such as a login page",
                           where=self.address.base,
                           remedy="check the address, and log in: a token in KFP_TOKEN or a session's cookie "
                                  "in KFP_COOKIE") from None
        return answer

    def _unreached(self, error: Exception) -> PipelineServerError:
        import urllib3

        cause = getattr(error, "reason", None) or error
        reason = self._told(str(cause).rsplit(": ", 1)[-1])
        if isinstance(cause, urllib3.exceptions.SSLError):
            return PipelineServerError(f"the connection is not secure ({reason})", where=self.address.base,
                                       remedy="name the file of the authority that signed the server's "
                                              "certificate in KFP_CA_CERT, or check the address")
        late = isinstance(cause, urllib3.exceptions.TimeoutError)
        if late and not isinstance(cause, urllib3.exceptions.NewConnectionError):  # which is one, by name only
            return NoAnswer(f"the server does not answer in time ({self.timeouts[0]:g} s to connect, "
                            f"{self.timeouts[1]:g} s to answer)", where=self.address.base,
                            remedy="check the address and the network, then try again")
        return NoAnswer(f"the server cannot be reached ({reason})", where=self.address.base,
                        remedy="check that it runs, the address and the network")

    def _refused(self, error: Any, url: str) -> PipelineServerError:
        told = self._message(error.body)
        place = self.address.base
        status = int(error.status or 0)
        if status == 401:
            return Refused(f"the server does not know you (401{told})", 401, where=place,
                           remedy="put a fresh token into KFP_TOKEN, or a session's cookie into KFP_COOKIE")
        if status == 403:
            where = f"the namespace '{self.address.namespace}'" if self.address.namespace else "this server"
            return Refused(f"you may not do this in {where} (403{told})", 403, where=place,
                           remedy="ask its owner for the right to run pipelines, or name another --namespace")
        if status == 404 and url.endswith("/healthz"):
            return Refused(f"there is no Kubeflow Pipelines API v2 at this address (404{told})", 404, where=place,
                           remedy="give the address of the Kubeflow Pipelines UI (behind the Kubeflow "
                                  "dashboard it ends in /pipeline)")
        if status == 429 or status >= 500:
            return NoAnswer(f"the server failed ({status}{told})", where=place,
                            remedy="try again; if it lasts, look at the log of its ml-pipeline pod")
        words = {404: "what was asked for is not there", 409: "this is there already"}
        return Refused(f"{words.get(status, 'the server refuses the request')} ({status}{told})", status,
                       where=place, remedy="read its reason, then check --package, --experiment and --set")

    def _message(self, body: Any) -> str:
        """': ' and the server's own words, on one line and without secrets; "" if there are none."""
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        try:
            content = json.loads(text)
        except ValueError:
            return ""  # a page
        words = content.get("message") or content.get("error") if isinstance(content, dict) else None
        return f": {self._told(str(words))}" if words else ""

    def _told(self, text: str) -> str:
        for secret in (self.address.token, self.address.cookie):
            text = text.replace(secret, "***") if secret else text
        return " ".join(shown(text).split())[:300]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the lines that KFP's client prints and the warnings that it gives."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # it logs whole answers, headers included
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def equals(key: str, value: str) -> str:
    """A filter for list calls."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def _client(address: Address) -> Any:
    try:
        import kfp
        import kfp_server_api
    except ImportError as error:
        raise MissingExtra("kfp", "kubeflow") from error

    class Client(kfp.Client):
        """Asks nothing while it is made, where no time limit holds yet."""

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)

    made = Client(host=address.base, namespace=address.namespace or "kubeflow",
                  existing_token=address.token or None, cookies=address.cookie or None,
                  ssl_ca_cert=address.certificates or None)
    made._context_setting = {"namespace": address.namespace}  # not what another tool left in the user's home
    return made


def _retries() -> Any:
    """A refused connection is tried once more; what was sent is never sent again."""
    import urllib3

    return urllib3.Retry(total=None, connect=1, read=0, redirect=3, status=0, other=0)
