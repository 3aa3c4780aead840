"""`hypercut demo`: the whole pipeline through DVC, then a blurry photo restored by the champion.

Does only what is not done yet: a second run executes no stage and reads the figures again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hypercut_core.errors import DataRejected, HypercutError, StorageError
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from components.params import Parameters

DEMO_SIZE = 256  # px; larger than the clips of the training
DEMO_SEED = 2027


def demo(root: Path) -> None:
    """Run the pipeline in `root` (a checkout), restore a photo, print where everything lies.

    Raises:
        StorageError: `root` is no checkout. DataRejected: no model may be champion.
        HypercutError: a stage failed; its own message is on stderr by then.
    """
    if not (root / "dvc.yaml").is_file():
        raise StorageError("there is no dvc.yaml here", where=root.resolve(),
                           remedy="run this in the checkout, or 'hypercut run' in any folder")
    ws = Workspace(root)
    _prepare(root)
    _train_side_by_side(root)
    _dvc(root, "repro")
    if not _seen(ws):
        _restore(ws)
        _stamp(ws).touch()
    _summary(ws)


def _photo(ws: Workspace) -> Path:
    return ws.root / "out/demo/blurry.png"


def _restored(ws: Workspace) -> Path:
    return ws.root / "out/demo/restored.webp"


def _stamp(ws: Workspace) -> Path:
    return ws.root / "out/demo/.seen"


def _seen(ws: Workspace) -> bool:
    """Whether nothing has changed since the last demo. Spares the seconds that loading MLflow takes; a
    registry elsewhere is always asked."""
    from components.tracking import tracking_uri

    uri = tracking_uri(ws.root)
    registry = Path(uri.removeprefix("sqlite:///"))
    parts = (registry, ws.metrics("register-model"), ws.root / "params.yaml", _photo(ws), _restored(ws))
    if not uri.startswith("sqlite:///") or not all(path.is_file() for path in (*parts, _stamp(ws))):
        return False
    return _stamp(ws).stat().st_mtime >= max(path.stat().st_mtime for path in parts)


def _prepare(root: Path) -> None:
    """A source archive is no git repository: DVC is told to work without one."""
    local = root / ".dvc/config.local"
    if not (root / ".git").exists() and not local.exists():
        local.write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def _dvc(root: Path, *words: str) -> None:
    """Run DVC with this environment's `hypercut` first on the path, so that no activation is needed."""
    here = Path(sys.executable).parent
    os.environ["PATH"] = os.pathsep.join([str(here), *os.get_exec_path()])
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, check=False)
    if done.returncode:
        raise HypercutError(f"'dvc {' '.join(words)}' failed", where=root.resolve(),
                            remedy="see the message of the failed step above; finished steps are kept")


def _train_side_by_side(root: Path) -> None:
    """Bring the objectives' trainings up to date, as many at once as there are cores: each uses one thread.

    DVC runs stages one after the other; several `dvc repro` of different stages may run at once, its locks
    see to that. What fails here fails again, with its message, in the run of the whole that follows.
    """
    from components.params import load

    stages = [f"train-deblurrer@{name}" for name in load(root / "params.yaml").objectives]
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet", *stages], cwd=root, check=False,
                            capture_output=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if status.returncode == 0 or len(stages) < 2 or cores < 2:
        return
    _dvc(root, "repro", "assign-order", "validate-clips")
    waiting = list(reversed(stages))
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < cores:
            running.append(subprocess.Popen([sys.executable, "-m", "dvc", "repro", "--single-item",
                                             waiting.pop()], cwd=root))
        running.pop(0).wait()


def _champion(ws: Workspace, p: Parameters) -> Path:
    """The champion's model file; a registry that does not know it is told again.

    Raises:
        DataRejected: the gate refused the model, and there is no other.
    """
    from components.register_model.step import champion_file

    model = champion_file(p.register, ws.root)
    if model is None:
        # the registry is no output of the pipeline: it may have been deleted, or be another one now
        _dvc(ws.root, "repro", "--force", "--single-item", "register-model")
        model = champion_file(p.register, ws.root)
    if model is None:
        raise DataRejected("no model is champion: the gate refused this one",
                           where=ws.metrics("register-model"),
                           remedy="see 'hypercut gate --explain'; train longer, or change the group "
                                  "'register'")
    return model


def _restore(ws: Workspace) -> None:
    """Make a blurry photo of the test split, and let the champion restore it unless it has done so."""
    from components.params import load
    from hypercut_core.restore import restore_command

    parameters = load(ws.root / "params.yaml")
    model, photo, restored = _champion(ws, parameters), _photo(ws), _restored(ws)
    if not photo.is_file() or photo.stat().st_mtime < (ws.root / "params.yaml").stat().st_mtime:
        _blurry_photo(photo, parameters)
    newest = max(path.stat().st_mtime for path in (model, photo, ws.metrics("register-model")))
    if not restored.is_file() or restored.stat().st_mtime < newest:
        restore_command(photo, restored, model, bounce=True)


def _blurry_photo(out: Path, p: Parameters) -> None:
    """Render one unseen photo in motion, larger than the training's clips."""
    import dataclasses

    from PIL import Image

    from hypercut_core.clips.moving_photos import render_clips
    from hypercut_core.files import atomic_file

    photos = dataclasses.replace(p.blur.photos, size=DEMO_SIZE, camera=1.0, both=0.0)
    clip = next(iter(render_clips(photos, "test", 1, DEMO_SEED, p.frames, exposure=p.blur.exposure)))
    with atomic_file(out) as partial:
        Image.fromarray(clip.frames[0]).save(partial, format="PNG")


def _summary(ws: Workspace) -> None:
    from hypercut_core.files import read_json

    figures = read_json(ws.metrics("evaluate"))
    registration = read_json(ws.root / "reports/registration.json")
    order, trivial = read_json(ws.metrics("train-encoder"))["test"], figures["trivial"]
    print(f"\nBlind, on {figures['clips']} clips of unseen photos, mean pPSNR (frames 1 and "
          f"{figures['frames']} alone):")
    print(f"  {'repeat the blurry image':26} {trivial['ppsnr']:6.2f} dB ({trivial['ends']:.2f})")
    for name, model in figures["models"].items():
        mark = "  <- shipped" if name == figures["default"] else ""
        print(f"  {name:26} {model['ppsnr']:6.2f} dB ({model['ends']:.2f}), "
              f"{model['ppsnr'] - trivial['ppsnr']:+.2f} dB{mark}")
    print(f"Learned order: hit {order['hit']:.1%}, Con@3 {order['con3']:.1%}, Joint@3 {order['joint3']:.1%}")
    version = f"version {registration['version']}"
    if not registration["champion"]:
        version = f"an earlier one; {version} was refused, see 'hypercut gate --explain'"
    print(f"Champion:       models:/{registration['name']}@champion ({version}) in "
          f"{registration['tracking_uri']}")
    print(f"Report:         {(ws.report / 'report.html').resolve()}")
    print(f"Restored photo: {_restored(ws).resolve()} (from {_photo(ws).resolve()})")
