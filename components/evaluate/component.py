"""Kubeflow's face of evaluate."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def evaluate(clips: Input[Dataset], orders: Input[Dataset], encoder_metrics: Input[Metrics], objectives: list,
             models: Input[list[Model]], deblurrer_objective: str, evaluate: str, register_name: str, store: str,
             tracking_folder: str, run_id: str, model: Output[Model], metrics: Output[Metrics],
             report: Output[HTML], per_frame: Output[Dataset], per_clip: Output[Dataset]) -> None:
    """Score all deblurrers and the champion on unseen clips; hands on the model that is to be shipped."""
    import shutil

    from components.shared_store import running
    from components.tracked_steps import by_objective
    from components.tracked_steps import evaluate as step

    with running("evaluate", store, metrics.uri) as run:
        found = by_objective([one.path for one in models], objectives)
        step(run, clips.path, orders.path, found, encoder_metrics.path, evaluate, default=deblurrer_objective,
             name=register_name, tracking_folder=tracking_folder, run_id=run_id, metrics=metrics.path,
             report=report.path, per_frame=per_frame.path, per_clip=per_clip.path)
        shutil.copyfile(found[deblurrer_objective], model.path)
        metrics.metadata.update(run.keep("evaluate", metrics.path))
