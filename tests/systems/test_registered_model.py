"""The registered model away from home: in a clean process, behind a server, and registered twice at once.

The full path with MLflow's own packing; nothing is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.components.registry_fixtures import challenger

pytest.importorskip("mlflow")
pytestmark = pytest.mark.system
URI = "models:/hypercut-deblurrer@champion"

REGISTER = """
import sys
from pathlib import Path
from components.register_model.step import RegisterConfig, register_model
workspace, metrics, model = map(Path, sys.argv[1:4])
decision = register_model(metrics, model, None, RegisterConfig(), workspace / sys.argv[4],
                          workspace=workspace, registration=workspace / (sys.argv[4] + ".registration"))
print("promoted" if decision.promote else "refused")
"""

RESTORE = """
import sys
import numpy as np
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
photo = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(photo))
import hypercut_core
print(hypercut_core.__file__)
print(sorted({name.split(".")[0] for name in sys.modules} & {"zarr", "av", "skimage", "typer", "components"}))
"""


def clean_environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("MLFLOW", "HYPERCUT", "PYTHONPATH"))}
    return {**kept, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **extra}


def start(workspace: Path, metrics: Path, model: Path, out: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", REGISTER, str(workspace), str(metrics), str(model), out],
                            env=clean_environment(), cwd=Path(__file__).parents[2], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """The last line that each printed; none is left running, whatever happens."""
    said = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=900)  # a loaded machine is slow, not stuck
            assert process.returncode == 0, err
            said.append(out.strip().splitlines()[-1])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return said


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose champion went through the whole step."""
    workspace = tmp_path_factory.mktemp("space")
    assert finish(start(workspace, *challenger(workspace, 1, 27.0), "metrics/one.json")) == ["promoted"]
    return workspace


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def expected(workspace: Path, blurry: np.ndarray) -> np.ndarray:
    from hypercut_core.deblurring.models import load_deblurrer
    from hypercut_core.restore import restore

    return restore(load_deblurrer(workspace / "models/1.safetensors"), blurry)


def test_champion_loads_in_a_clean_process_in_another_folder(registered: Path, tmp_path: Path) -> None:
    blurry = photo(45, 77)
    np.save(tmp_path / "photo.npy", blurry[None])
    done = subprocess.run([sys.executable, "-c", RESTORE, URI, "photo.npy", "frames.npy"], cwd=tmp_path,
                          text=True, capture_output=True, timeout=300,
                          env=clean_environment(MLFLOW_TRACKING_URI=f"sqlite:///{registered}/mlflow.db"))
    assert done.returncode == 0, done.stderr
    shipped, others = done.stdout.splitlines()[-2:]
    assert "/code/hypercut_core/" in shipped  # the code that came with the model, not what is installed here
    assert others == "[]"
    frames = np.load(tmp_path / "frames.npy")
    assert frames.shape == (1, 3, 45, 77, 3)
    np.testing.assert_array_equal(frames[0], expected(registered, blurry))


def test_command_line_restores_by_alias(registered: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(50, 34)).save(tmp_path / "in.png")
    command = [str(Path(sys.executable).with_name("hypercut")), "restore", "in.png", "-o", "out",
               "--model", URI, "--workspace", str(registered)]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300,
                          env=clean_environment())
    assert done.returncode == 0, done.stderr
    shown = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "out").glob("*.png"))])
    np.testing.assert_array_equal(shown, expected(registered, photo(50, 34)))


@contextlib.contextmanager
def server(workspace: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("w")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", URI, "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port)]
    environment = clean_environment(MLFLOW_TRACKING_URI=f"sqlite:///{workspace}/mlflow.db",
                                    PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log,
                               start_new_session=True)  # its workers end with it
    try:
        deadline = time.monotonic() + 180
        while not _answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ask(address: str, inputs: object) -> tuple[int, str]:
    request = urllib.request.Request(address, json.dumps({"inputs": inputs}).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_model_server_answers_a_photo_of_another_size(registered: Path, tmp_path: Path) -> None:
    blurry = photo(37, 60)
    with server(registered, tmp_path) as address:
        status, answer = ask(address, blurry[None].tolist())
        assert status == 200, answer
        frames = np.array(json.loads(answer)["predictions"])
        np.testing.assert_array_equal(frames[0], expected(registered, blurry))
        for wrong in (blurry.tolist(), "photo.png", [[[[1, 2]]]]):
            status, answer = ask(address, wrong)
            assert 400 <= status < 500, answer
        assert ask(address, blurry[None].tolist())[0] == 200  # it is still there


def test_two_registrations_at_once_end_with_the_better_one_as_the_only_champion(tmp_path: Path) -> None:
    from components import tracking

    ready = [(challenger(tmp_path, seed, ppsnr), f"metrics/{seed}.json")
             for seed, ppsnr in ((1, 27.0), (2, 28.0))]
    said = finish(*[start(tmp_path, *files, out) for files, out in ready])
    client = tracking.client(tmp_path)
    model = client.get_registered_model("hypercut-deblurrer")
    champion = client.get_model_version_by_alias("hypercut-deblurrer", "champion")
    assert json.loads(champion.tags["hypercut.figures"])["ppsnr"] == 28.0
    assert said[1] == "promoted"
    assert set(model.aliases) == {"candidate", "champion"}
    versions = client.search_model_versions("name = 'hypercut-deblurrer'")
    assert len(versions) == 2
    assert sum("champion" in client.get_model_version(one.name, one.version).aliases for one in versions) == 1
