r"""Zero-cost scores of untrained networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyg_nas_np.networks.cells import make_network, network_of
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import InvalidImagesError, drawing_from, fixed_defaults

SCORES = ("params", "flops", "swap", "swap-reg", "naswot", "synflow")
"""Names of the scores of :func:`score_archs`; larger is supposed to be better."""

_TABLE_BITS = 22  # up to this number of images, patterns are counted in a table of all possible ones


class ScoreTable(NamedTuple):
    r"""Scores of architectures.

    Shapes:
        - **values:** ``[n, len(names)]`` float64, finite.
    """

    names: tuple[str, ...]
    values: Tensor

    def column(self, name: str) -> Tensor:
        r"""Returns one score, ``[n]``."""
        return self.values[:, self.names.index(name)]


@fixed_defaults
def score_archs(
    space: CellSpace[Any],
    archs: Sequence[Any],
    images: Tensor | None = None,
    *,
    scores: Sequence[str] = SCORES,
    num_classes: int = 10,
    repeats: int = 32,
    swap_mean: float | None = None,
    swap_width: float | None = None,
    seed: int = 0,
    progress: bool = False,
    **skeleton: Any,
) -> ScoreTable:
    r"""Scores architectures without training: a table to rank by, or meta-features of a predictor.

    Parameters and multiply-accumulates are those of the benchmark's network, by the formulas of the space. The other
    scores are computed on small networks of the same cells, as by the authors of SWAP; this is faster and no worse on
    NAS-Bench-201. All architectures use the same images, and a row does not depend on the others.

    Args:
        space: A space of :data:`~pyg_nas_np.networks.cells.NETWORKS`.
        archs: ``n`` architectures.
        images: A normalised float batch ``[S, C, H, W]``; 16 are enough for SWAP. (default: 16 of noise, 3 x 32 x 32)
        scores: Columns of the table, among :data:`SCORES`: ``"params"``, ``"flops"``, ``"swap"`` (:func:`swap`),
            ``"swap-reg"`` (the logarithm of :func:`regularised_swap`, whose factor underflows), ``"naswot"``
            (:func:`naswot`) and ``"synflow"`` (:func:`synflow`).
        num_classes: Number of classes.
        repeats: Number of draws of weights for SWAP's mean.
        swap_mean: The number of parameters that ``"swap-reg"`` prefers, in thousands. (default: the space's largest)
        swap_width: Its tolerance, in thousands. (default: :obj:`swap_mean`, as the authors choose it)
        seed: Seed of the weights.
        progress: Whether to show a progress bar.
        **skeleton: Sizes of the networks (:func:`~pyg_nas_np.networks.cells.make_network`). (default: small ones)

    Raises:
        ValueError: If a score is unknown, there is no network for the space, or :obj:`repeats` is not positive.
        InvalidImagesError: If the images are not a batch of at least two, or contain NaN or infinite values.
        InvalidArchitectureError: If an architecture is not in the space.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> table = score_archs(space, [space[0], space[6111]], scores=("params", "swap"), repeats=1)
        >>> table.column("params").tolist()
        [129306.0, 1073466.0]
        >>> table.column("swap").argmax().item()
        1
    """
    if unknown := [name for name in scores if name not in SCORES]:
        raise ValueError(f"'{unknown[0]}' is no score; scores: {', '.join(SCORES)}")
    kind = network_of(space)
    if images is None:
        images = torch.randn(16, skeleton.get("in_channels", 3), 32, 32, generator=torch.Generator().manual_seed(seed))
    images = _check_batch(images)
    skeleton = {"in_channels": images.size(1), **kind.small, **skeleton}
    found: dict[str, Tensor] = {
        "params": space.batch_num_parameters(archs).double(),
        "flops": space.batch_flops(archs).double(),
    }
    asked = [name for name in ("swap", "naswot", "synflow") if name in scores or f"{name}-reg" in scores]
    rows = []
    for arch in tqdm(archs, unit="net", disable=not (progress and asked)):
        # The seed is reset for each architecture, so that its row does not depend on the others.
        with drawing_from(torch.Generator().manual_seed(seed)):
            network = make_network(space, arch, num_classes, **skeleton)
        row = []
        for name in asked:
            if name == "swap":
                generator = torch.Generator().manual_seed(seed)
                row.append(swap(network, images, repeats=repeats, generator=generator))
            else:
                row.append(naswot(network, images) if name == "naswot" else synflow(network, images.shape[1:]))
        rows.append(row)
    columns = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(asked)).unbind(dim=1)
    found |= dict(zip(asked, columns, strict=True))
    if "swap-reg" in scores:
        mean = space.num_parameters(space.from_str(kind.largest)) / 1000 if swap_mean is None else swap_mean
        width = mean if swap_width is None else swap_width
        pairs = zip(found["swap"].tolist(), found["params"].tolist(), strict=True)
        values = [regularised_swap(psi, params, mean, width, log=True) for psi, params in pairs]
        found["swap-reg"] = torch.tensor(values, dtype=torch.float64)
    return ScoreTable(tuple(scores), torch.stack([found[name] for name in scores], dim=1))


@torch.no_grad()
@fixed_defaults
def swap(network: nn.Module, images: Tensor, *, repeats: int = 1, generator: torch.Generator | None = None) -> float:
    r"""The sample-wise activation patterns of `SWAP-NAS <https://arxiv.org/abs/2403.04161>`_, without labels.

    Each value after a ReLU is positive for some of the ``S`` images: a pattern of ``S`` bits. The score :math:`\Psi` is
    the number of different patterns among all values, at most :math:`\min(V, 2^S)` for ``V`` values. As in the
    authors' code, weights are drawn from N(0, 1), and batch norms, fresh, normalise by the batch itself.

    Args:
        network: The network; it is not changed.
        images: ``[S, C, H, W]``; the authors use 16.
        repeats: Number of draws of weights; the score is the mean.
        generator: Draws the weights.

    Raises:
        InvalidImagesError: If the images are no batch of at least two, or hold NaN or infinite values.
        ValueError: If :obj:`repeats` is not positive, or no ReLU sees a batch of feature maps.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> swap(network, images, generator=torch.Generator().manual_seed(0))  # all of 2 ** 4
        16.0
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    images = _check_batch(images)
    network = copy.deepcopy(network).train()
    total = 0
    for _ in range(repeats):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.normal_(generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        total += count_patterns(_relu_signs(network, images))
    return total / repeats


def regularised_swap(psi: float, parameters: float, mean: float, width: float, *, log: bool = False) -> float:
    r"""Weights a SWAP score by the size of the network.

    .. math::
        \Psi' = \Psi \exp\!\big(-(\Theta - \mu)^2 / \sigma\big)

    Args:
        psi: :func:`swap`.
        parameters: Number of parameters; :math:`\Theta` is this in thousands.
        mean: :math:`\mu`, the preferred size, in thousands.
        width: :math:`\sigma`; larger is more tolerant.
        log: Whether to return :math:`\log(\Psi')`, which has the same order and does not underflow if the size is far
            from :math:`\mu`.

    Raises:
        ValueError: If :obj:`width` is not positive, or :obj:`psi` is negative or, with :obj:`log`, not positive.

    Example:
        >>> regularised_swap(100.0, 40_000, mean=40.0, width=40.0)
        100.0
        >>> round(regularised_swap(100.0, 44_000, mean=40.0, width=40.0), 2)
        67.03
    """
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    if psi < 0 or (log and psi == 0):
        raise ValueError(f"psi must be {'positive' if log else 'at least 0'}, got {psi}")
    exponent = -((parameters / 1000 - mean) ** 2) / width
    return math.log(psi) + exponent if log else psi * math.exp(exponent)


@torch.no_grad()
@fixed_defaults
def naswot(network: nn.Module, images: Tensor) -> float:
    r"""The score of `NAS without training <https://arxiv.org/abs/2006.04647>`_: the diversity of activation patterns.

    .. math::
        s = \log \det (K + I), \qquad K_{ij} = V - d_H(c_i, c_j)

    with the pattern :math:`c_i` of the ``V`` values after ReLUs that are positive for image ``i``, and the Hamming
    distance :math:`d_H`. The identity, negligible compared with ``V``, is our addition: it keeps the score finite if
    two images have equal patterns.

    Args:
        network: The network with its initial weights, taken in training mode; it is not changed.
        images: ``[S, C, H, W]``.

    Raises:
        InvalidImagesError: If the images are no batch of at least two, or hold NaN or infinite values.
        ValueError: If no ReLU sees a batch of feature maps.

    Example:
        >>> images = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
        >>> round(naswot(nn.Sequential(nn.ReLU()), images), 4) == round(2 * math.log(17), 4)
        True
    """
    images = _check_batch(images)
    kernel = torch.eye(images.size(0), dtype=torch.float64)
    for signs in _relu_signs(copy.deepcopy(network).train(), images):
        pattern = signs.to(images.dtype)
        kernel += (pattern @ pattern.T + (1 - pattern) @ (1 - pattern).T).double()
    return float(torch.linalg.slogdet(kernel).logabsdet)


@fixed_defaults
def synflow(network: nn.Module, image_shape: Sequence[int]) -> float:
    r"""The `synaptic flow <https://arxiv.org/abs/2006.05467>`_ through a network, without any data.

    .. math::
        s = \log\!\Big(1 + \sum_w \Big|w \frac{\partial R}{\partial w}\Big|\Big), \qquad R = \sum_k f_{|w|}(\mathbb 1)_k

    over the weights of convolutions and linear layers, without batch norms; computed in double precision. The
    logarithm, which does not change the order, is our addition.

    Args:
        network: The network with its initial weights; it is not changed.
        image_shape: ``(C, H, W)``.

    Raises:
        ValueError: If the network has no convolution or linear layer.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
        >>> _ = nn.init.constant_(network[1].weight, -0.25)
        >>> round(synflow(network, (1, 2, 2)), 4) == round(math.log(2), 4)
        True
    """
    network = copy.deepcopy(network).double().eval()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if not weights:
        raise ValueError(f"{type(network).__name__} has neither convolutions nor linear layers")
    with torch.enable_grad():
        flow = network(torch.ones(1, *image_shape, dtype=torch.float64)).sum()
        grads = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, grads, strict=True) if g is not None)
    return math.log1p(total)


@fixed_defaults
def count_patterns(signs: Iterable[Tensor]) -> int:
    r"""Counts the distinct columns of the concatenated bool matrices ``[S, V_1]``, ``[S, V_2]``, ….

    Example:
        >>> count_patterns([torch.tensor([[True, False], [False, False]]), torch.tensor([[True], [False]])])
        2
    """
    parts = list(signs)
    size = parts[0].size(0)
    if size <= _TABLE_BITS:
        seen = torch.zeros(2**size, dtype=torch.bool)
        for part in parts:
            seen[_words(part)] = True
        return int(seen.sum())
    joined = torch.cat(parts, dim=1)
    code = _words(joined[:63]).unique(return_inverse=True)[1]
    for start in range(63, size, 63):
        # Combines the number of the pattern so far and that of the next bits into one number.
        more = _words(joined[start : start + 63]).unique(return_inverse=True)[1]
        code = (code * joined.size(1) + more).unique(return_inverse=True)[1]
    return int(code.max()) + 1


def _words(signs: Tensor) -> Tensor:
    """Each column of up to 63 bits as an integer, ``[V]``."""
    code = torch.zeros(signs.size(1), dtype=torch.long)
    for position, row in enumerate(signs):
        code |= row.long() << position
    return code


def _relu_signs(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Which values after ReLUs on feature maps are positive, ``[S, V]`` bool for every ReLU in order of execution."""
    found: list[Tensor] = []

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.dim() == 4:
            found.append((output > 0).flatten(1))

    with _hooked([m for m in network.modules() if isinstance(m, nn.ReLU)], note):
        network(images)
    if not found:
        raise ValueError(f"{type(network).__name__} has no ReLU module on feature maps [B, C, H, W]")
    return found


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_batch(images: Tensor) -> Tensor:
    if images.dim() != 4 or images.size(0) < 2 or not images.is_floating_point():
        raise InvalidImagesError(
            f"images must be a float tensor [S, C, H, W] of at least two, got {images.dtype} {list(images.shape)}"
        )
    if not bool(images.isfinite().all()):
        wrong = int((~images.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise InvalidImagesError(f"image {wrong} holds NaN or infinite values")
    return images
