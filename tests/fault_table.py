"""What a fault cost: each test of a fault notes its row, and `python -m benchmarks.faults` prints the table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

FaultRecord = Callable[..., None]


@pytest.fixture
def fault_record(request: pytest.FixtureRequest) -> FaultRecord:
    """`record(fault=..., tries=..., survived=..., lost_steps=..., recovery_seconds=...)`.

    Appends one JSON line to the file that HYPERCUT_FAULTS names; without it nothing is written. Call it once
    in a test, after its last assertion.
    """

    def record(*, fault: str, tries: int, survived: int, lost_steps: int | None = None,
               recovery_seconds: float | None = None) -> None:
        """Note a row of the table.

        Args:
            fault: what was done, in words ("S3 server away for 20 s while a checkpoint is written").
            tries: how often it was done.
            survived: how often the work went on to the result of an undisturbed run; the other tries ended
                with a clear error (the test holds that).
            lost_steps: optimiser steps that were computed twice, the most of all tries; None: no training.
            recovery_seconds: from the fault's end to the next finished step, the most of all tries; None: it
                ended with an error.
        """
        assert 0 <= survived <= tries
        file = os.environ.get("HYPERCUT_FAULTS")
        if file:
            row = {"fault": fault, "tries": tries, "survived": survived, "lost_steps": lost_steps,
                   "recovery_seconds": recovery_seconds, "test": request.node.nodeid}
            with Path(file).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")

    return record
