r"""Auxiliary labels: labels of a whole space on other data sets, as inputs of a predictor."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.utils import InvalidLabelsError

_REMEMBERED = 16
_smoothed: OrderedDict[str, Tensor] = OrderedDict()


def auxiliary_scores(x: Tensor, tables: list[Tensor]) -> Tensor:
    r"""Returns Gaussian scores of auxiliary labels, raw and smoothed over the descriptors.

    Raw labels contain training noise and effects that are specific to their data set. The smoothed version is the
    out-of-bag prediction of extremely randomised trees from the descriptors, which contains neither. The result for
    each vector of labels is cached.

    Args:
        x: Descriptors of every architecture, ``[A, F]``.
        tables: Auxiliary labels of ``T`` data sets, finite, ``[A]`` each.

    Returns:
        Gaussian scores of the ranks and their smoothed versions, ``[A, 2T]`` float32.

    Example:
        >>> x = torch.randn(50, 3)
        >>> auxiliary_scores(x, [x[:, 0], x[:, 1].exp()]).shape
        torch.Size([50, 4])
    """
    scores = [rank_gauss(table.double()).float() for table in tables]
    return torch.stack([*scores, *(_smooth(x, score) for score in scores)], dim=1)


def _smooth(x: Tensor, scores: Tensor) -> Tensor:
    inputs = x.float().contiguous().numpy()
    key = hashlib.sha256(inputs.tobytes() + scores.numpy().tobytes()).hexdigest()
    if key not in _smoothed:
        trees = ExtraTreesRegressor(
            100, max_features=1 / 3, min_samples_leaf=2, bootstrap=True, oob_score=True, n_jobs=-1, random_state=0
        )
        trees.fit(inputs, scores.numpy())
        _smoothed[key] = torch.from_numpy(trees.oob_prediction_).float()
    _smoothed.move_to_end(key)
    while len(_smoothed) > _REMEMBERED:
        _smoothed.popitem(last=False)
    return _smoothed[key]


def check_foreign(labels: Mapping[str, Tensor], target: str) -> None:
    r"""Checks that no auxiliary labels are of the data set to predict, in whichever spelling.

    Raises:
        InvalidLabelsError: If some are, or a label is missing.
    """
    for name, y in labels.items():
        if target and _data_set(name) == _data_set(target):
            raise InvalidLabelsError(
                f"the table {name!r} is of {target!r}, the data set to predict; leave all of its tables out"
            )
        if not bool(y.isfinite().all()):
            raise InvalidLabelsError(f"the table {name!r} lacks {int((~y.isfinite()).sum())} of {y.numel()} labels")


def _data_set(name: str) -> str:
    """The data set in the name of labels, normalised over its spellings."""
    own = re.sub("[^a-z0-9]", "", re.split("[/@]", name)[0].lower())
    own = own.removeprefix("ogbn").removesuffix("valid")
    # ImageNet16-120 is the only ImageNet of NAS-Bench-201.
    return "imagenet16120" if own == "imagenet" else own
