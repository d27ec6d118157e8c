r"""What predictors have that know how their predictions hang together."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import ArchitecturesLike


class JointSamples(Predictor):
    r"""A predictor that draws joint samples: each is one function over all architectures, without measurement noise.

    Example:
        >>> from pyg_nas_np.predictors import GPPredictor, RidgePredictor
        >>> issubclass(GPPredictor, JointSamples), issubclass(RidgePredictor, JointSamples)
        (True, False)
    """

    @abstractmethod
    def sample_scores(self, x: ArchitecturesLike, num: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws joint samples of standardised scores, of which larger ones are better.

        Args:
            x: ``n`` architectures.
            num: Number of samples.
            generator: Source of randomness. (default: always the same)

        Returns:
            ``[num, n]`` float64; zeros if the labels have no scale.

        Raises:
            InvalidArchitectureError: If something is not an architecture of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`, without a space or a prior.
        """

    def sample(self, x: ArchitecturesLike, num: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws joint samples of labels.

        Args:
            x: ``n`` architectures.
            num: Number of samples.
            generator: Source of randomness. (default: always the same)

        Returns:
            ``[num, n]`` float64.

        Raises:
            InvalidArchitectureError: If something is not an architecture of the space.
            sklearn.exceptions.NotFittedError: Before :meth:`fit`, without a space or a prior.
        """
        scores = self.sample_scores(x, num, generator)
        return self._ready().transform_.inverse(scores)[0]
