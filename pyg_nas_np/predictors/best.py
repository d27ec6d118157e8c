r"""How probably each architecture of a pool is the best one."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
from pyg_nas_np.predictors.joint import JointSamples
from pyg_nas_np.utils import check_count, fixed_defaults

SHORTLIST = 1024
"""Samples are joint over so many architectures, those with the largest upper confidence bounds."""

_BETA = 3.0


@fixed_defaults
def probability_best(
    predictor: Predictor,
    archs: ArchitecturesLike,
    *,
    num: int = 4096,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Returns the probability that each architecture is the best of them, by joint samples of the predictor.

    .. math::
        p_i = P\bigl(f(x_i) = \max_j f(x_j)\bigr)

    The function :math:`f` is without measurement noise, where the predictor has joint samples (:class:`JointSamples`);
    where it has none, architectures count as independent. Of :obj:`num` samples, the standard error is at most
    :math:`1 / (2 \sqrt{\mathrm{num}})`. Only the :data:`SHORTLIST` architectures with the largest :math:`\mu +
    3 \sigma` of their scores can win; the others have probability 0. Rows of one architecture have its probability
    each, so that the sum over distinct ones is 1.

    Args:
        predictor: A fitted predictor, which says whether larger labels are better.
        archs: ``n`` architectures, at least one. The measured ones belong among them if it matters whether a new one
            is better.
        num: Number of samples.
        generator: Source of randomness. (default: seed 0)

    Returns:
        float64, ``[n]``.

    Raises:
        ValueError: If there is no architecture, or :obj:`num` is not positive.
        sklearn.exceptions.NotFittedError: Before ``fit``.

    Example:
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> space = ParameterSpace(depth=Integer(1, 20), width=Integer(1, 20))
        >>> archs = space.sample(30, torch.Generator().manual_seed(0))
        >>> gp = GPPredictor(space).fit(archs, [float(arch["depth"]) for arch in archs])
        >>> chance = probability_best(gp, archs)
        >>> round(float(chance.sum()), 6), archs[int(chance.argmax())]["depth"]
        (1.0, 20)
    """
    check_count("num", num)
    given = as_architectures(archs, getattr(predictor, "space_", None))
    if len(given) == 0:
        raise ValueError("there is no architecture; give at least one")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    keys = given.given.tolist() if isinstance(given.given, Tensor) else list(given.given)
    place: dict[object, int] = {}
    row = torch.tensor([place.setdefault(key, len(place)) for key in keys], device="cpu")
    first = torch.full((len(place),), len(keys), device="cpu").scatter_reduce(0, row, torch.arange(len(keys)), "amin")
    mean, std = predictor.predict_scores(given[first])
    short = (mean + _BETA * std).topk(min(SHORTLIST, len(place))).indices
    drawn = _samples(predictor, given[first[short]], mean[short], std[short], num, generator)
    chance = torch.zeros(len(place), dtype=torch.float64, device="cpu")
    # Equal maxima, such as those of a constant function, share the probability.
    winners = (drawn == drawn.amax(dim=1, keepdim=True)).double()
    chance[short] = (winners / winners.sum(dim=1, keepdim=True)).mean(dim=0)
    return chance[row]


def _samples(
    predictor: Predictor, archs: Architectures, mean: Tensor, std: Tensor, num: int, generator: torch.Generator
) -> Tensor:
    """``[num, n]``, larger is better."""
    if isinstance(predictor, JointSamples):
        return predictor.sample_scores(archs, num, generator)
    return mean + std * torch.randn((num, mean.numel()), generator=generator, dtype=mean.dtype, device="cpu")
