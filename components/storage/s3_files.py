"""A prefix of a bucket as a FileStore: checkpoints and other small state on S3."""

from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from components.storage import objects
from components.storage.patience import patiently
from components.storage.s3_client import ask, client, explained, patience, split_uri
from hypercut_core.errors import HypercutError, StorageError

ABANDONED = timedelta(hours=1)  # age at which an unfinished upload below the prefix is nobody's any more


class S3Files:
    """Named objects below a prefix. An object appears when it is whole, and not before.

    Args:
        uri: s3://bucket/prefix.
        wait: seconds to wait for a server that is away; default: what the environment says.
    """

    def __init__(self, uri: str, wait: float | None = None):
        self.name = uri.rstrip("/")
        self.bucket, prefix = split_uri(self.name)
        self._prefix = f"{prefix}/" if prefix else ""
        self._wait = wait
        self._looked = False

    def names(self) -> list[str]:
        def pages(s3: Any) -> list[str]:
            found = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix,
                                                                 Delimiter="/")
            return [item["Key"] for page in found for item in page.get("Contents", [])]

        keys = ask(self.name, pages, self._wait)
        return sorted(key.removeprefix(self._prefix) for key in keys if not key.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            return self._patiently(name, lambda: bytes(client().get_object(
                Bucket=self.bucket, Key=self._prefix + name)["Body"].read()))
        except HypercutError as error:
            if error.what == "there is no such object":
                raise FileNotFoundError(f"there is no object {self.name}/{name}") from None
            raise

    def write(self, name: str, data: bytes) -> None:
        if len(data) > objects.PART and not self._looked:
            self._looked = True
            with contextlib.suppress(StorageError):
                self._abort_abandoned()
        objects.put(self.bucket, self._prefix + name, io.BytesIO(data), self._wait)

    def delete(self, name: str) -> None:
        objects.delete(self.bucket, [self._prefix + name], self._wait)

    def _abort_abandoned(self) -> None:
        """Parts that a killed process left behind cost money for ever."""
        found = ask(self.name, lambda s3: s3.list_multipart_uploads(Bucket=self.bucket, Prefix=self._prefix), 0)
        for upload in found.get("Uploads", []):
            if datetime.now(UTC) - upload["Initiated"] > ABANDONED:
                key, number = str(upload["Key"]), str(upload["UploadId"])
                ask(self.name, lambda s3, key=key, number=number: s3.abort_multipart_upload(  # type: ignore[misc]
                    Bucket=self.bucket, Key=key, UploadId=number), 0)

    def _patiently(self, name: str, work: Any) -> bytes:
        uri = f"{self.name}/{name}"

        def once() -> bytes:
            with explained(uri):
                return bytes(work())

        return patiently(once, uri, patience() if self._wait is None else self._wait)
