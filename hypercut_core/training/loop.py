"""One training loop for encoders and deblurrers.

    train(module, loss, batches, config, work)     loss(module, batch, step) -> scalar

Everything depends on (seed, step) alone: the batch, the learning rate, the noise. A run that is killed and
started again with the same settings goes on from its last checkpoint in `work` and ends with the same
weights, to the last bit, as one that was never disturbed (same machine and number of threads).

The same function trains alone or as one of N processes (`execution.world`): each reads its share of every
batch and their gradients are summed, so that N changes nothing but the last digits.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from hypercut_core.clips.dataset import Augmentation, Batch
from hypercut_core.errors import BadParameters, TrainingCollapsed
from hypercut_core.files import LocalFiles
from hypercut_core.progress import Progress
from hypercut_core.training.checkpoint import load_optimiser, optimiser_tensors, unpack
from hypercut_core.training.checkpoint_folder import CheckpointFolder
from hypercut_core.training.execution import Execution, Picture, Watcher


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained. The same fields serve the encoder and the deblurrer."""

    steps: int = 1000  # optimiser steps
    batch: int = 16  # clips a step
    crop: int = 48  # side of the random crop, px; 0 takes whole clips
    optimiser: Literal["adamw", "adamax"] = "adamw"  # the paper's encoder was trained with Adamax
    rate: float = 1e-3  # highest learning rate
    warmup: float = 0.1  # share of the steps in which the rate rises
    schedule: Literal["cosine", "constant", "stairs"] = "cosine"  # what the rate does after the warm-up
    weight_decay: float = 1e-4  # AdamW's decoupled weight decay
    clip_norm: float = 1.0  # greatest norm of the gradient; 0: unlimited
    ema: float = 0.0  # decay of the averaged weights, which then are the result; 0: off
    precision: Literal["float32", "bf16"] = "float32"  # bf16: autocast, for processors that have it
    channels_last: bool = True  # memory order that convolutions like
    augmentation: Augmentation = field(default_factory=Augmentation)
    checkpoint_seconds: float = 20.0  # time between checkpoints, s
    cache_mb: int = 1024  # decoded clips kept in memory, MiB
    device: str = "auto"  # auto, cpu, cuda, cuda:1 ...
    threads: int = 1  # CPU threads; small models gain nothing from more, and figures depend on it; 0: all



class Batches(Protocol):
    def __call__(self, step: int, places: range) -> Batch:
        """The clips at some places of batch `step`; nothing else of it is read."""


Loss = Callable[[nn.Module, Batch, int], Tensor]
Check = Callable[[nn.Module, int], None]


def pick_device(wanted: str) -> torch.device:
    """ "auto" is the GPU if there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise BadParameters(f"'{wanted}' is no device", where="training.device", remedy="use auto, cpu or cuda") \
            from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadParameters("no CUDA device is here", where="training.device", remedy="use auto or cpu")
    return device


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to 1 %, or constant, or the stairs of the papers: 0.9 times as high
    after every 3 % of all steps, which is every third of 100 epochs."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.rate * (step + 1) / warm
    if config.schedule == "constant":
        return config.rate
    if config.schedule == "stairs":
        return config.rate * 0.9 ** (100 * step // (3 * config.steps))
    progress = (step - warm) / max(1, config.steps - warm)
    return config.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(module: nn.Module, loss: Loss, batches: Batches, config: TrainingConfig, work: Path, *,
          identity: dict[str, Any], label: str = "training", check: Check | None = None,
          execution: Execution | None = None, picture: Picture | None = None, in_parts: bool = False) -> nn.Module:
    """Train `module` and return it (with averaged weights if `config.ema` is set), in each process the same.

    Args:
        loss: of a batch or a part of one: a mean over its clips, or shares would not add up to the whole.
        work: folder for the checkpoints, unless `execution` names another place; left in place, call `forget`
            when the result is safe.
        identity: what makes this training this training (data hash, model, objective, seed). A checkpoint
            with another identity is not resumed.
        check: called every 50 steps and at the end; raises to stop a training that has failed.
        picture: what `execution.watch` is shown.
        in_parts: whether there are steps in which the loss does not depend on all of `module`.

    Raises:
        TrainingCollapsed: the loss is not finite, or `check` says so.
        BadParameters: more processes than clips in a batch.
        StorageError: the checkpoints' place cannot be used.
    """
    device = pick_device(config.device)
    execution = execution or Execution()
    if execution.world.size > config.batch:
        raise BadParameters(f"{execution.world.size} processes cannot share batches of {config.batch} clips",
                            where="training.batch", remedy="use fewer workers or larger batches")
    if config.threads:
        torch.set_num_threads(config.threads)
    module.to(device)
    if config.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = CheckpointFolder(execution.checkpoints or LocalFiles(work), {**identity, "training": _identity(config)},
                              execution.keep, execution.say)
    run = _Run(module, loss, config, execution, folder, device, in_parts)
    start = run.resume()
    module.train()
    watcher = Watcher(execution, picture, config.batch, start)
    with Progress(label, config.steps, shown=execution.world.first) as progress:
        progress.advance(start)
        for step in range(start, config.steps):
            value = run.step(batches, step)
            progress.advance(note=f"loss {value:.4f}")
            last = step + 1 == config.steps
            if check is not None and (last or (step + 1) % 50 == 0):
                check(module, step + 1)
            if execution.follow is not None and execution.world.first:
                execution.follow(module, step + 1, value)
            run.save_in_time(step + 1, last)
            watcher.look(module, step + 1, value, learning_rate(config, step), last)
    run.take_average()
    return module.eval()


def forget(work: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(work, ignore_errors=True)


def training_facts(config: TrainingConfig) -> dict[str, Any]:
    """What a training is known by: an augmentation that came later is named only where it is on, so that models and
    checkpoints from before are those of the same training."""
    facts = asdict(config)
    if not config.augmentation.defocus:
        for key in ("defocus", "defocus_px"):
            del facts["augmentation"][key]
    return facts


def _identity(config: TrainingConfig) -> dict[str, Any]:
    ignored = ("checkpoint_seconds", "cache_mb", "device")
    return {key: value for key, value in training_facts(config).items() if key not in ignored}


class _Objective(nn.Module):
    """A module and its loss as one, so that what shares the gradients sees one forward pass a backward pass."""

    def __init__(self, module: nn.Module, loss: Loss):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Batch | None, step: int) -> Tensor:
        """The loss of a batch; without one, of nothing: all parameters take part, with gradients of zero."""
        if batch is None:
            return 0.0 * sum((p.sum() for p in self.module.parameters() if p.requires_grad), torch.zeros(()))
        return self.loss(self.module, batch, step)


class _Run:
    """State of a training: module, optimiser, averaged weights, checkpoints."""

    def __init__(self, module: nn.Module, loss: Loss, config: TrainingConfig, execution: Execution,
                 folder: CheckpointFolder, device: torch.device, in_parts: bool):
        self.module, self.config, self.folder, self.device = module, config, folder, device
        self.world = execution.world
        self.parts = _parts(self.world.share(config.batch), execution.micro_batch)
        parameters = [p for p in module.parameters() if p.requires_grad]
        make: Callable[..., torch.optim.Optimizer] = (
            partial(torch.optim.AdamW, fused=True) if config.optimiser == "adamw" else torch.optim.Adamax)
        self.optimiser = make(parameters, lr=config.rate, weight_decay=config.weight_decay)
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()} if config.ema else {}
        self.objective = self.world.shared(_Objective(module, loss), in_parts)
        if self.world.size > 1 and not in_parts:
            # DDP orders its buckets anew by the first backward pass. Were that a step, a training that resumes would
            # add up its first step in another order than one that was not disturbed.
            self.objective(None, 0).backward()
        self.saved = time.monotonic()
        self.losses: list[float] = []  # since the last checkpoint

    def step(self, batches: Batches, step: int) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimiser.zero_grad(set_to_none=True)
        value = self._gradients(batches, step)
        if not math.isfinite(value):  # of all processes: each of them stops here
            raise TrainingCollapsed(f"the loss is {value} at step {step}", where="training",
                                    remedy="lower training.rate, or set training.clip_norm to 1")
        if self.config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        self.optimiser.step()
        decay = min(self.config.ema, (step + 1) / (step + 10))  # young averages forget the start sooner
        for name, parameter in self.module.named_parameters() if self.average else ():
            self.average[name].lerp_(parameter.detach(), 1 - decay)
        self.losses.append(value)
        return value

    def _gradients(self, batches: Batches, step: int) -> float:
        """Leave the gradients of the mean loss of the whole batch in the parameters; return that loss."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for place, part in enumerate(self.parts):
            weight = len(part) / self.config.batch
            with self.world.apart(self.objective, place + 1 < len(self.parts)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                    value: Tensor = self.objective(batches(step, part), step)
                (value * (weight * self.world.size)).backward()  # the processes' gradients are averaged
            total += value.detach() * weight
        return float(self.world.sum(total))

    def save_in_time(self, step: int, last: bool) -> None:
        """Only the first process writes; the others wait for it in their next step."""
        if not self.world.first or not (last or time.monotonic() - self.saved >= self.config.checkpoint_seconds):
            return
        tensors = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= optimiser_tensors(self.optimiser)
        if self.folder.save(step, sum(self.losses) / len(self.losses), tensors, last):
            self.losses = []
        self.saved = time.monotonic()

    def resume(self) -> int:
        """Take the newest checkpoint, which the first process reads for all; returns the step to go on with."""
        data = self.world.from_first(self.folder.newest() if self.world.first else None, self.device)
        if data is None:
            return 0
        tensors, info = unpack(data)
        own = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        self.module.load_state_dict(own)
        load_optimiser(self.optimiser, tensors)
        for name in self.average:
            self.average[name].copy_(tensors[f"average.{name}"])
        return int(info["step"])

    def take_average(self) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters() if self.average else ():
                parameter.copy_(self.average[name])


def _parts(share: range, most: int) -> list[range]:
    size = most or len(share)
    return [share[start:start + size] for start in range(0, len(share), size)]
