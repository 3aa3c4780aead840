"""Ranges of objects over kept connections, at a tenth of the CPU time that boto3's own GET takes.

boto3 signs one address for each object, which then serves all its ranges for half an hour, over connections of
our own. Behind a proxy, or where the server sends elsewhere, boto3 does it all.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from components.storage import s3_client
from components.storage.http_get import Answer, Connection, Unusual
from components.storage.patience import Away, patiently
from hypercut_core.errors import HypercutError, StorageError

SIGNED = 3600  # s that a signed address is good for; it is used for half of that
TIMEOUT = 30.0  # s without a byte
IDLE = 32  # connections that are kept


@dataclass(frozen=True)
class Pin:
    """An object as it was when the store was opened."""

    size: int  # bytes
    etag: str


class Ranges:
    """Reads ranges of a bucket's objects. Safe for threads; a forked process opens its own connections."""

    def __init__(self, bucket: str, patience: float):
        self.bucket, self.patience = bucket, patience
        self.requests = self.received = 0  # what it did: requests, bytes
        self._signed: dict[str, tuple[str, float]] = {}
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._through_boto: bool | None = None
        self._context: ssl.SSLContext | None = None

    def read(self, key: str, pin: Pin, offset: int, length: int) -> bytes | bytearray:
        """Bytes offset .. offset + length of an object that is still as it was pinned.

        Raises:
            BadClipStore: the object changed or is gone.
            StorageError: refused, or the server was away for longer than the patience.
        """
        return patiently(lambda: self._once(key, pin, offset, length), self._uri(key), self.patience)

    def _once(self, key: str, pin: Pin, offset: int, length: int) -> bytes | bytearray:
        data = self._by_boto(key, pin, offset, length) if self._through_boto else \
            self._lean(key, pin, offset, length)
        if len(data) != length:
            raise Away(f"{len(data)} bytes came instead of {length}")
        with self._lock:
            self.requests += 1
            self.received += length
        return data

    def _lean(self, key: str, pin: Pin, offset: int, length: int) -> bytes | bytearray:
        url, made = self._address(key)
        address = urlsplit(url)
        if self._through_boto is None:
            self._through_boto = s3_client.needs_proxy(url)
        if self._through_boto:
            return self._by_boto(key, pin, offset, length)
        try:
            answer = self._get(address, f"Range: bytes={offset}-{offset + length - 1}\r\nIf-Match: {pin.etag}\r\n",
                               length)
        except Unusual:
            return self._by_boto(key, pin, offset, length)
        if answer.status in (301, 302, 307, 308):
            self._through_boto = True  # a bucket of another region: boto3 knows the way
            return self._by_boto(key, pin, offset, length)
        if answer.status == 403 and time.monotonic() - made > 60:
            with self._lock:
                self._signed.pop(key, None)
            raise Away("the signed address is too old")  # a new one is made; if that is refused, it is the keys
        if answer.status not in (200, 206):
            raise self._gone(key, s3_client.refusal(self._uri(key), s3_client.error_code(bytes(answer.body)),
                                                    answer.status))
        if answer.etag != pin.etag:
            raise s3_client.changed(self._uri(key))  # the server does not know If-Match
        return answer.body

    def _get(self, address: SplitResult, headers: str, length: int) -> Answer:
        """The answer; a kept connection that the server closed meanwhile is replaced at once."""
        for fresh in (False, True):
            connection = None
            try:
                connection = self._connection(address, fresh)
                used = connection.used
                answer = connection.get(address.netloc.rpartition("@")[2], f"{address.path}?{address.query}", headers,
                                        length)
            except ssl.SSLCertVerificationError as error:
                raise StorageError(f"the S3 server's certificate is not believed ({error.verify_message})",
                                   where=f"{address.scheme}://{address.hostname}",
                                   remedy="set AWS_CA_BUNDLE to the file of its authority") from None
            except OSError as error:
                if connection is not None:
                    connection.close()
                    if used and not fresh and not isinstance(error, TimeoutError | BlockingIOError):
                        continue
                raise Away("no answer in time" if isinstance(error, TimeoutError | BlockingIOError)
                           else error.strerror or str(error)) from None
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            self._keep(connection, answer.last)
            return answer
        raise AssertionError("the second turn returns or raises")

    def _connection(self, address: SplitResult, fresh: bool) -> Connection:
        with self._lock:
            if self._owner != os.getpid():  # sockets of the process that this one was forked from
                self._idle, self._owner = [], os.getpid()
            if self._idle and not fresh:
                return self._idle.pop()
        secure = address.scheme == "https"
        if secure and self._context is None:
            self._context = ssl.create_default_context(cafile=s3_client.authorities())
        return Connection(address.hostname or "", address.port or (443 if secure else 80),
                          self._context if secure else None, TIMEOUT)

    def _keep(self, connection: Connection, last: bool) -> None:
        with self._lock:
            if not last and len(self._idle) < IDLE and self._owner == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def _address(self, key: str) -> tuple[str, float]:
        found = self._signed.get(key)
        if found is None or time.monotonic() - found[1] > SIGNED / 2:
            found = s3_client.signed_url(self.bucket, key, SIGNED), time.monotonic()
            with self._lock:
                if len(self._signed) >= 4096:
                    self._signed.pop(next(iter(self._signed)))
                self._signed[key] = found
        return found

    def _by_boto(self, key: str, pin: Pin, offset: int, length: int) -> bytes:
        uri = self._uri(key)
        try:
            with s3_client.explained(uri):
                reply = s3_client.client().get_object(Bucket=self.bucket, Key=key, IfMatch=pin.etag,
                                                      Range=f"bytes={offset}-{offset + length - 1}")
                body = bytes(reply["Body"].read())
        except StorageError as error:
            raise self._gone(key, error) from None
        if reply.get("ETag", "") != pin.etag:
            raise s3_client.changed(uri)
        return body

    def _gone(self, key: str, error: Exception) -> Exception:
        """An object that was there when the store was opened and is not now: the store changed."""
        if isinstance(error, HypercutError) and error.what == "there is no such object":
            return s3_client.changed(self._uri(key))
        return error

    def _uri(self, key: str) -> str:
        return f"{s3_client.SCHEME}{self.bucket}/{key}"
