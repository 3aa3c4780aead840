"""The S3 client: the only module that knows boto3, and the only one that reads the S3 variables.

`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, `AWS_DEFAULT_REGION`
(boto3's own), `MLFLOW_S3_ENDPOINT_URL` as a last resort; and of our own, for what depends on the machine and
changes no result:

    HYPERCUT_S3_PATIENCE    seconds to wait for a server that is away (120)
    HYPERCUT_S3_MEMORY_MB   memory for bytes of clip stores, MiB (256)
    HYPERCUT_S3_CACHE       folder on a local disk in which bytes of clip stores are kept (none)
    HYPERCUT_S3_CACHE_MB    its size, MiB (20000)
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from components.redaction import has_login, shown
from components.storage.patience import PATIENCE, Away, patiently
from hypercut_core.errors import BadClipStore, BadParameters, MissingExtra, StorageError

Result = TypeVar("Result")
SCHEME = "s3://"
KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read and write there"
_REFUSALS = ("AccessDenied", "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_OVERLOADED = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "429", "500", "502",
               "503", "504", "IncompleteBody", "BadDigest")


@dataclass(frozen=True)
class ReadingLimits:
    """What reading from S3 may use of this machine."""

    memory_mb: int  # MiB
    cache_folder: str  # "": none
    cache_mb: int  # MiB


def reading_limits() -> ReadingLimits:
    """The limits that the environment sets."""
    return ReadingLimits(int(_number("HYPERCUT_S3_MEMORY_MB", 256)), os.environ.get("HYPERCUT_S3_CACHE", ""),
                         int(_number("HYPERCUT_S3_CACHE_MB", 20000)))


def patience() -> float:
    """Seconds to wait for a server that is away."""
    return _number("HYPERCUT_S3_PATIENCE", PATIENCE)


def is_remote(uri: str | os.PathLike[str]) -> bool:
    """Whether the URI is of S3; anything else is a local path."""
    return os.fspath(uri).startswith(SCHEME)


def split_uri(uri: str) -> tuple[str, str]:
    """s3://bucket/some/key → (bucket, key).

    Raises:
        StorageError: no bucket, or a key that could not be a path below a folder.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if has_login(uri):
        raise StorageError("the URI holds a login, which would be recorded", where=shown(uri), remedy=KEYS)
    if not bucket or ".." in key.split("/") or "\0" in key:
        raise StorageError("this is no URI of the form s3://bucket/key", where=uri,
                           remedy="write s3://<bucket>/<key>, without '..'")
    return bucket, key


@functools.lru_cache(maxsize=1)
def client() -> Any:
    """boto3's client, one for the process. It tries each request once: `ask` does the waiting."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingExtra("boto3", "s3") from error
    # checksums only where S3 demands them: servers other than Amazon's do not know the new ones
    config = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 1, "mode": "standard"},
                    signature_version="s3v4", tcp_keepalive=True, max_pool_connections=32,
                    request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return boto3.session.Session().client("s3", endpoint_url=_endpoint(), config=config)


def ask(uri: str, work: Callable[[Any], Result], wait: float | None = None) -> Result:
    """What `work(client)` returns; a server that is away is waited for.

    Args:
        wait: seconds of patience; default: what the environment says.

    Raises:
        StorageError: refused, not there, or away for too long.
    """
    def once() -> Result:
        with explained(uri):
            return work(client())

    return patiently(once, uri, patience() if wait is None else wait)


@contextlib.contextmanager
def explained(uri: str | os.PathLike[str]) -> Iterator[None]:
    """boto3's errors as ours, or as `Away`; never with keys or signed addresses in them."""
    try:
        import botocore.exceptions as aws
        from boto3.exceptions import Boto3Error
    except ImportError as error:
        raise MissingExtra("boto3", "s3") from error
    try:
        yield
    except aws.ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise refusal(uri, str(error.response.get("Error", {}).get("Code", "")), status) from None
    except (aws.NoCredentialsError, aws.PartialCredentialsError):
        raise StorageError("no S3 credentials were found", where=uri, remedy=KEYS) from None
    except (aws.BotoCoreError, Boto3Error) as error:
        code = next((code for code in (*_REFUSALS, *_OVERLOADED[:5]) if code in str(error)), "")
        if code:
            raise refusal(uri, code) from None
        lost = isinstance(error, aws.HTTPClientError) and not isinstance(error, aws.SSLError)
        if lost or type(error).__name__ in ("IncompleteReadError", "RetriesExceededError"):
            raise Away(type(error).__name__) from None
        raise StorageError(f"the S3 server did not answer as it should ({type(error).__name__})", where=uri,
                           remedy="check AWS_ENDPOINT_URL and the network, then run it again") from None


def refusal(uri: str | os.PathLike[str], code: str, status: int = 0) -> Exception:
    """The error for what a server answered."""
    if code in ("PreconditionFailed", "412") or status == 412:
        return changed(uri)
    if code == "NoSuchBucket":
        return StorageError("there is no such bucket", where=uri,
                            remedy="check the name in the URI, or create the bucket")
    if code in ("NoSuchKey", "404", "NotFound") or status == 404:
        return StorageError("there is no such object", where=uri, remedy="check bucket and key")
    if code == "RequestTimeTooSkewed":
        return StorageError("the clocks of this machine and of the S3 server differ by too much", where=uri,
                            remedy="set this machine's clock")
    if status in (401, 403) or code in ("403", *_REFUSALS, "AllAccessDisabled", "ExpiredToken", "InvalidToken"):
        return StorageError(f"the S3 server refuses the credentials ({code or status})", where=uri, remedy=KEYS)
    if status >= 500 or status == 429 or code in _OVERLOADED:
        return Away(code or str(status))
    return StorageError(f"the S3 server refuses the request ({code or status or 'no reason given'})", where=uri,
                        remedy="check the URI and the server's log")


def changed(uri: str | os.PathLike[str]) -> BadClipStore:
    return BadClipStore("the store changed while it was read", where=uri,
                        remedy="let what writes it end, then run the step again")


def signed_url(bucket: str, key: str, seconds: int) -> str:
    """An address that may be read from without keys for so many seconds. It is a secret: never shown."""
    with explained(f"{SCHEME}{bucket}/{key}"):
        return str(client().generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key},
                                                   ExpiresIn=seconds))


def needs_proxy(url: str) -> bool:
    """Whether this machine reaches the address through a proxy only."""
    address = urlsplit(url)
    return bool(urllib.request.getproxies().get(address.scheme)
                and not urllib.request.proxy_bypass(address.hostname or ""))


def authorities() -> str | None:
    """File of the authorities whose certificates are believed, if one is set."""
    import boto3

    found = boto3.session.Session()._session.get_config_variable("ca_bundle")
    return str(found) if found else None


def error_code(body: bytes) -> str:
    """The code in an S3 error document, "" if there is none."""
    found = re.search(rb"<Code>(\w{1,64})</Code>", body[:65536])
    return found.group(1).decode("ascii") if found else ""


def _endpoint() -> str | None:
    return (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            or os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)


def _number(name: str, usual: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or usual)
        if not 0 <= value < 1e12:
            raise ValueError
    except ValueError:
        raise BadParameters(f"the variable {name} is '{text[:40]}', a number of at least 0 expected",
                            remedy=f"set it to a number such as {usual:g}, or unset it") from None
    return value
