import torch
from scipy.stats import kendalltau

from pyg_nas_np.convnp import auxiliary as auxiliary
from pyg_nas_np.convnp.auxiliary import auxiliary_scores
from pyg_nas_np.predictors.labels import rank_gauss


def tables(n: int = 300):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    truth = x[:, 0] + x[:, 1].abs()
    return x, truth, [truth + 0.6 * torch.randn(n, generator=generator) for _ in range(2)]


def test_raw_scores_come_first():
    x, _, measured = tables()
    scores = auxiliary_scores(x, measured)
    assert scores.shape == (300, 4)
    assert scores.dtype == torch.float32
    for k, table in enumerate(measured):
        torch.testing.assert_close(scores[:, k], rank_gauss(table.double()).float())


def test_smooth_scores_are_nearer_to_what_the_descriptors_tell():
    x, truth, measured = tables()
    scores = auxiliary_scores(x, measured)
    for k in range(2):
        raw, smooth = (kendalltau(scores[:, column], truth).statistic for column in (k, 2 + k))
        assert smooth > raw + 0.03


def test_what_is_left_out_is_not_seen():
    """A label does not change its own smooth score but through the others that it trains."""
    x = torch.zeros(40, 1)
    table = torch.arange(40.0)
    smooth = auxiliary_scores(x, [table])[:, 1]
    # Nothing tells the architectures apart: out-of-bag means fall where the left-out label is high.
    assert kendalltau(smooth, table).statistic < -0.3


def test_tables_are_smoothed_once(monkeypatch):
    x, _, measured = tables(60)
    first = auxiliary_scores(x, measured)
    monkeypatch.setattr(auxiliary, "ExtraTreesRegressor", None)
    torch.testing.assert_close(auxiliary_scores(x, measured), first)
    torch.testing.assert_close(auxiliary_scores(x, measured[::-1]), first[:, [1, 0, 3, 2]])


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(auxiliary, "_REMEMBERED", 2)
    x, _, measured = tables(30)
    for shift in range(4):
        auxiliary_scores(x, [measured[0] + shift * x[:, 0]])
    assert len(auxiliary._smoothed) == 2
