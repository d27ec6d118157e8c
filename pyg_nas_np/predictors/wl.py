r"""A Gaussian process with a Weisfeiler-Lehman kernel, as in NAS-BOWL."""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.inputs import Architectures, live_cells
from pyg_nas_np.predictors.kernels import Cross, LogPrior, Precomputed
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.dense import DenseGraphs

CHUNK = 8192
"""Architectures predicted at a time."""

NOISE = LogPrior(math.log(0.1), 1.5)
"""Prior of the noise variance over the signal variance. Set by hand; no search over it is on record."""


def wl_colours(graphs: DenseGraphs, iterations: int) -> Tensor:
    r"""Colours of Weisfeiler-Lehman refinement along and against the edges, for all graphs at once.

    A node's first colour is its operation; each later one is a hash of its colour and of the multisets of the colours
    of its predecessors and of its successors. Colours are 64-bit hashes and need no dictionary: they are the same in
    all calls, and two different neighbourhoods collide with a probability of about :math:`2^{-64}`.

    Args:
        graphs: ``B`` graphs.
        iterations: Number of refinements ``h``.

    Returns:
        ``[B, V, h + 1]`` int64, one for each iteration from 0 to ``h``; 0 for padding.

    Example:
        >>> adjacency = torch.tensor([[[0, 1], [0, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
        >>> colours = wl_colours(DenseGraphs(adjacency, torch.tensor([[2, 2], [2, 2]]), torch.tensor([2, 2])), 1)
        >>> [colours[..., i].unique().numel() for i in range(2)]
        [1, 3]
    """
    present, edges = graphs.node_mask, graphs.adjacency.long()
    # The colour of padding does not matter, because no edge leaves it.
    colour = _mix(graphs.ops + 2)
    colours = [colour]
    for _ in range(iterations):
        before = (edges * _mix(colour ^ _SALT[0]).unsqueeze(2)).sum(dim=1)
        after = (edges * _mix(colour ^ _SALT[1]).unsqueeze(1)).sum(dim=2)
        colour = _mix(colour + _mix(before ^ _SALT[2]) + _mix(after ^ _SALT[3]))
        colours.append(colour)
    return torch.stack(colours, dim=2).masked_fill(~present.unsqueeze(2), 0)


_SALT = (0x1B56C4E9A3D27F05, 0x6D0F27BD35A9C811, 0x2F1C8E0B7A94D653, 0x51D7A3E86F20BC49)


def _mix(x: Tensor) -> Tensor:
    """A one-to-one map of 64-bit integers that spreads every bit (the finaliser of SplitMix64; overflow wraps)."""
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class WLKernel:
    r"""The Weisfeiler-Lehman subtree kernel between fixed graphs and any others, one on the diagonal.

    .. math::
        k(G, G') = \frac{\langle \phi(G), \phi(G') \rangle}{\lVert \phi(G) \rVert\, \lVert \phi(G') \rVert}, \qquad
        \phi_c(G) = \text{number of nodes that have colour } c \text{ in some iteration}

    Args:
        colours: Colours ``[n, V, h + 1]`` of the fixed graphs, as :func:`wl_colours` gives them.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> colours = wl_colours(NASBench201Space().dense(torch.arange(5)), 2)
        >>> WLKernel(colours)(colours).diagonal().round(decimals=6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, colours: Tensor) -> None:
        flat = colours.flatten(1)
        self._known = flat[flat != 0].unique()
        # The last row stands for padding and for colours that no fixed graph has.
        counts = torch.zeros(self._known.numel() + 1, flat.size(0), dtype=torch.double)
        graph = torch.arange(flat.size(0)).unsqueeze(1).expand_as(flat)
        counts.index_put_((self._row(flat), graph), torch.ones((), dtype=torch.double), accumulate=True)
        counts[-1] = 0.0
        self._counts = counts / _norm(colours)

    def __call__(self, colours: Tensor) -> Tensor:
        r"""Returns the kernel ``[m, n]`` between graphs of colours ``[m, V, h + 1]`` and the fixed ones."""
        # The inner product of counts is the sum over nodes of the other graph's count of the node's colour.
        product = embedding_bag(self._row(colours.flatten(1)), self._counts, mode="sum")
        return product / _norm(colours).unsqueeze(1)

    def _row(self, colour: Tensor) -> Tensor:
        row = torch.searchsorted(self._known, colour.contiguous()).clamp_max(self._known.numel() - 1)
        return torch.where(self._known[row] == colour, row, self._known.numel())


def _norm(colours: Tensor) -> Tensor:
    """Euclidean norm of the counts, ``[B]``: the square is the number of pairs of nodes of one colour."""
    same = (colours.unsqueeze(1) == colours.unsqueeze(2)) & (colours != 0).unsqueeze(1)
    return same.sum(dim=(1, 2, 3)).double().sqrt()


class WLPredictor(Predictor):
    r"""Exact Gaussian process with the Weisfeiler-Lehman kernel, the surrogate of `NAS-BOWL
    <https://arxiv.org/abs/2006.07556>`_.

    The kernel compares the live parts of cells by the neighbourhoods of their nodes, up to ``h`` steps along and
    against the edges. ``h`` and the noise-to-signal ratio maximise the marginal likelihood (with a Gaussian prior on
    the log of the ratio); the signal variance has a closed form. They are fitted to at most
    :data:`~pyg_nas_np.predictors.gaussian_process.MAX_FIT` of the labelled architectures.

    Args:
        space: The search space. (default: that of the data set)
        max_iterations: Largest ``h`` that is tried.
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> index = torch.arange(0, 15625, 400)
        >>> graphs, y = space.batch_encode(index), space.batch_flops(index)
        >>> WLPredictor(space).fit(graphs, y).score(graphs, y) > 0.7
        True
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        max_iterations: int = 3,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.max_iterations = max_iterations

    @property
    def iterations(self) -> int:
        r"""The chosen ``h``, after :meth:`fit`."""
        return int(self.gp_.x.size(2)) - 1

    def _inputs(self, archs: Architectures) -> DenseGraphs:
        return live_cells(self.space_, archs.given)

    def _fit(self, inputs: DenseGraphs, z: Tensor) -> None:
        if self.max_iterations < 0:
            raise ValueError(f"max_iterations must not be negative, got {self.max_iterations}")
        colours = wl_colours(inputs, self.max_iterations)
        gp = _unfitted()
        options = []
        for h in range(self.max_iterations + 1):
            theta, log_posterior = gp.maximize(colours[:, :, : h + 1], z)
            options.append((log_posterior, h, theta))
        _, h, theta = max(options, key=itemgetter(0))
        self.gp_ = gp.condition(colours[:, :, : h + 1], z, theta)

    def _predict(self, inputs: DenseGraphs, return_std: bool) -> tuple[Tensor, Tensor | None]:
        parts = zip(*(torch.split(part, CHUNK) for part in inputs), strict=True)
        chunks = (wl_colours(DenseGraphs(*part), self.iterations) for part in parts)
        means, stds = zip(*(self.gp_.predict(colours, return_std) for colours in chunks), strict=True)
        return torch.cat(means), torch.cat(stds) if return_std else None

    def _state(self) -> dict[str, Any]:
        return {"colours": self.gp_.x, "z": self.gp_.z, "theta": self.gp_.theta}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.gp_ = _unfitted().condition(state["colours"], state["z"], state["theta"])


def _between(a: Tensor, b: Tensor) -> Tensor:
    return WLKernel(b)(a)


class _SubtreeKernel(Precomputed):
    """The kernel of colours; counts of fixed graphs are computed once."""

    def __init__(self) -> None:
        super().__init__(_between)

    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        kernel = WLKernel(points)
        return lambda x, out: out.add_(kernel(x))

    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return torch.ones(len(x), dtype=torch.float64, device=x.device)


def _unfitted() -> GaussianProcess:
    return GaussianProcess({"subtrees": _SubtreeKernel()}, noise=NOISE, profiled=True)
