"""The processes that train one model together. `World` is all that the loop knows of them.

Each works on its share of every batch, and their gradients are summed: the result is that of one process with
the whole batch. Whoever starts the processes makes the process group (gloo or NCCL); without one there is one
process, and nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """Process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> World:
        """This process in torch's process group; alone if there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, tracks and speaks for all."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """This process's places in a batch of all; the shares follow each other and differ by one at most."""
        return range(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def shared(self, module: nn.Module, in_parts: bool = False) -> nn.Module:
        """`module` with gradients that are averaged over the processes by each backward pass outside `apart`.

        The first process's weights become those of all.

        Args:
            in_parts: whether a pass may leave parameters without a gradient; looking for them takes time.
        """
        if self.size == 1:
            return module
        # of 1x1 convolutions in channels-last: two orders of strides that are the same memory
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True,
                                                   find_unused_parameters=in_parts)

    def apart(self, module: nn.Module, apart: bool = True) -> contextlib.AbstractContextManager[None]:
        """Gradients of backward passes inside add up here, and travel with the next one outside."""
        if apart and isinstance(module, nn.parallel.DistributedDataParallel):
            return module.no_sync()
        return contextlib.nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """`value` summed over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def from_first(self, data: bytes | None, device: torch.device) -> bytes | None:
        """The first process's `data`, in every process; the others' is not looked at."""
        if self.size == 1:
            return data
        length = torch.tensor([-1 if data is None else len(data)], dtype=torch.int64, device=device)
        dist.broadcast(length, 0)
        if length.item() < 0:
            return None
        if self.first and data is not None:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
        else:
            content = torch.empty(int(length.item()), dtype=torch.uint8, device=device)
        if content.numel():
            dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()
