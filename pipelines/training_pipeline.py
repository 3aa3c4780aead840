"""The nine steps as a Kubeflow pipeline: edges and parameters, nothing else.

What a task gets on a cluster is in task_policy.py, what it does in components/<step>/step.py. A step receives
the groups of parameters that dvc.yaml lists for it and no others, so that Kubeflow's cache forgets it exactly
when one of them changes. The optional evaluate-trajectories is there if the pipeline was compiled with an image for
it (KFP 2.17 cannot put what reads the models of all objectives under `dsl.If`), and ends at once where
`trajectories.enabled` is false.

`collect-footage` hands on the hash of its manifest, not the artifact: it runs every time,
and a new artifact with the same content would make everything after it run again.
"""

import json
from dataclasses import asdict, replace
from typing import Any

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from components.assign_order.component import assign_order as assign_order_task
from components.close_run.component import close_run as close_run_task
from components.collect_footage.component import collect_footage as collect_footage_task
from components.evaluate.component import evaluate as evaluate_task
from components.evaluate_trajectories.component import evaluate_trajectories as evaluate_trajectories_task
from components.params import Parameters
from components.register_model.component import register_model as register_model_task
from components.synthesize_blur.component import synthesize_blur as synthesize_blur_task
from components.train_deblurrer.component import train_deblurrer as train_deblurrer_task
from components.train_encoder.component import train_encoder as train_encoder_task
from components.validate_clips.component import validate_clips as validate_clips_task
from components.validate_footage.component import validate_footage as validate_footage_task
from pipelines.task_policy import STORE_MOUNT, Build, apply

PIPELINE_NAME = "hypercut-training"


def arguments(parameters: Parameters, *, store: str = STORE_MOUNT, data_rev: str = "", tracking_folder: str = "",
              registration: bool = True) -> dict[str, Any]:
    """The arguments of a run.

    Args:
        store: folder that all containers share.
        data_rev: git/DVC revision of the footage; "": `footage.revision` of the parameters.
        tracking_folder: where MLflow's own file lies if no server is set; "": the store.
        registration: False: the run ends with its report.
    """
    footage = replace(parameters.footage, revision=data_rev) if data_rev else parameters.footage
    p, deblurrer = parameters, parameters.deblurrer
    whole: dict[str, Any] = {
        "footage": footage, "validate_footage": p.validate_footage, "blur": p.blur,
        "validate_clips": p.validate_clips, "encoder": p.encoder, "order": p.order,
        "deblurrer_model": deblurrer.model, "deblurrer_peers": deblurrer.peers, "deblurrer_loss": deblurrer.loss,
        "deblurrer_training": deblurrer.training, "deblurrer_scale": deblurrer.scale,
        "evaluate": p.evaluate, "trajectories": p.trajectories, "register": p.register}
    plain = {name: asdict(value) for name, value in whole.items()}
    # how the work is spread and where it rests changes no result: it must not be part of the cache's key
    del plain["blur"]["scale"], plain["encoder"]["checkpoints"]
    groups = {name: json.dumps(value, sort_keys=True) for name, value in plain.items()}
    return {"store": store, "tracking_folder": tracking_folder, "registration": registration, "seed": p.seed,
            "frames": p.frames, "objectives": list(p.objectives), "deblurrer_objective": deblurrer.objective,
            "deblurrer_kind": deblurrer.kind, "deblurrer_start": json.dumps(deblurrer.start),
            "register_name": p.register.name, **groups}


DEFAULT = arguments(Parameters())


def training_pipeline(build: Build) -> GraphComponent:
    """The pipeline for one image; its parameters are those of `arguments`."""

    @dsl.pipeline(name=PIPELINE_NAME, description="Footage to a registered model that recovers a video from a photo.")
    def hypercut_training(
            footage: str = DEFAULT["footage"], validate_footage: str = DEFAULT["validate_footage"],
            seed: int = DEFAULT["seed"], frames: int = DEFAULT["frames"], blur: str = DEFAULT["blur"],
            validate_clips: str = DEFAULT["validate_clips"], encoder: str = DEFAULT["encoder"],
            order: str = DEFAULT["order"], objectives: list = DEFAULT["objectives"],
            deblurrer_objective: str = DEFAULT["deblurrer_objective"],
            deblurrer_kind: str = DEFAULT["deblurrer_kind"], deblurrer_start: str = DEFAULT["deblurrer_start"],
            deblurrer_model: str = DEFAULT["deblurrer_model"],
            deblurrer_peers: str = DEFAULT["deblurrer_peers"], deblurrer_loss: str = DEFAULT["deblurrer_loss"],
            deblurrer_training: str = DEFAULT["deblurrer_training"],
            deblurrer_scale: str = DEFAULT["deblurrer_scale"], evaluate: str = DEFAULT["evaluate"],
            trajectories: str = DEFAULT["trajectories"],
            register: str = DEFAULT["register"], register_name: str = DEFAULT["register_name"],
            registration: bool = DEFAULT["registration"], store: str = DEFAULT["store"],
            tracking_folder: str = DEFAULT["tracking_folder"]) -> None:
        place = {"store": store}
        tracked = {"store": store, "tracking_folder": tracking_folder, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        closing = apply(close_run_task(register=register, **tracked), "close-run", build)
        with dsl.ExitHandler(closing):
            found = apply(collect_footage_task(footage=footage, **place), "collect-footage", build)
            manifest = found.outputs["Output"]
            footage_gate = apply(validate_footage_task(manifest=manifest, validate_footage=validate_footage, **place),
                                 "validate-footage", build)
            clips = apply(synthesize_blur_task(manifest=manifest, seed=seed, frames=frames, blur=blur, **place),
                          "synthesize-blur", build).after(footage_gate)
            clips_gate = apply(validate_clips_task(clips=clips.outputs["clips"], validate_clips=validate_clips,
                                                   **place), "validate-clips", build)
            order_model = apply(train_encoder_task(clips=clips.outputs["clips"], seed=seed, encoder=encoder,
                                                   **place), "train-encoder", build).after(clips_gate)
            orders = apply(assign_order_task(clips=clips.outputs["clips"], encoder=order_model.outputs["model"],
                                             order=order, **place), "assign-order", build)
            with dsl.ParallelFor(objectives, name="objectives") as objective:
                deblurrer = apply(train_deblurrer_task(
                    clips=clips.outputs["clips"], orders=orders.outputs["orders"],
                    encoder=order_model.outputs["model"], objective=objective, seed=seed,
                    deblurrer_kind=deblurrer_kind, deblurrer_start=deblurrer_start, deblurrer_model=deblurrer_model,
                    deblurrer_peers=deblurrer_peers, deblurrer_loss=deblurrer_loss,
                    deblurrer_training=deblurrer_training, deblurrer_scale=deblurrer_scale, **place),
                    "train-deblurrer", build)
            figures = apply(evaluate_task(
                clips=clips.outputs["clips"], orders=orders.outputs["orders"],
                encoder_metrics=order_model.outputs["metrics"], models=dsl.Collected(deblurrer.outputs["model"]),
                objectives=objectives, deblurrer_objective=deblurrer_objective, evaluate=evaluate,
                register_name=register_name, **tracked), "evaluate", build)
            if build.tracker_image:
                apply(evaluate_trajectories_task(
                    clips=clips.outputs["clips"], orders=orders.outputs["orders"],
                    models=dsl.Collected(deblurrer.outputs["model"]), objectives=objectives,
                    deblurrer_objective=deblurrer_objective, trajectories=trajectories, **place),
                    "evaluate-trajectories", build)
            with dsl.If(registration == True, name="registration"):  # noqa: E712 - a comparison of the run, not of Python
                apply(register_model_task(
                    evaluation=figures.outputs["metrics"], model=figures.outputs["model"],
                    report=figures.outputs["report"], deblurrer_objective=deblurrer_objective, register=register,
                    **tracked), "register-model", build)

    return hypercut_training
