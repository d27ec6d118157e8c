r"""From a list of PyTorch modules, some of them trained, to a ranking: one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.spaces import ModuleSpace
from pyg_nas_np.spaces.module_trace import ExampleInputs
from pyg_nas_np.spaces.modules import ModuleLike
from pyg_nas_np.utils import InvalidLabelsError


class RankedModule(NamedTuple):
    r"""A module without a label, as predicted.

    Args:
        position: Its position in the list.
        predicted: The expected label.
        std: Its standard deviation, measurement noise included.
        num_parameters: Number of its parameters.
        flops: Multiply-accumulates on the example inputs.
    """

    position: int
    predicted: float
    std: float
    num_parameters: int
    flops: int


def rank_modules(
    modules: Sequence[ModuleLike],
    example_inputs: ExampleInputs,
    labels: Mapping[int, float] | Sequence[float | None],
    *,
    maximize: bool = True,
    predictor: Predictor | None = None,
    cache: bool = True,
) -> list[RankedModule]:
    r"""Ranks the modules that have no label yet by those that have one, best first.

    Nothing is run or allocated: networks are seen as their graphs of operations, see
    :class:`~pyg_nas_np.spaces.ModuleSpace`.

    Args:
        modules: The candidates, labelled or not: modules, or functions without arguments that make them.
        example_inputs: What they are called with: a tensor, a tuple of arguments, or a dictionary of arguments by name.
        labels: Measured values by position, or one entry a module, :obj:`None` or NaN where there is none.
        maximize: Whether larger labels are better.
        predictor: What learns from the labels; it is fitted. (default: :class:`ConvNPPredictor`)
        cache: Whether graphs are kept on disk.

    Raises:
        InvalidArchitectureError: If a module cannot be built or traced; the message names its position, the submodule
            and the cure.
        InvalidLabelsError: If no module has a label, or a position is not one of the list.

    Example:
        >>> from torch import nn
        >>> nets = [nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 8, 16, 32, 64)]
        >>> ranked = rank_modules(nets, torch.empty(1, 8), {0: 0.71, 2: 0.78, 3: 0.80}, cache=False)
        >>> [module.position for module in ranked]
        [4, 1]
    """
    given = labels if isinstance(labels, Mapping) else dict(enumerate(labels))
    known = {position: float(value) for position, value in given.items() if value is not None and value == value}
    outside = [position for position in given if not 0 <= position < len(modules)]
    if outside or not known:
        problem = f"position {outside[0]} is not one of" if outside else "there is no label for any of"
        raise InvalidLabelsError(f"{problem} the {len(modules)} modules; label some of them by their position")
    space = ModuleSpace(modules, example_inputs, cache=cache)
    predictor = ConvNPPredictor(maximize=maximize) if predictor is None else predictor
    predictor.space = space
    predictor.fit(
        torch.tensor(list(known), device="cpu"), torch.tensor(list(known.values()), dtype=torch.float64, device="cpu")
    )
    rest = torch.tensor([i for i in range(len(modules)) if i not in known], dtype=torch.long, device="cpu")
    predicted, std = predictor.predict(rest, return_std=True)
    sizes = [column[rest].tolist() for column in space.costs().values()]
    rows = [
        RankedModule(position, value, spread, int(parameters), int(flops))
        for position, value, spread, parameters, flops in zip(
            rest.tolist(), predicted.tolist(), std.tolist(), *sizes, strict=True
        )
    ]
    return sorted(rows, key=lambda row: row.predicted, reverse=maximize)
