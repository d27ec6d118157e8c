r"""Validation shared by all metrics: bad input raises, it never becomes a silent NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_nas_np.utils import InvalidLabelsError


def check_vectors(minimum: int = 1, **vectors: Tensor) -> None:
    r"""Checks that named tensors are vectors of one length, without NaN.

    Args:
        minimum: The smallest length that the metric is defined for.
        **vectors: The tensors, each ``[N]``, by the name that messages use.

    Raises:
        InvalidLabelsError: If one is not ``[N]``, shorter than :obj:`minimum`, or holds a NaN.
    """
    shapes = {name: list(vector.shape) for name, vector in vectors.items()}
    described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if any(len(shape) != 1 for shape in shapes.values()) or len({tuple(shape) for shape in shapes.values()}) != 1:
        raise InvalidLabelsError(f"all inputs must be vectors of one length, got {described}")
    count = next(iter(shapes.values()))[0]
    if count < minimum:
        raise InvalidLabelsError(f"at least {minimum} values are needed, got {described}")
    for name, vector in vectors.items():
        bad = vector.isnan()
        if bool(bad.any()):
            raise InvalidLabelsError(
                f"{name} is NaN at position {int(bad.nonzero()[0])} ({int(bad.sum())} of {count}); "
                f"select the labelled architectures first"
            )


def check_finite(**tensors: Tensor) -> None:
    r"""Checks that named tensors hold no infinite value.

    Raises:
        InvalidLabelsError: Naming the first infinite value.
    """
    for name, tensor in tensors.items():
        bad = tensor.isinf()
        if bool(bad.any()):
            raise InvalidLabelsError(f"{name} is infinite at position {bad.nonzero()[0].tolist()}")


def check_gaussian(mean: Tensor, std: Tensor, target: Tensor) -> None:
    r"""Checks the inputs of a metric of Gaussian predictions.

    Args:
        mean: Predicted means, ``[N]``.
        std: Predicted standard deviations, ``[N]``.
        target: True values, ``[N]``.

    Raises:
        InvalidLabelsError: If shapes differ, a value is NaN or infinite, or a standard deviation is not positive.
    """
    check_vectors(mean=mean, std=std, target=target)
    check_finite(mean=mean, std=std, target=target)
    bad = std <= 0
    if bool(bad.any()):
        position = int(bad.nonzero()[0])
        raise InvalidLabelsError(f"std must be positive, got {float(std[position])} at position {position}")


def resolve_k(k: int | float, count: int) -> int:
    r"""Turns a number or a fraction of architectures into a number.

    Args:
        k: An int from 1 to :obj:`count`, or a float in (0, 1], rounded to the nearest number but at least one.
        count: Number of architectures.

    Raises:
        ValueError: If :obj:`k` is out of range.

    Example:
        >>> resolve_k(10, 15625), resolve_k(0.01, 15625)
        (10, 156)
    """
    if isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= count:
        return k
    if isinstance(k, float) and 0.0 < k <= 1.0:
        return max(1, round(k * count))
    raise ValueError(f"k must be an int from 1 to {count} or a float fraction in (0, 1], got {k!r}")


def result_dtype(*tensors: Tensor) -> torch.dtype:
    r"""Returns the dtype of a metric's value: float64 if an input is float64, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
