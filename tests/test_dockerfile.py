"""The Dockerfile's promises that need no engine: its extras, no host, nothing that only BuildKit reads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from hypercut_core.trajectories.tracker import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "infra/images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def test_train_holds_every_extra_of_the_product_and_cpu_all_but_ray() -> None:
    cpu, train = (line.split()[3:] for line in DOCKERFILE.splitlines()
                  if line.startswith("RUN infra/images/install packages"))
    everything = set(re.findall(r"[\w]+", EXTRAS["all"][0])) - {"hypercut"}
    assert set(train) == everything
    assert set(cpu) == everything - {"ray"}
    assert everything <= set(EXTRAS)


def stages() -> dict[str, str]:
    return {stage.split()[2]: stage for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
            if re.match(r"\S+ AS \S+\s", stage)}


def test_two_targets_end_as_a_numbered_user() -> None:
    targets = {name: stage for name, stage in stages().items() if name in ("cpu", "train")}
    assert set(targets) == {"cpu", "train"}
    for stage in targets.values():
        assert re.findall(r"^USER (.*)$", stage, re.MULTILINE) == ["10001:10001"]
        assert 'image.revision="${REVISION}"' in stage


def test_the_tracker_s_target_is_cpu_with_an_environment_where_the_code_looks_for_it() -> None:
    """It stays the user of cpu, and its packages come from a stage that never sees those of the steps."""
    tracker = stages()["tracker"]
    assert tracker.startswith("cpu AS tracker")
    assert "USER" not in tracker
    assert f"/opt/{ENVIRONMENT} /opt/{ENVIRONMENT}" in tracker  # beside /opt/venv, as tracker_python() says
    assert f"/opt/{ENVIRONMENT}" in (IMAGES / "install").read_text(encoding="utf-8")
    assert stages()["tracker-packages"].startswith("packages AS")


def test_an_engine_without_buildkit_reads_it_and_no_host_is_in_it() -> None:
    assert not re.search(r"--mount|--link|--chmod|^# *syntax=|<<", DOCKERFILE, re.MULTILINE)
    for file in ("Dockerfile", "install", "build"):
        assert not re.search(r"https?://|\w\.(com|org|io)/", (IMAGES / file).read_text(encoding="utf-8")), file


def test_everything_that_is_copied_may_enter_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
               if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
              for word in line.split()[:-1] if word != "."]
    assert copied
    assert [path for path in copied if path not in allowed] == []
    assert [path for path in allowed if not (ROOT / path).exists()] == []
    assert {"hypercut_core", "components", "pipelines", "params", "params.yaml"} <= allowed
