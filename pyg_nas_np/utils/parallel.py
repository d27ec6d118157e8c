r"""Many threads on many chunks of work, rather than on each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from pyg_nas_np.utils.defaults import fixed_defaults

T = TypeVar("T")
R = TypeVar("R")


def map_chunks(function: Callable[[T], R], chunks: Iterable[T]) -> list[R]:
    r"""Applies a function to every chunk, with as many chunks at a time as PyTorch has threads.

    Operations on chunks that fit into the processor's cache are too short to be worth sharing among threads; whole
    chunks are not. While several are under way, each operation runs on the thread that calls it.

    Args:
        function: What to do with a chunk, without gradients. It may run on another thread.
        chunks: The work.

    Returns:
        The results in the order of the chunks. The first error of a chunk is raised.

    Example:
        >>> map_chunks(torch.sum, torch.arange(6).split(2))
        [tensor(1), tensor(5), tensor(9)]
    """
    parts = list(chunks)
    threads = torch.get_num_threads()
    # Neither is inherited by other threads.
    without_gradients = fixed_defaults(torch.no_grad()(function))
    if min(threads, len(parts)) <= 1:
        return [without_gradients(part) for part in parts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(without_gradients, parts))
    finally:
        torch.set_num_threads(threads)
