r"""Which properties of a cell a fitted predictor goes by: permutation importance of meta-features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyg_nas_np.features import shared_features
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.utils import InvalidArchitectureError

CHUNK = 1 << 14
"""Rows given to a function at a time."""


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
