r"""The BANANAS search loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyg_nas_np.predictors import Predictor
from pyg_nas_np.search.candidates import Key
from pyg_nas_np.search.predictor_search import PredictorSearch
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT

LEAST_PROPOSALS = 100


class BananasSearch(PredictorSearch[ArchT]):
    r"""The loop of `"BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search"
    <https://arxiv.org/abs/1910.11858>`_: independent Thompson sampling among mutations of the best.

    The paper's predictor is an ensemble of networks on path encodings; here it can be any predictor. If the best
    architectures have fewer than :data:`LEAST_PROPOSALS` neighbors, random candidates are added.

    Args:
        space: The search space.
        predictor: Constructs the predictor of a space, for example a predictor class.
        initial: Architectures drawn at random first.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Example:
        >>> from pyg_nas_np.predictors import RidgePredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> search = BananasSearch(NASBench201Space(), RidgePredictor, initial=5)
        >>> for _ in range(3):
        ...     archs = search.ask(5)
        ...     search.tell(archs, search.space.batch_flops(archs))
        >>> search.index.numel()
        15
    """

    def __init__(
        self,
        space: SearchSpace[ArchT],
        predictor: Callable[[SearchSpace[Any]], Predictor],
        *,
        initial: int = 10,
        candidates: Archs = None,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            space,
            predictor(space),
            acquisition="independent-thompson",
            initial=initial,
            generations=0,
            candidates=candidates,
            maximize=maximize,
            seed=seed,
        )

    def _pool(self, taken: set[Key]) -> list[Key]:
        near = self._near_best(taken)
        return near + self._random(max(LEAST_PROPOSALS - len(near), 0), taken.union(near))
