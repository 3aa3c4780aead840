"""The house rules of imports, read from the source: arrows point down only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from source_imports import ROOT, closure, imported, sources, tops

SERVICES = {"kfp", "kfp_kubernetes", "ray", "mlflow", "dvc", "boto3", "botocore", "great_expectations",
            "pandas", "kubernetes", "fastapi", "pydantic", "starlette", "uvicorn"}
STEPS = sorted(path.parent.name for path in (ROOT / "components").glob("*/step.py"))
CORE = sources("hypercut_core")
COMPONENTS = sources("components")
EVERYTHING = [*CORE, *COMPONENTS, *sources("pipelines")]


def test_there_is_something_to_look_at() -> None:
    assert len(CORE) > 20
    assert len(STEPS) == 10
    assert any(p.name == "cli.py" for p in EVERYTHING)


def test_the_science_imports_nothing_above_it() -> None:
    above = SERVICES | {"components", "pipelines"}
    assert {str(path): tops(path) & above for path in CORE if tops(path) & above} == {}


def test_components_do_not_import_pipelines() -> None:
    assert [path for path in COMPONENTS if "pipelines" in tops(path)] == []


def test_steps_do_not_import_each_other() -> None:
    broken = {}
    for path in (path for path in COMPONENTS if len(path.parts) > 2):
        others = {f"components.{step}" for step in STEPS if step != path.parts[1]}
        rooms = {".".join(name.split(".")[:2]) for name in imported(path)}
        if rooms & others:
            broken[str(path)] = rooms & others
    assert broken == {}


# package -> the only places that may import it
HOMES = {
    "great_expectations": ("components/validate_footage/", "components/validate_clips/"),
    "ray": ("components/train_deblurrer/", "components/synthesize_blur/"),
    "boto3": ("components/storage/s3_client.py",),
    "botocore": ("components/storage/s3_client.py",),
    "dvc": ("components/storage/revisions.py",),
    "mlflow": ("components/tracking.py", "components/register_model/"),
    "kfp": ("pipelines/",),
    "kfp_kubernetes": ("pipelines/",),
    "starlette": ("pipelines/ui/",),
    "uvicorn": ("pipelines/ui/",),
    "pydantic": ("components/schema.py", "components/params.py"),
}


def test_every_service_lives_in_its_own_rooms() -> None:
    strangers = [(str(path), package) for path in EVERYTHING for package in tops(path) & set(HOMES)
                 if not path.as_posix().startswith(HOMES[package])
                 and not (package.startswith("kfp") and path.name == "component.py")]
    assert strangers == []


# besides these, nothing is steered by the environment: paths and addresses are arguments
READERS = ("components/storage/s3_client.py", "components/tracking.py", "pipelines/submit.py",
           "components/ray_address.py")  # the last one reads Ray's own


def test_environment_variables_are_read_in_four_places() -> None:
    reads = [f"{path}: {line.strip()}" for path in EVERYTHING if path.as_posix() not in READERS
             for line in (ROOT / path).read_text(encoding="utf-8").splitlines()
             if "getenv" in line or ("os.environ" in line and not line.strip().startswith('os.environ["'))]
    assert reads == []


def test_kubeflow_files_keep_real_annotations() -> None:
    faces = [path for path in EVERYTHING if path.name == "component.py" or path.name.endswith("_pipeline.py")]
    assert [path for path in faces
            if "from __future__ import annotations" in (ROOT / path).read_text(encoding="utf-8")] == []


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          check=True)
    return set(done.stdout.split())


def test_importing_the_science_loads_no_service() -> None:
    modules = [".".join(path.with_suffix("").parts) for path in CORE if path.name != "__init__.py"]
    loaded = loaded_by("import hypercut_core, " + ", ".join(modules))
    assert "torch" in loaded
    assert not loaded & SERVICES


def test_importing_hypercut_core_is_light() -> None:
    assert not loaded_by("import hypercut_core") & (SERVICES | {"torch", "numpy", "zarr", "av", "PIL"})


def test_importing_the_steps_loads_no_service() -> None:
    loaded = loaded_by("import " + ", ".join(f"components.{step}.step" for step in STEPS))
    assert not loaded & (SERVICES - {"pydantic"})


def test_the_closure_follows_imports_inside_functions() -> None:
    found = {path.as_posix() for path in closure(Path("pipelines/local.py"))}
    assert {"components/evaluate/step.py", "hypercut_core/clips/store.py"} <= found
