"""PostgreSQL on loopback: password by SCRAM, no socket file, one database."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
from pathlib import Path
from typing import Any

from infra.local.processes import ServicesError, free_port, need, private_file, spawn, tool, wait_until

NAME = "postgres"  # of the server, and of the user that it runs as when we are root
ROLE = DATABASE = "mlflow"


def binaries() -> Path:
    """The newest version's folder; Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    folder = found[-1].parent if found else Path("/usr/bin")
    need(dict.fromkeys(("postgres", "initdb", "psql", "pg_isready"), "postgresql"), str(folder))
    return folder


def start(folder: Path, state: dict[str, Any]) -> None:
    """Start the server, on first use with a new database and password."""
    programs = binaries()
    user = _user()
    if not state.get("postgres_ready"):
        _create(folder, state, programs, user)
    state["postgres_port"] = port = free_port(state.get("postgres_port", 0))
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "",
                "max_connections": 50, "shared_buffers": "32MB", "fsync": "off" if state["in_memory"] else "on"}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = spawn(folder, NAME, [str(programs / "postgres"), "-D", f"{state['postgres_folder']}/data", *words],
                    {}, user)
    wait_until(lambda: _answers(programs, port), process, NAME, folder)
    login = {"PGPASSFILE": str(folder / "secrets/pgpass")}
    psql = [str(programs / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", ROLE, "-d", "postgres", "-Atqc"]
    if not tool([*psql, f"select 1 from pg_database where datname = '{DATABASE}'"], login).strip():
        tool([*psql, f"create database {DATABASE}"], login)
    state["postgres_ready"] = True


def data_folder(folder: Path) -> str:
    """Where its files lie: root's folders are closed to the user postgres, so outside them if we are root."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return str(folder / NAME) if os.geteuid() else f"/var/tmp/hypercut-postgres-{name}"


def address(state: dict[str, Any]) -> str:
    """Without the password: clients take it from the file that PGPASSFILE names."""
    return f"postgresql://{ROLE}@127.0.0.1:{state['postgres_port']}/{DATABASE}"


def _user() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as Debian's user for it."""
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam(NAME).pw_name
    except KeyError:
        raise ServicesError(f"PostgreSQL does not run as root, and there is no user '{NAME}'",
                            remedy="apt-get install -y --no-install-recommends postgresql") from None


def _create(folder: Path, state: dict[str, Any], programs: Path, user: str | None) -> None:
    place = Path(state["postgres_folder"])
    shutil.rmtree(place, ignore_errors=True)  # of a bring-up that was killed
    place.mkdir(mode=0o700)  # fails if somebody else has it
    password = secrets.token_urlsafe(24)
    file = private_file(place / "password", password)
    if user:
        for path in (place, file):
            shutil.chown(path, user, user)
    tool([str(programs / "initdb"), "-D", str(place / "data"), "-U", ROLE, "--auth=scram-sha-256",
          f"--pwfile={file}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
          *(["--no-sync"] if state["in_memory"] else [])], user=user)
    file.unlink()
    private_file(folder / "secrets/pgpass", f"127.0.0.1:*:*:{ROLE}:{password}\n")


def _answers(programs: Path, port: int) -> bool:
    try:
        tool([str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)])
    except ServicesError:
        return False
    return True
