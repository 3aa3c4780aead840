"""`hypercut submit --local`: the compiled pipeline on this machine, each task a process of its own.

KFP's own local runner executes the tasks, and its cache (keyed as Kubeflow's) skips those whose image, parameters
and inputs are the same. The "image" is named after the source's content, so that changed code runs again.
Afterwards the results lie where `hypercut run` puts them.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercut_core.errors import MissingExtra
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from components.params import Parameters

BEGUN = re.compile(r"Executing task .*?'([\w-]+)'")
ENDED = re.compile(r"Task .*?'([\w-]+)'.* finished with status \S*?(SUCCESS|FAILURE)")
CACHED = re.compile(r"Task ([\w-]+) cache hit \(key=([0-9a-f]+)\)")
COLOUR = re.compile(r"\x1b\[\d*m")


@dataclass
class LocalRun:
    """What a pipeline did on this machine."""

    succeeded: bool
    executed: list[str] = field(default_factory=list)  # tasks in the order in which they ended
    cached: list[str] = field(default_factory=list)
    outputs: dict[tuple[str, str], list[Path]] = field(default_factory=dict)  # (task, artifact) -> files
    log: Path | None = None
    began: float = 0.0  # seconds since 1970

    def output(self, task: str, artifact: str) -> Path | None:
        return next(iter(self.outputs.get((task, artifact), [])), None)


def run_local(parameters: Parameters, workspace: Path, say: Callable[[str], None] = print, *,
              cache: bool = True, registration: bool = True) -> int:
    """Run the pipeline in a workspace; exit code 0, 2 for an error that a user can mend, 1 for any other.

    Args:
        cache: False: every task runs, whatever was done before.
        registration: False: the run ends with its report.

    Raises:
        MissingExtra: kfp is not installed; StorageError: another run works in this workspace.
    """
    from components.tracking import source_at
    from pipelines.compile import compile_pipeline
    from pipelines.local import alone, git_revision
    from pipelines.local_results import lay_out, told
    from pipelines.training_pipeline import arguments

    ws = Workspace(workspace.resolve())
    root = ws.work / "kubeflow"
    ws.root.mkdir(parents=True, exist_ok=True)
    with alone(ws):
        package = root / "pipeline.yaml"
        image = source_image()
        compile_pipeline(image, package, allow_local=True, gpus=False, cache_trainings=True, retries=False,
                         tracker_image=image if parameters.trajectories.enabled else "")
        values = arguments(parameters, store=str(root / "store"), tracking_folder=str(ws.root),
                           registration=registration)
        with source_at(git_revision()):
            run = execute(package, values, root, subprocess_runner(), say, cache=cache)
        lay_out(run, ws, root / "store")
        code, words = told(run, root / "store")
        say(words)
    return code


def subprocess_runner() -> Any:
    """KFP's runner that makes each task a process of this Python.

    Raises:
        MissingExtra: kfp is not installed.
    """
    try:
        from kfp import local
    except ImportError as error:
        raise MissingExtra("kfp", "kubeflow") from error
    return local.SubprocessRunner(use_venv=False)


def execute(package: Path, arguments: dict[str, Any], root: Path, runner: Any, say: Callable[[str], None] = print,
            *, cache: bool = True) -> LocalRun:
    """Run a compiled pipeline with one of KFP's local runners (subprocesses, or containers).

    Args:
        root: folder of the artifacts, the cache and the log; a container runner mounts it, so that the store
            must lie below it.
    """
    from kfp import components, local
    from kfp.local import config

    root.mkdir(parents=True, exist_ok=True)
    before = set(root.iterdir())
    local.init(runner, pipeline_root=str(root), raise_on_error=True, enable_caching=cache,
               cache_root=str(root / "cache"))
    watch, began = _Watch(say), time.time()
    pipeline = components.load_component_from_file(str(package))
    succeeded = True
    with _watched(watch, root / "run.log"):
        try:
            pipeline(**arguments)
        except RuntimeError as error:  # how KFP says that a task failed; the log has it whole
            print(error)
            succeeded = False
        finally:
            config.LocalExecutionConfig.instance = None
    run = LocalRun(succeeded, watch.executed, [task for task, _ in watch.cached], {}, root / "run.log", began)
    _collect(run, [path for path in root.iterdir() if path not in before and path.is_dir()])
    _collect_cached(run, watch.cached, root / "cache")
    return run


def source_image() -> str:
    """A name for the program as it is here: it changes with every file that the steps are made of."""
    import kfp

    tree = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(kfp.__version__.encode())
    for file in sorted(file for folder in ("hypercut_core", "components") for file in (tree / folder).rglob("*.py")):
        digest.update(file.relative_to(tree).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return f"hypercut-python:source-{digest.hexdigest()[:32]}"


class _Watch(logging.Filter):
    """Sees everything that KFP's runner says, whatever it does to the handlers of parallel tasks."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self._say, self._out, self._print = say, sys.stdout, builtins.print
        self._lock = threading.Lock()  # parallel tasks speak at once
        self._begun: dict[str, float] = {}
        self.executed: list[str] = []
        self.cached: list[tuple[str, str]] = []  # task, beginning of the cache's key

    def filter(self, record: logging.LogRecord) -> bool:
        line = COLOUR.sub("", record.getMessage())
        if found := CACHED.search(line):
            self.cached.append((found[1], found[2]))
            self._tell(f"{found[1]}: as before")
        elif found := BEGUN.search(line):
            self._begun[found[1]] = time.monotonic()
            self._tell(f"{found[1]}: begins")
        elif found := ENDED.search(line):
            seconds = time.monotonic() - self._begun[found[1]]
            self.executed.append(found[1])
            self._tell(f"{found[1]}: {'done' if found[2] == 'SUCCESS' else 'FAILED'} after {seconds:.1f} s")
        return True

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.redirect_stdout(self._out):  # not into the log, and not indented
            indented, builtins.print = builtins.print, self._print
            self._say(line)
            builtins.print = indented


@contextlib.contextmanager
def _watched(watch: _Watch, log: Path) -> Iterator[None]:
    """What KFP prints goes into the log; logging, warnings and `print` are then as they were before, which KFP's
    parallel tasks change under each other."""
    logger, printer = logging.getLogger(), builtins.print
    level, handlers = logger.level, logger.handlers[:]
    logger.setLevel(logging.INFO)
    logger.addFilter(watch)
    logger.addHandler(logging.NullHandler())  # or Python would add one that prints
    try:
        with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(watch)
        logger.setLevel(level)
        logger.handlers[:] = handlers
        builtins.print = printer


def _collect(run: LocalRun, folders: list[Path]) -> None:
    """Files that this run's tasks wrote: <run>/[<loop>-iteration-<n>/]<task>/<artifact>."""
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != "executor_output.json":
                run.outputs.setdefault((file.parent.name, file.name), []).append(file)


def _collect_cached(run: LocalRun, cached: list[tuple[str, str]], cache: Path) -> None:
    for task, key in cached:
        for entry in cache.glob(f"{key}*.json"):
            for name, value in json.loads(entry.read_text(encoding="utf-8")).items():
                if isinstance(value, dict) and "uri" in value:
                    run.outputs.setdefault((task, name), []).append(Path(value["uri"]))
