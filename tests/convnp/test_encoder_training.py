import pytest
import torch

from pyg_nas_np.convnp.encoder import read_encoders
from pyg_nas_np.convnp.encoder_training import (
    MeasuredTable,
    fingerprints_of,
    pairwise_loss,
    pretrain_encoder,
    tables_without,
)
from pyg_nas_np.features import OperationInputs
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.nn import OperationEncoder
from pyg_nas_np.spaces import GraphSpace, NASBench101Space, NASBench201Space, Operation, OperationGraph
from pyg_nas_np.utils import DataFileError, DeviceUnavailableError, InvalidLabelsError

SMALL = {"channels": 16, "num_layers": 2, "out_channels": 8}


def cells(name, family, space, index):
    # More multiply-accumulates are better, which both spaces agree on.
    return MeasuredTable(name, family, space, index, space.batch_flops(index).double())


FIRST = cells("first", "nb201", NASBench201Space(), torch.arange(0, 15625, 50))
SECOND = cells("second", "nb101", NASBench101Space(), torch.arange(0, 420000, 500))


def renamed():
    """Chains as single cells of another space hold them, under other names."""
    names = ("conv1x1", "conv3x3")
    operations = [Operation(name, kind="conv", kernel=kernel) for name, kernel in zip(names, (1, 3), strict=True)]
    tables = []
    for words in (names, ("small", "large")):
        own = [Operation(word, op.kind, **op.attributes) for word, op in zip(words, operations, strict=True)]
        graphs = [
            OperationGraph.of([(words[code >> i & 1], {}) for i in range(4)], [(i, i + 1) for i in range(3)])
            for code in range(16)
        ]
        space = GraphSpace(graphs, operations=own)
        tables.append(MeasuredTable(words[0], words[0], space, torch.arange(16), torch.arange(16.0)))
    return tables


def test_what_is_left_out_is_not_seen_under_another_name():
    one, other = renamed()
    assert [table.name for table in tables_without([one, other, FIRST], ["conv1x1"])] == ["first"]
    assert [table.name for table in tables_without([one, other, FIRST], [])] == ["conv1x1", "small", "first"]
    assert [table.name for table in tables_without([FIRST, SECOND], ["nb201"])] == ["second"]


def test_nothing_to_learn_from_is_refused():
    one, other = renamed()
    with pytest.raises(ValueError, match="no table is left"):
        tables_without([one, other], ["small"])
    with pytest.raises(ValueError, match="left_out names 'nb301'; families: nb201"):
        tables_without([FIRST], ["nb301"])


def test_families_have_one_set_of_fingerprints():
    found = fingerprints_of([FIRST, FIRST._replace(name="again")])
    assert list(found) == ["nb201"]
    assert bool((found["nb201"].diff() > 0).all())


def test_the_loss_counts_pairs_of_different_scores():
    predicted = torch.tensor([0.0, 1.0, 2.0])
    assert pairwise_loss(predicted, torch.tensor([5.0, 5.0, 5.0])) == 0
    right, wrong = (pairwise_loss(predicted, torch.tensor(y)) for y in ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]))
    assert right < wrong
    expected = torch.nn.functional.softplus(torch.tensor([-1.0, -2.0, -1.0])).mean()
    torch.testing.assert_close(right, expected)


def test_it_ranks_a_space_that_it_has_not_seen(tmp_path):
    prior = pretrain_encoder(
        [FIRST, SECOND],
        tmp_path / "e.safetensors",
        left_out=["nb201"],
        members=1,
        max_steps=250,
        encoder=SMALL,
        progress=False,
    )
    assert prior.card["families"] == ["nb101"]
    assert prior.card["tables"] == ["second"]
    # Sizes are hidden, so that the graph alone tells.
    space, index = FIRST.space, FIRST.archs
    inputs = OperationInputs(space)(index)
    blind = inputs._replace(sizes=torch.zeros_like(inputs.sizes))
    assert kendall_tau(prior.raw(blind)[:, 0], FIRST.y) > 0.3
    assert read_encoders(tmp_path / "e.safetensors").priors[0].card == prior.card


def test_equal_seeds_give_equal_encoders():
    def trained(seed):
        return pretrain_encoder([SECOND], members=1, max_steps=3, encoder=SMALL, seed=seed, progress=False).scores(
            FIRST.space, FIRST.archs[:5]
        )

    torch.testing.assert_close(trained(0), trained(0))
    assert not torch.allclose(trained(0), trained(1))


def test_a_step_of_training_runs_where_the_batch_is():
    encoder = OperationEncoder(channels=8, num_layers=2).to("meta")
    inputs = OperationInputs(NASBench201Space())(torch.arange(5)).to("meta")
    pairwise_loss(encoder(*inputs).score, torch.randn(5, device="meta")).backward()
    assert all(parameter.grad.is_meta for parameter in encoder.parameters())


def test_a_missing_device_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    space = NASBench201Space()
    table = MeasuredTable("t", "f", space, torch.arange(9), torch.randn(9))
    with pytest.raises(DeviceUnavailableError, match="no CUDA device"):
        pretrain_encoder([table], max_steps=1, accelerator="cuda", progress=False)


def test_training_resumes(tmp_path):
    arguments = {"members": 1, "max_steps": 4, "encoder": SMALL, "progress": False}
    whole = pretrain_encoder([SECOND], **arguments, root=tmp_path / "whole")
    again = pretrain_encoder([SECOND], **arguments, root=tmp_path / "whole")
    rows = FIRST.archs[:5]
    torch.testing.assert_close(again.scores(FIRST.space, rows), whole.scores(FIRST.space, rows))


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = tmp_path / "member-0"
    folder.mkdir()
    (folder / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(DataFileError, match=r"last\.ckpt"):
        pretrain_encoder([SECOND], members=1, max_steps=4, encoder=SMALL, root=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(torch.ones(3), r"has \[3\] labels for 313 graphs"), (torch.full((313,), torch.nan), "label 0 of table 'first'")],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(InvalidLabelsError, match=message):
        pretrain_encoder([FIRST._replace(y=labels)], members=1, max_steps=1, encoder=SMALL, progress=False)


def test_minimised_labels_count_the_other_way():
    up = pretrain_encoder([SECOND], members=1, max_steps=2, encoder=SMALL, progress=False)
    down = pretrain_encoder(
        [SECOND._replace(y=-SECOND.y, maximize=False)], members=1, max_steps=2, encoder=SMALL, progress=False
    )
    torch.testing.assert_close(up.scores(FIRST.space, FIRST.archs[:5]), down.scores(FIRST.space, FIRST.archs[:5]))


def test_training_goes_on_from_given_encoders():
    first = pretrain_encoder([SECOND], members=1, max_steps=3, encoder=SMALL, progress=False)
    before = first.scores(FIRST.space, FIRST.archs[:5])
    own = pretrain_encoder([FIRST], members=1, max_steps=3, start=first, progress=False)
    assert own.card["families"] == ["nb101", "nb201"]
    torch.testing.assert_close(first.scores(FIRST.space, FIRST.archs[:5]), before)
    assert not torch.allclose(own.scores(FIRST.space, FIRST.archs[:5]), before)
    with pytest.raises(ValueError, match="members=1"):
        pretrain_encoder([FIRST], members=2, max_steps=3, start=first, progress=False)
