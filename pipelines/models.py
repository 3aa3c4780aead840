"""Models by file or by registry name, and what the gate said about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from components.params import Parameters


def model_file(model: str, workspace: Path) -> Path:
    """The .safetensors file behind a path or `models:/name@alias`.

    Raises:
        BadCheckpoint, RegistryError, MissingExtra.
    """
    if not model.startswith("models:/"):
        return Path(model)  # without loading MLflow; restore says what is wrong with it
    from components.tracking import model_file as fetch

    return fetch(model, workspace)


def explain_gate(ws: Workspace, p: Parameters, details: bool) -> str:
    """What the gate decided about the registered candidate (or would decide about the evaluated one)."""
    from components.register_model.step import explain, preview, read_decision

    recorded = ws.metrics("register-model")
    if recorded.is_file():
        decision, when = read_decision(recorded), "The gate decided"
    else:
        decision, when = preview(ws.metrics("evaluate"), p.register, ws.root), "The gate would decide"
    if details:
        return explain(decision)
    word = "champion" if decision.promote else "candidate only"
    return f"{when}: {word}. 'hypercut gate --explain' tells why."
