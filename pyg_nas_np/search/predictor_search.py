r"""Search by a predictor: fit on what was measured, ask for what the acquisition function prefers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from sklearn.base import clone
from torch import Tensor
from torch_geometric.data import Batch

from pyg_nas_np.predictors import Predictor
from pyg_nas_np.search.acquisition import (
    expected_hypervolume_improvement,
    expected_improvement,
    pareto_mask,
    upper_confidence_bound,
)
from pyg_nas_np.search.base import ENUMERABLE, Search
from pyg_nas_np.search.design import DesignName, initial_design
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import InvalidArchitectureError

Acquisition = Literal["ucb", "ei", "mean", "thompson", "independent-thompson"]

Cost = Callable[[Tensor], Tensor]
"""Known cost of architectures, smaller is better: official indices ``[n]`` to numbers ``[n]``."""

SHORTLIST = 1024
"""Thompson samples are joint over this many candidates, those with the largest upper confidence bounds."""

PARENTS = 10
"""Proposals are neighbors of this many of the best measured architectures."""


class PredictorSearch(Search[ArchT]):
    r"""Bayesian optimisation with any predictor.

    The first :obj:`initial` architectures are a design that needs no label. After that, each architecture asked for
    maximises the acquisition function of the predictor fitted to all measurements, over all candidates where these are
    at most :data:`~pyg_nas_np.search.base.ENUMERABLE`, else over :obj:`proposals`: the neighbors of the best measured
    architectures, and random ones.

    **Batches and pending architectures.** Each further member of a batch is chosen as if the earlier ones, and
    everything else that is pending, had been measured at their predicted labels (the "kriging believer"). The
    predictor is fitted anew each time, which keeps a batch from crowding around one point, and makes ``ask`` safe to
    call while other workers are busy. Thompson samples are diverse by themselves and need one fit a batch.

    **Acquisition functions** see standardised scores, on which predictions are Gaussian: ``"ucb"``
    :math:`\mu + \beta \sigma`; ``"ei"``, the expected improvement over the best posterior mean among the measured;
    ``"mean"``; ``"thompson"``, the maximum of a joint sample over the :data:`SHORTLIST` most promising candidates
    (``predictor.sample``, or independent normals where a predictor has none); ``"independent-thompson"``, which draws
    each candidate on its own.

    **Two objectives.** With a :obj:`cost`, the acquisition function is the exact expected improvement of the area
    dominated in the plane of score and cost; :attr:`pareto_front` holds the result.

    Args:
        space: The search space.
        predictor: The predictor; a clone of it is fitted.
        acquisition: Name of the acquisition function. (default: ``"ucb"``)
        beta: Weight of the standard deviation in ``"ucb"``.
        initial: Size of the initial design.
        design: ``"spread"`` or ``"random"``, see :func:`~pyg_nas_np.search.design.initial_design`.
        cost: ``"num_parameters"``, ``"flops"``, or a function of official indices. (default: one objective)
        proposals: Number of random candidates beside the neighbors of the best, where the space is large.
        candidates: Official indices that may be asked for, ``[K]``. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Raises:
        InvalidArchitectureError: If the predictor is for another space.
        ValueError: If the acquisition function, design or cost is unknown, or a number is out of range.

    Example:
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> search = PredictorSearch(space, GPPredictor(), initial=8)
        >>> for _ in range(12):
        ...     archs = search.ask()
        ...     search.tell(archs, space.batch_flops(archs))
        >>> bool(search.best[1] == space.batch_flops().max())
        True
    """

    def __init__(
        self,
        space: SearchSpace[ArchT],
        predictor: Predictor,
        *,
        acquisition: Acquisition = "ucb",
        beta: float = 1.0,
        initial: int = 10,
        design: DesignName = "spread",
        cost: Literal["num_parameters", "flops"] | Cost | None = None,
        proposals: int = 2048,
        candidates: Tensor | None = None,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        if acquisition not in get_args(Acquisition):
            raise ValueError(f"acquisition must be one of {', '.join(get_args(Acquisition))}, got {acquisition!r}")
        if design not in get_args(DesignName):
            raise ValueError(f"design must be one of {', '.join(get_args(DesignName))}, got {design!r}")
        for name, value, least in (("beta", beta, 0), ("initial", initial, 1), ("proposals", proposals, 1)):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if predictor.space is not None and predictor.space.name != space.name:
            raise InvalidArchitectureError(f"the predictor works on {predictor.space.name}, the search on {space.name}")
        self.predictor: Predictor = clone(predictor).set_params(space=space)
        self.acquisition = acquisition
        self.beta = beta
        self.initial = initial
        self.design: DesignName = design
        self.cost = None if cost is None else _cost_function(space, cost)
        self.proposals = proposals
        self._whole: Batch | None = None
        super().__init__(space, candidates=candidates, maximize=maximize, seed=seed)

    @property
    def pareto_front(self) -> list[tuple[ArchT, float, float]]:
        r"""Measured architectures that no other beats, with measurement and cost, the cheapest first.

        Raises:
            ValueError: If the search has no cost.
        """
        if self.cost is None:
            raise ValueError("a search without cost has no Pareto front; see best")
        cost = self.cost(self.index).double()
        chosen = pareto_mask(self._merit(), cost).nonzero().flatten()
        chosen = chosen[cost[chosen].argsort(stable=True)]
        return [(self.space[self._index[i]], self._y[i], float(cost[i])) for i in chosen.tolist()]

    # -- choosing ---------------------------------------------------------------------------------------------------

    def _choose(self, batch: int) -> list[int]:
        taken = self._taken()
        missing = self.initial - len(self._measured) - len(self._pending)
        chosen = self._initial(min(batch, missing), taken) if missing > 0 else []
        if len(chosen) == batch:
            return chosen
        taken.update(chosen)
        if not self._y:
            return chosen + self._random(batch - len(chosen), taken)
        return chosen + self._by_model(batch - len(chosen), taken, chosen)

    def _initial(self, count: int, taken: set[int]) -> list[int]:
        if self.design == "random":
            return self._random(count, taken)
        present = [*self._index, *self._pending]
        options = self._random(self.proposals, taken)
        return initial_design(self.space, count, present, options)

    def _by_model(self, batch: int, taken: set[int], asked: list[int]) -> list[int]:
        index, graphs = self._pool(taken)
        free = ~torch.isin(index, torch.tensor(sorted(taken), dtype=torch.long))
        known, y = self.index, self.y
        if waiting := [*self._pending, *asked]:
            self._fit(known, y)
            known, y = self._believe(known, y, torch.tensor(waiting))
        chosen: list[int] = []
        samples: Tensor | None = None
        while len(chosen) < batch and bool(free.any()):
            if not self.acquisition.endswith("thompson") or samples is None:
                self._fit(known, y)
                merit = self._acquire(index, graphs)
            if self.acquisition.endswith("thompson"):
                if samples is None:
                    samples = self._sample(index, graphs, free, batch)
                merit = samples[len(chosen)]
            position = self._argmax(torch.where(free, merit, -torch.inf))
            free[position] = False
            chosen.append(int(index[position]))
            if samples is None and len(chosen) < batch:
                known, y = self._believe(known, y, index[position : position + 1])
        return chosen
