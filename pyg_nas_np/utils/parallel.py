r"""Threads over chunks of work, rather than within each operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from pyg_nas_np.utils.defaults import fixed_defaults

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    r"""Lets NumPy's and SciPy's BLAS compute on one thread meanwhile, if this is the main thread.

    Optimisers of a few variables call BLAS for vectors of that length. OpenBLAS wakes all of its threads for each call,
    and they wait for each other: on a busy machine of two processors, a step of L-BFGS-B took 19 ms instead of .3 ms.
    The setting is one of the process, which OpenBLAS does not restore reliably from other threads; there, nothing is
    done.

    Example:
        >>> with one_blas_thread():
        ...     pass
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _blas().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas() -> ThreadpoolController:
    # What is loaded later keeps its threads; SciPy is there before its optimisers run.
    return ThreadpoolController()


def map_chunks(function: Callable[[T], R], chunks: Iterable[T]) -> list[R]:
    r"""Applies a function to every chunk, with as many chunks at a time as PyTorch has threads.

    Single operations on chunks that fit into the processor's cache are too short for multithreading; whole chunks are
    not. While several chunks are processed, each operation runs on one thread.

    Args:
        function: Processes a chunk, without gradients. It may run on another thread.
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
