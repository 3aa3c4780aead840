"""Errors that a user can act on: what is wrong, where, and what mends it.

The command line prints ``str(error)`` as one paragraph and exits with code 2.
"""

from __future__ import annotations

import os


class HypercutError(Exception):
    """Base of every error that bad input, configuration or surroundings can cause.

    Args:
        what: what is wrong, one sentence without a full stop.
        where: the file, key or clip concerned.
        remedy: the command or setting that mends it.
    """

    def __init__(self, what: str, *, where: str | os.PathLike[str] | None = None, remedy: str | None = None):
        self.what = what
        self.where = None if where is None else os.fspath(where)
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" To mend it: {self.remedy}." if self.remedy else ""
        return f"{place}{self.what}.{cure}"

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.what, self.where, self.remedy)  # errors travel between processes


def _again(kind: type[HypercutError], what: str, where: str | None, remedy: str | None) -> HypercutError:
    error = kind.__new__(kind)
    HypercutError.__init__(error, what, where=where, remedy=remedy)
    return error


class BadFootage(HypercutError):
    """A video, frame folder or data-set layout that cannot be used as it is."""


class BadImage(HypercutError):
    """A photo that cannot be decoded, or that is too large to be decoded safely."""


class BadClipStore(HypercutError):
    """A clip store that is missing, incomplete, damaged or inconsistent."""


class BadParameters(HypercutError):
    """An unknown, mistyped or out-of-range parameter."""


class BadCheckpoint(HypercutError):
    """A model file that is damaged, or of another model than the one asked for."""


class TrainingCollapsed(HypercutError):
    """Training ended (or is about to end) in a solution that is worth nothing."""


class DataRejected(HypercutError):
    """A validation gate said no."""


class RegistryError(HypercutError):
    """The model registry could not be read or written."""


class StorageError(HypercutError):
    """A path or URI cannot be read or written (missing, refused, disk full)."""


class WorkerLost(HypercutError):
    """A process died each time that it worked on one and the same thing."""


class BadPipeline(HypercutError):
    """A compiled pipeline, or an image for it, that must not be uploaded."""


class ContainerError(HypercutError):
    """A container engine does not answer, or a pipeline step failed in its container."""


class PipelineServerError(HypercutError):
    """The Kubeflow Pipelines server refuses, fails, or does not answer."""


class RayJobError(HypercutError):
    """A training on a cluster of its own failed, or Kubernetes refuses, fails, or does not answer."""


class ClusterError(HypercutError):
    """A Ray cluster, or one of its nodes, cannot be used or was lost."""


class TrackerError(HypercutError):
    """The landmark tracker died, took too long, or answered nonsense."""


class TrackerMissing(TrackerError):
    """The landmark tracker's environment is not installed."""


class Interrupted(HypercutError):
    """The user stopped a command; says what of its work goes on elsewhere. Exit code 130."""


class MissingExtra(HypercutError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"the package '{package}' is needed for this and is not installed",
                         remedy=f"pip install 'hypercut[{extra}]'")
