"""How training would go on 1 to 64 GPUs: a model, not a measurement.

    t(n)  = c(b/n) + max(0, a(n) - h * w * c(b/n)) + s(n)         e(n) = t(1) / (n * t(n))

c: seconds of computing a share of the batch of b clips; a: seconds in which the gradients travel; w: the backward
pass's share of c, behind which DDP hides the share h of a; s: seconds in which all wait for each other. The gradients
travel in a ring within each node and in a ring of nodes, both at once one after the other: 2 (k - 1) / k of their
bytes over each link of a ring of k.
"""

from __future__ import annotations

from dataclasses import dataclass

GPUS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Machine:
    """What is assumed of the machines; none of it is measured here."""

    name: str
    network: float  # bytes/s of one node's network, one direction
    node: int = 8  # GPUs a node
    nvlink: float = 150e9  # bytes/s that a ring inside a node reaches
    flop_rate: float = 40e12  # FLOP/s that a GPU reaches on this model; benchmarks/gpu measures it
    hidden: float = 0.8  # share of the backward pass behind which gradients can travel
    latency: float = 30e-6  # seconds of one message; a ring of k waits for 2 (k - 1)


@dataclass(frozen=True)
class Model:
    """What is known of the model: counted, not assumed."""

    name: str
    parameters: int
    flop: float  # of one sample, forward and backward pass
    backward: float = 2 / 3  # share of that in the backward pass

    @property
    def gradient_bytes(self) -> int:
        return 4 * self.parameters  # float32, under autocast too

    def checkpoint_bytes(self, averaged: bool = False) -> int:
        """Weights and AdamW's two moments, and the averaged weights."""
        return self.gradient_bytes * (4 if averaged else 3)


def ring_bytes(size: int, members: int) -> float:
    """Bytes that each member of a ring sends to sum `size` bytes over all."""
    return 2 * (members - 1) / members * size


def exchange_seconds(model: Model, machine: Machine, gpus: int) -> float:
    """Seconds in which the gradients of a step travel."""
    inside, nodes = min(gpus, machine.node), max(1, gpus // machine.node)
    rings = ring_bytes(model.gradient_bytes, inside) / machine.nvlink \
        + ring_bytes(model.gradient_bytes, nodes) / machine.network
    return rings + machine.latency * 2 * (inside - 1 + nodes - 1)


def step_seconds(model: Model, machine: Machine, gpus: int, batch: int) -> float:
    """Seconds of a step of a batch that all GPUs share."""
    computing = model.flop * batch / gpus / machine.flop_rate
    travelling = exchange_seconds(model, machine, gpus)
    waiting = machine.latency * 2 * (gpus - 1).bit_length()  # the loss is summed once a step
    return computing + max(0.0, travelling - machine.hidden * model.backward * computing) + waiting


def efficiency(model: Model, machine: Machine, gpus: int, batch: int) -> float:
    """Share of n times the speed of one GPU, the batch of all GPUs being the same."""
    return step_seconds(model, machine, 1, batch) / (gpus * step_seconds(model, machine, gpus, batch))


def samples_per_second(model: Model, machine: Machine, gpus: int, batch: int) -> float:
    return batch / step_seconds(model, machine, gpus, batch)
