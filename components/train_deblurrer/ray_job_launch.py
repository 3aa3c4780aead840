"""train-deblurrer on a cluster of its own: what the step does where `deblurrer.scale.launcher` is `rayjob`.

Everything that the RayJob reads and writes lies in the volume that its pods share with this one, or on S3:

    <work>/<name of the RayJob>/params.yaml  encoder.safetensors  orders.parquet      what it gets
    <work>/<name of the RayJob>/work/                                                 its checkpoints
    <work>/<name of the RayJob>/model.safetensors  metrics.json                       what it makes

The head of its Ray cluster runs `hypercut train-deblurrer` with the launcher `ray`: the same training, by the same
code. A launcher that is tried again finds the RayJob, or the result.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.train_deblurrer.ray_job import RayJobRun
from components.train_deblurrer.ray_job_api import RayJobApi
from components.train_deblurrer.ray_job_patience import Clock, Pace, Patient
from components.train_deblurrer.ray_job_template import (
    TEMPLATE,
    Wanted,
    deadline,
    filled,
    image_of,
    job_name,
    own_pod_reference,
    read_template,
    shared_folders,
)
from hypercut_core.errors import MissingExtra, RayJobError
from hypercut_core.files import atomic_file, file_sha256, read_json, write_text
from hypercut_core.training.loop import training_facts

if TYPE_CHECKING:
    from components.train_deblurrer.step import TrainDeblurrerConfig

PLACE = "deblurrer.scale"


def train_by_ray_job(store: str | Path, data: str, orders: Path, encoder: Path, config: TrainDeblurrerConfig,
                     objective: str, out: Path, metrics: Path, seed: int, work: Path, *,
                     api: RayJobApi | None = None, template: Path = TEMPLATE, host: str = "",
                     clock: Clock | None = None, pace: Pace | None = None,
                     say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Launch the training, wait for its end, and put its model and figures to `out` and `metrics`.

    Args:
        data: hash of the clips.
        api: None: the cluster that this pod is in.
        host: name of this pod; "": the host's name, which Kubernetes gives it.

    Raises:
        RayJobError: something that the RayJob needs is not where its pods see it; all that `RayJobRun.run` raises;
            it ended well and left no model. Interrupted. MissingExtra: this image has no Ray.
    """
    if find_spec("ray") is None:  # this image is that of the RayJob's pods
        raise MissingExtra("ray", "ray")
    say = say or _say
    form = read_template(template)
    shared = shared_folders(form)
    room = _visible(work, shared, "--workspace")
    training = {"run": str(room), "data": data, "orders": file_sha256(orders), "encoder": file_sha256(encoder),
                "model": asdict(config.model), "loss": asdict(config.loss), "training": training_facts(config.training),
                "seed": seed}
    name = job_name(training, objective)
    folder = room / name
    entrypoint = _prepared(folder, store, orders, encoder, config, objective, seed, shared)
    api = api or RayJobApi()
    host, pace = host or socket.gethostname(), pace or Pace()
    pod = Patient("launcher", say, clock or Clock(), pace).ask(lambda: api.pod(host))
    scale = config.scale
    wanted = Wanted(name, api.namespace, f"{host}-{secrets.token_hex(4)}", _image(pod, host), entrypoint,
                    scale.workers, scale.cpus_per_worker, scale.gpus_per_worker, pace.lease,
                    own_pod_reference(pod) if pod else None)
    run = RayJobRun(api, filled(form, wanted), deadline(form), say, clock=clock, pace=pace)
    made, figures = folder / "model.safetensors", folder / "metrics.json"
    if made.is_file() and figures.is_file():
        say(f"RayJob {name}: its result is there already")
        run.clear()
    else:
        run.run()
    return _picked_up(folder, made, figures, out, metrics, objective, f"RayJob {api.namespace}/{name}")


def _prepared(folder: Path, store: str | Path, orders: Path, encoder: Path, config: TrainDeblurrerConfig,
              objective: str, seed: int, shared: list[Path]) -> list[str]:
    """Put all that it needs where its pods see it; returns its command."""
    import yaml

    clips = str(store) if "://" in str(store) else str(_visible(Path(store), shared, "--clips"))
    places = config.scale.checkpoints
    if places and "://" not in places:
        _visible(Path(places), shared, f"{PLACE}.checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for source, name in ((orders, "orders.parquet"), (encoder, "encoder.safetensors")):
        with atomic_file(folder / name) as partial:
            shutil.copyfile(source, partial)
        names.append(str(folder / name))
    parameters = {"seed": seed, "objectives": sorted({objective, config.objective}), "deblurrer": asdict(config)}
    write_text(folder / "params.yaml", yaml.safe_dump(_plain(parameters), sort_keys=True))
    return ["hypercut", "train-deblurrer", "--workspace", str(folder), "--params", str(folder / "params.yaml"),
            "--objective", objective, "--clips", clips, "--orders", names[0], "--encoder", names[1],
            "--out", str(folder / "model.safetensors"), "--metrics", str(folder / "metrics.json"),
            "--set", f"{PLACE}.launcher=ray"]


def _picked_up(folder: Path, made: Path, figures: Path, out: Path, metrics: Path, objective: str,
               place: str) -> dict[str, Any]:
    """Copy the result to where the step's own would be, and clear up."""
    found = read_json(figures) if made.is_file() and figures.is_file() else None
    if not isinstance(found, Mapping) or found.get("objective") != objective:
        raise RayJobError("the training ended well and left no model", where=place,
                          remedy=f"check that its pods mount the volume of {folder} there")
    for source, target in ((made, out), (figures, metrics)):
        with atomic_file(target) as partial:
            shutil.copyfile(source, partial)
    shutil.rmtree(folder, ignore_errors=True)
    return dict(found)


def _visible(path: Path, shared: list[Path], name: str) -> Path:
    """The absolute path, if the RayJob's pods see it too."""
    found = path.resolve()
    if not any(found.is_relative_to(one.resolve()) for one in shared):
        raise RayJobError("the pods of a RayJob would not see this", where=f"{name} {found}",
                          remedy=f"put it below {' or '.join(map(str, shared)) or 'a shared volume'}, the volume of "
                                 "infra/kubernetes/rayjob.yaml, or set deblurrer.scale.launcher to local or ray")
    return found


def _image(pod: Mapping[str, Any] | None, host: str) -> str:
    """The image of this pod, which is that of all pods of the training."""
    image = image_of(pod) if pod else ""
    if not image:
        what = "this pod's image is not named by digest" if pod else "this pod cannot be read, and so not its image"
        raise RayJobError(what, where=f"pod {host}",
                          remedy="name the image as NAME@sha256:..., and let the pod's account get pods (see "
                                 "infra/kubernetes/access.yaml)")
    return image


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
