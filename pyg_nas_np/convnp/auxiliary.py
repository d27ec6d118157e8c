r"""Labels of a whole space on other tasks, as inputs of a predictor."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from pyg_nas_np.predictors.labels import rank_gauss

_REMEMBERED = 16
_smoothed: OrderedDict[str, Tensor] = OrderedDict()


def task_scores(x: Tensor, tables: list[Tensor]) -> Tensor:
    r"""Returns what tables of other tasks say of each architecture, with and without their noise.

    A table has the noise of its trainings, and what an architecture adds by chance on one data set it does not add on
    another. Extremely randomised trees tell the two apart: their out-of-bag predictions of a table, from the
    descriptors, are what the architectures alone explain. The result of a table is remembered.

    Args:
        x: Descriptors of every architecture, ``[A, F]``.
        tables: ``T`` tables of finite labels, ``[A]`` each.

    Returns:
        Gaussian scores of the ranks and their smooth versions, ``[A, 2T]`` float32.

    Example:
        >>> x = torch.randn(50, 3)
        >>> task_scores(x, [x[:, 0], x[:, 1].exp()]).shape
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
