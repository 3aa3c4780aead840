"""Kubeflow's face of train-deblurrer."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def train_deblurrer(clips: Input[Dataset], orders: Input[Dataset], encoder: Input[Model], objective: str, seed: int,
                    deblurrer_kind: str, deblurrer_start: str, deblurrer_model: str, deblurrer_peers: str,
                    deblurrer_loss: str, deblurrer_training: str, deblurrer_scale: str, store: str,
                    model: Output[Model], metrics: Output[Metrics]) -> None:
    """Train one objective's deblurrer; a task that is tried again goes on from its checkpoint."""
    from pathlib import Path

    from components.shared_store import clips_folder, group, running
    from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
    settings = (f'{{"kind": "{deblurrer_kind}", "start": {deblurrer_start}, "model": {deblurrer_model}, "peers": '
                f'{deblurrer_peers}, "loss": {deblurrer_loss}, "training": {deblurrer_training}, "scale": '
                f'{deblurrer_scale}}}')
    with running("train-deblurrer", store, model.uri, objective) as run:
        config = run.with_checkpoints(group(TrainDeblurrerConfig, settings))
        train_deblurrer(clips_folder(clips.path, run.store), Path(orders.path), Path(encoder.path), config, objective,
                                  Path(model.path), Path(metrics.path), seed, run.work)
        model.metadata.update(objective=objective, clips=clips.metadata["sha256"])
        metrics.metadata.update(run.keep(f"train-deblurrer-{objective}", metrics.path), objective=objective)
