"""`hypercut demo` in a fresh clone: DVC runs the nine steps and the optional tenth once, and a second time nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.params import explained, load

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1800


def demo(clone: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", "demo"], cwd=clone, capture_output=True,
                          text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, "PYTHONPATH": str(clone)})
    if check:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def executed(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", done.stdout)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository with the smoke recipe as its parameters."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    if subprocess.run(["git", "clone", "-q", ROOT, folder], capture_output=True, check=False).returncode:
        pytest.skip("this is no git checkout")
    (folder / "params.yaml").write_text(explained(load(ROOT / "params.yaml", "smoke")))
    return folder


@pytest.fixture(scope="module")
def first(clone: Path) -> subprocess.CompletedProcess[str]:
    return demo(clone)


def test_the_first_run_executes_every_stage_and_says_where_things_are(
        clone: Path, first: subprocess.CompletedProcess[str]) -> None:
    assert len(executed(first)) == 9 + 2  # two objectives in the smoke recipe
    last = first.stdout.strip().splitlines()[-3:]
    assert last[0].startswith("Champion:       models:/hypercut-deblurrer@champion (version 1)")
    for line in last[1:]:
        path = Path(line.split(":", 1)[1].split("(")[0].strip())
        assert path.is_file()
        assert clone in path.parents
    assert "repeat the blurry image" in first.stdout


def test_the_second_run_executes_no_stage(clone: Path, first: subprocess.CompletedProcess[str]) -> None:
    metrics = {path: path.read_bytes() for path in (clone / "metrics").iterdir()}
    restored = (clone / "out/demo/restored.webp").stat().st_mtime_ns
    before = os.times().children_user
    done = demo(clone)
    seconds = os.times().children_user - before
    assert executed(done) == []
    assert seconds < 20  # of processor time: the machine may be busy
    assert done.stdout.strip().splitlines()[-3:] == first.stdout.strip().splitlines()[-3:]
    assert {path: path.read_bytes() for path in (clone / "metrics").iterdir()} == metrics
    assert (clone / "out/demo/restored.webp").stat().st_mtime_ns == restored


def test_a_deleted_registry_is_filled_again(clone: Path, first: subprocess.CompletedProcess[str]) -> None:
    (clone / "mlflow.db").unlink()
    assert executed(demo(clone)) == ["register-model"]
    assert executed(demo(clone)) == []


def test_only_what_a_parameter_touches_runs_again(clone: Path,
                                                  first: subprocess.CompletedProcess[str]) -> None:
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("films: 2 ", "films: 3 "))
    try:
        ran = executed(demo(clone))
    finally:
        (clone / "params.yaml").write_text(text)
    assert ran[0] == "evaluate"
    assert set(ran) <= {"evaluate", "register-model"}


def test_dvc_reads_metrics_and_plots(clone: Path, first: subprocess.CompletedProcess[str]) -> None:
    def dvc(*words: str) -> str:
        return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=clone, capture_output=True,
                              text=True, timeout=PATIENCE, check=True).stdout

    assert "metrics/evaluate.json" in dvc("metrics", "show", "--md")
    dvc("plots", "show")
    assert (clone / "dvc_plots/index.html").is_file()


BLOCKS = dict(zip(("dvc", "kubeflow", "registry"), re.findall(
    r"```sh\n(.*?)```", (ROOT / "README.md").read_text().partition("## Three ways in")[2], re.DOTALL), strict=False))


@pytest.mark.parametrize(("way", "made", "said"), [
    ("dvc", "dvc.lock", "Promoted: the candidate is the champion"),
    ("kubeflow", "out/kubeflow/metrics/evaluate.json", "train-deblurrer"),
    ("registry", "out/restored.webp", "restored: out/restored.webp")])
def test_the_ways_in_that_the_readme_shows_work_as_they_stand(
        clone: Path, first: subprocess.CompletedProcess[str], way: str, made: str, said: str) -> None:
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").resize((75, 50)).save(clone / "photo.jpg")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-e", "-c", BLOCKS[way]], cwd=clone, capture_output=True, text=True,
                          timeout=PATIENCE, check=False, env={**os.environ, "PYTHONPATH": str(clone), "PATH": path})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (clone / made).is_file()
    assert said in done.stdout
    if way == "kubeflow":  # the same parameters: the recipe is this clone's params.yaml
        assert (clone / made).read_bytes() == (clone / "metrics/evaluate.json").read_bytes()


def test_a_source_archive_without_git_works(tmp_path: Path) -> None:
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("this is no git checkout")
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive.stdout, check=True)
    from pipelines.demo import _prepare

    _prepare(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", "collect-footage"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=PATIENCE, check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "PATH": path})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/footage.json").is_file()
