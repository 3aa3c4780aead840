"""infra/local/services: an MLflow server on PostgreSQL and an S3 server on loopback, up and down again.

  infra/local/services up                  start what is not running; a second call changes nothing
  eval "$(infra/local/services env)"       point this shell's hypercut, mlflow, dvc and aws at them
  infra/local/services status              what runs, where; exit code 1 if something does not
  infra/local/services down                stop all of it; runs, models and objects are kept for the next up

Runs and models lie in PostgreSQL and in the S3 bucket mlflow-artifacts (through the MLflow server, so that
clients need no keys for it); the bucket hypercut is for footage and DVC. Everything is below the state folder
(default: work/services; as root, PostgreSQL's own files are in /var/tmp, as it may not enter root's folders),
with passwords and keys of its own in files that only you may read. With `up --in-memory` nothing touches the
disk for long and all of it, runs, models and objects, is gone after `down`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercut_core.errors import HypercutError
from infra.local import mlflow_server, postgres, s3_server
from infra.local.processes import ServicesError, free_port, private_file, running, stop

ROOT = Path(__file__).resolve().parents[2]
SERVERS = (postgres.NAME, s3_server.MON, s3_server.OSD, s3_server.GATEWAY, mlflow_server.NAME)  # as they start


def up(folder: Path, *, in_memory: bool = False, ports: dict[str, int] | None = None) -> dict[str, Any]:
    """Start what is not running; its state.

    Raises:
        ServicesError: a program is missing or does not start; then nothing is left running.
    """
    mlflow_server.need_packages()
    with _held(folder) as state:
        if all(running(folder, name) for name in SERVERS):
            return state
        _stop_all(folder)  # half of it may have died
        if state and state["in_memory"]:
            _delete(folder, state)  # what lay in memory died with it, and the database would remember it
            state.clear()
        state.setdefault("in_memory", in_memory)
        state.setdefault("postgres_folder", postgres.data_folder(folder))
        state.update(_wanted(ports or {}))
        _save(folder, state)
        try:
            for server in (postgres, s3_server, mlflow_server):
                server.start(folder, state)
                _save(folder, state)
        except BaseException:
            _save(folder, state)
            _stop_all(folder)
            raise
        return state


def down(folder: Path, *, delete: bool = False) -> bool:
    """Stop everything; whether anything ran. What lay in memory is deleted, all the rest with `delete`."""
    if not folder.is_dir():
        return False
    with _held(folder) as state:
        stopped = _stop_all(folder)
        if state and (delete or state["in_memory"]):
            _delete(folder, state)
    return stopped


def environment(folder: Path) -> dict[str, str]:
    """What a client needs, secrets included.

    Raises:
        ServicesError: the servers do not run.
    """
    state = _load(folder)
    if not all(running(folder, name) for name in SERVERS):
        raise ServicesError("the servers do not run", where=folder, remedy="run 'infra/local/services up'")
    return {"MLFLOW_TRACKING_URI": mlflow_server.address(state), "AWS_ENDPOINT_URL_S3": s3_server.endpoint(state),
            "AWS_DEFAULT_REGION": s3_server.REGION, **s3_server.keys(folder, "hypercut")}


def addresses(state: dict[str, Any]) -> dict[str, str]:
    """Address of each server, without passwords."""
    return {postgres.NAME: postgres.address(state), s3_server.MON: f"127.0.0.1:{state['mon_port']}",
            s3_server.OSD: "", s3_server.GATEWAY: s3_server.endpoint(state),
            mlflow_server.NAME: mlflow_server.address(state)}


def main(words: list[str] | None = None) -> int:
    """The command line; errors are one paragraph and exit code 2."""
    given = _parser().parse_args(words)
    folder: Path = given.state.resolve()
    try:
        return int(_COMMANDS[given.command](folder, given))
    except KeyboardInterrupt:
        return 130
    except HypercutError as error:
        print(f"services: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _up(folder: Path, given: argparse.Namespace) -> int:
    ports = {"mlflow_port": given.mlflow_port, "s3_port": given.s3_port, "postgres_port": given.postgres_port}
    state = up(folder, in_memory=given.in_memory, ports=ports)
    print(f"MLflow  {mlflow_server.address(state)}  (runs in PostgreSQL, artifacts in S3)\n"
          f"S3      {s3_server.endpoint(state)}  (bucket {s3_server.BUCKETS['hypercut']})\n"
          f'Next:   eval "$(infra/local/services env)"')
    return 0


def _down(folder: Path, given: argparse.Namespace) -> int:
    print("stopped" if down(folder, delete=given.delete) else "nothing was running")
    return 0


def _status(folder: Path, given: argparse.Namespace) -> int:
    pids = {name: running(folder, name) for name in SERVERS}
    known = _load(folder)
    where = addresses(known) if known.get("mlflow_port") else {}
    for name, pid in pids.items():
        print(f"{name:<10}{f'pid {pid}' if pid else 'not running':<14}{where.get(name, '')}".rstrip())
    return 0 if all(pids.values()) else 1


def _env(folder: Path, given: argparse.Namespace) -> int:
    for name, value in environment(folder).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


_COMMANDS = {"up": _up, "down": _down, "status": _status, "env": _env}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="infra/local/services", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=list(_COMMANDS))
    parser.add_argument("--state", type=Path, default=ROOT / "work/services", help="folder of everything")
    parser.add_argument("--in-memory", action="store_true", help="up: keep nothing (faster)")
    parser.add_argument("--delete", action="store_true", help="down: delete runs, models and objects too")
    for name in ("mlflow", "s3", "postgres"):
        parser.add_argument(f"--{name}-port", type=int, default=0, help="up: a fixed port (default: a free one)")
    return parser


def _wanted(ports: dict[str, int]) -> dict[str, int]:
    wanted = {name: port for name, port in ports.items() if port}
    for name, port in wanted.items():
        if free_port(port) != port:
            raise ServicesError(f"port {port} is in use", where=name.replace("_", " "), remedy="choose another one")
    return wanted


def _stop_all(folder: Path) -> bool:
    """Clients before what they use; PostgreSQL by SIGINT, which ends its sessions; the gateway keeps no state."""
    stopped = [stop(folder, name, signal.SIGINT if name == postgres.NAME else signal.SIGTERM,
                    1.0 if name == s3_server.GATEWAY else 20.0) for name in reversed(SERVERS)]
    return any(stopped)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[dict[str, Any]]:
    """The state, one command at a time."""
    os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ServicesError(f"the state folder cannot be used ({error.strerror})", where=folder,
                            remedy="choose another one with --state") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _load(folder)


def _load(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ServicesError("the state file is damaged", where=folder / "state.json",
                            remedy="run 'down', then delete the folder") from None
    return state


def _save(folder: Path, state: dict[str, Any]) -> None:
    private_file(folder / "state.json.new", json.dumps(state, indent=2)).replace(folder / "state.json")


def _delete(folder: Path, state: dict[str, Any]) -> None:
    if state.get("postgres_folder"):
        shutil.rmtree(state["postgres_folder"], ignore_errors=True)
    for name in ("ceph", "secrets", "logs", "pids", "postgres"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "state.json").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
