"""Servers as processes that can be found and stopped again, also after the command that started them died.

Each server leads a session of its own. It writes its line of /proc/<pid>/stat into a file before it becomes
the server: pid and start time together name one process and never another one that got the same number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hypercut_core.errors import HypercutError

MARK = "HYPERCUT_SERVICES"  # in every server's environment: the state folder that it belongs to
_RECORD_AND_BECOME = 'read -r facts < "/proc/$$/stat" && echo "$facts" > "$0" && exec "$@"'


class ServicesError(HypercutError):
    """The local servers could not be brought up, taken down or asked."""


@dataclass(frozen=True)
class Facts:
    """One line of /proc/<pid>/stat."""

    pid: int
    state: str
    session: int
    started: int  # clock ticks since boot


def spawn(folder: Path, name: str, command: list[str], environment: Mapping[str, str],
          user: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own; its pid lies in `pids/<name>`, its output in `logs/<name>.log`."""
    if user is not None:  # setpriv becomes the command, runuser and su would stay as its parent
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    pids, logs = folder / "pids", folder / "logs"
    for place in (pids, logs):
        place.mkdir(exist_ok=True)
    record = pids / name
    record.unlink(missing_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(["sh", "-c", _RECORD_AND_BECOME, str(record), *command], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True, cwd="/",
                                env={**base_environment(), **environment, MARK: str(folder)})


def base_environment() -> dict[str, str]:
    """What every server and tool gets: none of the caller's keys and addresses."""
    return {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": "/tmp"}


def running(folder: Path, name: str) -> int | None:
    """The server's pid, or None if it is not running."""
    recorded = _recorded(folder, name)
    return recorded.pid if recorded and _same_is_alive(recorded) else None


def stop(folder: Path, name: str, how: int = signal.SIGTERM, patience: float = 20.0) -> bool:
    """Stop a server and all that it started; whether there was anything to stop."""
    found = _members(folder, name)
    leader = running(folder, name)
    for process in found:
        if how != signal.SIGINT or process.pid == leader or leader is None:  # SIGINT: the leader tells the others
            _send(process, how)
    if not _gone(found, patience):
        for process in found:
            _send(process, signal.SIGKILL)
        if not _gone(found, 20.0):
            raise ServicesError(f"{name} does not stop (pid {found[0].pid})", where=folder,
                                remedy="look at it with 'ps'; it may wait for a disk")
    (folder / "pids" / name).unlink(missing_ok=True)
    return bool(found)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, folder: Path,
               patience: float = 120.0) -> None:
    """Poll `ready`.

    Raises:
        ServicesError: the process ended, or is not ready in time; with the last line of its log.
    """
    end = time.monotonic() + patience
    while not ready():
        if process.poll() is not None:
            raise ServicesError(f"{name} ended while it started ({last_words(folder, name)})",
                                where=folder / "logs" / f"{name}.log", remedy="read its log")
        if time.monotonic() > end:
            raise ServicesError(f"{name} was not ready after {patience:.0f} s", remedy="read its log",
                                where=folder / "logs" / f"{name}.log")
        time.sleep(0.1)


def tool(command: list[str], environment: Mapping[str, str] | None = None, *, user: str | None = None,
         timeout: float = 120.0) -> str:
    """Run a command to its end; what it printed.

    Raises:
        ServicesError: it failed, with the last line of its error output.
    """
    name = command[0]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd="/",
                              env={**base_environment(), **(environment or {})})
    except subprocess.TimeoutExpired:
        raise ServicesError(f"{name} did not end within {timeout:.0f} s",
                            remedy="read the logs below the state folder, then run 'down' and 'up'") from None
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
        raise ServicesError(f"{name} failed ({said[-400:]})", remedy="read the logs below the state folder")
    return done.stdout


def need(commands: Mapping[str, str], folders: str = "") -> None:
    """Check that each command (to its Debian package) is there.

    Raises:
        ServicesError: with the command that installs what is missing.
    """
    import shutil

    path = base_environment()["PATH"] + (f":{folders}" if folders else "")
    missing = {command: package for command, package in commands.items() if not shutil.which(command, path=path)}
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise ServicesError(f"{', '.join(missing)} cannot be found",
                            remedy=f"apt-get install -y --no-install-recommends {packages}")


def free_port(wanted: int = 0) -> int:
    """`wanted` if it is free, else one that the kernel chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that just ended
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ServicesError("no port of 127.0.0.1 is free", remedy="close some programs")


def answers(port: int, path: str = "/") -> bool:
    """Whether an HTTP server on loopback answers with a success."""
    import http.client

    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False


def last_words(folder: Path, name: str) -> str:
    try:
        lines = (folder / "logs" / f"{name}.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"


def private_file(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _facts(text: str) -> Facts | None:
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()  # the name between may hold spaces and brackets
    return Facts(int(pid), fields[0], int(fields[3]), int(fields[19])) if len(fields) > 19 else None


def _recorded(folder: Path, name: str) -> Facts | None:
    try:
        return _facts((folder / "pids" / name).read_text())
    except (OSError, ValueError):
        return None


def _current(pid: int) -> Facts | None:
    try:
        return _facts(Path(f"/proc/{pid}/stat").read_text())
    except (OSError, ValueError):
        return None


def _same_is_alive(process: Facts) -> bool:
    current = _current(process.pid)
    return current is not None and current.started == process.started and current.state != "Z"


def _members(folder: Path, name: str) -> list[Facts]:
    """The server first, then the rest of its session; if it died, those that carry our mark."""
    recorded = _recorded(folder, name)
    if recorded is None:
        return []
    alive = _same_is_alive(recorded)
    found = [_current(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - in a hurry
    session = [one for one in found if one and one.session == recorded.pid and one.state != "Z"
               and one.started >= recorded.started and (alive or _is_marked(one.pid, folder))]
    return sorted(session, key=lambda one: one.pid != recorded.pid)


def _is_marked(pid: int, folder: Path) -> bool:
    try:
        return f"{MARK}={folder}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _send(process: Facts, how: int) -> None:
    if _same_is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, how)


def _gone(processes: list[Facts], patience: float) -> bool:
    end = time.monotonic() + patience
    while any(_same_is_alive(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
