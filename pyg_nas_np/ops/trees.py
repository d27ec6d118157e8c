r"""Sums of decision trees: the public function, its tables, and the registration as a PyTorch operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, library
from typing_extensions import Self

from pyg_nas_np.ops import cpu, reference
from pyg_nas_np.ops.backends import active_backend, resolve

if TYPE_CHECKING:
    from sklearn.tree import BaseDecisionTree


class TreeEnsemble(NamedTuple):
    r"""The nodes of ``T`` regression trees as flat tables of ``N`` rows, children side by side.

    A row goes from a node to ``child``, or to the node after it if its feature is above the threshold. A leaf leads to
    itself, and its threshold is infinite.

    Shapes:
        - **threshold:** ``[N]`` float32.
        - **feature**, **child:** ``[N]`` int32, column of the inputs and number of the node.
        - **value:** ``[N]`` float64.
        - **root**, **depth:** ``[T]`` int32, number of the first node, and of the steps to the deepest leaf.
    """

    threshold: Tensor
    feature: Tensor
    child: Tensor
    value: Tensor
    root: Tensor
    depth: Tensor
    num_columns: int

    @classmethod
    def from_sklearn(cls, trees: Iterable[BaseDecisionTree]) -> Self:
        r"""Returns the tables of fitted regression trees of one output.

        scikit-learn compares float32 inputs with float64 thresholds. These are rounded down, so that every comparison
        has the same result.

        Raises:
            ValueError: If there is no tree.

        Example:
            >>> from sklearn.tree import DecisionTreeRegressor
            >>> tree = DecisionTreeRegressor().fit([[0.0], [1.0]], [2.0, 6.0])
            >>> TreeEnsemble.from_sklearn([tree, tree]).root.tolist()
            [0, 3]
        """
        parts: list[tuple[np.ndarray[Any, Any], ...]] = []
        roots, depths, start, width = [], [], 0, 0
        for tree in (estimator.tree_ for estimator in trees):
            count, left = tree.node_count, tree.children_left
            inner = np.flatnonzero(left >= 0)
            first = 1 + 2 * np.arange(len(inner))
            number = np.zeros(count, dtype=np.int64)
            number[left[inner]], number[tree.children_right[inner]] = first, first + 1
            threshold = np.full(count, np.inf, dtype=np.float32)
            feature, child, value = np.zeros(count, np.int32), np.arange(count, dtype=np.int32), np.empty(count)
            threshold[number[inner]] = _rounded_down(tree.threshold[inner])
            feature[number[inner]], child[number[inner]] = tree.feature[inner], first
            value[number] = tree.value[:, 0, 0]
            parts.append((threshold, feature, child + np.int32(start), value))
            roots.append(start)
            depths.append(tree.max_depth)
            start, width = start + count, tree.n_features
        if not parts:
            raise ValueError("there is no tree to sum; fit an ensemble with at least one")
        thresholds, features, children, values = (
            torch.from_numpy(np.concatenate(columns)) for columns in zip(*parts, strict=True)
        )
        root, depth = (torch.tensor(numbers, dtype=torch.int32, device="cpu") for numbers in (roots, depths))
        return cls(thresholds, features, children, values, root, depth, width)

    def to(self, device: torch.device) -> Self:
        r"""Returns the same trees on a device."""
        threshold, feature, child, value, root, depth, width = self
        return type(self)(
            threshold.to(device),
            feature.to(device),
            child.to(device),
            value.to(device),
            root.to(device),
            depth.to(device),
            width,
        )


def tree_sum(x: Tensor, trees: TreeEnsemble) -> Tensor:
    r"""Returns the sum of the predictions of all trees, ``[B]`` float64.

    The back end ``"cpu"`` sends many rows down a tree together; elsewhere, all rows go down all trees step by step.
    There is no gradient.

    Args:
        x: Inputs, ``[B, F]`` float32.
        trees: The trees, on the same device.

    Raises:
        TypeError: If the inputs are not float32.
        ValueError: If their shape does not fit the trees, or they are on another device.
        BackendUnavailableError: If :func:`pyg_nas_np.ops.backend` selects one that cannot run here.

    Example:
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> tree = DecisionTreeRegressor().fit([[0.0], [1.0]], [2.0, 6.0])
        >>> tree_sum(torch.tensor([[0.4], [0.6]]), TreeEnsemble.from_sklearn([tree, tree]))
        tensor([ 4., 12.], dtype=torch.float64)
    """
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        raise TypeError(f"'x' must be a float32 tensor but is {getattr(x, 'dtype', type(x).__name__)}.")
    *tables, width = trees
    if x.dim() != 2 or x.size(1) != width:
        raise ValueError(f"'x' must have shape [B, {width}], as the trees were fitted, but has shape {list(x.shape)}.")
    if x.device != trees.value.device:
        raise ValueError(f"'x' is on {x.device} but the trees are on {trees.value.device}: move one of them.")
    total: Tensor = torch.ops.pyg_nas_np.tree_sum(x.detach(), *tables, active_backend())
    return total


def _rounded_down(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


@library.custom_op("pyg_nas_np::tree_sum", mutates_args=())
def _tree_sum(
    x: Tensor,
    threshold: Tensor,
    feature: Tensor,
    child: Tensor,
    value: Tensor,
    root: Tensor,
    depth: Tensor,
    backend: str,
) -> Tensor:
    run = cpu.tree_sum if resolve(backend, x.device) == "cpu" else reference.tree_sum
    return run(x, threshold, feature, child, value, root, depth)


@_tree_sum.register_fake
def _(
    x: Tensor,
    threshold: Tensor,
    feature: Tensor,
    child: Tensor,
    value: Tensor,
    root: Tensor,
    depth: Tensor,
    backend: str,
) -> Tensor:
    return value.new_empty(x.size(0))
