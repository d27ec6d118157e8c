r"""Bayesian optimisation: a predictor fitted to the measurements, and an acquisition function."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from sklearn.base import clone
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.predictors import Architectures, JointSamples, Predictor
from pyg_nas_np.search.acquisition import (
    expected_hypervolume_improvement,
    expected_improvement,
    feasible_bound,
    pareto_mask,
    upper_confidence_bound,
)
from pyg_nas_np.search.base import Search
from pyg_nas_np.search.candidates import ENUMERABLE, Key
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT, Costs
from pyg_nas_np.utils import InvalidArchitectureError, seeded

Acquisition = Literal["ucb", "ei", "mean", "thompson", "independent-thompson"]

Cost = Callable[[Architectures], Tensor]
"""Known cost of architectures, smaller is better: ``n`` architectures to numbers ``[n]``."""

Feasibility = Callable[[Architectures], Tensor]
"""Probability that architectures meet a constraint: ``n`` architectures to numbers between 0 and 1 ``[n]``."""

LIKELY = 0.5
"""Measured architectures that meet all constraints with this probability are those to improve on."""

SHORTLIST = 1024
"""Thompson samples are joint over this many candidates, those with the largest upper confidence bounds."""

PARENTS = 10
"""Number of best measured architectures whose neighbors are proposals."""


CHILDREN = 256
"""Mutations of each generation."""

ELITE = 32
"""Number of best proposals that a generation descends from."""


class PredictorSearch(Search[ArchT]):
    r"""Bayesian optimisation with any predictor.

    The first :obj:`initial` architectures are drawn at random. After that, each architecture asked for
    maximises the acquisition function of the predictor fitted to all measurements, over all candidates where these are
    at most :data:`~pyg_nas_np.search.candidates.ENUMERABLE`, else over proposals: the neighbors of the best measured
    architectures, random ones, and what evolves from these: each of several generations consists of :data:`CHILDREN`
    mutations of the :data:`ELITE` proposals with the largest acquisition function.

    **Batches and pending architectures.** Each further member of a batch is chosen as if all pending architectures,
    including the earlier members, had been measured at their predicted labels (the "kriging believer"). The predictor
    is refitted each time. This keeps a batch from clustering and allows calls of ``ask`` while other workers are busy.
    Thompson samples are diverse by themselves and need one fit per batch.

    **Acquisition functions** see standardised scores, on which predictions are Gaussian: ``"ucb"`` :math:`\mu + \beta
    \sigma`; ``"ei"``, the expected improvement over the best posterior mean among the measured; ``"mean"``;
    ``"thompson"``, the maximum of a joint sample over the :data:`SHORTLIST` most promising candidates
    (``predictor.sample``, or independent normals if the predictor has none); ``"independent-thompson"``, which draws
    each candidate independently.

    **Two objectives.** With a :obj:`cost`, the acquisition function is the exact expected hypervolume improvement in
    score and cost; :attr:`pareto_front` holds the result.

    **Constraints.** Architectures that cost more than one of the :obj:`bounds` are never asked for.
    Of :obj:`constraints` that are only known with a probability, such as a latency on a device where few architectures
    were measured (:class:`~pyg_nas_np.search.constraints.LatencyLimit`), the product :math:`P` of the probabilities
    enters: ``"ei"`` and the expected hypervolume improvement are multiplied by :math:`P`, and improve on measured
    architectures of :math:`P \ge` :data:`LIKELY`; where there is none, :math:`P` alone decides. To the bounds and
    samples of the other functions :math:`\log P` is added (:func:`~pyg_nas_np.search.acquisition.feasible_bound`).

    Args:
        space: The search space.
        predictor: The predictor; a clone of it is fitted.
        acquisition: Name of the acquisition function. (default: ``"ucb"``)
        beta: Weight of the standard deviation in ``"ucb"``.
        initial: Architectures drawn at random first.
        cost: Name of a cost of the space, such as ``"num_parameters"`` or ``"flops"``, or a function of architectures.
            (default: one objective)
        bounds: The largest cost by name of a cost of the space. (default: no constraint)
        constraints: Functions that return the probability of architectures to meet a constraint; they are asked anew at
            every proposal. The :obj:`initial` architectures do not depend on them.
        proposals: Number of random candidates in large spaces, in addition to the neighbors of the best.
        generations: Number of generations that evolve from them.
        auxiliary: Auxiliary labels for the predictor's ``fit``, if it takes them
            (:class:`~pyg_nas_np.convnp.ConvNPPredictor`); few :obj:`initial` architectures are then enough.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger measurements are better.
        warm_start: Whether each fit starts from the one before, where the predictor can
            (:class:`~pyg_nas_np.convnp.ConvNPPredictor`). Proposals then depend a little on earlier fits, so that those
            of a resumed search may differ from those of one that never stopped.
        seed: Seed of the search.

    Raises:
        InvalidArchitectureError: If the predictor is for another space.
        ValueError: If the acquisition function or cost is unknown, a number is out of range, or no candidate is within
            the bounds. From :meth:`ask`, if the cost of an architecture is not known (NaN), or none is found within the
            bounds.

    Example:
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> search = PredictorSearch(space, GPPredictor(), initial=8)
        >>> for _ in range(14):
        ...     archs = search.ask()
        ...     search.tell(archs, space.batch_flops(archs))
        >>> bool(search.best[1] > 0.8 * space.batch_flops().max())
        True
    """

    def __init__(
        self,
        space: SearchSpace[ArchT],
        predictor: Predictor,
        *,
        acquisition: Acquisition = "ucb",
        beta: float = 1.5,
        initial: int = 10,
        cost: str | Cost | None = None,
        bounds: Mapping[str, float] | None = None,
        constraints: Sequence[Feasibility] = (),
        proposals: int = 2048,
        generations: int = 4,
        auxiliary: Mapping[str, Tensor] | None = None,
        candidates: Archs = None,
        maximize: bool = True,
        warm_start: bool = True,
        seed: int = 0,
    ) -> None:
        if acquisition not in get_args(Acquisition):
            raise ValueError(f"acquisition must be one of {', '.join(get_args(Acquisition))}, got {acquisition!r}")
        numbers = (
            ("beta", beta, 0),
            ("initial", initial, 1),
            ("proposals", proposals, 1),
            ("generations", generations, 0),
        )
        for name, value, least in numbers:
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if predictor.space is not None and predictor.space.name != space.name:
            raise InvalidArchitectureError(f"the predictor works on {predictor.space.name}, the search on {space.name}")
        self.predictor: Predictor = clone(predictor).set_params(space=space, maximize=maximize)
        if "warm_start" in self.predictor.get_params():
            self.predictor.set_params(warm_start=warm_start)
        self.acquisition = acquisition
        self.beta = beta
        self.initial = initial
        self.cost = None if cost is None else cost_function(space, cost)
        self.bounds = {name: float(bound) for name, bound in (bounds or {}).items()}
        self._bounded = [(cost_function(space, name), bound) for name, bound in self.bounds.items()]
        self.constraints = tuple(constraints)
        self.proposals = proposals
        self.generations = generations
        self.auxiliary = auxiliary
        super().__init__(space, candidates=candidates, maximize=maximize, seed=seed)
        if self._bounded and not self._is_large:
            every = self._pool(set())
            self._pool_keys = dict.fromkeys(self._admitted(every))
            if not self._pool_keys:
                raise ValueError(f"none of the {len(every)} candidates is within the bounds {self.bounds}; raise them")

    @property
    def pareto_front(self) -> list[tuple[ArchT, float, float]]:
        r"""Measured architectures that are not dominated, with measurement and cost, the cheapest first.

        Raises:
            ValueError: If the search has no cost.
        """
        if self.cost is None:
            raise ValueError("a search without cost has no Pareto front; see best")
        measured = self.measured
        cost = self.cost(measured).double()
        chosen = pareto_mask(self._merit(), cost).nonzero().flatten()
        chosen = chosen[cost[chosen].argsort(stable=True)]
        return [(measured[i], self._y[i], float(cost[i])) for i in chosen.tolist()]

    def fresh(self) -> Self:
        r"""Returns a new search with the same settings."""
        other = copy.copy(self)
        other.predictor, other._around = clone(self.predictor), {}
        other.reset()
        return other

    # -- choosing ---------------------------------------------------------------------------------------------------

    def _choose(self, batch: int) -> list[Key]:
        taken = self._taken()
        # Without measurements there is nothing to fit.
        missing = self.initial - len(self._measured | self._pending.keys()) if self._y else batch
        chosen = self._random(min(batch, max(missing, 0)), taken)
        if len(chosen) < batch and self._y:
            chosen += self._by_model(batch - len(chosen), taken.union(chosen), [*self._pending, *chosen])
        if not chosen and self._bounded and self._is_large:
            raise ValueError(f"found no architecture within the bounds {self.bounds}; raise them, or give candidates=")
        return chosen

    def _by_model(self, batch: int, taken: set[Key], waiting: list[Key]) -> list[Key]:
        pool = self._pool(taken)
        free = torch.tensor([key not in taken for key in pool], dtype=torch.bool, device="cpu")
        batch = min(batch, int(free.sum()))
        if batch == 0:
            return []
        known, y = list(self._told), self.y
        self._fit(known, y)
        if waiting:
            known, y = self._believe(known, y, waiting)
            self._fit(known, y)
        if self.acquisition in ("thompson", "independent-thompson"):
            # Of samples, only joint ones could be compared.
            if self._evolves:
                pool, free, _ = self._evolved(pool, free, taken, self._promise)
            return [pool[i] for i in self._by_samples(batch, self._archs(pool), free)]
        chosen: list[Key] = []
        while True:
            pool, free, merit = self._evolved(pool, free, taken, partial(self._acquire, known=known))
            position = self._argmax(merit, free)
            free[position] = False
            chosen.append(pool[position])
            if len(chosen) == batch:
                return chosen
            known, y = self._believe(known, y, chosen[-1:])
            self._fit(known, y)

    def _fit(self, known: list[Key], y: Tensor) -> None:
        archs = self._archs(known)
        if self.auxiliary is None:
            self.predictor.fit(archs, y)
        else:
            self.predictor.fit(archs, y, auxiliary=self.auxiliary)  # type: ignore[call-arg]

    def _believe(self, known: list[Key], y: Tensor, keys: list[Key]) -> tuple[list[Key], Tensor]:
        """Adds architectures with their predicted labels to the measurements."""
        return known + keys, torch.cat([y, self.predictor.predict(self._archs(keys))])

    def _feasible(self, archs: Architectures) -> Tensor:
        """Probability to meet all constraints."""
        probability = torch.ones(len(archs), dtype=torch.float64, device="cpu")
        for constraint in self.constraints:
            given = constraint(archs).double()
            if given.shape != probability.shape or not bool(((given >= 0) & (given <= 1)).all()):
                raise ValueError(
                    f"a constraint must return one probability for each of {len(archs)} architectures, got shape "
                    f"{list(given.shape)} from {float(given.min()):g} to {float(given.max()):g}"
                )
            probability = probability * given
        return probability

    def _acquire(self, archs: Architectures, known: list[Key]) -> Tensor:
        feasible = self._feasible(archs)
        if self.cost is None and self.acquisition != "ei":
            bound = upper_confidence_bound(
                *self.predictor.predict_scores(archs), self.beta if self.acquisition == "ucb" else 0.0
            )
            return feasible_bound(bound, feasible)
        if self.constraints:
            likely = (self._feasible(self._archs(known)) >= LIKELY).tolist()
            known = [key for key, kept in zip(known, likely, strict=True) if kept]
        return feasible * self._improvement(archs, known) if known else feasible

    def _improvement(self, archs: Architectures, known: list[Key]) -> Tensor:
        """Expected improvement of the score, or of the hypervolume, on known architectures."""
        mean, std = self.predictor.predict_scores(archs)
        if self.cost is not None:
            paid_for = self._archs(known)
            reached, _ = self.predictor.predict_scores(paid_for)
            cost, paid = self.cost(archs).double(), self.cost(paid_for).double()
            every = torch.cat([cost, paid])
            # Slightly beyond the most expensive one, so that its improvement is positive too.
            limit = float(every.max() + 0.1 * (every.max() - every.min()).clamp_min(1e-12))
            return expected_hypervolume_improvement(mean, std, cost, reached, paid, (float(reached.min()), limit))
        return expected_improvement(mean, std, self.predictor.predict_scores(self._archs(known))[0].max())

    def _promise(self, archs: Architectures) -> Tensor:
        return feasible_bound(upper_confidence_bound(*self.predictor.predict_scores(archs), 2.0), self._feasible(archs))

    def _by_samples(self, batch: int, archs: Architectures, free: Tensor) -> list[int]:
        mean, std = self.predictor.predict_scores(archs)
        if self.acquisition == "independent-thompson":
            drawn = mean + std * torch.randn(mean.shape, generator=self.generator, dtype=mean.dtype, device="cpu")
            return _top(feasible_bound(drawn, self._feasible(archs)), free, batch).tolist()
        feasible = self._feasible(archs)
        short = _top(feasible_bound(upper_confidence_bound(mean, std, 2.0), feasible), free, max(SHORTLIST, batch))
        open_ = torch.ones(short.numel(), dtype=torch.bool, device="cpu")
        chosen = []
        for sample in self._joint_samples(archs[short], mean[short], std[short], batch):
            position = self._argmax(feasible_bound(sample, feasible[short]), open_)
            open_[position] = False
            chosen.append(int(short[position]))
        return chosen

    def _joint_samples(self, archs: Architectures, mean: Tensor, std: Tensor, count: int) -> Tensor:
        """``[count, n]`` in standard deviations of the labels, larger is better; independent normals if need be."""
        if isinstance(self.predictor, JointSamples):
            drawn = self.predictor.sample(archs, count, self.generator)
            unit = float(self.y.std(unbiased=False)) or 1.0
            return drawn / unit if self.maximize else -drawn / unit
        shape = (count, mean.numel())
        return mean + std * torch.randn(shape, generator=self.generator, dtype=mean.dtype, device="cpu")

    def _argmax(self, merit: Tensor, free: Tensor) -> int:
        """Position of the largest; ties, such as equivalent cells, are broken at random."""
        best = merit[_top(merit, free, 1)]
        equal = free & (merit == best) if bool(best.isfinite()) else free
        options = equal.nonzero().flatten()
        return int(options[int(torch.randint(len(options), (1,), generator=self.generator, device="cpu"))])

    # -- candidates -------------------------------------------------------------------------------------------------

    def _pool(self, taken: set[Key]) -> list[Key]:
        """The candidates to choose from; some may not be free."""
        if not self._is_large:
            return list(range(self._size or 0)) if self._pool_keys is None else list(self._pool_keys)
        near = self._near_best(taken)
        return near + self._random(self.proposals, taken.union(near))

    def _evolved(
        self, pool: list[Key], free: Tensor, taken: set[Key], merit_of: Callable[[Architectures], Tensor]
    ) -> tuple[list[Key], Tensor, Tensor]:
        """Candidates, which are free, and their merits, with the mutations of the best where there are too many."""
        merit = merit_of(self._archs(pool))
        pool, seen = list(pool), taken.union(pool)
        for _ in range(self.generations if self._evolves else 0):
            elite = self._archs([pool[i] for i in _top(merit, free, ELITE).tolist()])
            parents = itertools.islice(itertools.cycle(elite), CHILDREN)
            children = dict.fromkeys(self._keys_of([self.space.mutate(parent, self.generator) for parent in parents]))
            if not (fresh := self._admitted([key for key in children if key not in seen])):
                break
            pool += fresh
            seen.update(fresh)
            free = torch.cat([free, free.new_ones(len(fresh))])
            merit = torch.cat([merit, merit_of(self._archs(fresh))])
        return pool, free, merit

    @property
    def _evolves(self) -> bool:
        return self._is_large and self._pool_keys is None and self.generations > 0

    @property
    def _is_large(self) -> bool:
        """Whether there are too many candidates to predict all."""
        return self._size is None or self._size > ENUMERABLE

    def _admitted(self, keys: list[Key]) -> list[Key]:
        if not self._bounded or not keys:
            return keys
        archs = self._archs(keys)
        within = torch.stack([cost(archs).double() <= bound for cost, bound in self._bounded]).all(dim=0)
        return [key for key, kept in zip(keys, within.tolist(), strict=True) if kept]

    def _near_best(self, taken: set[Key]) -> list[Key]:
        """Neighbors of the best measured architectures that may be asked for."""
        best = self._merit().argsort(descending=True, stable=True).tolist()
        parents = list(dict.fromkeys(self._told[i] for i in best))[:PARENTS]
        return list(dict.fromkeys(key for parent in parents for key in self._neighbors(parent, taken)))


def _top(values: Tensor, free: Tensor, count: int) -> Tensor:
    """Positions of at most ``count`` free ones with the largest values; NaN comes last."""
    options = free.nonzero().flatten()
    ranked = values[options].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return options[ranked.topk(min(count, options.numel())).indices]


def cost_function(space: SearchSpace[Any], cost: str | Cost) -> Cost:
    r"""Returns a cost as a function of architectures.

    Raises:
        ValueError: If the space has no cost of this name. From the function, if a cost is not known.
    """
    if callable(cost):
        return cost
    known = tuple(space.costs(space.sample(1, seeded(0)))) if isinstance(space, Costs) else ()
    if not isinstance(space, Costs) or cost not in known:
        raise ValueError(f"cost must be a function or one of {', '.join(known) or 'none'}, got {cost!r}")

    return partial(_known_costs, space, cost)


def _known_costs(space: Costs[Any], name: str, archs: Architectures) -> Tensor:
    values = space.costs(archs.given)[name]
    unknown = values.isnan().nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"cost {name!r} of {space.to_str(archs[unknown[0]])} is not known; declare it as a function of "
            f"architectures, or give candidates= whose costs are known"
        )
    return values
