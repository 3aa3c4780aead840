"""The command line: quick help, typed options, errors as one paragraph with exit code 2."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercut_core.errors import BadFootage, StorageError
from pipelines import local
from pipelines.cli import app, explained_os_error, main
from pipelines.local import STEPS, alone, run_all
from pipelines.options import CHAMPION
from pipelines.workspace import Workspace

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """Call main() in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hypercut", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def one_paragraph(text: str) -> bool:
    return text.startswith("hypercut: ") and text.count("\n") == 1 and "Traceback" not in text


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """0.5 s of this process's own time: a busy machine makes no difference."""
    code = ("import sys, time\nsys.argv = ['hypercut', '--help']\nfrom pipelines.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "heavy = {'torch', 'numpy', 'mlflow', 'zarr', 'yaml', 'pydantic', 'pandas'} & set(sys.modules)\n"
            "print(heavy or 'light', time.process_time(), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600,
                          check=True)
    load, seconds = done.stderr.rsplit(maxsplit=1)
    assert load == "light"
    assert float(seconds) < 0.5
    assert all(name in done.stdout for name in COMMANDS)


COMMANDS = {*STEPS, "run", "demo", "restore", "restore-events", "benchmark", "gate", "params", "doctor", "submit",
            "compile", "describe", "export", "capture", "watch", "ui", "trajectories"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(run_main: Main, command: str) -> None:
    code, out, _ = run_main(command, "--help")
    assert code == 0
    assert "Usage" in out
    assert len(out.splitlines()) > 5


def test_every_command_is_a_step_or_known() -> None:
    names = {command.name for command in app.registered_commands}
    assert names == COMMANDS


@pytest.mark.parametrize(("words", "part"), [
    (["run", "--set", "sede=1"], "did you mean 'seed'"),
    (["train-encoder", "--set", "encoder.training.steps=x"], "a whole number"),
    (["evaluate", "--preset", "smok"], "did you mean 'smoke'"),
    (["run", "--params", "none.yaml"], "none.yaml"),
    (["validate-footage"], "footage.json"),
    (["validate-clips"], "synthesize-blur"),
    (["evaluate"], "data/clips"),
    (["train-deblurrer", "--out", "x.safetensors"], "--objective"),
    (["demo"], "hypercut run"),
    (["gate"], "evaluate.json"),
    (["restore", "none.jpg", "-o", "out.gif", "--model", "none.safetensors"], "none"),
])
def test_what_a_user_can_mend_is_one_paragraph(run_main: Main, words: list[str], part: str) -> None:
    code, _, err = run_main(*words)
    assert code == 2
    assert one_paragraph(err), err
    assert part in err
    assert "To mend it: " in err


def test_a_wrong_option_is_exit_code_2(run_main: Main) -> None:
    code, _, err = run_main("run", "--wrokspace", "x")
    assert code == 2
    assert "No such option" in err
    assert "Traceback" not in err
    assert run_main("restore")[0] == 2


@pytest.mark.parametrize(("error", "code", "words"), [
    (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "/x/y: the disk is full"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "not permitted"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), 2, "a.png: there is no such file"),
    (MemoryError(), 2, "memory is full"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (BadFootage("it is\nbroken", where="a.mp4", remedy="use another"), 2, "a.mp4: it is broken. To mend"),
])
def test_errors_of_the_surroundings(run_main: Main, monkeypatch: pytest.MonkeyPatch, error: BaseException,
                                    code: int, words: str) -> None:
    def fail(*_: Any) -> None:
        raise error
    monkeypatch.setitem(local.STEPS, "collect-footage", fail)
    found, _, err = run_main("collect-footage")
    assert found == code
    assert one_paragraph(err)
    assert words in err


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explained_os_error(OSError(errno.EBADF, "bad descriptor")) is None

    def fail(*_: Any) -> None:
        raise ZeroDivisionError
    monkeypatch.setitem(local.STEPS, "collect-footage", fail)
    monkeypatch.setattr(sys, "argv", ["hypercut", "collect-footage"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_settings_reach_the_step_and_paths_can_be_moved(run_main: Main, monkeypatch: pytest.MonkeyPatch,
                                                        tmp_path: Path) -> None:
    seen: list[tuple[Workspace, Any]] = []
    monkeypatch.setitem(local.STEPS, "synthesize-blur", lambda ws, p: seen.append((ws, p)))
    assert run_main("synthesize-blur", "--workspace", "w", "--set", "seed=5", "--set", "frames=9",
                    "--clips", "elsewhere", "--metrics", "m.json")[0] == 0
    ws, parameters = seen[0]
    assert (parameters.seed, parameters.frames) == (5, 9)
    assert (ws.clips, ws.metrics("synthesize-blur")) == (Path("elsewhere"), Path("m.json"))
    assert ws.manifest == Path("w/data/footage.json")


def test_one_objective_has_its_own_files(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(local, "train_deblurrer", lambda ws, p, objective: seen.append((ws, objective)))
    assert run_main("train-deblurrer", "--objective", "naive", "--out", "n.st", "--metrics", "n.json")[0] == 0
    ws, objective = seen[0]
    assert objective == "naive"
    assert ws.deblurrer("naive") == Path("n.st")
    assert ws.metrics("train-deblurrer-naive") == Path("n.json")


def test_parameters_come_from_the_workspace_first(run_main: Main, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "w").mkdir()
    assert run_main("params", "-w", "w")[1].startswith("seed: 1 ")
    (tmp_path / "w/params.yaml").write_text("seed: 2\n")
    assert run_main("params", "-w", "w")[1].startswith("seed: 2 ")
    assert run_main("params", "-w", "w", "--params", "params.yaml")[1].startswith("seed: 1 ")


def test_run_does_every_step_in_order_and_stops_at_a_failure(monkeypatch: pytest.MonkeyPatch,
                                                             tmp_path: Path) -> None:
    done: list[str] = []

    def step(name: str) -> Callable[..., None]:
        def run(*_: Any) -> None:
            done.append(name)
            if name == "validate-clips" and fail:
                raise BadFootage("no")
        return run

    for name in list(STEPS):
        monkeypatch.setitem(local.STEPS, name, step(name))
    fail, lines = False, list[str]()
    run_all(Workspace(tmp_path), None, say=lines.append)  # type: ignore[arg-type]
    assert done == list(STEPS)
    assert len(lines) == 2 * len(STEPS)
    assert lines[0] == "[1/10] collect-footage"
    fail = True
    done.clear()
    with pytest.raises(BadFootage):
        run_all(Workspace(tmp_path), None, say=lines.append)  # type: ignore[arg-type]
    assert done == ["collect-footage", "validate-footage", "synthesize-blur", "validate-clips"]


def test_two_runs_do_not_share_a_workspace(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    with alone(ws), pytest.raises(StorageError, match="another run"), alone(ws):
        pass
    with alone(Workspace(tmp_path)):
        pass


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = ("import time\nfrom pathlib import Path\nfrom pipelines.local import alone\n"
            f"from pipelines.workspace import Workspace\nwith alone(Workspace(Path({str(tmp_path)!r}))):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError), alone(Workspace(tmp_path)):
            pass
        holder.kill()
    with alone(Workspace(tmp_path)):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(run_main: Main, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir(mode=0o500)
    code, _, err = run_main("run", "-w", "w")
    assert code == 2
    assert one_paragraph(err)


def test_doctor_says_what_is_there(run_main: Main) -> None:
    code, out, _ = run_main("doctor")
    assert code == 0
    for word in ("python", "torch", "threads", "extra tracking", "mp4 encoder", "disk", "model registry"):
        assert word in out
    assert "none in this workspace yet" in out


def test_doctor_fails_on_what_is_broken(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import doctor

    monkeypatch.setattr(doctor, "ROOM", 2**62)
    monkeypatch.setitem(doctor.EXTRAS, "photos", ("no-such-package",))
    monkeypatch.setitem(doctor.EXTRAS, "ray", ("no-such-package",))
    code, out, _ = run_main("doctor")
    assert code == 2
    bad = [line for line in out.splitlines() if line.startswith("BAD")]
    assert len(bad) == 2
    assert "hypercut[photos]" in bad[0]
    assert "free" in bad[1]


def test_the_entry_point_is_this_one(repository: Path) -> None:
    assert 'hypercut = "pipelines.cli:main"' in (repository / "pyproject.toml").read_text()
    assert CHAMPION == "models:/hypercut-deblurrer@champion"
