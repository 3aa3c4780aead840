"""The MLflow server: runs and registry in PostgreSQL, artifacts in S3 through the server.

Clients speak to the server alone: no step needs the artifact bucket's keys.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from infra.local import postgres, s3_server
from infra.local.processes import ServicesError, answers, free_port, spawn, wait_until

NAME = "mlflow"
ARTIFACTS = f"s3://{s3_server.BUCKETS[NAME]}"


def need_packages() -> None:
    """Check this Python before anything is started: the gateway's buckets take boto3 too."""
    from importlib.util import find_spec

    missing = [name for name in ("mlflow", "boto3", "psycopg") if find_spec(name) is None]
    if missing:
        raise ServicesError(f"the Python packages {', '.join(missing)} are not installed", where=sys.executable,
                            remedy="run 'make setup', or pip install 'hypercut[tracking,s3]'")


def start(folder: Path, state: dict[str, Any]) -> None:
    """Start the server; on first use it makes its tables, which takes some seconds more."""
    state["mlflow_port"] = free_port(state.get("mlflow_port", 0))
    options = ["--host", "127.0.0.1", "--port", str(state["mlflow_port"]), "--workers", "1",
               "--backend-store-uri", postgres.address(state), "--artifacts-destination", ARTIFACTS]
    launch(folder, state, NAME, options, s3_server.credentials_file(folder, NAME))


def launch(folder: Path, state: dict[str, Any], name: str, options: list[str], credentials: Path) -> None:
    """Start a server called `name` with the S3 keys of an AWS file, and wait until it answers."""
    environment = {
        "PGPASSFILE": str(folder / "secrets/pgpass"),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_DEFAULT_REGION": s3_server.REGION,
        "MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint(state),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs are for its judges of language models
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    port = int(options[options.index("--port") + 1])
    process = spawn(folder, name, [sys.executable, "-m", "mlflow", "server", *options], environment)
    wait_until(lambda: answers(port, "/health"), process, name, folder, patience=240)


def address(state: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{state['mlflow_port']}"
