"""Kubeflow's face of validate-footage."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def validate_footage(manifest: str, validate_footage: str, store: str, verdict: Output[Artifact],
                     report: Output[HTML]) -> None:
    """Check the footage manifest with this hash; a rejected one stops the run."""
    import shutil

    from components.shared_store import group, manifest_file, running
    from components.validate_footage.step import ValidateFootageConfig
    from components.validate_footage.step import validate_footage as step

    with running("validate-footage", store, verdict.uri) as run:
        made = run.reports / "validate-footage.json"
        config = group(ValidateFootageConfig, validate_footage)
        step(manifest_file(run.store, manifest), config, made, made.with_suffix(".html"))
        shutil.copyfile(made, verdict.path)
        shutil.copyfile(made.with_suffix(".html"), report.path)
