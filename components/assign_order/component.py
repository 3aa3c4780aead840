"""Kubeflow's face of assign-order."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def assign_order(clips: Input[Dataset], encoder: Input[Model], order: str, store: str,
                 orders: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Label every clip with its canonical direction of time."""
    from pathlib import Path

    from components.assign_order.step import OrderConfig, assign_order
    from components.shared_store import clips_folder, group, running
    from hypercut_core.files import file_sha256

    with running("assign-order", store, orders.uri) as run:
        assign_order(clips_folder(clips.path, run.store), Path(encoder.path),
                               group(OrderConfig, order), Path(orders.path), Path(metrics.path))
        orders.metadata.update(sha256=file_sha256(orders.path), encoder=encoder.metadata["sha256"])
        metrics.metadata.update(run.keep("assign-order", metrics.path))
