r"""The networks of architectures, their training, and zero-cost scores."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.networks.cells import NASBench101Network, NASBench201Network, make_network
    from pyg_nas_np.networks.latency import measure_latency
    from pyg_nas_np.networks.zero_cost import score_archs

__all__ = ["NASBench101Network", "NASBench201Network", "make_network", "measure_latency", "score_archs"]

attach(__name__)
