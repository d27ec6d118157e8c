from __future__ import annotations

import pytest
import torch

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.datasets.mobilenetv3 import SubNetworks
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator_training import new_generator
from pyg_nas_np.metad2a.generator_weights import shipped_generator
from pyg_nas_np.metad2a.mobilenetv3 import generator_training as training
from pyg_nas_np.metad2a.mobilenetv3.generator_training import (
    Pool,
    draw_limits,
    draw_rows,
    grow_pool,
    train_sub_network_generator,
)
from pyg_nas_np.metad2a.mobilenetv3.predictor_training import fit_sub_networks
from pyg_nas_np.spaces import MobileNetV3Space
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec

SPACE = MobileNetV3Space()


def measured(count, seed=0):
    """Large kernels in the first stage are good, whatever else there is."""
    generator = torch.Generator().manual_seed(seed)
    archs = MobileNetV3Space((224,)).sample(count, generator)
    kernels = torch.tensor([sum(k for k, _ in arch.stages[0]) / len(arch.stages[0]) for arch in archs]).double()
    y = (70 + kernels).unsqueeze(1)
    return SubNetworks(tuple(archs), y, y, y, torch.ones(count, dtype=torch.long))


def test_pool_grows_by_better_ones():
    table = measured(80)
    generator = new_generator(MobileNetV3GraphCodec(SPACE), 8, 8, 0)
    model = fit_sub_networks(table, SPACE)
    pools = [grow_pool(table, model, generator, rounds=rounds, size=60) for rounds in (0, 3)]
    assert list(pools[0].archs[:80]) == list(table.archs)
    torch.testing.assert_close(pools[0].score[:80], (table.values[:, 0] - model.mean) / model.scale)
    for pool in pools:
        assert len(set(pool.archs)) == len(pool.archs) == pool.score.numel() == pool.place.size(0)
        assert {arch.resolution for arch in pool.archs} == {224}
        # The cheapest one keeps every limit.
        assert bool((pool.place == 0).all(dim=1).any())
    grown = pools[1].score[pools[0].score.numel() :]
    assert float(grown.mean()) > float(pools[0].score.mean()) + 0.5
    again = grow_pool(table, model, generator, rounds=3, size=60)
    assert again.archs == pools[1].archs


def test_limits_are_absent_half_of_the_time():
    limits = draw_limits(4000, torch.Generator().manual_seed(0))
    share = (limits == 1).double().mean(dim=0)
    assert bool(((share - 0.5).abs() < 0.05).all())
    assert bool(((limits >= 0) & (limits <= 1)).all())


def test_rows_keep_limits_and_follow_scores():
    score = torch.tensor([0.0, 1.0, 2.0, 3.0]).double()
    place = torch.tensor([[0.0, 0.0], [0.2, 0.2], [0.4, 0.9], [0.9, 0.9]])
    pool = Pool([], score, place)
    limits = torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.5, 0.5], [0.0, 0.0]])
    rows = draw_rows(pool, limits, 500, 2.0, torch.Generator().manual_seed(0))
    assert rows.amax(dim=1).tolist() == [3, 2, 1, 0]
    counts = torch.bincount(rows[0], minlength=4).double() / 500
    torch.testing.assert_close(counts, (2 * score).softmax(dim=0), atol=0.06, rtol=0)


def test_a_step_sees_good_architectures_within_limits_on_random_classes(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        training, "optimize", lambda model, batch, **settings: seen.update(batch=batch, **settings) or {"seed": 3}
    )
    table = measured(150)
    classes = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    model, card = train_sub_network_generator(
        table, classes, batch_size=128, hidden_channels=8, rounds=1, pool_size=100
    )
    assert seen["constrained"]
    assert (card["measured"], card["classes"], card["seed"]) == (150, 40, 3)
    step = seen["batch"](torch.Generator().manual_seed(0))
    # Sixteen data sets of 2 to 40 classes, each class once, and eight architectures of each.
    sizes = step.dataset_ptr.diff()
    assert sizes.numel() == 16
    assert 2 <= int(sizes.min()) <= int(sizes.max()) <= 40
    assert step.features.shape == (int(sizes.sum()), 8)
    assert torch.bincount(step.dataset).tolist() == [8] * 16
    archs = model.codec.archs(step.types)
    place = model.positions({"parameters": SPACE.batch_num_parameters(archs), "flops": SPACE.batch_flops(archs)})
    assert bool((place <= step.limits + 1e-6).all())
    assert int((step.limits < 1).any(dim=1).sum()) > 64
    free = [arch for arch, limit in zip(archs, step.limits.tolist(), strict=True) if min(limit) == 1]
    kernels = [k for arch in free for k, _ in arch.stages[0]]
    assert sum(kernels) / len(kernels) > 5.7  # 5 by chance


def test_training_fits_the_pool():
    classes = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    settings = {"batch_size": 32, "hidden_channels": 8, "lr": 2e-2, "rounds": 0, "pool_size": 20}
    cards = [train_sub_network_generator(measured(30), classes, steps=steps, **settings)[1] for steps in (1, 25)]
    # The mean over all steps, for there are less than a hundred.
    assert cards[1]["reconstruction_nats"] < cards[0]["reconstruction_nats"] - 3


def test_refuses_batches_that_cannot_be_dealt():
    with pytest.raises(ValueError, match="multiple of 16, got 20"):
        train_sub_network_generator(measured(20), torch.randn(30, 8), batch_size=20)


def test_shipped():
    model = shipped_generator(SPACE)
    assert (WEIGHTS / "metad2a-generator-mobilenetv3.safetensors").stat().st_size < 3e6
    sets = FeatureSets.from_datasets([[torch.zeros(1, model.in_channels), torch.ones(1, model.in_channels)]])
    spent = []
    for limit in (2e8, 3e8, 4.5e8):
        archs = model.generate(sets, 200, limits={"flops": limit}, generator=torch.Generator().manual_seed(0))
        assert len(set(archs)) == 200
        costs = SPACE.batch_flops(archs).double()
        assert float(costs.max()) <= limit
        # It has learned to use what it may.
        assert float(costs.mean()) > 0.85 * limit
        spent.append(float(costs.mean()))
    assert spent == sorted(spent)
