import torch

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.predictors.experts import BOOSTING_FROM, NETWORKS_FROM, Experts, expert_weights
from pyg_nas_np.spaces import NASBench201Space


def task(count):
    space = NASBench201Space()
    descriptors = shared_descriptors(space)
    rows = torch.randperm(len(space), generator=torch.Generator().manual_seed(0))[: count + 200]
    value = space.batch_flops(rows).double().log() + 0.3 * descriptors.table(rows)[:, 0]
    z = (value - value.mean()) / value.std()
    return space, descriptors, rows, descriptors.table(rows), z


def test_weights_grow_with_the_labels():
    assert expert_weights(BOOSTING_FROM - 1) == {}
    assert list(expert_weights(BOOSTING_FROM)) == ["boosting"]
    weights = [expert_weights(n)["networks"] for n in (NETWORKS_FROM, 300, 600, 5000)]
    assert weights == sorted(weights)
    assert weights[-1] == 1.0


def test_without_weights_the_process_is_left_alone():
    space, _, rows, x, z = task(10)
    experts = Experts({}, [0], 3).fit(space, rows, x, z)
    assert torch.equal(experts.mean(space, z, rows, x), z)
    assert experts.state_dict() == {}


def test_learners_join_the_mean_and_come_back_from_their_state():
    count = 60
    space, descriptors, rows, x, z = task(count)
    num_meta = len(descriptors.features.feature_names)
    context, target = slice(0, count), slice(count, None)
    weights = {"boosting": 1.0, "networks": 2.0}
    experts = Experts(weights, range(num_meta), num_meta).fit(space, rows[context], x[context], z[context])
    mean = experts.mean(space, torch.zeros(200), rows[target], x[target])
    assert float(torch.corrcoef(torch.stack([mean, z[target]]))[0, 1]) > 0.7
    again = Experts(weights, range(num_meta), num_meta)
    again.fit(None, rows[context], x[context], z[context], experts.state_dict())
    torch.testing.assert_close(again.mean(space, torch.zeros(200), rows[target], x[target]), mean)
    # A weighted mean: a constant process pulls it towards itself.
    shifted = experts.mean(space, torch.full((200,), 8.0), rows[target], x[target])
    torch.testing.assert_close(shifted - mean, torch.full_like(mean, 2.0))
