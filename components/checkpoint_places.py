"""Where the checkpoints of a training lie: a folder of this machine, or a prefix on S3."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hypercut_core.files import FileStore, LocalFiles


def checkpoint_place(name: str, facts: Any, checkpoints: str, work: Path) -> str:
    """Folder or s3:// prefix of a training's checkpoints.

    Args:
        name: of the training.
        facts: what makes this training this training; JSON.
        checkpoints: where the trainings of all kinds have theirs, each in a folder of its own; "": `work` itself.
    """
    if not checkpoints:
        return str(work.resolve())
    own = f"{name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"
    return f"{checkpoints.rstrip('/')}/{own}" if "://" in checkpoints else str(Path(checkpoints).resolve() / own)


def open_checkpoints(place: str) -> FileStore:
    """The place as the process that asks sees it."""
    if "://" not in place:
        return LocalFiles(place)
    from components.storage import S3Files

    return S3Files(place)
