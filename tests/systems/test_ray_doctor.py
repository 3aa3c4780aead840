"""`hypercut doctor --cluster` on a real cluster: sound at first, then with nodes that each have a fault."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from numpy.random import default_rng
from ray_nodes import HUB, PYTHONPATH, RayCluster, ray_cluster

from hypercut_core.clips.store import ClipStoreWriter

pytest.importorskip("ray")
pytestmark = [pytest.mark.system, pytest.mark.cluster]

PORT = 5000
S3 = {"AWS_ENDPOINT_URL_S3": f"http://{HUB}:{PORT}", "AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "any",
      "AWS_DEFAULT_REGION": "us-east-1"}
PATIENT = {"RAY_health_check_failure_threshold": "1000"}  # the doctor shall meet a node that hangs, not a lost one


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        server = subprocess.Popen(cluster.in_hub(sys.executable, "-m", "moto.server", "-H", HUB, "-p", PORT),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            cluster.start_head(**PATIENT, **S3)
            cluster.join("node2", **S3)
            yield cluster
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def clips(cluster: RayCluster) -> str:
    """On an S3 server that all nodes reach."""
    with ClipStoreWriter(cluster.folder / "clips", 3) as writer:
        for number in range(8):
            frames = default_rng(number).integers(0, 256, (4, 96, 96, 3), dtype="uint8")
            writer.add(frames, clip_id=f"{number}", source=f"{number}", split="train", category="a", motion=1.0)
    code = ("import boto3, sys\nfrom pathlib import Path\nfrom components.storage import upload_clips\n"
            "boto3.client('s3').create_bucket(Bucket='data')\nupload_clips(Path(sys.argv[1]), sys.argv[2])")
    cluster.head.run(sys.executable, "-c", code, cluster.folder / "clips", "s3://data/clips")
    return "s3://data/clips"


def doctor(cluster: RayCluster, *words: object) -> subprocess.CompletedProcess[str]:
    done = cluster.head.run(sys.executable, "-m", "pipelines.cli", "doctor", "--cluster", *words, check=False)
    assert "Traceback" not in done.stderr
    return done


def bad(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What is bad on each node, of a `--json` document."""
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert all(one["remedy"] for one in findings)
    names = {one["what"] for one in findings if one["state"] == "bad"}
    return {name: " | ".join(one["found"] for one in findings if one["what"] == name) for name in names}


def test_a_sound_cluster(cluster: RayCluster, clips: str) -> None:
    done = doctor(cluster, "--clips", clips, "--json")
    assert done.returncode == 0, done.stdout
    told: dict[str, Any] = json.loads(done.stdout)
    assert [node["name"] for node in told["nodes"]] == ["head", "node2"]
    for node in told["nodes"]:
        assert node["machine"]["versions"] == told["versions"]
        assert node["store"]["bytes"] >= 32_000_000
        assert node["store"]["mb_s"] > 0
        assert abs(node["clock_ahead"]) < 1
        assert node["own_name"] == node["address"]
    assert [(group["backend"], group["problems"]) for group in told["groups"]] == [("gloo", {})]
    assert told["groups"][0]["gb_s"] > 0


def test_each_node_is_told_what_ails_it(cluster: RayCluster, clips: str) -> None:
    """node2 is cut off from node3, which has another version and does not reach the store."""
    other = cluster.folder / "other/hypercut-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: hypercut\nVersion: 9.9\n")
    node3 = cluster.join("node3", PYTHONPATH=f"{other.parent}:{PYTHONPATH}", **S3)
    node3.lose_packets_to(HUB)
    cluster["node2"].lose_packets_to(node3.address)
    found = bad(doctor(cluster, "--clips", clips, "--json", "--timeout", 15))
    assert "hypercut 9.9 instead of 0.1.0" in found["node3"]
    assert "cannot read the clip store" in found["node3"]
    assert "does not reach node3: timed out" in found["node2"]
    assert "gloo" in found["node2"] + found["node3"]
    assert "head" not in found or "gloo" in found["head"]


def test_a_node_that_hangs_is_not_waited_for(cluster: RayCluster, clips: str) -> None:
    raylet = cluster["node2"].processes("raylet/raylet")[0]
    raylet.send_signal(signal.SIGSTOP)
    try:
        done = doctor(cluster, "--timeout", 10)
    finally:
        raylet.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("BAD  node2"))
    assert "does not answer: no answer within 10 s" in line
    assert "ray stop" in line


def test_a_wrong_token_is_a_clear_error(cluster: RayCluster) -> None:
    wrong = cluster.folder / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("0" * 64)
    done = cluster.head.run(sys.executable, "-m", "pipelines.cli", "doctor", "--cluster", check=False,
                            RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode == 2
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
