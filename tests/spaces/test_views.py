from __future__ import annotations

import networkx as nx
import pytest

from pyg_nas_np.spaces import NASBench201Space, draw, from_networkx, to_networkx
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()


@pytest.mark.parametrize("index", [0, 11, 284, 15624])
def test_networkx_round_trip_under_renaming(index):
    graph = to_networkx(SPACE, SPACE[index])
    assert nx.is_directed_acyclic_graph(graph)
    renamed = nx.relabel_nodes(graph, {node: f"n{(5 * node) % 8}" for node in graph})
    assert from_networkx(SPACE, renamed) == SPACE[index]


def test_from_networkx_names_the_unknown_operation():
    graph = to_networkx(SPACE, SPACE[0])
    graph.nodes[3]["op"] = "conv7x7"
    with pytest.raises(InvalidArchitectureError, match="node 3 has op 'conv7x7'"):
        from_networkx(SPACE, graph)
    with pytest.raises(InvalidArchitectureError):
        from_networkx(SPACE, nx.DiGraph())


def test_draw_shows_every_operation():
    plt = pytest.importorskip("matplotlib.pyplot")
    ax = draw(SPACE, SPACE[6111], title="best cell")
    labels = [text.get_text().replace("\n", "_") for text in ax.texts if text.get_text()]
    assert sorted(labels) == sorted(["input", "output", *SPACE[6111].ops])
    assert ax.get_title() == "best cell"
    plt.close(ax.figure)


def test_draw_needs_the_extra(monkeypatch):
    import builtins

    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return original(name, *args, **kwargs)

    import sys

    for module in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr("importlib.import_module", lambda name: refuse(name))
    with pytest.raises(ImportError, match=r"pyg-nas-np\[viz\]"):
        draw(SPACE, SPACE[0])
