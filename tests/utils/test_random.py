r"""Modules are initialised and dropped out from a generator, and nothing global is read or moved."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from pyg_nas_np.utils.random import drawing_from

Defaults = Callable[[], AbstractContextManager[None]]

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 4),
    "convolution": lambda: nn.Conv2d(3, 4, 3),
    "norm": lambda: nn.BatchNorm1d(3),
    "embedding": lambda: nn.Embedding(5, 3),
    "gru": lambda: nn.GRUCell(3, 4),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "bilinear": lambda: nn.Bilinear(2, 3, 4),
    "graph convolution": lambda: GCNConv(3, 4),
    "sequence": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.PReLU(), nn.Linear(4, 2, bias=False)),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(make: Callable[[], nn.Module], seed: int = 0) -> list[Tensor]:
    with drawing_from(generator(seed)):
        module = make()
    return list(module.state_dict().values())


@pytest.mark.parametrize("name", LAYERS)
class TestInitialisation:
    def test_same_numbers_as_a_global_seed(self, name: str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = list(LAYERS[name]().state_dict().values())
        for found, wanted in zip(parameters(LAYERS[name]), expected, strict=True):
            assert torch.equal(found, wanted)

    def test_global_state_is_neither_read_nor_moved(self, name: str) -> None:
        before = torch.get_rng_state()
        parameters(LAYERS[name])
        assert torch.equal(torch.get_rng_state(), before)

    def test_global_defaults_do_not_matter(self, name: str, other_defaults: Defaults) -> None:
        expected = parameters(LAYERS[name])
        with other_defaults():
            found = parameters(LAYERS[name])
        for one, other in zip(found, expected, strict=True):
            assert (one.dtype, one.device) == (other.dtype, other.device)
            assert torch.equal(one, other)

    def test_threads_do_not_disturb_each_other(self, name: str) -> None:
        expected = [parameters(LAYERS[name], seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda seed: parameters(LAYERS[name], seed % 4), range(40)))
        for index, one in enumerate(found):
            assert all(torch.equal(a, b) for a, b in zip(one, expected[index % 4], strict=True))


class TestDropout:
    def test_draws_from_the_generator(self) -> None:
        layer, ones, before = nn.Dropout(0.25), torch.ones(1000), torch.get_rng_state()
        with drawing_from(generator()):
            first = layer(ones)
        with drawing_from(generator()):
            again = layer(ones)
        assert torch.equal(first, again)
        assert torch.equal(torch.get_rng_state(), before)
        assert first.unique().tolist() == pytest.approx([0, 4 / 3])
        assert abs((first > 0).float().mean() - 0.75) < 0.05

    def test_leaves_evaluation_alone(self) -> None:
        ones = torch.ones(10)
        with drawing_from(generator()):
            assert torch.equal(nn.Dropout(0.5).eval()(ones), ones)
            assert torch.equal(nn.Dropout(0.0)(ones), ones)
            assert torch.equal(nn.Dropout(1.0)(ones), torch.zeros(10))

    def test_gradient_passes_through_what_is_kept(self) -> None:
        x = torch.ones(100, requires_grad=True)
        with drawing_from(generator()):
            y = nn.Dropout(0.5)(x)
        y.sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, y.detach())


def test_a_call_that_names_its_own_is_left_alone() -> None:
    with drawing_from(generator()):
        assert torch.zeros(2, dtype=torch.int64).dtype == torch.int64
        assert torch.zeros(2, device="meta").device.type == "meta"
        drawn = torch.rand(3, generator=generator(5))
    assert torch.equal(drawn, torch.rand(3, generator=generator(5)))


def test_an_error_ends_it() -> None:
    with pytest.raises(RuntimeError, match="inside"), drawing_from(generator()):
        raise RuntimeError("inside")
    before = torch.get_rng_state()
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)
