from __future__ import annotations

import pytest
import torch

from pyg_nas_np import NASBench201
from pyg_nas_np.datasets import TableDataset
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import Predictor, RidgePredictor
from pyg_nas_np.predictors.evaluation import calibration_curve, cross_validate, evaluate
from pyg_nas_np.utils import InvalidLabelsError


class Oracle(Predictor):
    """Knows the label, which the fixture makes the parameter count, ties broken by index."""

    def _fit(self, inputs, z):
        self.inputs_ = inputs

    def _inputs(self, archs):
        values = self.space_.batch_num_parameters(archs.index) / 1e4 + archs.index / 1e3
        return (values - 40) / 40

    def _predict(self, inputs, return_std):
        return inputs, torch.full_like(inputs, 0.1)

    def _state(self):
        return {}

    def _set_state(self, state):
        pass


def test_scores_of_a_perfect_ranking(labelled_root):
    dataset = NASBench201(labelled_root, source="compact-table")
    split = dataset.split(100, by="index")
    scores, mean, std = evaluate(Oracle(), dataset, split)
    assert mean.shape == std.shape == (15625,)
    assert scores.kendall_tau == pytest.approx(1.0, abs=1e-3)
    assert (scores.n_at_5, scores.n_at_10, scores.regret_at_1, scores.regret_at_10) == (1, 1, 0, 0)
    assert scores.fit_seconds > 0
    assert scores.predict_seconds > 0
    assert set(scores.to_dict()) >= {"nll", "crps", "coverage_90", "precision_at_1_percent"}


def test_given_labels_are_fitted_and_scored(labelled_root):
    """Other labels than those of the data set: nothing of the own ones may leak into fit or scores."""
    dataset = NASBench201(labelled_root, source="compact-table")
    split = dataset.split(100, by="index")

    class Spy(Oracle):
        def fit(self, graphs, y=None, hint=None):
            self.given_, self.hint_ = y, hint
            return super().fit(graphs, y)

    spy = Spy()
    scores, _, _ = evaluate(spy, dataset, split, 100.0 - dataset.y, hint="passed on")
    torch.testing.assert_close(spy.given_, 100.0 - dataset.y[split.train])
    assert spy.hint_ == "passed on"
    assert scores.kendall_tau == pytest.approx(-1.0, abs=1e-3)
    own, _, _ = evaluate(Oracle(), dataset, split)
    assert own.kendall_tau == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InvalidLabelsError, match="NaN"):
        evaluate(Oracle(), dataset, split, torch.full((15625,), torch.nan))


def test_losses_are_scored_like_the_accuracies_that_they_mirror(labelled_root):
    dataset = NASBench201(labelled_root, source="compact-table")
    split = dataset.split(61, by="index")
    merits, mean, std = evaluate(RidgePredictor(labels="rank"), dataset, split)
    losses, loss, loss_std = evaluate(RidgePredictor(labels="rank", maximize=False), dataset, split, 100.0 - dataset.y)
    torch.testing.assert_close(loss, 100.0 - mean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(loss_std, std, rtol=1e-4, atol=1e-3)
    assert merits.kendall_tau > 0.6
    for name, value in merits.to_dict().items():
        if not name.endswith("seconds"):
            assert losses.to_dict()[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name


def test_calibration_curve_of_an_overconfident_prediction():
    y = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    nominal, observed = calibration_curve(torch.zeros(5000), torch.full((5000,), 0.5), y, num_levels=5)
    assert nominal.tolist() == pytest.approx([0.05, 0.275, 0.5, 0.725, 0.95])
    assert (observed < nominal).all()


def test_held_out_predictions_have_not_seen_the_architecture():
    rows = [{"depth": d, "act": a, "acc": d + 0.1 * (a == "gelu")} for d in range(10) for a in ("relu", "gelu")]
    data = TableDataset(None, rows + rows[:4], "acc")
    seen = []

    class Spy(RidgePredictor):
        def fit(self, x, y=None):
            seen.append(set(x.archs))
            return super().fit(x, y)

    scores, mean, std = cross_validate(Spy(), data, data.group, folds=4, seed=1)
    assert len(seen) == 4
    # Each of 20 architectures is left out once, with its repeats.
    assert all(sum(arch not in fold for fold in seen) == 1 for arch in data.archs)
    torch.testing.assert_close(mean[20:], mean[:4])
    assert scores.kendall_tau == pytest.approx(float(kendall_tau(mean, data.y)))
    assert scores.kendall_tau > 0.8
    assert scores.fit_seconds > 0
    assert bool((std > 0).all())


def test_one_architecture_leaves_nothing_to_fit():
    data = TableDataset(None, [{"depth": d, "acc": 1.0 * d} for d in (1, 2)], "acc")
    with pytest.raises(ValueError, match="two different architectures"):
        cross_validate(RidgePredictor(), data[:1], data.group[:1])
