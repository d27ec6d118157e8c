r"""What a fitted predictor goes by: permutation importance of meta-features, or of the parameters of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
from pyg_nas_np.spaces import RecordView
from pyg_nas_np.spaces.parameters import is_missing
from pyg_nas_np.utils import InvalidArchitectureError, check_count, fixed_defaults

CHUNK = 1 << 14
"""Rows given to a function at a time."""

BINS = 6
"""Values of a number that its effect is told at."""

CHOICES = 12
"""Largest number of choices whose effects are told."""


@dataclass(frozen=True)
class Attribution:
    r"""What the predictions of one predictor depend on.

    Importances are root mean square changes of the predicted score (standard deviations of the labels, as in
    :meth:`~pyg_nas_np.predictors.Predictor.predict_scores`).

    Args:
        groups: Importance of each group of features, descending.
        features: Importance of each single meta-feature, descending.
        correlations: Spearman's correlation of each of them with the predicted score: its sign tells the direction.
            Larger scores are better, so that a feature that lowers a loss has a positive one.
        num_cells: Cells whose features were shuffled.
        fidelity: Share of the variance of their predicted scores that the surrogate explains (:math:`R^2`); it was not
            fitted to them. Where it is low, the importances say little about the predictor.
    """

    groups: dict[str, float]
    features: dict[str, float]
    correlations: dict[str, float]
    num_cells: int
    fidelity: float


def permutation_importance(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    parts: Mapping[str, Sequence[int]],
    *,
    repeats: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    r"""Measures how much a function changes when some of its inputs are shuffled over the rows (`Fisher et al.
    <https://arxiv.org/abs/1801.01489>`_).

    .. math::
        I_P = \sqrt{\textstyle\frac{1}{Rn} \sum_{r,i} \bigl(f(x_i) - f(x_i^{P \leftarrow \pi_r(i)})\bigr)^2}

    The columns of a part move together, so that their joint distribution is kept; that with all other columns is not.
    Columns that say the same thing share an importance: none of them may seem to matter, though their group does.

    Args:
        function: Maps ``[m, F]`` to ``[m]``, row by row.
        x: Rows, ``[n, F]``.
        parts: Name of each part → its columns.
        repeats: Permutations ``R`` of each part.
        generator: Source of the permutations. (default: seed 0)

    Returns:
        Importance of each part in the unit of the function, descending.

    Raises:
        ValueError: If there are fewer than two rows, :obj:`repeats` is less than one, or a part has a column that
            :obj:`x` has not.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> found = permutation_importance(lambda x: 2 * x[:, 0] + x[:, 1], x, {"a": [0], "b": [1], "c": [2]})
        >>> list(found), found["c"]
        (['a', 'b', 'c'], 0.0)
    """
    count, width = x.shape
    if count < 2 or repeats < 1:
        raise ValueError(f"at least two rows and one repeat are needed, got {count} rows and repeats={repeats}")
    for name, columns in parts.items():
        if outside := [column for column in columns if not 0 <= column < width]:
            raise ValueError(f"part {name!r} has column {outside[0]}; the rows have {width} columns")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    reference = function(x)
    found = {}
    for name, columns in parts.items():
        chosen = list(columns)
        square = 0.0
        # Several permutations a call: predictors are far faster on many rows.
        for some in torch.arange(repeats).split(max(1, CHUNK // count)):
            shuffled = x.repeat(len(some), 1, 1)
            for copy in shuffled:
                order = torch.randperm(count, generator=generator)
                copy[:, chosen] = x[order][:, chosen]
            change = function(shuffled.flatten(0, 1)).view(len(some), count) - reference
            square += float(change.double().square().sum())
        found[name] = (square / (repeats * count)) ** 0.5
    return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))


def attribute(
    predictor: Predictor, *, num_cells: int = 2000, repeats: int = 5, generator: torch.Generator | None = None
) -> Attribution:
    r"""Tells which groups of meta-features, and which single ones, the predictions of a fitted predictor follow.

    Predictors read graphs in many ways: tables of features, coordinates without a meaning, message passing. All are
    explained alike, by a surrogate in named terms: randomised trees learn the predicted scores from the meta-features
    of cells drawn from the space, and are probed by :func:`permutation_importance` on a quarter of them that was kept
    apart. What the surrogate misses, no attribution tells; see :attr:`Attribution.fidelity`.

    Args:
        predictor: A fitted predictor.
        num_cells: Cells drawn; less where the space is smaller.
        repeats: Permutations of each group; single features are shuffled once.
        generator: Source of cells and permutations. (default: seed 0)

    Raises:
        ValueError: If :obj:`num_cells` is less than eight or :obj:`repeats` less than one.
        InvalidArchitectureError: If the predictor was loaded without its space.
        sklearn.exceptions.NotFittedError: Before ``fit``.

    Example:
        >>> from pyg_nas_np.predictors import RidgePredictor
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> index = torch.arange(0, 15625, 300)
        >>> ridge = RidgePredictor(space).fit(space.batch_encode(index), space.batch_flops(index))
        >>> found = attribute(ridge, num_cells=400)
        >>> found.correlations["flops"] > 0.9, found.fidelity > 0.9
        (True, True)
    """
    check_is_fitted(predictor, "transform_")
    if num_cells < 8:
        raise ValueError(f"num_cells must be at least 8, got {num_cells}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    space = getattr(predictor, "space_", None)
    if space is None:
        raise InvalidArchitectureError("the predictor was loaded without its search space; pass space= to load")
    features = shared_features(space)
    index = space.sample_indices(min(num_cells, len(space)), generator)
    x, score = features.table(index), predictor.predict_scores(Architectures(space, index))[0]
    kept_apart = len(index) // 4
    trees = ExtraTreesRegressor(100, max_features=1 / 3, min_samples_leaf=2, random_state=0)
    trees.fit(x[kept_apart:].numpy(), score[kept_apart:].numpy())
    probed = x[:kept_apart]

    def surrogate(rows: Tensor) -> Tensor:
        return torch.from_numpy(trees.predict(rows.numpy()))

    names = features.feature_names
    single = {name: [column] for column, name in enumerate(names)}
    return Attribution(
        groups=permutation_importance(surrogate, probed, features.feature_groups, repeats=repeats, generator=generator),
        features=permutation_importance(surrogate, probed, single, repeats=1, generator=generator),
        correlations={name: float(spearman_rho(x[:, k], score, undefined=0.0)) for k, name in enumerate(names)},
        num_cells=kept_apart,
        fidelity=float(trees.score(probed.numpy(), score[:kept_apart].numpy())),
    )


class Effect(NamedTuple):
    r"""The mean predicted label where a parameter has a value, all else being as it is.

    Attributes:
        value: The value; of a number the median of those that are near.
        label: Mean predicted label.
    """

    value: Any
    label: float


@dataclass(frozen=True)
class ParameterAttribution:
    r"""What the predictions of one predictor depend on, by parameter.

    Args:
        importance: Importance of each parameter, descending, see :func:`attribute_parameters`.
        effects: Mean predicted label at values of each parameter that has single values, in ascending order of numbers.
        num_archs: Architectures whose parameters were exchanged.
    """

    importance: dict[str, float]
    effects: dict[str, list[Effect]]
    num_archs: int


@fixed_defaults
def attribute_parameters(
    predictor: Predictor,
    archs: ArchitecturesLike,
    *,
    num_archs: int = 256,
    repeats: int = 4,
    generator: torch.Generator | None = None,
) -> ParameterAttribution:
    r"""Tells which parameters of records the predictions of a fitted predictor follow.

    The importance of a parameter is the root mean square change of the predicted score (standard deviations of the
    labels) when architectures get its value from others, as in :func:`permutation_importance`. It takes with it the
    parameters that are conditional on it, so that all stay in the space; a list of layers moves as a whole. Columns of
    costs count as parameters. Parameters that say the same thing share their importance.

    Args:
        predictor: A fitted predictor.
        archs: The architectures to explain it on, at least two.
        num_archs: So many of them are used, drawn at random.
        repeats: Exchanges of each parameter.
        generator: Source of both. (default: seed 0)

    Raises:
        ValueError: If there are fewer than two architectures or a number is not positive.
        InvalidArchitectureError: If the space has no records of parameters.
        sklearn.exceptions.NotFittedError: Before ``fit``.

    Example:
        >>> from pyg_nas_np.predictors import GPPredictor
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> space = ParameterSpace(depth=Integer(1, 20), act=["relu", "gelu"])
        >>> archs = space.sample(30, torch.Generator().manual_seed(0))
        >>> gp = GPPredictor(space).fit(archs, [float(arch["depth"]) for arch in archs])
        >>> found = attribute_parameters(gp, archs)
        >>> list(found.importance), [effect.value for effect in found.effects["act"]]
        (['depth', 'act'], ['gelu', 'relu'])
    """
    check_is_fitted(predictor, "transform_")
    check_count("repeats", repeats)
    given = as_architectures(archs, getattr(predictor, "space_", None))
    space = given.space
    if not isinstance(space, RecordView):
        raise InvalidArchitectureError(f"{space.name} has no records of parameters; use attribute")
    if len(given) < 2:
        raise ValueError(f"at least two architectures are needed, got {len(given)}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    chosen = torch.randperm(len(given), generator=generator)[: check_count("num_archs", num_archs, 2)]
    some = list(given[chosen])
    exchange = _Exchange(space, some)
    names = exchange.names
    moved = [
        archs
        for name in names
        for _ in range(repeats)
        for archs in exchange.after(name, torch.randperm(len(some), generator=generator).tolist())
    ]
    every = predictor.predict_scores([*some, *moved])[0]
    change = every[len(some) :].view(len(names), repeats, len(some)) - every[: len(some)]
    importance = dict(zip(names, change.square().mean(dim=(1, 2)).sqrt().tolist(), strict=True))
    order = sorted(names, key=lambda name: importance[name], reverse=True)
    groups = [(name, value, donors) for name in order for value, donors in exchange.groups(name)]
    moved = [
        arch
        for name, _, donors in groups
        for arch in exchange.after(name, [donors[i % len(donors)] for i in range(len(some))])
    ]
    labels = predictor.predict(moved).view(-1, len(some)).mean(dim=1).tolist() if moved else []
    effects: dict[str, list[Effect]] = {}
    for (name, value, _), label in zip(groups, labels, strict=True):
        effects.setdefault(name, []).append(Effect(value, label))
    return ParameterAttribution({name: importance[name] for name in order}, effects, len(some))


class _Exchange:
    """Architectures that take values of single parameters from each other."""

    def __init__(self, space: RecordView[Any], archs: list[Any]) -> None:
        self.space, self.archs = space, archs
        # Costs that were given with configurations are columns like others.
        costs = [getattr(arch, "costs", {}) for arch in archs]
        self.records = [record | cost for record, cost in zip(space.records(archs), costs, strict=True)]
        self.names = [*space.parameters, *dict.fromkeys(name for cost in costs for name in cost)]

    def after(self, name: str, donors: Sequence[int]) -> list[Any]:
        """The architectures, each with the value of a donor; as they are where that would leave the space."""
        together = self._together(name)
        changed = []
        for arch, record, donor in zip(self.archs, self.records, donors, strict=True):
            other = self.records[donor]
            parts = {key: value for key, value in other.items() if key in together}
            mixed = {key: value for key, value in record.items() if key not in together} | parts
            active = name in self.space.parameters and bool(self.space.parameters[name].when)
            fits = (name in record) == (name in other) or not active
            changed.append(self._checked(mixed, arch) if fits else arch)
        return changed

    def _checked(self, record: dict[str, Any], otherwise: Any) -> Any:
        try:
            return self.space.check(record)
        except InvalidArchitectureError:
            return otherwise

    def _together(self, name: str) -> set[str]:
        """A parameter and those that are conditional on it."""
        found = {name}
        while True:
            more = {key for key, parameter in self.space.parameters.items() if found & parameter.when.keys()}
            if more <= found:
                return found
            found |= more

    def groups(self, name: str) -> list[tuple[Any, list[int]]]:
        """Values of a parameter, with the architectures that have them or nearly so."""
        rows = [i for i, record in enumerate(self.records) if not is_missing(record.get(name))]
        values = [self.records[i][name] for i in rows]
        if any(not isinstance(value, str | bool | int | float) for value in values) or len(set(values)) < 2:
            return []
        if len(set(values)) > BINS and all(type(value) in (int, float) for value in values):
            ordered = [i for _, i in sorted(zip(values, rows, strict=True))]
            parts = [part.tolist() for part in torch.tensor(ordered).chunk(BINS)]
            return [(self.records[part[len(part) // 2]][name], part) for part in parts]
        if len(set(values)) > CHOICES:
            return []
        return [
            (value, [i for i in rows if self.records[i][name] == value])
            for value in sorted(set(values), key=lambda v: (isinstance(v, str), v))
        ]
