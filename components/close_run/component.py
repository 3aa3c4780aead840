"""Kubeflow's face of close-run: its exit handler."""

from kfp import dsl
from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus


@dsl.component(base_image="hypercut", install_kfp_package=False)
def close_run(status: PipelineTaskFinalStatus, register: str, store: str, tracking_folder: str, run_id: str,
              summary: Output[Markdown]) -> None:
    """Say which step failed, log the steps, end the MLflow run and clean up; runs whatever happened before."""
    from pathlib import Path

    from components.close_run.outcome import close_run

    close_run(status.state, status.error_message or "", register, store, tracking_folder, run_id, summary.uri,
              Path(summary.path))
