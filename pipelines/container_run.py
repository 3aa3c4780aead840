"""The compiled pipeline on this machine, each task in a container of the real image.

KFP's Docker runner executes it, with one part replaced: it lets the engine remove a container as soon as that
ends, and takes "no such container" for success, so that a step that fails at once passes now and then. Here a
container stays until its exit code has been read, and how it ended is told.

Containers have no network, no root, a read-only root file system, and a limit on memory. Of this machine they see
the run's own folders, and read-only the footage and the models that the parameters name.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercut_core.errors import ContainerError, MissingExtra

if TYPE_CHECKING:
    from components.params import Parameters
    from pipelines.subprocess_run import LocalRun

USER = 10001  # the image's own, where root runs the pipeline
KILLED = 137  # exit code of a process that SIGKILL ended
STEP_KEPT = "hypercut: "  # how a step begins the paragraph on an error that a user can mend


@dataclass(frozen=True)
class Limits:
    """What each container may use, as Docker writes sizes."""

    memory: str = "4g"  # swap included
    scratch: str = "2g"  # /tmp, which is in memory and counts as such
    shared_memory: str = "1g"  # /dev/shm


@dataclass(frozen=True)
class Failure:
    """How a container ended that did not end well."""

    step: str
    code: int
    out_of_memory: bool
    memory: str
    said: str  # the step's own words, or its last line

    def __str__(self) -> str:
        if self.out_of_memory:
            return f"the step '{self.step}' was killed for its memory: it may use {self.memory}, and needs more"
        if self.code == KILLED:
            return f"the step '{self.step}' was killed from outside (exit code {self.code})"
        said = f": {self.said.rstrip('.')}" if self.said else ""
        return f"the step '{self.step}' failed (exit code {self.code}){said}"

    @property
    def remedy(self) -> str | None:
        if self.out_of_memory:
            return (f"raise the limit (here the memory of a container; on a cluster the memory of '{self.step}' in "
                    f"pipelines/task_policy.py), or lower its batch or crop")
        return None


@dataclass
class Engine:
    """KFP's runner for a pipeline, and what became of its containers."""

    runner: Any
    failures: list[Failure] = field(default_factory=list)

    def raise_failure(self) -> None:
        """
        Raises:
            ContainerError: a step failed; later failures, as of the exit handler, follow from the first.
        """
        if self.failures:
            raise ContainerError(str(self.failures[0]), remedy=self.failures[0].remedy)


def run_in_containers(parameters: Parameters, workspace: Path, image: str, say: Callable[[str], None] = print, *,
                      tracker_image: str = "", limits: Limits | None = None, cache: bool = True,
                      registration: bool = True) -> LocalRun:
    """Run the nine steps in containers; the results end where `hypercut run` puts them.

    Args:
        image: what `infra/images/build` printed.
        tracker_image: the same of the target `tracker`, for evaluate-trajectories alone; "": `image`, which then is
            of that target where trajectories.enabled.
        limits: of each container.
        cache, registration: as for `pipelines.subprocess_run.run_local`.

    Raises:
        ContainerError: no engine, no such image, or a step failed; MissingExtra; StorageError: another run works
            in this workspace.
    """
    from pipelines.compile import compile_pipeline
    from pipelines.local import alone
    from pipelines.local_results import lay_out, told
    from pipelines.subprocess_run import execute
    from pipelines.training_pipeline import arguments
    from pipelines.workspace import Workspace

    ws = Workspace(workspace.resolve())
    root, models = ws.work / "containers", ws.root / "mlflow"
    for folder in (root, models):
        folder.mkdir(parents=True, exist_ok=True)
        _hand_over(folder)
    parameters, named = _named_files(parameters)
    with alone(ws), containers(limits, folders=(models,), read_only=named) as engine:
        package = root / "pipeline.yaml"
        compile_pipeline(image, package, allow_local=True, gpus=False, cache_trainings=True, retries=False,
                         tracker_image=(tracker_image or image) if parameters.trajectories.enabled else "")
        values = arguments(parameters, store=str(root / "store"), tracking_folder=str(models),
                           registration=registration)
        run = execute(package, values, root, engine.runner, say, cache=cache)
        lay_out(run, ws, root / "store")
        engine.raise_failure()
        say(told(run, root / "store")[1])
    return run


@contextlib.contextmanager
def containers(limits: Limits | None = None, *, folders: tuple[Path, ...] = (),
               read_only: tuple[Path, ...] = ()) -> Iterator[Engine]:
    """While inside, KFP's Docker runner waits for each container's exit code and tells how it ended.

    Args:
        folders: folders of this machine that containers see at the same place, beside KFP's own root.
        read_only: files and folders that they see as well, and cannot change.

    Raises:
        MissingExtra: kfp or Docker's client is not installed; ContainerError: the engine does not answer.
    """
    try:
        import docker
        from kfp import local
        from kfp.local import docker_task_handler
    except ImportError as error:
        raise MissingExtra("kfp", "kubeflow") from error
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise ContainerError(f"the container engine does not answer ({str(error)[:200]})",
                             remedy="start it; DOCKER_HOST names a socket that is not the usual one") from error
    limits = limits or Limits()
    binds = [docker.types.Mount(str(place), str(place), type="bind", read_only=place in read_only)
             for place in (*folders, *read_only)]
    engine = Engine(local.DockerRunner(
        network_mode="none", read_only=True, user=str(os.getuid() or USER), cap_drop=["ALL"],
        security_opt=["no-new-privileges"], mounts=binds, mem_limit=limits.memory,
        memswap_limit=limits.memory, shm_size=limits.shared_memory,
        tmpfs={"/tmp": f"mode=1777,exec,size={limits.scratch}"}))
    original = docker_task_handler.DockerTaskHandler
    docker_task_handler.DockerTaskHandler = _task_handler(original, engine.failures)
    try:
        yield engine
    finally:
        docker_task_handler.DockerTaskHandler = original


def _task_handler(original: type[Any], failures: list[Failure]) -> type[Any]:
    """KFP's handler of one task, which notes failures."""
    from kfp.local import status

    class TaskHandler(original):
        def run(self) -> Any:
            import docker

            client = docker.from_env()
            try:
                failure = _run(client, _step(self.full_command), self.image, self.full_command,
                               volumes=self.get_volumes_to_mount(client), environment=self.env_vars,
                               **self.runner.container_run_args)
            finally:
                client.close()
            if failure is None:
                return status.Status.SUCCESS
            print(f"{failure}")
            failures.append(failure)
            return status.Status.FAILURE

    return TaskHandler


def _run(client: Any, step: str, image: str, command: list[str], **settings: Any) -> Failure | None:
    """Run one container to its end, printing what it says; None if its exit code is 0."""
    import docker

    memory = str(settings.get("mem_limit") or "all of the machine's memory")
    try:
        container = client.containers.create(_image(client, image), command, **settings)
    except docker.errors.DockerException as error:
        return Failure(step, -1, False, memory, f"its container cannot be made: {str(error)[:500]}")
    try:
        container.start()
        last = _follow(container)
        code = int(container.wait()["StatusCode"])
        container.reload()
        out_of_memory = bool(container.attrs["State"].get("OOMKilled"))
    except docker.errors.DockerException as error:
        return Failure(step, -1, False, memory, f"its container was lost: {str(error)[:500]}")
    finally:
        with contextlib.suppress(docker.errors.DockerException):
            container.remove(force=True, v=True)
    return Failure(step, code, out_of_memory and code != 0, memory, last) if code else None


def _follow(container: Any) -> str:
    """Print the log as it comes; returns what a step said of its failure, or the last line."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest, tail = "", deque[str](maxlen=200)
    for chunk in container.logs(stream=True, follow=True):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            print(line)
            tail.append(line)
    if rest:
        print(rest)
        tail.append(rest)
    own = [line.removeprefix(STEP_KEPT) for line in tail if line.startswith(STEP_KEPT)]
    return (own or [line.strip() for line in tail if line.strip()] or [""])[-1][:1000]


def _image(client: Any, name: str) -> str:
    """The engine's id of an image: by name and tag, by digest, or by `NAME@<id>` where it was never pushed."""
    import docker

    for reference in (name, name.partition("@")[2]):
        if reference:
            with contextlib.suppress(docker.errors.ImageNotFound):
                return str(client.images.get(reference).id)
    return str(client.images.pull(name).id)


def _step(command: list[str]) -> str:
    """Name of the task that a command belongs to: KFP has it write into a folder of that name."""
    for word in command:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return Path(json.loads(word)["outputs"]["outputFile"]).parent.name
    return " ".join(command)[:60]


def _named_files(parameters: Parameters) -> tuple[Parameters, tuple[Path, ...]]:
    """The parameters with whole paths, which mean the same in a container, and what of them is on this machine."""
    footage, trajectories, deblurrer = parameters.footage, parameters.trajectories, parameters.deblurrer
    found: list[Path] = []

    def whole(address: str) -> str:
        if not address or not Path(address).exists():  # elsewhere, or a mistake that the step itself explains
            return address
        found.append(Path(address).resolve())
        return str(found[-1])

    if not footage.revision and footage.source != "builtin":
        footage = replace(footage, source=whole(footage.source))
    pairs = [one.partition("=") for one in trajectories.others]
    others = tuple(f"{name}{equals}{whole(address)}" for name, equals, address in pairs)
    start = deblurrer.start
    for objective in parameters.objectives:  # `{objective}` may name one file for each
        if whole(start.replace("{objective}", objective)) != start:
            start = str(Path(start).resolve())
    return (replace(parameters, footage=footage, trajectories=replace(trajectories, others=others),
                    deblurrer=replace(deblurrer, start=start)), tuple(dict.fromkeys(found)))


def _hand_over(folder: Path) -> None:
    """Let the containers' user write here, where root runs the pipeline."""
    if os.getuid() == 0:
        os.chown(folder, USER, USER)
