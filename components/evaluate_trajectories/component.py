"""Kubeflow's face of evaluate-trajectories."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def evaluate_trajectories(clips: Input[Dataset], orders: Input[Dataset], objectives: list, models: Input[list[Model]],
                          deblurrer_objective: str, trajectories: str, store: str, metrics: Output[Metrics],
                          report: Output[HTML], per_clip: Output[Dataset]) -> None:
    """Follow faces and hands through the frames that all deblurrers restore."""
    from components.shared_store import running
    from components.tracked_steps import by_objective
    from components.tracked_steps import evaluate_trajectories as step

    with running("evaluate-trajectories", store, metrics.uri) as run:
        step(run, clips.path, orders.path, by_objective([one.path for one in models], objectives), trajectories,
             default=deblurrer_objective, metrics=metrics.path, report=report.path, per_clip=per_clip.path)
        metrics.metadata.update(run.keep("evaluate-trajectories", metrics.path))
