"""A row of the benchmark in a process of its own, where it can take no other down with it."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercut_core.benchmark.run import Job


def in_own_process(job: Job) -> str:
    """Run a job where it can take no other down with it: "" or why it failed."""
    from hypercut_core.errors import Interrupted

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, there))
    process.start()
    there.close()
    try:
        told = str(here.recv())
    except EOFError:
        process.join()
        code = process.exitcode or 0
        told = f"its process was killed by signal {-code}; out of memory?" if code < 0 else f"it ended with {code}"
    except KeyboardInterrupt:
        process.terminate()
        process.join()
        raise Interrupted("interrupted; run the same command again to go on") from None
    process.join()
    return told


def _work(job: Job, tell: Any) -> None:
    import threading
    import traceback

    from hypercut_core.benchmark.run import run_job
    from hypercut_core.errors import HypercutError

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_job(job)
        tell.send("")
    except HypercutError as error:
        tell.send(str(error))
    except Exception as error:  # a bug in one row must not cost the others
        traceback.print_exc()
        tell.send(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A training that nobody waits for would write beside that of the next call."""
    import os
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
