"""An S3 server: Ceph's radosgw on one monitor and one object store, all on loopback, cephx everywhere.

Kept in a sparse file (BlueStore), or in memory. There is no manager daemon: nothing here needs one.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from infra.local.processes import ServicesError, answers, free_port, need, private_file, spawn, tool, wait_until

MON, OSD, GATEWAY = "ceph-mon", "ceph-osd", "radosgw"
REGION = "us-east-1"
BUCKETS = {"mlflow": "mlflow-artifacts", "hypercut": "hypercut"}  # S3 user -> the bucket that it owns
PROGRAMS = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "radosgw": "radosgw", "ceph": "ceph-common",
            "ceph-authtool": "ceph-common", "monmaptool": "ceph-common", "radosgw-admin": "ceph-common"}

CONFIGURATION = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}
admin socket =
log file = {folder}/$name.log
log to stderr = false
paxos propose interval = 0.1
paxos min wait = 0.02
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
[mon]
mon data = {folder}/mon
[osd]
osd data = {folder}/osd
osd objectstore = {store}
memstore device bytes = 8589934592
bluestore block size = 34359738368
bluestore cache autotune = false
bluestore cache size = 67108864
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw thread pool size = 32
"""


def start(folder: Path, state: dict[str, Any]) -> None:
    """Start monitor, store and gateway, on first use with new keys, users and buckets."""
    need(PROGRAMS)
    place = folder / "ceph"
    fresh = not state.get("s3_ready")
    if fresh:
        shutil.rmtree(place, ignore_errors=True)  # of a bring-up that was killed
        for name in ("mon", "osd", "rgw"):
            (place / name).mkdir(parents=True)
        state["fsid"] = str(uuid.uuid4())
    moved = state.get("mon_port")
    state["mon_port"] = free_port(state.get("mon_port", 0))
    state["s3_port"] = free_port(state.get("s3_port", 0))
    store = "memstore" if state["in_memory"] else "bluestore"
    (place / "ceph.conf").write_text(CONFIGURATION.format(folder=place, store=store, **state))
    where = {"CEPH_CONF": str(place / "ceph.conf")}
    if fresh:
        _keys(place)
    if fresh or moved != state["mon_port"]:
        _monitor_map(place, state, where, fresh)
    _servers(folder, state, where, fresh)
    if fresh:
        for user, bucket in BUCKETS.items():
            _user_with_bucket(folder, state, where, user, bucket)
    state["s3_ready"] = True


def endpoint(state: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{state['s3_port']}"


def keys(folder: Path, user: str) -> dict[str, str]:
    """Access and secret key of an S3 user, as the AWS variables of the environment."""
    try:
        found: dict[str, str] = json.loads((folder / f"secrets/s3-{user}.json").read_text())
    except (OSError, ValueError):
        raise ServicesError("the S3 keys are not there", where=folder,
                            remedy="run 'down --delete', then 'up'") from None
    return found


def credentials_file(folder: Path, user: str) -> Path:
    """The same in AWS's file format, for a server whose environment should hold no keys."""
    lines = ["[default]", *(f"{name.lower()} = {value}" for name, value in keys(folder, user).items())]
    return private_file(folder / f"secrets/s3-{user}.ini", "\n".join(lines) + "\n")


def _keys(place: Path) -> None:
    may = {"mon.": ["mon", "allow *"], "client.admin": ["mon", "allow *", "osd", "allow *"],
           "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
           "client.rgw": ["mon", "allow rw", "osd", "allow rwx"]}
    private_file(place / "keyring", "")
    for name, rights in may.items():
        caps = [word for what, right in zip(rights[::2], rights[1::2], strict=True) for word in ("--cap", what, right)]
        tool(["ceph-authtool", str(place / "keyring"), "--gen-key", "-n", name, *caps])


def _monitor_map(place: Path, state: dict[str, Any], where: dict[str, str], fresh: bool) -> None:
    monitors = str(place / "monmap")
    tool(["monmaptool", "--create", "--clobber", "--fsid", state["fsid"], "--addv", "a",
          f"[v2:127.0.0.1:{state['mon_port']}]", monitors], where)
    if fresh:
        tool([MON, "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", str(place / "keyring")], where)
    else:
        tool([MON, "-i", "a", "--inject-monmap", monitors], where)


def _servers(folder: Path, state: dict[str, Any], where: dict[str, str], fresh: bool) -> None:
    monitor = spawn(folder, MON, [MON, "-f", "-i", "a"], where)
    wait_until(lambda: _monitor_answers(where), monitor, MON, folder)
    if fresh:
        store = str(uuid.uuid4())
        tool(["ceph", "osd", "new", store], where)
        tool([OSD, "-i", "0", "--mkfs", "--osd-uuid", store], where)
    spawn(folder, OSD, [OSD, "-f", "-i", "0"], where)
    gateway = spawn(folder, GATEWAY, [GATEWAY, "-f", "-n", "client.rgw"], where)
    wait_until(lambda: answers(state["s3_port"]), gateway, GATEWAY, folder)


def _monitor_answers(where: dict[str, str]) -> bool:
    try:
        tool(["ceph", "--connect-timeout", "5", "mon", "stat"], where, timeout=20)
    except ServicesError:
        return False
    return True


def _user_with_bucket(folder: Path, state: dict[str, Any], where: dict[str, str], user: str, bucket: str) -> None:
    import boto3

    # radosgw makes the keys: on a command line everybody on this machine could read them
    made = json.loads(tool(["radosgw-admin", "user", "create", f"--uid={user}", f"--display-name={user}"], where))
    pair = {"AWS_ACCESS_KEY_ID": made["keys"][0]["access_key"], "AWS_SECRET_ACCESS_KEY": made["keys"][0]["secret_key"]}
    private_file(folder / f"secrets/s3-{user}.json", json.dumps(pair))
    client = boto3.session.Session().client("s3", endpoint_url=endpoint(state), region_name=REGION,
                                            aws_access_key_id=pair["AWS_ACCESS_KEY_ID"],
                                            aws_secret_access_key=pair["AWS_SECRET_ACCESS_KEY"])
    client.create_bucket(Bucket=bucket)
