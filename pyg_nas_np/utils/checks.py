r"""Checks of numbers that users give: what is wrong is said before anything is computed."""

from __future__ import annotations

import operator

import torch


def check_count(name: str, value: int, least: int = 1) -> int:
    r"""Returns a whole number as a plain int.

    Raises:
        ValueError: If it is none, or less than :obj:`least`.

    Example:
        >>> check_count("batch", 0)
        Traceback (most recent call last):
        ValueError: batch must be at least 1, got 0
    """
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return count


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    r"""Returns a new generator with a seed.

    Raises:
        ValueError: If the seed is not a whole number of at most 64 bits.

    Example:
        >>> seeded(2**64)
        Traceback (most recent call last):
        ValueError: a seed must be a whole number from 0 to 2**64 - 1, got 18446744073709551616
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**64:
        raise ValueError(f"a seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    return torch.Generator(device).manual_seed(number)
