"""What a RayJob's state and its pods say of it: progress, failures and their remedies."""

from __future__ import annotations

from typing import Any

from launcher_world import manifest

from components.train_deblurrer.ray_job_status import failure, told, troubles

NAME = manifest("me")["metadata"]["name"]


def job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": NAME}, "status": status}


def test_progress_counts_the_workers() -> None:
    found = job(jobDeploymentStatus="Initializing",
                rayClusterStatus={"desiredWorkerReplicas": 16, "availableWorkerReplicas": 3})
    assert told(found) == "Initializing, 3 of 16 workers ready"


def test_out_of_memory_is_found_in_the_pods_and_has_its_own_remedy() -> None:
    pod = {"metadata": {"name": "worker-2"}, "status": {"containerStatuses": [
        {"name": "ray-worker", "state": {"running": {}},
         "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}}
    text, remedy = failure(job(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed",
                               message="x" * 5000 + " RuntimeError: the last words"), [pod])
    assert "pod worker-2: ray-worker ended: out of memory, OOMKilled, exit code 137" in text
    assert text.endswith("RuntimeError: the last words")
    assert len(text) < 2000
    assert "micro_batch" in remedy


def test_what_is_wrong_with_pods() -> None:
    pods = [{"metadata": {"name": "a"}, "status": {"containerStatuses": [
        {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}},
        {"metadata": {"name": "b"}, "status": {"reason": "Evicted", "message": "The node was low on memory"}},
        {"metadata": {"name": "c"}, "status": {"containerStatuses": [
            {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}},
            {"name": "d", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}},
        {"metadata": {"name": "d"}}]
    assert troubles(pods) == ["pod a: c waits: ImagePullBackOff (no such image)",
                              "pod b: Evicted (The node was low on memory)"]
