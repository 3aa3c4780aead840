"""Ray nodes on this machine that share nothing but the kernel, the clock and the disk's read-only files.

Each node is a set of namespaces: a network (`eth0`, on a bridge that all nodes share), a host name, processes,
/dev/shm and /tmp/ray of its own. So a node can be killed as a whole and another one can join, and each has
only what a machine has. Nothing of it can be reached from outside or reaches outside.

    with ray_cluster() as cluster:
        cluster.start_head()
        cluster.join("node2")
        done = cluster.head.run(sys.executable, "driver.py")
        cluster["node2"].kill()

Needs root; everything is found and ended by pid when the block ends, and all processes of it die with the test
process even if that is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from needed import install, not_here

ROOT = Path(__file__).resolve().parents[2]
PYTHONPATH = f"{ROOT}:{ROOT / 'tests/systems'}"
RAY = Path(sys.executable).with_name("ray")
PACKAGES = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux"}
PATIENCE = 600  # s; the machine may be busy
SUBNET = "10.77.0"
HUB = f"{SUBNET}.254"  # the bridge's own address: servers for all nodes listen there
FOLDER = "hypercut-ray-"  # then the pid of the test process: all that belongs to a cluster
SESSIONS = Path("/tmp/ray")  # where every node sees its own folder
STORE_MEMORY = 80_000_000  # bytes of a node's object store; Ray's least is 75 MB
SHM = "160m"  # of a node's /dev/shm
# Ray looks for lost nodes every second instead of every third, is patient with a busy machine when something
# starts, and starts none of its helpers that a test does without
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0", "RAY_memory_monitor_refresh_ms": "0",
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000", "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_worker_register_timeout_seconds": "300", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_worker_niceness": "0",  # Ray's own 15 would starve workers where other programs keep all cores busy
}
_BECOME = ('hostname "$1" && mount -t tmpfs -o size="$2" shm /dev/shm && mount --bind "$3" "$4" '
           '&& mount --bind "$5" /etc/hosts && mount --bind /dev/null /etc/resolv.conf && shift 5 && exec "$@"')


@dataclass
class Node:
    """One machine of the cluster, running or not."""

    name: str
    number: int
    network: str  # the network namespace
    folder: Path
    env: dict[str, str]
    head: str = ""  # address that it joins; "": it is the head itself
    cpus: int = 1
    process: subprocess.Popen[bytes] | None = None
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{SUBNET}.{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / "start.log"

    def start(self, wait: bool = True) -> None:
        """Power on: start Ray (and wait until it runs)."""
        sessions = self.folder / "ray"
        shutil.rmtree(sessions, ignore_errors=True)
        sessions.mkdir()
        role = ["--address", self.head] if self.head else ["--head", "--port", "6379", "--include-dashboard", "false"]
        start = [RAY, "start", "--block", "--disable-usage-stats", "--include-log-monitor", "false",
                 "--node-ip-address", self.address, "--num-cpus", self.cpus, "--object-store-memory", STORE_MEMORY,
                 *role]
        words = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.network, "unshare", "--mount", "--uts",
                 "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", _BECOME, "sh", self.name, SHM,
                 sessions, SESSIONS, self.folder.parent / "hosts", *start]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd="/", env=self.env)
        if wait:
            self.wait_until_started()

    def wait_until_started(self) -> None:
        """Ray gives up on itself after 30 s, which a busy machine may need: then it is started again."""
        for again in (True, True, False):
            wait_until(lambda: b"Ray runtime started" in self.log.read_bytes() or self.ended, f"{self.name} starts")
            if not (self.ended and again and "timed out during startup" in self.said()):
                break
            self.start(wait=False)
        assert not self.ended, f"{self.name} does not start:\n{self.said()}"

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def pids(self) -> list[int]:
        """All of its processes, as this machine numbers them."""
        done = subprocess.run(["ip", "netns", "pids", self.network], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()]

    def processes(self, words: str) -> list[psutil.Process]:
        """Those whose command line contains `words` (a Ray worker's is its actor's name)."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if words in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self) -> None:
        """Power off: SIGKILL to the first process of the node, with which the kernel ends all others at once."""
        if self.process is not None:
            for first in self._first():
                first.kill()
            for process in (self.process, *self.drivers):
                process.wait(PATIENCE)
        for pid in self.pids():  # what else was started in its network
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.pids(), f"all processes of {self.name} end")

    def _first(self) -> list[psutil.Process]:
        """The process that is number 1 on the node, while there is one."""
        if self.process is None or self.ended:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def lose_packets_to(self, address: str) -> None:
        """Whatever it sends to `address` of the subnet vanishes."""
        _ip("-n", self.network, "neigh", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud",
            "permanent")

    def inside(self, *words: object) -> list[str]:
        """The command line that runs `words` on this node."""
        return ["nsenter", "-t", str(self._first()[0].pid), "--net", "--mount", "--uts", "--pid", f"--wd={self.folder}",
                *map(str, words)]

    def launch(self, *words: object, **env: str) -> subprocess.Popen[str]:
        """Start a program on this node; what it says goes to `<folder>/driver-<n>.log`, see `output`."""
        log = self.folder / f"driver-{len(self.drivers)}.log"
        with log.open("w") as out:
            driver = subprocess.Popen(self.inside(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True,
                                      env={**self.env, "RAY_ADDRESS": self.head or f"{self.address}:6379", **env})
        self.drivers.append(driver)
        return driver

    def output(self, driver: subprocess.Popen[str]) -> str:
        return (self.folder / f"driver-{self.drivers.index(driver)}.log").read_text(errors="replace")

    def run(self, *words: object, check: bool = True, timeout: float = PATIENCE,
            **env: str) -> subprocess.CompletedProcess[str]:
        """A program on this node, to its end."""
        done = subprocess.run(self.inside(*words), capture_output=True, text=True, check=False, timeout=timeout,
                              env={**self.env, "RAY_ADDRESS": self.head or f"{self.address}:6379", **env})
        if check:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done


def end(driver: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    """End a driver that `launch` started: the program itself, not only what carried it into the node."""
    carrier = psutil.Process(driver.pid)
    for process in [*carrier.children(recursive=True), carrier]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    driver.wait(PATIENCE)


class RayCluster:
    """The nodes by name and the bridge between them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hub = f"hc{os.getpid()}-hub"
        self.nodes: dict[str, Node] = {}
        self.hosts = folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost\n{HUB} hub\n")
        self.token = folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))

    def lay_cables(self) -> None:
        """The bridge. Raises CalledProcessError where that may not be."""
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.hub, "addr", "add", f"{HUB}/24", "dev", "br0")
        for device in ("br0", "lo"):
            _ip("-n", self.hub, "link", "set", device, "up")

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def head(self) -> Node:
        return self.nodes["head"]

    @property
    def others(self) -> list[Node]:
        """The nodes that run, without the head."""
        return [node for node in self.nodes.values() if node.head and not node.ended]

    def start_head(self, cpus: int = 1, **env: str) -> Node:
        node = self._machine("head", cpus, env)
        node.start()
        return node

    def join(self, name: str, cpus: int = 1, wait: bool = True, **env: str) -> Node:
        """A new machine that joins the cluster; `env` is what it has of its own."""
        node = self._machine(name, cpus, env)
        node.head = f"{self.head.address}:6379"
        node.start(wait)
        return node

    def in_hub(self, *words: object) -> list[str]:
        """The command line of a server for all nodes; it listens on HUB."""
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.hub, *map(str, words)]

    def _machine(self, name: str, cpus: int, env: dict[str, str]) -> Node:
        number = len(self.nodes) + 1
        node = Node(name, number, f"hc{os.getpid()}-{number}", self.folder / name, self._environment(env), cpus=cpus)
        node.folder.mkdir()
        with self.hosts.open("a") as hosts:  # in place: it is what all nodes see as /etc/hosts
            hosts.write(f"{node.address} {name}\n")
        _ip("netns", "add", node.network)
        self.nodes[name] = node
        _ip("-n", self.hub, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", node.network)
        _ip("-n", self.hub, "link", "set", f"p{number}", "master", "br0", "up")
        _ip("-n", node.network, "addr", "add", f"{node.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", node.network, "link", "set", device, "up")
        _ip("-n", node.network, "route", "add", "default", "via", HUB)  # programs ask it for their own address
        return node

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        foreign = ("AWS_", "MLFLOW_", "RAY_", "HYPERCUT_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**own, **RAY_SETTINGS, "RAY_AUTH_TOKEN_PATH": str(self.token), "GLOO_SOCKET_IFNAME": "eth0",
                "NCCL_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH, **env}

    def close(self) -> None:
        for node in reversed(self.nodes.values()):
            node.kill()
        for name in (*(node.network for node in self.nodes.values()), self.hub):
            _remove_network(name)


@contextlib.contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """An empty cluster; whatever was started in it is gone when the block ends."""
    if os.geteuid() != 0:
        not_here("network namespaces need root")
    install(PACKAGES)
    _remove_abandoned()
    made = not SESSIONS.exists()
    SESSIONS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    cluster = RayCluster(folder)
    try:
        try:
            cluster.lay_cables()
        except subprocess.CalledProcessError as error:
            not_here(f"network namespaces cannot be made: {error.stderr}")
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder)
        if made:
            with contextlib.suppress(OSError):  # another program may use it by now
                SESSIONS.rmdir()


def wait_until(ready: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain: {what}"
        time.sleep(0.05)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60)


def _remove_network(name: str) -> None:
    with contextlib.suppress(subprocess.SubprocessError):
        _ip("netns", "del", name)


def _remove_abandoned() -> None:
    """Networks and folders of test processes that were killed; their nodes died with them."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for name, owner in re.findall(r"^(hc(\d+)-\w+)", names, re.MULTILINE):
        if not psutil.pid_exists(int(owner)):
            _remove_network(name)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = folder.name.removeprefix(FOLDER).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
