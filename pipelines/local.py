"""The nine steps and the optional tenth on one machine: each step's paths and parameters, and all of them in order.

Each function here is the wiring of one step and nothing else: the step itself is in `components/`, and is
imported only when it runs. DVC (dvc.yaml) calls them one by one through `hypercut <step>`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from components.params import Parameters


def collect_footage(ws: Workspace, p: Parameters) -> None:
    from components.collect_footage.step import collect_footage as step

    step(p.footage, ws.manifest, p.seed)


def validate_footage(ws: Workspace, p: Parameters) -> None:
    from components.validate_footage.step import validate_footage as step

    verdict = ws.verdict("validate-footage")
    step(ws.manifest, p.validate_footage, verdict, verdict.with_suffix(".html"))


def synthesize_blur(ws: Workspace, p: Parameters) -> None:
    from components.synthesize_blur.step import synthesize_blur as step

    step(ws.manifest, p.blur, ws.clips, ws.metrics("synthesize-blur"), p.seed, frames=p.frames)


def validate_clips(ws: Workspace, p: Parameters) -> None:
    from components.validate_clips.step import validate_clips as step

    verdict = ws.verdict("validate-clips")
    step(ws.clips, p.validate_clips, verdict, verdict.with_suffix(".html"))


def train_encoder(ws: Workspace, p: Parameters) -> None:
    from components.train_encoder.step import train_encoder as step

    step(ws.clips, p.encoder, ws.encoder, ws.metrics("train-encoder"), p.seed, ws.work)


def assign_order(ws: Workspace, p: Parameters) -> None:
    from components.assign_order.step import assign_order as step

    step(ws.clips, ws.encoder, p.order, ws.orders, ws.metrics("assign-order"))


def train_deblurrer(ws: Workspace, p: Parameters, objective: str | None = None) -> None:
    """Train one objective, or every one of `objectives`."""
    from components.provenance import TAGS, tags
    from components.train_deblurrer.step import train_deblurrer as step
    from components.training_watch import MlflowWatch

    facts = provenance(ws, p)
    params = {name: value for name, value in facts.items() if name not in TAGS}
    for name in [objective] if objective else p.objectives:
        step(ws.clips, ws.orders, ws.encoder, p.deblurrer, name, ws.deblurrer(name),
             ws.metrics(f"train-deblurrer-{name}"), p.seed, ws.work,
             watch=MlflowWatch(f"training {name}", ws.root.resolve(), params, tags(facts), p.register.experiment))


def evaluate(ws: Workspace, p: Parameters) -> None:
    from components.evaluate.step import evaluate as step

    models: dict[str, Path] = {name: ws.deblurrer(name) for name in p.objectives}
    step(ws.clips, models, ws.orders, ws.report, ws.metrics("evaluate"), p.evaluate,
         default=p.deblurrer.objective, encoder_metrics=ws.metrics("train-encoder"),
         champion=_other_champion(ws, p, list(models.values())), provenance=provenance(ws, p))


def evaluate_trajectories(ws: Workspace, p: Parameters) -> None:
    from components.evaluate_trajectories.step import evaluate_trajectories as step

    step(ws.clips, {name: ws.deblurrer(name) for name in p.objectives}, ws.orders, ws.trajectories,
         ws.metrics("evaluate-trajectories"), p.trajectories, ws.work, default=p.deblurrer.objective,
         provenance=provenance(ws, p))


def register_model(ws: Workspace, p: Parameters) -> None:
    from components.register_model.step import register_model as step

    decision = step(ws.metrics("evaluate"), ws.deblurrer(p.deblurrer.objective), ws.report / "report.html",
                    p.register, ws.metrics("register-model"), workspace=ws.root, provenance=provenance(ws, p),
                    steps=step_metrics(ws, p))
    print(f"the gate says {'champion' if decision.promote else 'candidate only'}; "
          f"'hypercut gate --explain' tells why", file=sys.stderr)


def step_metrics(ws: Workspace, p: Parameters) -> dict[str, Path]:
    """Metrics files of the steps before register-model, which logs them: MLflow's import is slow, so once."""
    measured = ["synthesize-blur", "train-encoder", "assign-order",
                *(f"train-deblurrer-{objective}" for objective in p.objectives), "evaluate",
                *(["evaluate-trajectories"] if p.trajectories.enabled else [])]
    return {"collect-footage": ws.manifest,
            **{gate: ws.verdict(gate) for gate in ("validate-footage", "validate-clips")},
            **{name: ws.metrics(name) for name in measured}}


STEPS: dict[str, Callable[[Workspace, Parameters], None]] = {
    "collect-footage": collect_footage,
    "validate-footage": validate_footage,
    "synthesize-blur": synthesize_blur,
    "validate-clips": validate_clips,
    "train-encoder": train_encoder,
    "assign-order": assign_order,
    "train-deblurrer": train_deblurrer,
    "evaluate": evaluate,
    "evaluate-trajectories": evaluate_trajectories,  # only says that it is off, unless trajectories.enabled
    "register-model": register_model,
}


def run_all(ws: Workspace, p: Parameters, say: Callable[[str], None] = print) -> None:
    """Run the steps in order; a training that was killed resumes from its checkpoint.

    Raises:
        HypercutError: from the step that failed; the steps after it do not run.
    """
    ws.root.mkdir(parents=True, exist_ok=True)
    with alone(ws):
        for place, (name, step) in enumerate(STEPS.items(), start=1):
            say(f"[{place}/{len(STEPS)}] {name}")
            start = time.monotonic()
            step(ws, p)
            say(f"[{place}/{len(STEPS)}] {name}: done in {time.monotonic() - start:.1f} s")


@contextlib.contextmanager
def alone(ws: Workspace) -> Iterator[None]:
    """Hold the workspace: two runs in one folder would overwrite each other's checkpoints.

    Raises:
        StorageError: another process holds it. The lock goes when its process does, however that ends.
    """
    import fcntl

    from hypercut_core.errors import StorageError
    from hypercut_core.files import explain_os_errors

    path = ws.root / "work/.lock"
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError("another run works in this workspace", where=ws.root,
                               remedy="wait for it to end, or choose another --workspace") from error
        yield


def provenance(ws: Workspace, p: Parameters) -> dict[str, Any]:
    """What the report says of its origin; none of it goes into metrics."""
    from components.params import flat
    from components.provenance import provenance as facts

    defaults = flat(type(p)())
    changed = {name: value for name, value in flat(p).items() if value != defaults[name]}
    return facts(ws.manifest, p.seed, git_revision(), changed)


def git_revision() -> str:
    """Commit of the source: the image's, or the tree's with "+changes" where files differ; "" outside git."""
    import subprocess

    from components.tracking import source_revision

    tree = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "--no-optional-locks", "-C", str(tree), *words], capture_output=True,
                              text=True, timeout=20, check=True).stdout.strip()

    try:
        return source_revision() or git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _other_champion(ws: Workspace, p: Parameters, models: list[Path]) -> Path | None:
    """The model file of the present champion, unless it is one of `models` anyway."""
    from components.register_model.step import champion_file
    from hypercut_core.files import file_sha256

    champion = champion_file(p.register, ws.root)
    own = {file_sha256(model) for model in models if model.is_file()}
    return None if champion is None or file_sha256(champion) in own else champion
