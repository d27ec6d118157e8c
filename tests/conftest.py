r"""Fixtures shared by all tests."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
import torch

# Triton reads this once, when it is first imported: without a GPU its kernels are interpreted on the CPU.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

from hypothesis import settings

from pyg_nas_np.datasets import Metric, NASBench201
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.spaces import CellSpace, NASBench201Space, Validity
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch
from pyg_nas_np.utils import InvalidArchitectureError

SHARED = Path(os.environ.get("PYG_NAS_NP_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"

# A busy machine is no failure.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

# Workers of pytest-xdist share the cores.
torch.set_num_threads(int(os.environ.get("PYG_NAS_NP_TEST_THREADS", "1")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Starts every test, and the fixtures that it needs first, from one random state, which no test asks for itself.

    The package draws from generators of its own; the networks that tests train for it do not.
    """
    random.seed(20_011)
    np.random.seed(20_011)  # noqa: NPY002  scikit-learn draws from it where no random_state is given
    torch.manual_seed(20_011)


MUTATIONS = int(os.environ.get("PYG_NAS_NP_MUTATIONS", "200"))
"""Damaged copies of a file that its reader is tried on; a benchmark takes more."""


def _mutations(content: bytes, seed: int = 0, count: int = MUTATIONS) -> Iterator[bytes]:
    """Yields damaged copies of a file: flipped bits, cuts, spliced, repeated, zeroed and random parts, other bytes."""
    rng = random.Random(seed)
    for i in range(count):
        data = bytearray(content)
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        # Headers and trailers decide most; half of the damage goes there.
        if rng.random() < 0.5:
            a, b = rng.choice([(min(a, 64), min(b, 128)), (max(a, len(data) - 128), max(b, len(data) - 64))])
        match i % 8:
            case 0 | 1:
                data[min(a, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                del data[a:]
            case 3:
                del data[a:b]
            case 4:
                data[a:a] = data[a:b][:4096]
            case 5:
                data[a:b] = bytes(b - a)
            case 6:
                data[a : a + 8] = rng.randbytes(8)
            case _:
                for _ in range(rng.randrange(1, 20)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
        yield bytes(data)


@pytest.fixture(scope="session")
def mutations() -> Callable[..., Iterator[bytes]]:
    return _mutations


@contextmanager
def _other_defaults(dtype: torch.dtype) -> Iterator[None]:
    old = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(old)


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=["float64", "bfloat16"])
def other_defaults(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """Contexts with another default type, and the meta device as the default."""
    return lambda: _other_defaults(request.param)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of measured tables that are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"measured tables are absent ({SHARED}); set PYG_NAS_NP_SHARED to the folder above 'data'")
    return SHARED


@pytest.fixture(params=[(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")], ids=str)
def foreign_defaults(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """A context with the default dtype and device of somebody else's program, which change no result of ours."""
    dtype, device = request.param

    @contextmanager
    def context() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                yield
        finally:
            torch.set_default_dtype(before)

    return context


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """Starts processes that inherit nothing; imports, which take seconds, are made once for all where that can be."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lightning.pytorch", "pyg_nas_np.convnp.predictor", "pyg_nas_np.integrations.optuna.budget"]
    )
    return context


class ToySpace(CellSpace[tuple[str, str, int]]):
    """A third-party space: two inner operations and any subset of three optional edges, 128 cells."""

    name = "toy"
    op_names = ("input", "output", "conv", "pool", "same", "zero")
    zero_ops = ("zero",)
    identity_ops = ("same",)

    def __len__(self):
        return 128

    def __getitem__(self, index):
        if not 0 <= index < 128:
            raise IndexError(f"index {index} is outside the 128 architectures of toy")
        return (self.op_names[2 + index // 32], self.op_names[2 + index // 8 % 4], index % 8)

    def index(self, arch):
        first, second, bits = arch
        return (self.op_names.index(first) - 2) * 32 + (self.op_names.index(second) - 2) * 8 + bits

    def neighbors(self, arch):
        return [(arch[0], arch[1], arch[2] ^ (1 << i)) for i in range(3)]

    def to_str(self, arch):
        return " ".join(map(str, arch))

    def from_str(self, text):
        match = re.fullmatch(r"(\w+) (\w+) ([0-7])", text)
        if match is None:
            raise InvalidArchitectureError(f"{text!r} is not of the form 'conv pool 5'")
        return self.check((match[1], match[2], int(match[3])))

    def is_valid(self, arch):
        if not isinstance(arch, tuple) or len(arch) != 3:
            return Validity(False, "a cell is (operation, operation, bits)")
        unknown = [op for op in arch[:2] if op not in self.op_names[2:]]
        return Validity(False, f"unknown operation {unknown[0]!r}") if unknown else Validity(True)

    def canonical(self, arch):
        # The inner nodes have one role where both follow the input and neither the other.
        ops = sorted(arch[:2]) if arch[2] & 3 == 1 else arch[:2]
        return self.to_str((*ops, arch[2]))

    def dense(self, archs=None):
        archs = self.resolve(archs)
        adjacency = torch.zeros(len(archs), 4, 4, dtype=torch.bool)
        adjacency[:, 0, 1] = adjacency[:, 1, 3] = adjacency[:, 2, 3] = True
        for edge, (source, target) in enumerate([(0, 2), (1, 2), (0, 3)]):
            adjacency[:, source, target] = torch.tensor([bool(arch[2] >> edge & 1) for arch in archs])
        ids = [[0, self.op_names.index(arch[0]), self.op_names.index(arch[1]), 1] for arch in archs]
        return DenseGraphs(adjacency, torch.tensor(ids).reshape(-1, 4), torch.full((len(archs),), 4))

    def decode(self, data):
        given = from_batch(data.x, data.edge_index)
        every = self.dense()
        for order in itertools.permutations(range(data.num_nodes)):
            same = (every.ops == given.ops[0, list(order)]).all(1)
            same &= (every.adjacency == given.adjacency[0][list(order)][:, list(order)]).flatten(1).all(1)
            if bool(same.any()):
                return self[int(same.nonzero()[0])]
        raise InvalidArchitectureError("not a toy cell")

    def batch_num_parameters(self, archs=None):
        return torch.tensor([1 + 10 * arch[:2].count("conv") for arch in self.resolve(archs)], dtype=torch.long)

    def batch_flops(self, archs=None):
        costs = {"conv": 100, "pool": 20}
        values = [1 + sum(costs.get(op, 0) for op in arch[:2]) for arch in self.resolve(archs)]
        return torch.tensor(values, dtype=torch.long)


@pytest.fixture
def cuda() -> str:
    """The device, where Triton compiles its kernels for it."""
    if not torch.cuda.is_available() or os.environ["TRITON_INTERPRET"] == "1":
        pytest.skip("needs a CUDA device and TRITON_INTERPRET=0")
    pytest.importorskip("triton")
    return "cuda"


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each kind of device that there is."""
    return "cpu" if request.param == "cpu" else request.getfixturevalue("cuda")


@pytest.fixture(scope="session")
def toy_space() -> ToySpace:
    """A small space that this package does not know."""
    return ToySpace()


def _write_root(root: Path, metric: str, unit: str, values: torch.Tensor) -> Path:
    table = Metric.from_values(values.reshape(-1, 1, 1), ("777",), (200,), unit, "x-valid")
    names = [str(arch) for arch in NASBench201Space().enumerate()]
    write_compact(root / "raw" / "nasbench201-cifar10.csv", names, {metric: table})
    return root


@pytest.fixture(scope="session")
def labelled_root(tmp_path_factory) -> Path:
    """A root of NASBench201 whose compact table labels every cell by its parameters, in units of ten thousand."""
    # The index breaks ties, so that the order is strict, in single precision too.
    values = NASBench201Space().batch_num_parameters().double() / 1e4 + torch.arange(15625) / 1e3
    return _write_root(tmp_path_factory.mktemp("labelled"), "valid_accuracy@200", "percent", values)


@pytest.fixture(scope="session")
def loss_root(tmp_path_factory) -> Path:
    """The same with losses: the more parameters, the smaller."""
    values = 300.0 - NASBench201Space().batch_num_parameters().double() / 1e4 - torch.arange(15625) / 1e3
    return _write_root(tmp_path_factory.mktemp("losses"), "valid_loss@200", "nats", values)


@pytest.fixture(scope="session")
def loss_dataset(loss_root) -> NASBench201:
    return NASBench201(str(loss_root), metric="valid_loss@200", source="compact-table")
