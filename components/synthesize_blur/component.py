"""Kubeflow's face of synthesize-blur."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def synthesize_blur(manifest: str, seed: int, frames: int, blur: str, store: str, clips: Output[Dataset],
                    metrics: Output[Metrics]) -> None:
    """Make clips of the footage; the artifact only says where in the store they are."""
    from dataclasses import replace
    from pathlib import Path

    from components.shared_store import group, manifest_file, publish_clips, running
    from components.synthesize_blur.step import FanOutConfig, SynthesisConfig, synthesize_blur
    from hypercut_core.files import read_json, write_json

    with running("synthesize-blur", store, clips.uri) as run:
        listed, made = manifest_file(run.store, manifest), run.unfinished / "clips"
        config = replace(group(SynthesisConfig, blur), scale=FanOutConfig(workers=0))  # the container's cores
        synthesize_blur(listed, config, made, Path(metrics.path), seed, frames, run.work)
        write_json(clips.path, publish_clips(made, run.store))
        clips.metadata.update(read_json(clips.path), manifest=manifest)
        metrics.metadata.update(run.keep("synthesize-blur", metrics.path))
