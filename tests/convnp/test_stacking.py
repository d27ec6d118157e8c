from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.convnp.forest import DRIFT
from pyg_nas_np.convnp.stacking import FOLDS, GROWTH, LIFT, MOST, Stacking, best_share
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors import Architectures, GNNPredictor
from pyg_nas_np.spaces import NASBench201Space


@pytest.fixture(autouse=True)
def steps(monkeypatch):
    """Number of steps of the networks, a tenth of what is needed for good ones."""
    few, fit = [30], GNNPredictor._fit

    def short(self, *args):
        self.steps = few[0]
        return fit(self, *args)

    monkeypatch.setattr(GNNPredictor, "_fit", short)
    return few


def task(count):
    space = NASBench201Space()
    descriptors = shared_descriptors(space)
    rows = torch.randperm(len(space), generator=torch.Generator().manual_seed(0))[: count + 200]
    value = space.batch_flops(rows).double().log() + 0.3 * descriptors.table(rows)[:, 0]
    z = (value - value.mean()) / value.std()
    return space, descriptors, rows, descriptors.table(rows), z


@given(st.floats(-2.0, 2.0), st.integers(0, 1000))
def test_the_share_minimises_the_squared_error(other, seed):
    generator = torch.Generator().manual_seed(seed)
    e, u = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    u = u + other * e
    share = best_share(e, u)
    assert 0.0 <= share <= MOST

    def error(value):
        return float(((1 - value) * e + value * u).square().mean())

    assert error(share) <= min(error(k / 100 * MOST) for k in range(101)) + 1e-9


def test_averaging_raises_the_share():
    e, u = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert best_share(e, u) < best_share(e, u, 0.3) < MOST
    assert best_share(e, u, 100.0) == MOST
    assert best_share(e, e * 2.0, 100.0) == 0.0


def test_the_average_of_networks_is_as_good_as_the_share_supposes():
    generator = torch.Generator().manual_seed(0)
    e, bias = torch.randn(2, 4000, generator=generator)
    networks = 0.5 * bias + 0.8 * torch.randn(FOLDS, 4000, generator=generator)
    share = best_share(e, networks[0], float(networks.var(dim=0).mean()))
    average = networks.mean(dim=0)
    best = min(range(81), key=lambda k: float(((1 - k / 100) * e + k / 100 * average).square().mean()))
    assert abs(share - best / 100) < 0.03


def test_without_learners_the_process_is_left_alone():
    space, _, rows, x, z = task(10)
    stacking = Stacking([0], 3, boosting=False, networks=False).fit(Architectures(space, rows), x, z, z[:, None])
    assert torch.equal(stacking.mean(z, Architectures(space, rows), x), z)
    assert stacking.state_dict() == {}


def test_learners_join_the_mean_and_come_back_from_their_state(steps):
    steps[0] = 100
    count = 60
    space, descriptors, rows, x, z = task(count)
    num_meta = len(descriptors.features.feature_names)
    context, target = slice(0, count), slice(count, None)
    stacking = Stacking(range(num_meta), num_meta, boosting=True, networks=True)
    # A process that knows nothing, with trees that know a little.
    held_out = torch.stack([torch.zeros(count), 0.1 * z[context]], dim=1)
    known = Architectures(space, rows[context]), x[context], z[context], held_out
    targets = Architectures(space, rows[target])
    stacking.fit(*known)
    assert 0.4 < stacking.share <= MOST
    assert stacking.tree_share == MOST
    mean = stacking.mean(torch.zeros(200), targets, x[target])
    assert float(torch.corrcoef(torch.stack([mean, z[target]]))[0, 1]) > 0.7
    again = Stacking(range(num_meta), num_meta, boosting=True, networks=True)
    again.fit(None, *known[1:], stacking.state_dict())
    torch.testing.assert_close(again.mean(torch.zeros(200), targets, x[target]), mean)
    # A weighted mean: a constant process pulls it towards itself.
    shifted = stacking.mean(torch.full((200,), 8.0), targets, x[target])
    torch.testing.assert_close(
        shifted - mean, torch.full_like(mean, 8.0 * (1 - stacking.share) * (1 - stacking.tree_share))
    )


def test_networks_do_not_count_where_the_process_knows_all():
    space, descriptors, rows, x, z = task(30)
    num_meta = len(descriptors.features.feature_names)
    stacking = Stacking(range(num_meta), num_meta, boosting=True, networks=True)
    stacking.fit(Architectures(space, rows[:30]), x[:30], z[:30], torch.stack([z[:30]] * 2, dim=1))
    assert (stacking.tree_share, stacking.share) == (0.0, pytest.approx(0.0, abs=1e-3))


def test_the_share_of_trees_follows_bagged_trees():
    space, _, rows, x, z = task(30)
    noise = torch.randn(2, 30, generator=torch.Generator().manual_seed(1)).double()
    held_out = (z[:30] + 0.5 * noise).t() + torch.tensor([0.0, 1.0])
    stacking = Stacking(range(5), 5, boosting=True, networks=False)
    stacking.fit(Architectures(space, rows[:30]), x[:30], z[:30], held_out)
    share = best_share(held_out[:, 0] - z[:30], held_out[:, 1] - z[:30])
    assert stacking.tree_share == pytest.approx(LIFT * share)
    assert share > 0.0


def test_networks_serve_until_there_are_a_tenth_more_labels():
    space, descriptors, rows, x, z = task(60)
    num_meta, trained = len(descriptors.features.feature_names), []

    def fit(count, scores=z, start=None, order=slice(None)):
        stacking = Stacking(range(num_meta), num_meta, boosting=False, networks=True)
        archs, inputs, targets = Architectures(space, rows[order][:count]), x[order][:count], scores[order][:count]
        held_out = torch.zeros(count, 2)
        train = stacking._train
        stacking._train = lambda *args: trained.append(count) or train(*args)
        for network in stacking.networks:
            network.channels, network.num_layers = 8, 1
        return stacking.fit(archs, inputs, targets, held_out, start=start)

    first = fit(40)
    kept = fit(int(GROWTH * 40), z + 0.5 * DRIFT, first)
    again = fit(int(GROWTH * 40), start=kept)
    assert kept.networks is first.networks
    assert again.networks is first.networks
    assert again.share == kept.share == first.share > 0.0
    targets = Architectures(space, rows[60:])
    torch.testing.assert_close(
        again.mean(torch.zeros(200), targets, x[60:]), first.mean(torch.zeros(200), targets, x[60:])
    )
    assert trained == [40]
    fit(int(GROWTH * 40) + 1, start=kept)
    fit(40, z + 2 * DRIFT, kept)
    fit(40, start=kept, order=torch.arange(260).flip(0))
    fit(39, start=kept)
    assert trained == [40, 45, 40, 40, 39]


def test_boosted_trees_serve_until_there_are_a_twentieth_more_labels():
    space, _, rows, x, z = task(60)

    def fit(count, start=None, scores=z):
        noise = torch.randn(count, generator=torch.Generator().manual_seed(1)).double()
        held_out = torch.stack([scores[:count] + noise, scores[:count] + 0.1 * noise], dim=1)
        stacking = Stacking(range(5), 5, boosting=True, networks=False)
        return stacking.fit(Architectures(space, rows[:count]), x[:count], scores[:count], held_out, start=start)

    first = fit(40)
    kept = fit(42, first)
    assert kept.trees is first.trees
    targets = Architectures(space, rows[60:])
    torch.testing.assert_close(
        kept.mean(torch.zeros(200), targets, x[60:]), first.mean(torch.zeros(200), targets, x[60:])
    )
    assert fit(43, kept).trees is not first.trees
    assert fit(40, kept, z + 2 * DRIFT).trees is not first.trees


def test_networks_answer_by_index_as_by_value():
    space, descriptors, rows, x, z = task(30)
    num_meta = len(descriptors.features.feature_names)
    stacking = Stacking(range(num_meta), num_meta, boosting=False, networks=True)
    stacking.fit(Architectures(space, rows[:30]), x[:30], z[:30], torch.zeros(30, 2))
    targets, base = rows[30:40], torch.zeros(10)
    expected = stacking.mean(base, Architectures(space, targets), x[30:40])
    values = Architectures(space, [space[i] for i in targets.tolist()])
    torch.testing.assert_close(stacking.mean(base, values, x[30:40]), expected)
    # What was asked before has no part in it.
    back = stacking.mean(base, Architectures(space, targets.flip(0)), x[30:40].flip(0))
    torch.testing.assert_close(back.flip(0), expected)
    copied = pickle.loads(pickle.dumps(stacking))
    torch.testing.assert_close(copied.mean(base, values, x[30:40]), expected)
