from __future__ import annotations

import pickle
from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.predictors import WLPredictor
from pyg_nas_np.predictors import wl as module
from pyg_nas_np.predictors.wl import WLKernel, _mix, _unfitted, wl_colours
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.dense import DenseGraphs

SPACE = NASBench201Space()
CELLS = NASBench101Space().dense(torch.arange(0, 423_624, 42_362))


def refined(cells, iterations):
    """Colours as nested tuples: the definition."""
    histograms = []
    for adjacency, ops in zip(cells.adjacency.numpy(), cells.ops.tolist(), strict=True):
        graph = nx.from_numpy_array(adjacency, create_using=nx.DiGraph)
        colour = {v: (op,) for v, op in enumerate(ops) if op >= 0}
        steps = [Counter(colour.values())]
        for _ in range(iterations):
            colour = {
                v: (
                    colour[v],
                    tuple(sorted(colour[u] for u in graph.predecessors(v))),
                    tuple(sorted(colour[u] for u in graph.successors(v))),
                )
                for v in colour
            }
            steps.append(Counter(colour.values()))
        histograms.append(steps)
    return histograms


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_kernel_is_the_definition(iterations):
    histograms = [sum(steps, Counter()) for steps in refined(CELLS, iterations)]
    product = np.array([[sum(a[c] * b[c] for c in a) for b in histograms] for a in histograms], dtype=float)
    expected = product / np.sqrt(np.outer(product.diagonal(), product.diagonal()))
    colours = wl_colours(CELLS, iterations)
    np.testing.assert_allclose(WLKernel(colours)(colours).numpy(), expected, atol=1e-12)
    # Fixed graphs need not have the colours of the others.
    np.testing.assert_allclose(WLKernel(colours[:4])(colours).numpy(), expected[:, :4], atol=1e-12)


@settings(max_examples=25)
@given(row=st.integers(0, len(CELLS.ops) - 1), data=st.data())
def test_the_order_of_the_nodes_does_not_matter(row, data):
    cell = CELLS.select(torch.tensor([row]))
    order = torch.tensor(data.draw(st.permutations(range(7))))
    shuffled = DenseGraphs(cell.adjacency[:, order][:, :, order], cell.ops[:, order], cell.num_nodes)
    assert torch.equal(wl_colours(shuffled, 3), wl_colours(cell, 3)[:, order])


def test_mixing_is_the_finaliser_of_splitmix64():
    def reference(x):
        mask = (1 << 64) - 1
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
        return x ^ x >> 31

    values = torch.tensor([1, 2, -1, 2**62, -(2**63)])
    assert [v % 2**64 for v in _mix(values).tolist()] == [reference(v % 2**64) for v in values.tolist()]


def test_noise_and_signal_are_the_most_likely_ones():
    colours = wl_colours(CELLS, 2)
    kernel, z = WLKernel(colours)(colours), torch.linspace(-1, 1, len(CELLS.ops)).double()
    gp = _unfitted()
    theta, evidence = gp.maximize(colours, z)
    noise, signal = float(theta.exp()), gp.condition(colours, z, theta).scale

    def value(noise, signal):
        total = signal * (kernel + noise * torch.eye(len(z)))
        density = torch.distributions.MultivariateNormal(torch.zeros(len(z)).double(), total).log_prob(z)
        prior = -0.5 * ((np.log(noise) - np.log(0.1)) / 1.5) ** 2
        return float(density) + prior + 0.5 * len(z) * (1 + np.log(2 * np.pi))

    assert evidence == pytest.approx(value(noise, signal), rel=1e-6)
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert value(noise, signal * factor) < evidence
        assert value(noise * factor, signal) < evidence


def fitted(**kwargs):
    index = SPACE.sample_indices(40, torch.Generator().manual_seed(0))
    return WLPredictor(SPACE, **kwargs).fit(SPACE.batch_encode(index), SPACE.batch_flops(index)), index


def test_chunks_do_not_change_predictions(monkeypatch):
    model, _ = fitted()
    graphs = SPACE.batch_encode(torch.arange(50))
    whole = model.predict(graphs, return_std=True)
    monkeypatch.setattr(module, "CHUNK", 7)
    torch.testing.assert_close(model.predict(graphs, return_std=True), whole)


def test_fitted_predictors_reach_other_processes(tmp_path):
    model, index = fitted()
    again = pickle.loads(pickle.dumps(model))
    model.save(tmp_path / "wl.pt")
    graphs, loaded = SPACE.batch_encode(index), WLPredictor.load(tmp_path / "wl.pt", SPACE)
    for other in (again, loaded):
        torch.testing.assert_close(other.predict_scores(graphs), model.predict_scores(graphs))


def test_iterations():
    model, _ = fitted(max_iterations=1)
    assert model.iterations in (0, 1)
    assert fitted(max_iterations=0)[0].iterations == 0
    with pytest.raises(ValueError, match="max_iterations must not be negative, got -1"):
        fitted(max_iterations=-1)


def test_certainty_grows_near_labelled_architectures():
    model, index = fitted()
    near, far = (model.predict(SPACE.batch_encode(part), return_std=True)[1] for part in (index, torch.arange(300)))
    score_near, score_far = (model.predict_scores(part)[1] for part in (index, torch.arange(300)))
    assert near.isfinite().all()
    assert far.isfinite().all()
    assert score_near.mean() < score_far.mean()


def test_duplicates_and_dead_cells():
    index = torch.tensor([6111, 6111, 10, 10, 1462])
    model = WLPredictor(SPACE).fit(SPACE.batch_encode(index), [94.0, 93.5, 80.0, 81.0, 10.0])
    assert model.predict(SPACE.batch_encode(torch.arange(100))).isfinite().all()
