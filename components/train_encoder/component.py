"""Kubeflow's face of train-encoder."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def train_encoder(clips: Input[Dataset], seed: int, encoder: str, store: str, model: Output[Model],
                  metrics: Output[Metrics]) -> None:
    """Train the HyperCUT encoder; a task that is tried again goes on from its checkpoint."""
    from pathlib import Path

    from components.shared_store import clips_folder, group, running
    from components.train_encoder.step import TrainEncoderConfig, train_encoder
    from hypercut_core.files import file_sha256

    with running("train-encoder", store, model.uri) as run:
        train_encoder(clips_folder(clips.path, run.store), run.with_checkpoints(group(TrainEncoderConfig, encoder)),
                                Path(model.path), Path(metrics.path), seed, run.work)
        model.metadata.update(sha256=file_sha256(model.path), clips=clips.metadata["sha256"])
        metrics.metadata.update(run.keep("train-encoder", metrics.path))
