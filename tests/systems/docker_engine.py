"""A real dockerd with all its state in a temporary folder, a base image made without a registry, and ours on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from needed import install, not_here

from pipelines.container_run import USER

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build/systems"  # ignored by git, emptied by `make clean`
PACKAGES = {"dockerd": "docker.io", "docker": "docker.io", "runc": "runc", "debootstrap": "debootstrap"}
BASE = "hypercut-test-base"
MAKE_BASE = ("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates,wget", "bookworm")
MEMORY = 8 * 2**30  # bytes; the layers of one build take 5 GB
PATIENCE = 2400  # s; the machine may be busy
# For work on these tests: the folder of an engine that runs already and keeps its layers; see `running_engine`.
KEPT_ENGINE = "HYPERCUT_TEST_ENGINE"
# not root, a read-only root file system, no network, no capability: as in a hardened cluster
HARDENED = ("--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
            "--security-opt=no-new-privileges")


@dataclass(frozen=True)
class Docker:
    """The engine and how to speak to it: its socket is `folder`/docker.sock."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for programs that use the engine; the user's own Docker settings stay out of it."""
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_BUILDKIT": "0",
                "DOCKER_CONFIG": f"{self.folder}/client"}

    def __call__(self, *words: object, check: bool = True, timeout: float = PATIENCE
                 ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, timeout=timeout,
                              check=False, env={**os.environ, **self.environment})
        if check:
            assert done.returncode == 0, f"docker {' '.join(map(str, words))}:\n{done.stdout}{done.stderr[-4000:]}"
        return done


@contextlib.contextmanager
def running_engine() -> Iterator[Docker]:
    """Start dockerd; on leaving, its processes, mounts and files are gone."""
    if KEPT_ENGINE in os.environ:
        yield Docker(Path(os.environ[KEPT_ENGINE]))
        return
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    install(PACKAGES)
    folder = Path(tempfile.mkdtemp(prefix="hypercut-docker-"))  # short: a socket's path has 107 bytes at most
    _into_memory(folder)
    log = folder / "log"
    words = ["dockerd", "--host", f"unix://{folder}/docker.sock", "--data-root", folder / "data", "--exec-root",
             folder / "exec", "--pidfile", folder / "docker.pid", "--default-ulimit", "nofile=20000:20000",
             "--iptables=false", "--bridge=none"]
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, words)), stdout=out, stderr=out, start_new_session=True)
    docker = Docker(folder)
    try:
        _wait_until_ready(docker, process, log)
        yield docker
    finally:
        _stop(docker, process)


def import_base(docker: Docker) -> None:
    """Load the base image, made by debootstrap on the first call on this machine."""
    name = hashlib.sha256(" ".join(MAKE_BASE).encode()).hexdigest()[:16]
    archive = CACHE / f"base-{name}.tar"
    if not archive.is_file():
        _make_base(archive)
    if docker("image", "inspect", BASE, check=False).returncode:  # a second import would be another image
        docker("import", archive, BASE)


def built(docker: Docker, target: str) -> str:
    """What `infra/images/build` printed: the reference to compile pipelines with."""
    import_base(docker)
    name = f"hypercut-test:{target}"
    done = subprocess.run([ROOT / "infra/images/build", target, name, "--network=host", "--build-arg", f"BASE={BASE}"],
                          cwd="/", capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, **docker.environment})
    if done.returncode != 0:
        not_here(f"the image cannot be built:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    assert re.fullmatch(r"hypercut-test@sha256:[0-9a-f]{64}\n", done.stdout)
    return done.stdout.strip()


def tag(image: str) -> str:
    """The engine's own id, of what `built` gave."""
    return image.split("@")[1]


def shared_folder(folder: Path) -> Path:
    """A folder that the containers' user may write to."""
    os.chown(folder, USER, USER)
    return folder


def _into_memory(folder: Path) -> None:
    """Where there is plenty of it: the layers are written twice, and deleting 200,000 files can take minutes."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    if int(found["MemAvailable"].split()[0]) * 1024 > MEMORY + 6 * 2**30:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEMORY},mode=0711", "hypercut-docker", folder],
                       check=False, capture_output=True, timeout=60)  # on the disk if that may not be


def _wait_until_ready(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while docker("info", check=False, timeout=60).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            not_here(f"dockerd does not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)


def _make_base(archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hypercut-base-") as folder:
        root, partial = Path(folder) / "root", Path(f"{archive}.{os.getpid()}")
        try:
            done = subprocess.run([*MAKE_BASE, root], capture_output=True, text=True, timeout=PATIENCE, check=False)
        finally:
            _unmount(Path(folder))
        if done.returncode != 0:
            not_here(f"the base image cannot be made:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
        subprocess.run(["tar", "-C", root, "--exclude=./var/cache/apt/archives/*.deb",
                        "--exclude=./var/lib/apt/lists/*", "-cf", partial, "."], check=True, timeout=PATIENCE)
        partial.replace(archive)


def _stop(docker: Docker, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(Exception):  # one that does not answer is stopped below
        left = docker("ps", "-aq", timeout=60).stdout.split()
        if left:
            docker("rm", "-f", *left, timeout=120)
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its containerd: they are a session of their own
        process.wait(60)
    _unmount(docker.folder)  # with a tmpfs, all is gone
    subprocess.run(["rm", "-rf", docker.folder], check=True, timeout=PATIENCE)  # 100,000 files: faster than Python


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted((place for place in mounts if f"{place}/".startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", place], check=False, timeout=60)
