"""Kubeflow's face of validate-clips."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def validate_clips(clips: Input[Dataset], validate_clips: str, store: str, verdict: Output[Artifact],
                   report: Output[HTML]) -> None:
    """Check the clips; a rejected store stops the run."""
    import shutil

    from components.shared_store import clips_folder, group, running
    from components.validate_clips.step import ValidateClipsConfig
    from components.validate_clips.step import validate_clips as step

    with running("validate-clips", store, verdict.uri) as run:
        made = run.reports / "validate-clips.json"
        config = group(ValidateClipsConfig, validate_clips)
        step(clips_folder(clips.path, run.store), config, made, made.with_suffix(".html"))
        shutil.copyfile(made, verdict.path)
        shutil.copyfile(made.with_suffix(".html"), report.path)
