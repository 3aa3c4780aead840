"""Kubeflow's face of register-model."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Markdown, Metrics, Model, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def register_model(evaluation: Input[Metrics], model: Input[Model], report: Input[HTML],
                   deblurrer_objective: str, register: str, store: str, tracking_folder: str, run_id: str,
                   metrics: Output[Metrics], card: Output[Markdown], registration: Output[Artifact]) -> None:
    """Register the measured model: candidate always, champion if the gate says so."""
    from components.shared_store import running
    from components.tracked_steps import register as step

    with running("register-model", store, metrics.uri) as run:
        made = step(run, evaluation.path, model.path, report.path, register, deblurrer_objective,
                    tracking_folder=tracking_folder, run_id=run_id, metrics=metrics.path, card=card.path,
                    registration=registration.path)
        registration.metadata.update(made)
        metrics.metadata.update(run.keep("register-model", metrics.path))
