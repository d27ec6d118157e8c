r"""Features of partially observed curves: time series (TS), architecture (AP), hyperparameters (HP)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.utils import InvalidCurvesError

FEATURES = ("TS", "AP", "HP")


def curve_features(
    curves: LearningCurves, tau: int, groups: Collection[str] = FEATURES, logarithms: Collection[str] = ()
) -> tuple[Floats, list[str]]:
    r"""Returns the features of the first :obj:`tau` epochs (Baker et al., 2017, section 3).

    Args:
        curves: ``N`` curves.
        tau: Number of observed columns.
        groups: Any of ``"TS"`` (values, first and second differences), ``"AP"`` and ``"HP"``.
        logarithms: Features of configurations to transform to logarithms, see :func:`wide_columns`; values that are not
            positive are replaced by the smallest positive number of single precision.

    Returns:
        Features ``[N, F]`` and their ``F`` names.

    Raises:
        InvalidCurvesError: If a group is unknown or nothing is left.

    Example:
        >>> curves = LearningCurves([[0.2, 0.4, 0.5]], architecture={"depth": [4]})
        >>> values, names = curve_features(curves, 2)
        >>> values.round(3).tolist(), names
        ([[0.2, 0.4, 0.2, 4.0]], ['y1', 'y2', 'd2', 'depth'])
    """
    unknown = set(groups) - set(FEATURES)
    if unknown:
        raise InvalidCurvesError(f"unknown feature group '{min(unknown)}'; known: {', '.join(FEATURES)}")
    parts: list[Floats] = []
    names: list[str] = []
    if "TS" in groups:
        seen = curves.observed(tau)
        for order, letter in enumerate("yde"):
            if tau > order:
                parts.append(np.diff(seen, order, axis=1))
                names += [f"{letter}{i}" for i in range(order + 1, tau + 1)]
    for group, columns in (("AP", curves.architecture), ("HP", curves.hyperparameters)):
        if group in groups:
            for name, column in columns.items():
                wide = np.log(np.maximum(column, np.finfo(np.float32).tiny)) if name in logarithms else column
                parts.append(wide[:, None])
                names.append(name)
    if not parts:
        raise InvalidCurvesError(f"the curves have no features of the groups {', '.join(groups) or '(none)'}")
    return np.concatenate(parts, axis=1), names


def wide_columns(curves: LearningCurves) -> set[str]:
    r"""Returns the features of configurations that are positive and span more than a factor of 10."""
    columns = {**curves.architecture, **curves.hyperparameters}
    return {name for name, column in columns.items() if column.min() > 0 and column.max() > 10 * column.min()}
