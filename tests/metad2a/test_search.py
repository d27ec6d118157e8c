from __future__ import annotations

import pytest
import torch

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import MetaD2A
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.metad2a.generator_weights import shipped_generator
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces import MobileNetV3Space, NASBench201Space, space_by_name
from pyg_nas_np.spaces.graph_codec import MobileNetV3GraphCodec, NASBench201GraphCodec
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()
SETS = FeatureSets.from_datasets([[torch.ones(2, 16), torch.zeros(3, 16)]])


class Convolutions:
    """Predicts the number of 3x3 convolutions, and remembers what it was fitted to."""

    def fit(self, dataset, graphs=None, y=None):
        self.dataset, self.graphs, self.y = dataset, graphs, y
        return self

    def predict(self, graphs, return_std=False):
        mean = graphs.x[:, 5].view(-1, 8).sum(dim=1)
        return (mean, torch.full_like(mean, 0.5)) if return_std else mean


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MetaD2AGenerator(NASBench201GraphCodec(), 16, hidden_channels=8)


def test_ranks_distinct_candidates(generator):
    found = MetaD2A(generator=generator, predictor=Convolutions()).search(SETS, SPACE, n_candidates=300, top_k=20)
    assert len({c.arch for c in found}) == 20
    scores = [c.accuracy for c in found]
    assert scores == sorted(scores, reverse=True)
    assert scores == [sum(op == "nor_conv_3x3" for op in c.arch.ops) for c in found]
    assert {c.std for c in found} == {0.5}


def test_seed_decides(generator):
    method = MetaD2A(generator=generator, predictor=Convolutions())
    runs = [method.search(SETS, SPACE, 30, 30, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_budget(generator):
    method = MetaD2A(generator=generator, predictor=Convolutions())
    found = method.search(SETS, SPACE, 100, 100, {"parameters": 3e5})
    assert len(found) == 100
    assert max(SPACE.num_parameters(c.arch) for c in found) <= 3e5
    with pytest.raises(InvalidArchitectureError, match="the least is"):
        method.search(SETS, SPACE, budget={"flops": 10})
    with pytest.raises(ValueError, match="no cost 'energy'"):
        method.search(SETS, SPACE, budget={"energy": 10})


def test_images_are_described_once(generator):
    calls = []

    def features(images):
        calls.append(images)
        return SETS

    predictor = Convolutions()
    MetaD2A(features=features, generator=generator, predictor=predictor).search("images", SPACE, 10, 3)
    assert calls == ["images"]
    assert predictor.dataset is SETS
    assert predictor.graphs is None


def test_measured_architectures_reach_the_predictor(generator):
    predictor = Convolutions()
    measured = [SPACE[3], SPACE[4]], [70.0, 71.0]
    MetaD2A(generator=generator, predictor=predictor).search(SETS, SPACE, 10, 3, measured=measured)
    assert predictor.graphs.num_graphs == 2
    assert predictor.y == [70.0, 71.0]


@pytest.mark.parametrize(("candidates", "top_k"), [(10, 0), (5, 6)])
def test_refuses_numbers(generator, candidates, top_k):
    with pytest.raises(ValueError, match="top_k"):
        MetaD2A(generator=generator).search(SETS, SPACE, candidates, top_k)


def test_refuses_a_generator_of_another_space():
    other = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8)
    with pytest.raises(InvalidArchitectureError, match="of mobilenetv3, not of nasbench201"):
        MetaD2A(generator=other).search(SETS, SPACE)


def test_other_spaces():
    class Cheap:
        def fit(self, *_):
            return self

        def predict(self, graphs, return_std):
            return -graphs.ptr.diff().float(), torch.ones(graphs.num_graphs)

    model = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8)
    space = MobileNetV3Space()
    found = MetaD2A(generator=model, predictor=Cheap()).search(SETS, space, 50, 5)
    layers = [sum(c.arch.depths) for c in found]
    assert layers == sorted(layers)


def test_spaces_by_name(generator):
    method = MetaD2A(generator=generator, predictor=Convolutions())
    assert method.search(SETS, "nasbench201", 30, 5) == method.search(SETS, SPACE, 30, 5)
    with pytest.raises(ValueError, match="no search space is called 'darts'"):
        method.search(SETS, "darts")


def test_the_least_cost_is_of_what_can_be_written():
    model = MetaD2AGenerator(MobileNetV3GraphCodec(), 16, hidden_channels=8)
    with pytest.raises(InvalidArchitectureError) as told:
        MetaD2A(generator=model).search(SETS, "mobilenetv3", budget={"flops": 1e8})
    # Smaller resolutions would cost less, but the generator writes one.
    assert float(str(told.value).split("'flops': ")[-1].rstrip("}")) > 1.2e8


def test_shipped_mobilenetv3():
    images = FeatureSets.from_datasets([[torch.randn(4, 1280), torch.randn(2, 1280)]])
    found = MetaD2A().search(images, "mobilenetv3", 100, 5, {"flops": 3e8})
    space = MobileNetV3Space()
    assert all(space.flops(c.arch) <= 3e8 for c in found)
    # The best of 500 random ones within this budget are predicted at about 76.4.
    assert found[0].accuracy > 76.5
    assert found[0].accuracy >= found[-1].accuracy
    worst = [c.arch for c in found[::-1]]
    turned = MetaD2A().search(images, "mobilenetv3", 100, 100, {"flops": 3e8}, measured=(worst, [90, 88, 86, 84, 82.0]))
    assert turned[0].accuracy > 80


def test_defaults_of_the_process_do_not_matter(other_defaults):
    width = shipped_generator(space_by_name("nasbench201")).in_channels
    sets = FeatureSets.from_datasets([list(torch.randn(3, 4, width, generator=torch.Generator().manual_seed(0)))])
    expected = MetaD2A().search(sets, "nasbench201", 20, 5)
    with other_defaults():
        found = MetaD2A().search(sets, "nasbench201", 20, 5)
    assert [c.arch for c in found] == [c.arch for c in expected]
    assert [c.accuracy for c in found] == pytest.approx([c.accuracy for c in expected], rel=1e-4)


class Prior(Convolutions):
    """The same, whose model says how much the prior trend counts."""

    class Model:
        prior = 1.0

    def model(self, space):
        return self.Model


def convolutions(arch):
    return sum(op == "nor_conv_3x3" for op in arch.ops)


def test_the_prior_trend_joins_the_ranking(generator):
    method = MetaD2A(generator=generator, predictor=Prior())
    found = method.search(SETS, SPACE, 300, 300)
    accuracies = [c.accuracy for c in found]
    assert accuracies != sorted(accuracies, reverse=True)
    descriptors = shared_descriptors(SPACE)
    trend = descriptors.prior_trend(descriptors.table([c.arch for c in found]))
    merit = rank_gauss(torch.tensor(accuracies).double()) + rank_gauss(trend.double())
    assert bool((merit.diff() <= 1e-9).all())
    alone = method.search(SETS, SPACE, 300, 300, prior=0.0)
    assert [c.accuracy for c in alone] == sorted(accuracies, reverse=True)
    # Labels take over.
    known = [SPACE[0]] * 100_000
    told = method.search(SETS, SPACE, 300, 300, measured=(known, torch.zeros(len(known))))
    assert [c.accuracy for c in told] == sorted(accuracies, reverse=True)


def test_scores_join_the_ranking(generator):
    method = MetaD2A(generator=generator, predictor=Convolutions())

    def few(archs):
        return [float("nan") if convolutions(arch) == 3 else -1e9 * convolutions(arch) for arch in archs]

    first = method.search(SETS, SPACE, 300, 300)
    scored = method.search(SETS, SPACE, 300, 300, scores={"few": few}, prior=100.0)
    assert {c.arch for c in first} == {c.arch for c in scored}
    assert sum(c.accuracy for c in scored[:30]) < sum(c.accuracy for c in first[:30])
    assert method.search(SETS, SPACE, 300, 300, scores={"few": few}) != first


@pytest.mark.parametrize("prior", [-1.0, float("nan"), float("inf")])
def test_refuses_weights_of_the_prior(generator, prior):
    with pytest.raises(ValueError, match="prior must be a number from 0 on"):
        MetaD2A(generator=generator, predictor=Convolutions()).search(SETS, SPACE, 30, 5, prior=prior)


def test_refuses_scores_that_are_not_one_number_an_architecture(generator):
    method = MetaD2A(generator=generator, predictor=Convolutions())
    with pytest.raises(ValueError, match=r"score 'swap' returned shape \[1\]; return one number for each of 30"):
        method.search(SETS, SPACE, 30, 5, scores={"swap": lambda archs: [1.0]})
