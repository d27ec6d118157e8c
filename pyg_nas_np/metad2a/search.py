r"""From the images of a data set to ranked architectures, without any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeAlias

import torch
from torch import Tensor

from pyg_nas_np.convnp.cell_bank import SHRINKAGE
from pyg_nas_np.datasets.images import Images
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import Cost, MetaD2AGenerator, check_limits, cost_of
from pyg_nas_np.metad2a.generator_weights import shipped_generator
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.predictor import MetaD2APredictor
from pyg_nas_np.predictors.labels import Labels, known_ranks, rank_gauss
from pyg_nas_np.spaces import CellSpace, space_by_name
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.spaces.graph_codec import GraphCodec
from pyg_nas_np.utils import InvalidArchitectureError, fixed_defaults

Score: TypeAlias = Callable[[Sequence[Any]], "Tensor | Sequence[float]"]
"""A score of architectures, ``[n]``, known before training."""

_SCORED = 0.5
"""Least weight of scores that are given."""


@dataclass(frozen=True)
class Candidate(Generic[ArchT]):
    r"""An architecture generated for a data set, with its predicted accuracy.

    Accuracies are in percent, on the scale of the database that the predictor was meta-trained on. On other kinds of
    data sets only their order is meaningful.
    """

    arch: ArchT
    accuracy: float
    std: float


class MetaD2A:
    r"""Searches as `MetaD2A <https://arxiv.org/abs/2107.00860>`_: generates, then ranks by a predictor.

    Nothing is trained. Images are mapped to features and these to a latent code, from which a few hundred different
    architectures are decoded. A predictor that was meta-trained on other data sets ranks them, together with the prior
    trend of the space (:meth:`Descriptors.prior_trend <pyg_nas_np.features.Descriptors.prior_trend>`) and with
    zero-cost scores where these are given: it saw few architectures as good as the best generated ones.

    In the MobileNetV3 space only ImageNet was measured. Without further measurements the result is the best for
    ImageNet within the budget, whatever the images are. Measured accuracies on the new data set (``measured``) change
    the order.

    Args:
        features: Computes features of images. (default: :class:`~pyg_nas_np.metad2a.ImageFeatures`)
        generator: Generates architectures. (default: the one that the package ships for the space)
        predictor: Ranks them. (default: :class:`~pyg_nas_np.metad2a.MetaD2APredictor` with the weights that the
            package ships for the space)

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec
        >>> class FewConvolutions:  # any object with fit and predict
        ...     def fit(self, dataset, graphs=None, y=None):
        ...         return self
        ...     def predict(self, graphs, return_std):
        ...         count = -graphs.x[:, 4:6].sum(dim=1).view(-1, 8).sum(dim=1)
        ...         return count, torch.ones_like(count)
        >>> untrained = MetaD2AGenerator(NASBench201GraphCodec(), in_channels=16)
        >>> digits = FeatureSets.from_datasets([[torch.randn(3, 16), torch.randn(5, 16)]])
        >>> method = MetaD2A(generator=untrained, predictor=FewConvolutions())
        >>> found = method.search(digits, NASBench201Space(), n_candidates=200, top_k=3)
        >>> len(found), found[0].accuracy >= found[1].accuracy
        (3, True)
    """

    def __init__(
        self,
        *,
        features: Callable[[Images], FeatureSets] | None = None,
        generator: MetaD2AGenerator | None = None,
        predictor: MetaD2APredictor | Any = None,
    ) -> None:
        self.features, self.generator, self.predictor = features, generator, predictor

    @fixed_defaults
    def search(
        self,
        images: Images | FeatureSets,
        space: CellSpace[ArchT] | str,
        n_candidates: int = 500,
        top_k: int = 10,
        budget: Mapping[str, float] | None = None,
        *,
        costs: Mapping[str, Cost] = MappingProxyType({}),
        measured: tuple[Sequence[ArchT], Labels] | None = None,
        scores: Mapping[str, Score] = MappingProxyType({}),
        prior: float | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Candidate[ArchT]]:
        r"""Returns the best of the architectures generated for a data set, best first.

        Args:
            images: A folder with a folder of images for each class, an ``.npz`` file, a PyTorch data set, a pair of
                images and labels, or features that were computed before.
            space: The search space, or its name: ``"nasbench201"`` or ``"mobilenetv3"``.
            n_candidates: Different architectures to generate.
            top_k: Number to return; fewer are returned if the space has fewer within the budget.
            budget: Largest costs allowed: ``{"parameters": 1e6, "flops": 1e8}``, or of a key of :obj:`costs`.
            costs: Further costs, such as latencies on a device: functions of a list of architectures.
            measured: Architectures measured on this data set, and their accuracies. (default: none)
            scores: Zero-cost scores on these images by name: functions of a list of architectures, of which larger
                values are supposed to be better, NaN is unknown
                (:func:`~pyg_nas_np.networks.zero_cost.score_archs`).
            prior: Weight of the prior trend, and of the mean score, beside the predictions; Gaussian scores of ranks
                are added. With ``n`` measured architectures it is divided by 1 + n / 10. (default: as the model of the
                predictor says, .5 for NAS-Bench-201 and 0 for MobileNetV3; with scores at least .5)
            temperature: Of generation: below 1 sharpens the distribution, above 1 flattens it.
            seed: Seed of generation.

        Raises:
            ValueError: If a number is not positive, the budget names an unknown cost, a score is not one number an
                architecture, or there is no such space.
            InvalidArchitectureError: If no architecture fits the budget, or the generator is of another space.
            MissingWeightsError: If no weights are shipped for the space.
        """
        if top_k < 1 or n_candidates < top_k:
            raise ValueError(
                f"top_k must be at least 1 and n_candidates at least top_k, got top_k={top_k}, "
                f"n_candidates={n_candidates}"
            )
        if prior is not None and not 0 <= prior < math.inf:
            raise ValueError(f"prior must be a number from 0 on, got {prior}")
        limits = check_limits(budget or {}, costs)
        if isinstance(space, str):
            space = space_by_name(space)
        generator = shipped_generator(space) if self.generator is None else self.generator
        if generator.codec.space.name != space.name:
            raise InvalidArchitectureError(f"the generator is of {generator.codec.space.name}, not of {space.name}")
        predictor = MetaD2APredictor(space) if self.predictor is None else self.predictor
        sets = self.describe(images)
        # The meta-training had one vector per class.
        archs = generator.generate(
            sets.prototypes(),
            n_candidates,
            limits=limits,
            costs=costs,
            temperature=temperature,
            generator=torch.Generator().manual_seed(seed),
        )
        if not archs:
            least = {name: _least(generator.codec, name, costs) for name in limits}
            raise InvalidArchitectureError(
                f"no {space.name} architecture was found within {limits}; among 1,000 random ones the least is {least}"
            )
        known = () if measured is None else (space.batch_encode(measured[0]), measured[1])
        mean, std = predictor.fit(sets, *known).predict(space.batch_encode(archs), return_std=True)
        if prior is None:
            model = predictor.model(space) if hasattr(predictor, "model") else None
            prior = max(getattr(model, "prior", 0.0), _SCORED if scores else 0.0)
        weight = prior / (1.0 + len(measured[0]) / SHRINKAGE) if measured is not None else prior
        merit = mean if weight == 0.0 else rank_gauss(mean.double()) + weight * _promise(space, archs, scores)
        best = merit.argsort(descending=True, stable=True)[:top_k].tolist()
        return [Candidate(archs[i], float(mean[i]), float(std[i])) for i in best]

    def describe(self, images: Images | FeatureSets) -> FeatureSets:
        r"""Returns the features of images; features are returned unchanged."""
        if isinstance(images, FeatureSets):
            return images
        return (ImageFeatures() if self.features is None else self.features)(images)


def _promise(space: CellSpace[ArchT], archs: Sequence[ArchT], scores: Mapping[str, Score]) -> Tensor:
    """What the prior trend and zero-cost scores promise, the sum of Gaussian scores of ranks, ``[n]``."""
    descriptors = shared_descriptors(space)
    promise = known_ranks(descriptors.prior_trend(descriptors.table(archs)))
    if not scores:
        return promise
    columns = []
    for name, score in scores.items():
        values = torch.as_tensor(score(archs), device="cpu").double()
        if values.shape != (len(archs),):
            raise ValueError(
                f"score {name!r} returned shape {list(values.shape)}; return one number for each of {len(archs)} "
                f"architectures"
            )
        columns.append(known_ranks(values))
    return promise + rank_gauss(torch.stack(columns).mean(dim=0))


def _least(codec: GraphCodec[Any], name: str, costs: Mapping[str, Cost]) -> float:
    drawn = codec.types(codec.space.sample(1000, torch.Generator().manual_seed(0)))
    return float(cost_of(codec.space, name, costs)(codec.archs(drawn)).min())
