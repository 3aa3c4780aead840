"""A small pipeline with everything that the real one has: loop, cache, retries, GPUs, limits, exit handler."""

from pathlib import Path
from typing import Any

DIGEST = "a" * 64


def sample_pipeline(image: str = f"registry.example/hypercut@sha256:{DIGEST}") -> Any:
    from kfp import dsl, kubernetes
    from kfp.dsl import Dataset, Input, Model, Output

    @dsl.component(base_image=image, install_kfp_package=False)
    def collect(source: str) -> str:
        return source

    @dsl.component(base_image=image, install_kfp_package=False)
    def blur(manifest: str, seed: int, clips: Output[Dataset]) -> None:
        print(manifest, seed, clips.path)

    @dsl.component(base_image=image, install_kfp_package=False)
    def train(clips: Input[Dataset], objective: str, model: Output[Model]) -> None:
        print(clips.path, objective, model.path)

    @dsl.component(base_image=image, install_kfp_package=False)
    def score(models: Input[list[Model]]) -> float:
        return float(len(models))

    @dsl.component(base_image=image, install_kfp_package=False)
    def ship(figure: float) -> None:
        print(figure)

    @dsl.component(base_image=image, install_kfp_package=False)
    def close(run_id: str) -> None:
        print(run_id)

    @dsl.pipeline(name="sample-training")
    def pipeline(source: str, seed: int = 0, objectives: list = ["one", "two"], strict: bool = True):  # type: ignore[no-untyped-def] # noqa: B006
        with dsl.ExitHandler(close(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)):
            manifest = collect(source=source).set_caching_options(False)
            clips = blur(manifest=manifest.output, seed=seed).set_cpu_limit("4").set_memory_limit("8Gi")
            kubernetes.set_timeout(clips, 2 * 3600)
            with dsl.ParallelFor(objectives) as objective:
                model = train(clips=clips.outputs["clips"], objective=objective).set_caching_options(False)
                model.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2).set_retry(3)
                kubernetes.set_timeout(model, 3600)
            figure = score(models=dsl.Collected(model.outputs["model"]))
            with dsl.If(strict == True):  # noqa: E712
                ship(figure=figure.output)

    return pipeline


def write_package(path: Path, image: str = f"registry.example/hypercut@sha256:{DIGEST}") -> Path:
    from kfp import compiler

    compiler.Compiler().compile(sample_pipeline(image), str(path))
    return path
