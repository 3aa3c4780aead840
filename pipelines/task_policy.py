"""One table: what each step of the pipeline gets on a cluster.

Requests equal limits for memory, so that a task is killed for its own appetite only. Everything below is asserted
in the compiled YAML by tests/pipelines/test_task_policy.py: no local runner can prove it.

Cache. A task is taken from Kubeflow's cache if image, command, parameters and input artifacts are the same:

    yes    the result follows from those alone
    asked  so does a training's, since images are named by digest, but hours of work never come from a cache
           unless the pipeline was compiled with `--cache-trainings`
    never  the result also follows from something that Kubeflow does not see: the footage where it lies
           (collect-footage), the present champion (evaluate, register-model), models that are only named
           (evaluate-trajectories), the run itself (close-run)
"""

from dataclasses import dataclass, replace
from typing import Literal

from kfp import dsl, kubernetes

STORE_CLAIM = "hypercut-store"  # PersistentVolumeClaim, ReadWriteMany
STORE_MOUNT = "/mnt/hypercut"
ROOM = "8Gi"  # for temporary files
S3_ROOM = "100Gi"  # the same with a store on S3: footage and clips are made there before they are uploaded
S3_SECRET = "hypercut-s3"  # keys are named as the variables
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SERVICES = "hypercut-services"  # ConfigMap of addresses; keys are named as the variables
ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")
MLFLOW_SECRET = "hypercut-mlflow"  # login of the MLflow server, if it wants one
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
GPU = "nvidia.com/gpu"
GPU_NODES = {"nvidia.com/gpu.present": "true"}  # the label that NVIDIA's feature discovery sets

HOUR = 3600


@dataclass(frozen=True)
class TaskPolicy:
    """What one step gets."""

    cpu: str
    memory: str
    hours: float  # a try is ended after this time
    cache: Literal["yes", "asked", "never"]
    gpus: int = 0
    shared_memory: str = ""  # size of /dev/shm, which torch's workers pass tensors through
    retries: int = 2  # a try lost with its node is repeated; trainings go on from their checkpoint
    backoff: int = 60  # s before the first retry, doubled for each one after it
    backoff_most: int = 600  # s
    s3: bool = False  # gets the S3 keys
    mlflow: bool = False  # gets the MLflow login


POLICIES: dict[str, TaskPolicy] = {
    "collect-footage": TaskPolicy("2", "4Gi", 4, "never", s3=True),
    "validate-footage": TaskPolicy("1", "2Gi", 0.5, "yes", retries=1),
    "synthesize-blur": TaskPolicy("4", "8Gi", 12, "yes", s3=True),
    "validate-clips": TaskPolicy("2", "4Gi", 2, "yes", retries=1),
    "train-encoder": TaskPolicy("4", "16Gi", 12, "asked", gpus=1, shared_memory="8Gi", retries=3),
    "assign-order": TaskPolicy("2", "8Gi", 6, "yes"),
    "train-deblurrer": TaskPolicy("8", "32Gi", 72, "asked", gpus=1, shared_memory="16Gi", retries=3),
    "evaluate": TaskPolicy("4", "16Gi", 6, "never", gpus=1, shared_memory="8Gi", s3=True, mlflow=True),
    "evaluate-trajectories": TaskPolicy("4", "16Gi", 12, "never", s3=True),  # its image is the tracker's, without GPU
    "register-model": TaskPolicy("1", "4Gi", 1, "never", retries=3, s3=True, mlflow=True),
    "close-run": TaskPolicy("1", "2Gi", 0.5, "never", s3=True, mlflow=True),
}

# train-deblurrer where it only launches a RayJob and waits: the job has the GPUs
LAUNCHER = replace(POLICIES["train-deblurrer"], cpu="1", memory="4Gi", gpus=0, shared_memory="")


@dataclass(frozen=True)
class Build:
    """What is decided when the pipeline is compiled, for all tasks alike."""

    image: str
    gpus: bool = True  # False: no task asks for one
    cache_trainings: bool = False
    retries: bool = True
    rayjob: bool = False  # train-deblurrer launches a RayJob (deblurrer.scale.launcher)
    s3_store: bool = False  # the store is on S3: no task mounts a volume, and every task gets the S3 keys
    tracker_image: str = ""  # of evaluate-trajectories; "": the pipeline has no such task

    def image_of(self, step: str) -> str:
        """The image that a step runs in."""
        return self.tracker_image if step == "evaluate-trajectories" else self.image


def cached(policy: TaskPolicy, build: Build) -> bool:
    """Whether a task may come from the cache."""
    return policy.cache == "yes" or (policy.cache == "asked" and build.cache_trainings)


def apply(task: dsl.PipelineTask, step: str, build: Build) -> dsl.PipelineTask:
    """Give a task its image and what its row in the table says."""
    policy = LAUNCHER if build.rayjob and step == "train-deblurrer" else POLICIES[step]
    task.set_container_image(build.image_of(step)).set_caching_options(cached(policy, build))
    task.set_cpu_request(policy.cpu).set_cpu_limit(policy.cpu)
    task.set_memory_request(policy.memory).set_memory_limit(policy.memory)
    if build.retries:
        task.set_retry(policy.retries, f"{policy.backoff}s", 2.0, f"{policy.backoff_most}s")
    if build.gpus and policy.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(policy.gpus)
        for label, value in GPU_NODES.items():
            kubernetes.add_node_selector(task, label, value)
        kubernetes.add_toleration(task, key=GPU, operator="Exists", effect="NoSchedule")
    if build.s3_store:
        policy = replace(policy, s3=True)
    else:
        kubernetes.mount_pvc(task, STORE_CLAIM, STORE_MOUNT)
    _mount(task, policy, S3_ROOM if build.s3_store else ROOM)
    _connect(task, policy)
    kubernetes.set_timeout(task, int(policy.hours * HOUR))
    kubernetes.set_security_context(task, run_as_non_root=True)
    return task


def _mount(task: dsl.PipelineTask, policy: TaskPolicy, room: str) -> None:
    """Room for temporary files where the root file system is read-only."""
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=room)
    if policy.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=policy.shared_memory)


def _connect(task: dsl.PipelineTask, policy: TaskPolicy) -> None:
    """Addresses and keys, by name only: their values stay on the cluster."""
    if policy.s3 or policy.mlflow:
        kubernetes.use_config_map_as_env(task, SERVICES, {name: name for name in ADDRESSES}, optional=True)
    if policy.s3:
        kubernetes.use_secret_as_env(task, S3_SECRET, {name: name for name in S3_KEYS}, optional=True)
    if policy.mlflow:
        kubernetes.use_secret_as_env(task, MLFLOW_SECRET, {name: name for name in MLFLOW_KEYS}, optional=True)
