"""How a run ended, told from the notes that its steps left; then the run's folder is cleaned up.

Kubeflow's own status names the failed group and not the step, and a killed step can say nothing itself: it
leaves the note that it runs.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from components.shared_store import DONE, FAILED, RunFolder, open_store, run_name
from hypercut_core.errors import HypercutError
from hypercut_core.files import write_text

KEPT_DAYS = 14  # how long the folder of a failed run stays: its checkpoints serve a run that is tried again
KILLED = ("it was stopped from outside while it ran: out of memory, past its time limit, its node lost or the run "
          "cancelled; the pod's state tells which")
NEVER_BEGAN = "no step of ours reported an error: a pod could not start, or Kubeflow failed; its run page tells which"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    failed_step: str  # "" if none did
    reason: str
    expected: bool = True  # an error that a user can mend, or a success

    @property
    def failed(self) -> bool:
        return bool(self.failed_step)


def outcome(run: RunFolder, state: str, message: str = "") -> Outcome:
    """The outcome of a run by its notes and by Kubeflow's final state (SUCCEEDED, FAILED, CANCELLED)."""
    notes = run.notes()
    for note in notes:
        if note["state"] == FAILED:
            return Outcome(note["task"], note["what"], note["expected"])
    for note in notes:
        if note["state"] != DONE:
            return Outcome(note["task"], KILLED, expected=False)
    if state.upper() in ("FAILED", "ERROR", "CANCELLED", "CANCELED"):
        return Outcome("unknown", message or NEVER_BEGAN, expected=False)
    return Outcome("", "")


def close_run(state: str, message: str, register: str, store: str, tracking_folder: str, run_id: str, uri: str,
              summary: Path) -> Outcome:
    """Tell the outcome in the log and as Markdown, log and end the MLflow run, and clean up.

    MLflow being away fails no run here: what the run made is safe, and the summary says so.
    """
    from components.tracked_steps import close_parent

    run = RunFolder(open_store(store), run_name(uri, "close-run"))
    run.state.pull()
    found = outcome(run, state, message)
    trouble = ""
    try:
        ended = state.upper() if state.upper().startswith("CANCEL") else "FAILED" if found.failed else "SUCCEEDED"
        close_parent(run, run_id, register, tracking_folder, ended, found.failed_step, found.reason)
    except (HypercutError, OSError) as error:
        trouble = f"The MLflow run could not be ended: {error}"
        print(trouble, file=sys.stderr)
    write_text(summary, _summary(run, found, trouble))
    if found.failed:
        print(f"the step '{found.failed_step}' failed: {found.reason}", file=sys.stderr)
    clean_up(run, found)
    return found


def clean_up(run: RunFolder, found: Outcome) -> None:
    """Remove what no later run can use: everything of a run that succeeded, unfinished outputs of one that
    failed, and folders of runs that nobody took up again for 14 days."""
    shutil.rmtree(run.unfinished, ignore_errors=True)
    if not found.failed:
        shutil.rmtree(run.path, ignore_errors=True)
        run.state.remove()
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for folder in run.path.parent.glob("*"):
        notes = [file.stat().st_mtime for file in folder.glob("steps/*.json")]
        if notes and max(notes) < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _summary(run: RunFolder, found: Outcome, trouble: str) -> str:
    rows = [f"| {note['task']} | {note['state'] if note['state'] in (DONE, FAILED) else 'killed'} |"
            for note in run.notes()]
    words = f"**{found.failed_step} failed**: {found.reason}" if found.failed else "All steps that ran are done."
    return "\n".join(["# Outcome", words, "", "| step | outcome |", "|---|---|", *rows, "", trouble]).rstrip() + "\n"
