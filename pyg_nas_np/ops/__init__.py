r"""Set-convolution operators, of ragged sets and uniform grids on CPU and CUDA, and sums of decision trees."""

from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.backends import active_backend, backend, used_backends, validation
from pyg_nas_np.ops.grid import set_conv_from_grid, set_conv_to_grid
from pyg_nas_np.ops.radial import KERNELS, window_for
from pyg_nas_np.ops.set_conv import set_conv
from pyg_nas_np.ops.trees import TreeEnsemble, tree_sum
from pyg_nas_np.utils import BackendUnavailableError

__all__ = [
    "KERNELS",
    "BackendUnavailableError",
    "TreeEnsemble",
    "active_backend",
    "backend",
    "set_conv",
    "set_conv_from_grid",
    "set_conv_to_grid",
    "tree_sum",
    "used_backends",
    "validation",
    "window_for",
]

cpu.announce()
