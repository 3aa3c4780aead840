"""What failed when MLflow did: its server, the store of the artifacts behind it, or S3 asked directly."""

from __future__ import annotations

import re
import traceback

from components.redaction import shown
from hypercut_core.errors import RegistryError

_S3 = ("boto3", "botocore", "s3transfer")
_KNOWN = ("mlflow", "sqlalchemy", "requests", "urllib3", "sqlite3", "alembic", *_S3)
# an exception in the server's upload ends in a 500 or, once the client tries again, in a closed connection
_STORE_REFUSED = re.compile(r"mlflow-artifacts/.*(?:too many (?P<tried>\d+) error|Connection aborted|IncompleteRead)"
                            r"|(?P<once>401|403|5\d\d) \w+ Error.*mlflow-artifacts/", re.DOTALL)


def failure(error: Exception, uri: str) -> RegistryError | None:
    """The error as one that names the server and what to look at, secrets left out; None: it is not MLflow's."""
    package = type(error).__module__.split(".")[0]
    if package not in _KNOWN:
        return None
    text = shown(str(error)).strip()
    first = text.splitlines()[0][:300] if text else type(error).__name__
    what = f"MLflow failed ({first})"
    remedy = "check MLFLOW_TRACKING_URI and that its server runs, or unset it to use a file in the workspace"
    if store_refused(error):
        what, remedy = _refusal(text)
    elif package in _S3:
        what = f"the artifact store refuses the request ({first})"
        remedy = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL"
    told = RegistryError(what, where=shown(uri), remedy=remedy)
    whole = "".join(traceback.format_exception(error))
    told.__cause__ = error if shown(whole) == whole else None
    told.__suppress_context__ = True
    return told


def store_refused(error: Exception) -> bool:
    """Whether the server answered, and could not read or write the artifacts themselves."""
    return _STORE_REFUSED.search(str(error)) is not None


def _refusal(text: str) -> tuple[str, str]:
    found = _STORE_REFUSED.search(text)
    answer = (found["tried"] or found["once"]) if found else None
    told = f"it answers {answer}" if answer else "it breaks the connection off"
    return (f"the MLflow server cannot use its artifact store ({told})",
            "read the server's log: its S3 keys, bucket or endpoint are wrong, or the store is full")
