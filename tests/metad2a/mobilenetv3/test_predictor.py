from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from pyg_nas_np.convnp.weights import WEIGHTS, read_card
from pyg_nas_np.datasets.mobilenetv3 import read_accuracies
from pyg_nas_np.metad2a import FeatureSets, MetaD2APredictor
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel, write_sub_network_model
from pyg_nas_np.metad2a.predictor_weights import read_performance_model, shipped_performance_model
from pyg_nas_np.spaces import MobileNetV3Space, NASBench201Space
from pyg_nas_np.spaces.registry import space_by_name
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidLabelsError

SPACE: MobileNetV3Space = space_by_name("mobilenetv3")  # type: ignore[assignment]
FIXED = MobileNetV3Space((224,))
DATA_SET = FeatureSets.from_datasets([[torch.ones(2, 1280), torch.zeros(3, 1280)]])
FILE = WEIGHTS / "metad2a-predictor-mobilenetv3.safetensors"


def draw(count, seed=0):
    return FIXED.sample(count, torch.Generator().manual_seed(seed))


def test_moments_are_those_of_bayesian_linear_regression():
    """Two coefficients by hand: mean w·x, variance |root x|² plus noise."""
    width = mobilenetv3_features(SPACE).num_columns
    weights, root = torch.zeros(width).double(), torch.zeros(width, width).double()
    weights[0], weights[1], root[0, 1] = 0.5, 2.0, 0.3
    model = SubNetworkModel(SPACE, (224,), weights, root, mean=75.0, scale=2.0, noise=0.1)
    cells = model.table(draw(6))
    mean, std = model.predict("gp", DATA_SET, torch.zeros(6, dtype=torch.long), cells)
    torch.testing.assert_close(mean.double(), 75 + 2 * (0.5 + 2 * cells[:, 1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(std.double(), 2 * ((0.3 * cells[:, 1]).square() + 0.01).sqrt(), atol=1e-5, rtol=0)


def test_shipped_model_knows_size_and_stays_in_range():
    predictor = MetaD2APredictor(SPACE).fit(DATA_SET)
    texts = ["r224" + f"|{'-'.join([layer] * depth)}" * 5 for layer, depth in (("k3e3", 2), ("k7e6", 4))]
    mean, std = predictor.predict(SPACE.batch_encode([SPACE.from_str(text) for text in texts]), return_std=True)
    assert 70 < float(mean[0]) < 72
    assert 77 < float(mean[1]) < 78.5
    assert bool((std > 0).all())


def test_the_data_set_does_not_matter_until_something_is_measured():
    graphs = SPACE.batch_encode(draw(20))
    other = FeatureSets.from_datasets([[torch.randn(4, 1280)]])
    alone = [MetaD2APredictor(SPACE).fit(dataset).predict(graphs) for dataset in (DATA_SET, other)]
    assert torch.equal(*alone)


def test_graphs_may_come_in_any_form():
    archs = draw(4)
    predictor = MetaD2APredictor(SPACE).fit(DATA_SET)
    batched = predictor.predict(SPACE.batch_encode(archs))
    torch.testing.assert_close(predictor.predict([SPACE.encode(arch) for arch in archs]), batched)
    torch.testing.assert_close(predictor.predict(SPACE.encode(archs[0])), batched[:1])


def test_few_measurements_on_another_data_set_correct_the_order():
    """A made-up data set that follows ImageNet but prefers small kernels."""
    archs = draw(220)
    graphs = SPACE.batch_encode(archs)
    prior = MetaD2APredictor(SPACE).fit(DATA_SET).predict(graphs)
    kernels = torch.tensor([sum(k for stage in arch.stages for k, _ in stage) for arch in archs]).float()
    truth = 90 + 2 * (prior - prior.mean()) / prior.std() - 2 * (kernels - kernels.mean()) / kernels.std()
    known = SPACE.batch_encode(archs[:20])
    predictor = MetaD2APredictor(SPACE).fit(DATA_SET, known, truth[:20])
    mean, std = predictor.predict(SPACE.batch_encode(archs[20:]), return_std=True)
    assert spearmanr(mean, truth[20:])[0] > max(0.9, spearmanr(prior[20:], truth[20:])[0] + 0.1)
    assert float(((mean - truth[20:]).abs() < 2 * std).double().mean()) > 0.8


@pytest.mark.parametrize("labels", [[90.0], [90.0, 90.0]])
def test_labels_without_an_order_shift_the_level(labels):
    archs = draw(10)
    before = MetaD2APredictor(SPACE).fit(DATA_SET).predict(SPACE.batch_encode(archs))
    known = SPACE.batch_encode(archs[: len(labels)])
    after = MetaD2APredictor(SPACE).fit(DATA_SET, known, labels).predict(SPACE.batch_encode(archs))
    shift = after - before
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-3, rtol=0)
    assert abs(float(after[0]) - 90) < 1


def test_files_give_the_same_model_back(tmp_path):
    model = shipped_performance_model(SPACE)
    write_sub_network_model(tmp_path / "m.safetensors", model, {"seed": 1})
    again = read_performance_model(tmp_path / "m.safetensors", SPACE)
    cells, first = model.table(draw(5)), torch.zeros(5, dtype=torch.long)
    found, expected = (m.predict("gp", DATA_SET, first, cells) for m in (again, model))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    graphs = SPACE.batch_encode(draw(3))
    own = MetaD2APredictor(SPACE, weights=tmp_path / "m.safetensors").fit(DATA_SET).predict(graphs)
    assert torch.equal(own, MetaD2APredictor(SPACE).fit(DATA_SET).predict(graphs))


def test_wrong_use_is_told(tmp_path):
    graphs = SPACE.batch_encode(draw(3))
    with pytest.raises(ValueError, match="has no estimator 'network'"):
        MetaD2APredictor(SPACE, estimator="network").fit(DATA_SET).predict(graphs)
    small = SPACE.batch_encode(MobileNetV3Space((160,)).sample(2, torch.Generator().manual_seed(0)))
    with pytest.raises(InvalidArchitectureError, match="at resolution 224 only, got 160"):
        MetaD2APredictor(SPACE).fit(DATA_SET).predict(small)
    with pytest.raises(InvalidLabelsError):
        MetaD2APredictor(SPACE).fit(DATA_SET, graphs, [1.0, float("nan"), 2.0])
    with pytest.raises(DataFileError, match="missing"):
        read_performance_model(tmp_path / "absent.safetensors", SPACE)
    with pytest.raises(InvalidArchitectureError, match="other descriptors of nasbench201"):
        read_performance_model(WEIGHTS / "metad2a-predictor-nasbench201.safetensors", SPACE)
    with pytest.raises(InvalidArchitectureError, match="fitted to other features of mobilenetv3"):
        read_performance_model(FILE, NASBench201Space())  # type: ignore[arg-type]


def test_the_shipped_file_holds_no_measurement(shared_data):
    table = read_accuracies(shared_data / "ofa_mbv3" / "dynast_ofa_mbv3_w1.0_imagenet_top1.csv")
    model = shipped_performance_model(SPACE)
    assert isinstance(model, SubNetworkModel)
    # Fewer numbers than measurements explain these: nothing can be looked up.
    assert model.weights.numel() < len(table.archs) / 5
    guess = model.mean + model.scale * (model.table(table.archs) @ model.weights)
    assert spearmanr(guess, table.values[:, 0])[0] > 0.997
    assert FILE.stat().st_size < 1e6
    assert read_card(FILE)["Spearman on a fifth, fitted without it"] > 0.995
