"""`hypercut compile`: the pipeline as the YAML that Kubeflow takes, written only if it may be uploaded."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from hypercut_core.errors import BadPipeline, MissingExtra
from hypercut_core.files import write_text

DIGEST = re.compile(r"[\w][\w.:/-]*@sha256:[0-9a-f]{64}")
LOCAL = re.compile(r"[\w][\w./-]*(:[\w][\w.-]*)?")


def compile_pipeline(image: str, out: Path, *, allow_local: bool = False, gpus: bool = True,
                     cache_trainings: bool = False, retries: bool = True, rayjob: bool = False,
                     s3_store: bool = False, tracker_image: str = "") -> None:
    """Write the pipeline for one image to `out`; the same arguments give the same bytes.

    Args:
        image: name@sha256:<64 hex digits>. Kubeflow's cache knows an image by its name alone: behind a tag
            that moves it would serve results of another program.
        allow_local: take a tag as well; for the local runners, whose images have no digest.
        gpus: False: no task asks for one.
        cache_trainings: let trainings come from the cache, as the other steps do.
        retries: False: a step that fails is not tried again.
        rayjob: for runs with deblurrer.scale.launcher=rayjob: the training's own task needs no GPU.
        s3_store: for runs whose store is s3://bucket/prefix: no task mounts the shared volume.
        tracker_image: image of evaluate-trajectories, named as `image`; "": the pipeline has no such task.

    Raises:
        BadPipeline: the image may move, or the result would not hold `check_package`; nothing is written.
        MissingExtra: kfp is not installed.
    """
    try:
        import kfp.kubernetes  # noqa: F401 - task_policy needs it
        from kfp.compiler import Compiler
    except ImportError as error:
        raise MissingExtra("kfp", "kubeflow") from error
    from pipelines.package_checks import check_package
    from pipelines.task_policy import Build
    from pipelines.training_pipeline import training_pipeline

    for one in (image, tracker_image) if tracker_image else (image,):
        check_image(one, allow_local=allow_local)
    pipeline = training_pipeline(Build(image, gpus, cache_trainings, retries, rayjob, s3_store, tracker_image))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline, str(made))
        check_package(made, allow_local=allow_local)
        text = made.read_text(encoding="utf-8")
    write_text(out, text)


def check_image(image: str, *, allow_local: bool = False) -> None:
    """Refuse an image reference that may mean another image tomorrow.

    Raises:
        BadPipeline
    """
    if DIGEST.fullmatch(image):
        return
    if allow_local and LOCAL.fullmatch(image) and not image.endswith(":latest"):
        return
    remedy = ("name it by digest, as in registry.example/hypercut@sha256:<64 hex digits>; "
              "'docker inspect --format {{.RepoDigests}} NAME' shows it after a push")
    raise BadPipeline("the image may mean another one tomorrow, and Kubeflow's cache would not notice",
                      where=image or "--image", remedy=remedy)


def read_package(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and the platform document (empty if there is none) of a compiled file.

    Raises:
        BadPipeline: it is not one.
    """
    import yaml

    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadPipeline(f"this is no compiled pipeline ({str(error).splitlines()[0]})", where=path,
                          remedy="compile it with 'hypercut compile'") from error
    if not 1 <= len(documents) <= 2 or not all(isinstance(document, dict) for document in documents):
        raise BadPipeline("a compiled pipeline has one or two YAML documents", where=path,
                          remedy="compile it with 'hypercut compile'")
    return documents[0], documents[1] if len(documents) == 2 else {}
