"""infra/local without the servers: processes that are found again, and the command line's refusals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.local import bring_up, processes
from infra.local.processes import ServicesError

# a server that starts a child and waits; the child's pid is in the log
PARENT = """
import subprocess, time
print(subprocess.Popen(["sleep", "300"]).pid, flush=True)
time.sleep(300)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(300)
"""


def started(folder: Path, name: str = "server", code: str = PARENT) -> subprocess.Popen[bytes]:
    return processes.spawn(folder, name, [sys.executable, "-c", code], {})


def said(folder: Path, name: str = "server") -> str:
    """The first line of its log."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        lines = (folder / f"logs/{name}.log").read_text().splitlines()
        if lines:
            return lines[0]
        time.sleep(0.02)
    raise AssertionError("it said nothing")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_server_is_known_by_its_pid_and_stopped_with_its_children(tmp_path: Path) -> None:
    process = started(tmp_path)
    child = int(said(tmp_path))
    assert processes.running(tmp_path, "server") == process.pid
    assert processes.stop(tmp_path, "server") is True
    assert process.wait(5) == -signal.SIGTERM
    assert not is_alive(child)
    assert processes.running(tmp_path, "server") is None
    assert processes.stop(tmp_path, "server") is False


def test_children_of_a_server_that_was_killed_are_found(tmp_path: Path) -> None:
    process = started(tmp_path)
    child = int(said(tmp_path))
    process.kill()
    process.wait()
    assert processes.running(tmp_path, "server") is None
    assert is_alive(child)
    assert processes.stop(tmp_path, "server") is True
    assert not is_alive(child)


def test_a_server_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path, code=DEAF)
    said(tmp_path)
    processes.stop(tmp_path, "server", patience=0.2)
    assert process.wait(5) == -signal.SIGKILL


def test_another_process_that_got_the_number_is_left_alone(tmp_path: Path) -> None:
    process = started(tmp_path)
    said(tmp_path)
    record = tmp_path / "pids/server"
    before, _, rest = record.read_text().rpartition(") ")
    fields = rest.split()
    fields[19] = str(int(fields[19]) - 500)  # the recorded one started earlier, and is gone
    record.write_text(f"{before}) {' '.join(fields)}\n")
    try:
        assert processes.running(tmp_path, "server") is None
        marked = tmp_path / "elsewhere"
        marked.mkdir()
        (marked / "pids").mkdir()
        (marked / "pids/server").write_text(record.read_text())
        assert processes.stop(marked, "server") is False  # its mark names another folder
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_ends_while_it_starts_is_told_with_its_last_words(tmp_path: Path) -> None:
    process = started(tmp_path, code="print('no such database'); raise SystemExit(3)")
    with pytest.raises(ServicesError, match="ended while it started \\(no such database\\)"):
        processes.wait_until(lambda: False, process, "server", tmp_path)


def test_servers_get_none_of_the_callers_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    process = started(tmp_path, code="import os; print(sorted(os.environ), flush=True)")
    process.wait(60)
    assert "HYPERCUT_SERVICES" in said(tmp_path)
    assert "AWS" not in said(tmp_path)


def test_a_port_in_use_is_replaced_or_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_port(port) not in (0, port)
        with pytest.raises(ServicesError, match=f"port {port} is in use"):
            bring_up.up(tmp_path / "state", in_memory=True, ports={"s3_port": port})


def test_private_files_are_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "secrets/one"
    file.parent.mkdir(mode=0o700)
    file.write_text("old")
    file.chmod(0o666)
    processes.private_file(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600


def test_missing_programs_are_named_with_what_installs_them() -> None:
    with pytest.raises(ServicesError, match="apt-get install -y --no-install-recommends one two") as caught:
        processes.need({"no-such-a": "one", "sh": "dash", "no-such-b": "two", "no-such-c": "one"})
    assert "no-such-a, no-such-b, no-such-c cannot be found" in str(caught.value)


@pytest.mark.parametrize(("words", "code", "says"), [
    (("--help",), 0, "infra/local/services up"), (("up", "--what"), 2, "unrecognized arguments"),
    (("status",), 1, "not running"), (("down",), 0, "nothing was running"),
    (("env",), 2, "run 'infra/local/services up'"),
])
def test_the_command_line(repository: Path, tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = subprocess.run([repository / "infra/local/services", *words, "--state", tmp_path / "state"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_without_the_packages_is_told_before_anything_starts(repository: Path, tmp_path: Path) -> None:
    code = "import sys; from infra.local.bring_up import main; sys.exit(main(['up', '--state', sys.argv[1]]))"
    done = subprocess.run([sys.executable, "-S", "-c", code, tmp_path / "state"], cwd=repository, text=True,
                          capture_output=True, timeout=120, check=False)  # -S: no site-packages
    assert done.returncode == 2, done.stderr
    assert "the Python packages mlflow, boto3, psycopg are not installed" in done.stderr
    assert "make setup" in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ServicesError, match="the state file is damaged"):
        bring_up.environment(tmp_path)
