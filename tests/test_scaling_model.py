"""The model of docs/scaling.md: what must be true of it whatever is assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling_model import GPUS, Machine, Model, efficiency, exchange_seconds, ring_bytes, step_seconds

MODELS = st.builds(Model, st.just("m"), st.integers(10**4, 10**9), st.floats(1e8, 1e13))
MACHINES = st.builds(Machine, st.just("x"), st.floats(1e8, 1e11), flop_rate=st.floats(1e12, 1e15),
                     hidden=st.floats(0, 1))
BATCHES = st.integers(64, 4096)


@given(MODELS, MACHINES, BATCHES)
def test_one_gpu_exchanges_nothing_and_more_are_never_better_than_ideal(model, machine, batch) -> None:
    assert exchange_seconds(model, machine, 1) == 0
    assert efficiency(model, machine, 1, batch) == pytest.approx(1)
    shares = [efficiency(model, machine, gpus, batch) for gpus in GPUS]
    assert all(0 < share <= 1 + 1e-9 for share in shares)
    assert shares == sorted(shares, reverse=True)


@given(MODELS, MACHINES, BATCHES, st.sampled_from(GPUS))
def test_a_faster_network_and_more_hiding_never_cost_time(model, machine, batch, gpus) -> None:
    before = step_seconds(model, machine, gpus, batch)
    assert step_seconds(model, replace(machine, network=2 * machine.network), gpus, batch) <= before
    assert step_seconds(model, replace(machine, hidden=1.0), gpus, batch) <= before


@given(st.integers(1, 10**9), st.integers(1, 64))
def test_a_ring_sends_what_a_ring_sends(size: int, members: int) -> None:
    """In each of 2 (k - 1) turns every member sends one k-th."""
    assert ring_bytes(size, members) == pytest.approx(sum(size / members for _ in range(2 * (members - 1))))


def test_a_step_by_hand() -> None:
    model = Model("m", 25_000_000, 1e12)  # 100 MB of gradients
    machine = Machine("x", network=1e9, nvlink=1e11, flop_rate=1e14, hidden=0.5, latency=0.0)
    # 16 GPUs, 2 nodes: 1.75 * 1 ms inside, 1 * 100 ms between; 4 samples each: 40 ms, of which 26.7 backward
    assert exchange_seconds(model, machine, 16) == pytest.approx(0.00175 + 0.1)
    assert step_seconds(model, machine, 16, 64) == pytest.approx(0.04 + 0.10175 - 0.5 * 0.04 * 2 / 3)
