"""The checkpoints of one training in a FileStore: a folder, or a prefix of an object store.

    <training>-<step>-<loss>-<sha256>.safetensors     3f0c12ab90de-00000400--2.71828-9b1c….safetensors

The name says whose it is, how far it is, how good it is and what its bytes must be. So a list of names is all
that a resuming training needs to find the newest; it is taken if its bytes are those, or else the one before.
Other trainings may use the same place: nothing of theirs is read or removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hypercut_core.errors import BadCheckpoint, StorageError
from hypercut_core.files import FileStore
from hypercut_core.progress import say
from hypercut_core.training.checkpoint import pack, unpack

NAME = re.compile(r"(?P<training>[0-9a-f]{12})-(?P<step>\d{8,})-(?P<loss>-?\d+\.\d+)-(?P<digest>[0-9a-f]{16})"
                  r"\.safetensors")


@dataclass(frozen=True, order=True)
class Saved:
    """One checkpoint, as its name tells."""

    step: int
    loss: float
    name: str
    digest: str


class CheckpointFolder:
    """The newest `keep` checkpoints of a training, and the one of the lowest loss.

    Args:
        store: where they lie.
        identity: what makes this training this training; JSON.
        keep: at least 1.
        say: told in one line what was skipped or could not be written.
    """

    def __init__(self, store: FileStore, identity: dict[str, Any], keep: int = 2,
                 say: Callable[[str], None] = say):
        self.store, self.keep, self.say = store, max(1, keep), say
        self.identity = json.loads(json.dumps(identity))
        self.training = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        self._good = False  # whether a checkpoint is there that was read
        self._passed: set[str] = set()  # names of those that cannot be used

    def saved(self) -> list[Saved]:
        """This training's checkpoints, oldest first.

        Raises:
            StorageError: the place cannot be read.
        """
        found = [match for name in self.store.names() if (match := NAME.fullmatch(name))]
        return sorted(Saved(int(match["step"]), float(match["loss"]), match[0], match["digest"])
                      for match in found if match["training"] == self.training)

    def newest(self) -> bytes | None:
        """The newest checkpoint that is whole; None if there is none. Damaged ones are passed over and named.

        Raises:
            StorageError: the place cannot be read: to start again from nothing would be no answer to that.
        """
        own = self.saved()
        others = len([name for name in self.store.names() if NAME.fullmatch(name)]) - len(own)
        if others and not own:
            self.say(f"{others} checkpoints in {self.store.name} belong to trainings with other data, settings or"
                     " code: they are left alone, this one starts from the beginning")
        for saved in reversed(own):
            try:
                data = self.store.read(saved.name)
                self._check(saved, data)
            except (BadCheckpoint, OSError) as error:
                what = error.what if isinstance(error, BadCheckpoint) else error.strerror or str(error)
                self.say(f"checkpoint of step {saved.step} in {self.store.name} is passed over: {what}")
                self._passed.add(saved.name)
                continue
            self._good = True
            return data
        return None

    def save(self, step: int, loss: float, tensors: dict[str, Tensor], last: bool = False) -> bool:
        """Write a checkpoint, read it back, then remove those that are no longer needed.

        A checkpoint that cannot be written is a warning while there is an older one to go on from, and the
        training is not over.

        Returns:
            Whether it was written.

        Raises:
            StorageError: it could not be written, and the work done so far would be lost.
        """
        data = pack(tensors, {"model": "checkpoint", "step": step, "loss": loss, "identity": self.identity})
        digest = hashlib.sha256(data).hexdigest()[:16]
        name = f"{self.training}-{step:08d}-{loss:.5f}-{digest}.safetensors"
        try:
            self.store.write(name, data)
            if self.store.read(name) != data:
                raise StorageError("the checkpoint is not what was written", where=f"{self.store.name}/{name}",
                                   remedy="check the disk or the object store")
        except (StorageError, OSError) as error:
            self._passed.add(name)
            if last or not self._good:
                raise
            self.say(f"no checkpoint at step {step}, the training goes on: {' '.join(str(error).split())}")
            return False
        self._good = True
        self._passed.discard(name)
        self._prune()
        return True

    def _prune(self) -> None:
        """Only after a checkpoint was written and read back: it is among the newest that stay."""
        try:
            saved = self.saved()
            usable = [one for one in saved if one.name not in self._passed]
            kept = {*usable[-self.keep:], min(usable, key=lambda one: (one.loss, -one.step))}
            for one in set(saved) - kept:
                self.store.delete(one.name)
        except (StorageError, OSError) as error:
            self.say(f"old checkpoints could not be removed: {' '.join(str(error).split())}")

    def _check(self, saved: Saved, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest()[:16] != saved.digest:
            raise BadCheckpoint("its bytes are not those that were written")
        info = unpack(data)[1]
        if info.get("identity") != self.identity or info.get("step") != saved.step:
            raise BadCheckpoint("it belongs to another training")


def newest_name(store: FileStore) -> tuple[int, float] | None:
    """Step and loss of the newest checkpoint by the names alone, whichever training's; None if there is none.

    Raises:
        StorageError: the place cannot be read.
    """
    found = [match for name in store.names() if (match := NAME.fullmatch(name))]
    return max(((int(match["step"]), float(match["loss"])) for match in found), default=None)


def forget_checkpoints(store: FileStore) -> None:
    """Remove the checkpoints of finished trainings; other files in the same place stay.

    Raises:
        StorageError: the place cannot be used.
    """
    for name in store.names():
        if NAME.fullmatch(name):
            store.delete(name)
