r"""The features of any space, by what it can tell of its architectures: records, costs, graphs of operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from pyg_nas_np.features.descriptors import NETWORKS, Descriptors
from pyg_nas_np.features.meta import MetaFeatures
from pyg_nas_np.features.operation_networks import OperationNetworks, shared_operation_networks
from pyg_nas_np.features.operations import DEPTH, OperationFeatures, shared_operation_features
from pyg_nas_np.features.random_networks import shared_networks
from pyg_nas_np.features.records import REFERENCE, RecordFeatures
from pyg_nas_np.features.tables import KeptRows, reference_sample
from pyg_nas_np.spaces.base import Archs, ArchT, CellSpace, Costs, Scores, SearchSpace
from pyg_nas_np.spaces.operations import OperationView
from pyg_nas_np.spaces.parameters import RecordView
from pyg_nas_np.utils import InvalidArchitectureError, fixed_defaults

SIZES, SCORES = "sizes", "scores"
"""Names of the groups of costs and of zero-cost scores."""

SCORES_SHARE = 2 / 3
"""Part that the mean of zero-cost scores has in the prior trend; sizes and depth have the rest."""

KNOWN = 0.5
"""A cost or score must be known for this part of a space's reference.

Where only those of the 20 / 50 labelled of 2,000 were known, tau on Accel-NASBench and on language models was .68 / .75
and .70 / .88 with predicted costs, .67 / .77 and .83 / .87 without costs, .53 / .59 and .65 / .78 with the mean. Where
60 % were known, it was .74 / .80 and .86 / .88 with predicted costs, and .76 / .82 and .86 / .88 where all were."""


class Families(NamedTuple):
    r"""Columns of a space's descriptors by what they tell, for kernels that treat each kind in its own way.

    Attributes:
        parameters: Columns of the value of each parameter, and of each position of a list.
        summaries: Columns that summarise lists, and counts over parameters that share a domain.
        graph: Columns of each group of graph descriptors.
        networks: Coordinates of random networks, the leading ones first.
        sizes: Costs.
        structured: Whether architectures have a structure (layers, a graph) beyond single parameters.
        scores: Zero-cost scores.
        encoded: Scores by encoders that were trained on other spaces.
    """

    parameters: list[list[int]]
    summaries: list[int]
    graph: list[list[int]]
    networks: list[int]
    sizes: list[int]
    structured: bool
    scores: Sequence[int] = ()
    encoded: Sequence[int] = ()

    @property
    def records(self) -> list[int]:
        r"""Columns of the record: of parameters and summaries, each once."""
        return _once([*(column for block in self.parameters for column in block), *self.summaries])

    @property
    def everything(self) -> list[int]:
        r"""All columns but those of random networks and scores, each once."""
        return _once([*self.records, *(column for group in self.graph for column in group), *self.sizes])


class KnownFeatures(ABC):
    r"""Standardised columns of numbers that a space knows of its architectures, perhaps not of all.

    What is unknown (NaN or infinite) of some architectures is predicted for these from the known ones, by ridge
    regression on the other features of the space; where it has none, it stands at the mean. Columns are left out if
    they are constant, or unknown for more than half of the reference sample (:data:`KNOWN`).

    Args:
        space: The space.
        others: The other features of the space.
    """

    def __init__(self, space: SearchSpace[Any], others: Sequence[RecordFeatures | GraphFeatures] = ()) -> None:
        self.space = space
        self._others = others

    @abstractmethod
    def _given(self, archs: Archs) -> dict[str, Tensor]:
        """The numbers by name, ``[B]`` each."""

    @abstractmethod
    def _scale(self, values: Tensor) -> _Scale | None:
        """How finite numbers of the reference sample become a column; None if they are constant."""

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the columns."""
        return list(self._statistics)

    @property
    def scales(self) -> list[tuple[float, float]]:
        r"""Mean and standard deviation of each column before it is standardised."""
        return [(scale.mean, scale.std) for scale in self._statistics.values()]

    @fixed_defaults
    def table(self, archs: Archs) -> Tensor:
        r"""The columns of many architectures, ``[B, F]`` float32."""
        given = self._given(archs)
        columns = [self._learned(name, scale(given[name]), archs) for name, scale in self._statistics.items()]
        return torch.stack(columns, dim=1) if columns else torch.empty(len(self.space.resolve(archs)), 0)

    def _learned(self, name: str, values: Tensor, archs: Archs) -> Tensor:
        unknown = ~values.isfinite()
        if bool(unknown.any()) and self._others:
            inputs = self._inputs(self.space.resolve(archs))[unknown.numpy()]
            values = values.index_put((unknown,), torch.from_numpy(self._model(name).predict(inputs)).float())
        return values.nan_to_num(0.0, 0.0, 0.0)

    def _inputs(self, archs: Sequence[Any]) -> np.ndarray[Any, Any]:
        return torch.cat([part.table(archs) for part in self._others], dim=1).double().numpy()

    def _model(self, name: str) -> RidgeCV:
        """Predicts a column from the other features; made of the known ones where it is first needed."""
        if name not in self._models:
            archs, given = self._reference
            values = self._statistics[name](given[name])
            known = values.isfinite().nonzero().flatten().tolist()
            inputs = self._inputs([archs[row] for row in known])
            self._models[name] = RidgeCV(np.logspace(-3, 3, 13)).fit(inputs, values[known].double().numpy())
        return self._models[name]

    @cached_property
    def _models(self) -> dict[str, RidgeCV]:
        return {}

    @cached_property
    def _reference(self) -> tuple[Sequence[Any], dict[str, Tensor]]:
        archs = reference_sample(self.space, REFERENCE)
        return archs, self._given(archs)

    @cached_property
    @fixed_defaults
    def _statistics(self) -> dict[str, _Scale]:
        """The scale of every column that varies."""
        found = {}
        for name, given in self._reference[1].items():
            values = given.double()
            values = values[values.isfinite()]
            if values.numel() >= KNOWN * given.numel() > 0 and (scale := self._scale(values)) is not None:
                found[name] = scale
        return found


class SizeFeatures(KnownFeatures):
    r"""Standardised costs of the architectures of a space, as logarithms where all are positive.

    Args:
        space: A space with costs.
        others: The other features of the space.
    """

    space: Costs[Any]

    def _given(self, archs: Archs) -> dict[str, Tensor]:
        return self.space.costs(archs)

    def _scale(self, values: Tensor) -> _Scale | None:
        logarithmic = bool((values > 0).all())
        values = values.log() if logarithmic else values
        std = float(values.std(unbiased=False))
        return _Standard(float(values.mean()), std, logarithmic) if std > 1e-9 else None


class ScoreFeatures(KnownFeatures):
    r"""Zero-cost scores of the architectures of a space, as the Gaussian scores of their ranks in the reference sample.

    Only their order is known to mean something. Between and beyond those of the sample they are interpolated and cut.

    Args:
        space: A space with scores.
        others: The other features of the space.

    Example:
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> space = ParameterSpace(depth=Integer(1, 9), scores={"guess": lambda arch: 10.0 ** arch["depth"]})
        >>> ScoreFeatures(space).table([{"depth": 1}, {"depth": 5}, {"depth": 9}]).flatten().sign().tolist()[::2]
        [-1.0, 1.0]
    """

    space: Scores[Any]

    def _given(self, archs: Archs) -> dict[str, Tensor]:
        return self.space.scores(archs)

    def _scale(self, values: Tensor) -> _Scale | None:
        distinct, where, counts = values.unique(return_inverse=True, return_counts=True)
        if distinct.numel() < 2:
            return None
        middle = counts.cumsum(0) - 0.5 * counts
        return _Ranks(
            float(values.median()), float(values.std()), distinct, torch.special.ndtri(middle / where.numel())
        )


class _Standard(NamedTuple):
    """Numbers are standardised."""

    mean: float
    std: float
    logarithmic: bool

    def __call__(self, given: Tensor) -> Tensor:
        values = given.double()
        return (((values.log() if self.logarithmic else values) - self.mean) / self.std).float()


class _Ranks(NamedTuple):
    """Numbers become Gaussian scores of their ranks."""

    mean: float
    std: float
    values: Tensor
    scores: Tensor

    def __call__(self, given: Tensor) -> Tensor:
        values = given.double().where(given.isfinite(), torch.nan)
        return torch.from_numpy(np.interp(values.numpy(), self.values.numpy(), self.scores.numpy())).float()


_Scale: TypeAlias = _Standard | _Ranks


class GraphFeatures:
    r"""The descriptors of graphs of operations without their costs, which :class:`SizeFeatures` are about.

    Args:
        features: The descriptors.
    """

    def __init__(self, features: OperationFeatures) -> None:
        self._features = features
        groups = {name: columns for name, columns in features.feature_groups.items() if name != "cost"}
        self._columns = [column for columns in groups.values() for column in columns]
        place = {column: i for i, column in enumerate(self._columns)}
        self.feature_names = [features.feature_names[column] for column in self._columns]
        self.feature_groups = {name: [place[column] for column in columns] for name, columns in groups.items()}
        self._rows = KeptRows(features.table)

    def table(self, archs: Archs) -> Tensor:
        r"""Descriptors of many architectures, ``[B, F]`` float32."""
        return self._rows(self._features.space.resolve(archs))[:, self._columns]


class SpaceFeatures:
    r"""All that is known of the architectures of a space but values of random networks, in one table.

    The columns of :class:`~pyg_nas_np.features.records.RecordFeatures`, those of
    :class:`~pyg_nas_np.features.operations.OperationFeatures`, then costs and scores; each where the space has them.

    Args:
        space: The search space.

    Raises:
        InvalidArchitectureError: If the space has neither records nor graphs of operations nor costs.
    """

    def __init__(self, space: SearchSpace[Any]) -> None:
        self.space = space
        self.records = RecordFeatures(space) if isinstance(space, RecordView) else None
        self.graphs = GraphFeatures(shared_operation_features(space)) if isinstance(space, OperationView) else None
        others = [part for part in (self.records, self.graphs) if part is not None]
        self.sizes = SizeFeatures(space, others) if isinstance(space, Costs) else None
        self.scores = ScoreFeatures(space, others) if isinstance(space, Scores) else None
        every = (self.records, self.graphs, self.sizes, self.scores)
        self._parts = [part for part in every if part is not None]
        if not self._parts:
            raise InvalidArchitectureError(
                f"{space.name} tells nothing of its architectures; give it records (RecordView), graphs of operations "
                f"(OperationView) or costs (Costs)"
            )

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the ``F`` columns."""
        return [name for part in self._parts for name in part.feature_names]

    @cached_property
    def signature(self) -> list[str]:
        r"""What a predictor that was fitted on these columns depends on: their names, and the scale of some."""
        scales = [
            scale for part in (self.records, self.sizes, self.scores) if part is not None for scale in part.scales
        ]
        return [*self.feature_names, *(f"{mean:.4g} {std:.4g}" for mean, std in scales)]

    @property
    def feature_groups(self) -> Mapping[str, list[int]]:
        r"""Columns of each parameter, of shared counts, of each group of graph descriptors, of costs and of scores."""
        families, groups = self.families, {}
        own = {} if self.graphs is None else dict(zip(self.graphs.feature_groups, families.graph, strict=True))
        own |= {SIZES: families.sizes} if families.sizes else {}
        own |= {SCORES: list(families.scores)} if families.scores else {}
        for name, columns in ({} if self.records is None else self.records.feature_groups).items():
            # A parameter may be called as one of our groups.
            groups[f"{name}_" if name in own or name == NETWORKS else name] = columns
        return groups | own

    @cached_property
    def families(self) -> Families:
        r"""Columns by what they tell."""
        records, graphs = self.records, self.graphs
        start = 0 if records is None else len(records.feature_names)
        groups = [] if graphs is None else list(graphs.feature_groups.values())
        after = start + (0 if graphs is None else len(graphs.feature_names))
        last = after + (0 if self.sizes is None else len(self.sizes.feature_names))
        count = 0 if self.scores is None else len(self.scores.feature_names)
        return Families(
            parameters=[] if records is None else records.blocks,
            summaries=[] if records is None else records.summaries,
            graph=[[start + column for column in group] for group in groups],
            networks=[],
            sizes=list(range(after, last)),
            structured=graphs is not None or (records is not None and records.has_lists),
            scores=list(range(last, last + count)),
        )

    @property
    def depths(self) -> list[int]:
        r"""Columns of the depth: that of the graph or, where there is none, the lengths of lists of layers."""
        if self.graphs is not None:
            start = 0 if self.records is None else len(self.records.feature_names)
            return [start + i for i, name in enumerate(self.graphs.feature_names) if name == DEPTH]
        return [] if self.records is None else self.records.lengths

    def table(self, archs: Archs = None) -> Tensor:
        r"""Features of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.

        Returns:
            ``[B, F]`` float32.
        """
        return torch.cat([part.table(archs) for part in self._parts], dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r})"


class SpaceDescriptors:
    r"""The features of a space, and the coordinates of random networks over its graphs of operations where it has any.

    Args:
        features: The features.
    """

    def __init__(self, features: SpaceFeatures) -> None:
        space = features.space
        self.space, self.features = space, features
        self.networks: OperationNetworks | None = None
        if isinstance(space, OperationView):
            self.networks = shared_operation_networks(space)
            self._rows = KeptRows(self.networks.table)

    @property
    def groups(self) -> Mapping[str, list[int]]:
        r"""Columns of each group."""
        networks = {} if self.networks is None else {NETWORKS: self.families.networks}
        return {**self.features.feature_groups, **networks}

    @cached_property
    def families(self) -> Families:
        r"""Columns by what they tell."""
        start = len(self.features.feature_names)
        return self.features.families._replace(networks=list(range(start, self.num_columns)))

    @property
    def num_columns(self) -> int:
        r"""Number of columns."""
        return len(self.features.feature_names) + (0 if self.networks is None else self.networks.num_coordinates)

    @property
    def trend_names(self) -> list[str]:
        r"""Names of the columns that :meth:`prior_trend` follows."""
        names = self.features.feature_names
        return [names[i] for i in (*self.families.sizes, *self.features.depths, *self.families.scores)]

    def prior_trend(self, table: Tensor) -> Tensor:
        r"""Returns what labels are expected to follow before any is known, ``[B]``.

        The mean of sizes and depth; with scores, their mean by :data:`SCORES_SHARE`. The depth is that of the graph;
        where there is none, the lengths of the lists of layers. Zero where the space tells none of these.

        Args:
            table: Descriptors, ``[B, num_columns]``.
        """
        parts = [[*self.families.sizes, *self.features.depths], list(self.families.scores)]
        sizes, scores = (table[:, columns].mean(dim=1) if columns else None for columns in parts)
        if sizes is None or scores is None:
            found = sizes if scores is None else scores
            return torch.zeros_like(table[:, 0]) if found is None else found
        return torch.lerp(sizes, scores, SCORES_SHARE)

    def table(self, archs: Archs = None) -> Tensor:
        r"""Descriptors of many architectures, ``[B, num_columns]`` float32."""
        return torch.cat(self.parts(archs), dim=1)

    def parts(self, archs: Archs = None) -> list[Tensor]:
        r"""Returns features and networks of :meth:`table` apart, for those who add columns."""
        features = self.features.table(archs)
        return [features] if self.networks is None else [features, self._rows(self.space.resolve(archs))]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.features!r})"


@overload
def shared_features(space: CellSpace[ArchT]) -> MetaFeatures: ...
@overload
def shared_features(space: SearchSpace[Any]) -> MetaFeatures | SpaceFeatures: ...
def shared_features(space: SearchSpace[Any]) -> MetaFeatures | SpaceFeatures:
    r"""Returns the standardised features of a space, kept with it, so that what they need is computed once.

    Raises:
        InvalidArchitectureError: If the space tells nothing of its architectures.
    """
    return space.keep(MetaFeatures) if isinstance(space, CellSpace) else space.keep(SpaceFeatures)


@overload
def shared_descriptors(space: CellSpace[ArchT]) -> Descriptors: ...
@overload
def shared_descriptors(space: SearchSpace[Any]) -> Descriptors | SpaceDescriptors: ...
def shared_descriptors(space: SearchSpace[Any]) -> Descriptors | SpaceDescriptors:
    r"""Returns the descriptors of a space, kept with it, so that tables are computed once.

    Raises:
        InvalidArchitectureError: If the space tells nothing of its architectures.
    """
    return space.keep(_cell_descriptors) if isinstance(space, CellSpace) else space.keep(_space_descriptors)


def _cell_descriptors(space: CellSpace[Any]) -> Descriptors:
    return Descriptors(shared_features(space), shared_networks(space))


def _space_descriptors(space: SearchSpace[Any]) -> SpaceDescriptors:
    features = shared_features(space)
    assert isinstance(features, SpaceFeatures)
    return SpaceDescriptors(features)


def _once(columns: list[int]) -> list[int]:
    return list(dict.fromkeys(columns))
