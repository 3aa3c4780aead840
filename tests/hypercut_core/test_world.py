"""A training by N real processes is the training by one: the same losses, samples and weights."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from world_process import train_as, train_halves

from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guided import GuidedConfig
from hypercut_core.deblurring.models import Config, build_deblurrer, save_deblurrer
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.deblurring.training import DeblurrerTraining
from hypercut_core.training.loop import TrainingConfig
from hypercut_core.training.world import World

SETTINGS = DeblurrerTraining(DeblurrerConfig(width=4, blocks=(1, 1)),
                             training=TrainingConfig(steps=20, batch=8, crop=16, rate=2e-3, ema=0.9))
processes = multiprocessing.get_context("forkserver")
PRELOADED = ["hypercut_core.deblurring.training", "torch._dynamo", "torch.nn.parallel.distributed"]
processes.set_forkserver_preload(PRELOADED)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "store"
    with ClipStoreWriter(path, 3) as writer:
        for k, clip in enumerate(render_clips(MovingPhotosConfig(size=20, subframes=1), "train", 21, 0, frames=3)):
            writer.add(clip.frames, clip_id=f"{k}", source=clip.source, split="train", category=clip.category,
                       motion=clip.motion)
    return path


def trained(folder: Path, store: Path, size: int, objective: str = "sequence_min", micro: int = 0,
            settings: DeblurrerTraining = SETTINGS, start: Path | None = None) -> list[dict[str, Any]]:
    """What each of `size` processes saw, and its weights."""
    folder.mkdir()
    ranks = [processes.Process(target=train_as, args=(rank, size, folder, store, settings, objective, micro,
                                                    start))
             for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0] * size
    return [{**json.loads((folder / f"seen-{rank}.json").read_text(encoding="utf-8")),
             "weights": load_file(folder / f"weights-{rank}.safetensors")} for rank in range(size)]


def order_of(ranks: list[dict[str, Any]]) -> list[int]:
    """The clips of all steps in the order of the whole batch: rank after rank, part after part."""
    return [clip for step in range(SETTINGS.training.steps) for rank in ranks
            for part in rank["seen"] if part[0] == step for clip in part[1:]]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative distance of two sets of weights."""
    a, b = (torch.cat([w[name].flatten().double() for name in sorted(w)]) for w in (one, other))
    return float((a - b).norm() / a.norm())


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("world") / "alone", store, 1)[0]


@pytest.mark.parametrize(("size", "micro"), [(1, 3), (2, 0), (4, 0), (3, 2)])
def test_the_number_of_processes_changes_nothing(store: Path, alone: dict[str, Any], tmp_path: Path, size: int,
                                                 micro: int) -> None:
    ranks = trained(tmp_path / "run", store, size, micro=micro)
    assert len(alone["losses"]) == 20
    np.testing.assert_allclose(ranks[0]["losses"], alone["losses"], rtol=1e-5)
    assert order_of(ranks) == order_of([alone])
    assert max(len(part) - 1 for rank in ranks for part in rank["seen"]) == (micro or 8 // size)
    for rank in ranks:
        assert distance(rank["weights"], alone["weights"]) < 1e-5
        assert distance(rank["weights"], ranks[0]["weights"]) == 0
    assert [rank["losses"] == [] for rank in ranks] == [False] + [True] * (size - 1)  # the first speaks for all


@pytest.mark.parametrize("model", [RecurrentConfig(width=16, middle_width=4), GuidedConfig(width=4, blocks=1),
                                   replace(SETTINGS.model, axes=2)])
def test_models_of_which_a_step_trains_parts_and_with_two_axes_are_shared_too(store: Path, tmp_path: Path,
                                                                              model: Config) -> None:
    parts = DeblurrerTraining(model, training=replace(SETTINGS.training, steps=8, rate=5e-4))
    one, two = (trained(tmp_path / str(size), store, size, settings=parts)[0] for size in (1, 2))
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    assert distance(two["weights"], one["weights"]) < 3e-4  # Adam's first steps go by the sign of tiny gradients


def test_processes_that_go_on_from_a_model_begin_as_one_does(store: Path, tmp_path: Path) -> None:
    """Also where a part that is trained beside the model is left out from the first step to the last."""
    config = RecurrentConfig(width=16, middle_width=4)
    save_deblurrer(tmp_path / "start", build_deblurrer(config, 3), {})
    on = DeblurrerTraining(config, training=replace(SETTINGS.training, steps=3, rate=5e-4))
    one, two = (trained(tmp_path / str(size), store, size, settings=on, start=tmp_path / "start")[0] for size in (1, 2))
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    assert distance(two["weights"], one["weights"]) < 3e-4


def test_bf16_and_clipping_agree_as_far_as_bf16_does(store: Path, tmp_path: Path) -> None:
    half = replace(SETTINGS, training=replace(SETTINGS.training, precision="bf16", clip_norm=0.1, steps=6))
    one, two = (trained(tmp_path / str(size), store, size, settings=half)[0] for size in (1, 2))
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-2)
    assert distance(two["weights"], one["weights"]) < 1e-2


def halves(folder: Path, size: int, begin: int, stop: int = -1) -> list[int | None]:
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    ranks = [processes.Process(target=train_halves, args=(rank, size, folder, begin, stop)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    return [process.exitcode for process in ranks]


@pytest.mark.parametrize("begin", [0, 3])
def test_a_group_resumes_to_the_last_bit_also_where_parts_of_the_model_begin_later(
        tmp_path: Path, begin: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Of three, since the sum of two numbers does not depend on their order."""
    assert halves(tmp_path / "whole", 3, begin) == [0, 0, 0]
    assert halves(tmp_path / "again", 3, begin, stop=5) == [9, 9, 9]
    assert halves(tmp_path / "again", 3, begin) == [0, 0, 0]
    assert halves(tmp_path / "alone", 1, begin) == [0]
    whole, again, one = (load_file(tmp_path / name / "weights-0.safetensors") for name in ("whole", "again", "alone"))
    assert distance(whole, again) == 0
    last = [max(path.name for path in (tmp_path / name / "work").iterdir()) for name in ("whole", "again")]
    assert last[0] == last[1], "the optimiser's state, whose hash the name tells, is another"
    assert distance(whole, one) < 1e-6
    assert "unused" not in capfd.readouterr().err


@pytest.mark.parametrize("batch", [1, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_the_whole_in_order(batch: int, size: int) -> None:
    shares = [World(rank, size).share(batch) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
