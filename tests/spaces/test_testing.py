"""The conformance suite passes on every space of the package, and fails on spaces with one fault each."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.spaces import (
    Configuration,
    MobileNetV3Space,
    NASBench101Space,
    NASBench201Space,
    NASBenchGraphSpace,
    ParameterSpace,
    Validity,
)
from pyg_nas_np.spaces.dense import from_batch
from pyg_nas_np.spaces.testing import SpaceTestCase
from pyg_nas_np.utils import InvalidArchitectureError
from tests.conftest import ToySpace


class TestNASBench201(SpaceTestCase):
    def make_space(self):
        return NASBench201Space()


class TestNASBench101(SpaceTestCase):
    # A removed edge takes along the vertices that it leaves without a path.
    symmetric = False

    def make_space(self):
        return NASBench101Space()


class TestNASBenchGraph(SpaceTestCase):
    def make_space(self):
        return NASBenchGraphSpace()


class TestMobileNetV3(SpaceTestCase):
    def make_space(self):
        return MobileNetV3Space()


class TestMobileNetV3OfOneResolution(SpaceTestCase):
    def make_space(self):
        return MobileNetV3Space((160,))


class TestToy(SpaceTestCase):
    def make_space(self):
        return ToySpace()


class NodesByPosition(ToySpace):
    """Reads the operations of nodes one and two, wherever the input and the output are."""

    def decode(self, data):
        graphs = from_batch(data.x, data.edge_index)
        for arch in self.enumerate():
            if torch.equal(self.dense([arch]).ops, graphs.ops):
                adjacency = self.dense([arch]).adjacency
                if torch.equal(adjacency, graphs.adjacency):
                    return arch
        return self[0]


class InnerNodesByPosition(ToySpace):
    """Right in the order of ``encode``; takes the first inner node of any other for the first of the cell."""

    def decode(self, data):
        found = super().decode(data)
        inner = [op for op in data.x.argmax(dim=1).tolist() if op > 1]
        return (*(self.op_names[op] for op in inner), found[2])


class EdgesByPosition(ToySpace):
    """Right unless edges are in another order."""

    def decode(self, data):
        found = super().decode(data)
        source, target = data.edge_index
        key = source * data.num_nodes + target
        return found if bool((key.diff() > 0).all()) else (*found[:2], found[2] ^ 1)


class AcceptsAnyGraph(ToySpace):
    def decode(self, data):
        try:
            return super().decode(data)
        except InvalidArchitectureError:
            return self[0]


class OffByOne(ToySpace):
    def index(self, arch):
        return (super().index(arch) + 1) % 128


class NegativeIndices(ToySpace):
    def __getitem__(self, index):
        return super().__getitem__(index % 128)


class OwnNeighbor(ToySpace):
    def neighbors(self, arch):
        return [arch, *super().neighbors(arch)]


class RepeatedNeighbors(ToySpace):
    def neighbors(self, arch):
        return 2 * super().neighbors(arch)


class OneWay(ToySpace):
    def neighbors(self, arch):
        return [self[(self.index(arch) + 1) % 128]]


class UnorderedNeighbors(ToySpace):
    calls = 0

    def neighbors(self, arch):
        self.calls += 1
        return super().neighbors(arch)[:: 1 - 2 * (self.calls % 2)]


class GlobalState(ToySpace):
    def mutate(self, arch, generator=None):
        return super().mutate(arch)


class UnseededSample(ToySpace):
    def sample(self, n, generator=None, *, replace=False):
        return super().sample(n, None, replace=replace)


class LossyStrings(ToySpace):
    def from_str(self, text):
        return (*super().from_str(text)[:2], 0)


class CanonicalByIndex(ToySpace):
    def batch_canonical(self, archs=None):
        return [str(self.index(arch)) for arch in self.resolve(archs)]


class AcceptsAnything(ToySpace):
    def is_valid(self, arch):
        return Validity(True)


class NoReason(ToySpace):
    def is_valid(self, arch):
        return Validity(super().is_valid(arch).ok)


class FloatCosts(ToySpace):
    def batch_flops(self, archs=None):
        return super().batch_flops(archs).double()


class CostsByIndex(ToySpace):
    def batch_flops(self, archs=None):
        return super().batch_flops(archs) + isinstance(archs, torch.Tensor)


class EdgeIntoPadding(ToySpace):
    def dense(self, archs=None):
        graphs = super().dense(archs)
        ops = torch.nn.functional.pad(graphs.ops, (0, 1), value=-1)
        adjacency = torch.nn.functional.pad(graphs.adjacency, (0, 1, 0, 1))
        adjacency[:, 0, 4] = True
        return graphs._replace(ops=ops, adjacency=adjacency)


class Cyclic(ToySpace):
    def dense(self, archs=None):
        graphs = super().dense(archs)
        graphs.adjacency[:, 3, 0] = True
        return graphs


class WrongCrossover(ToySpace):
    def crossover(self, first, second, generator=None):
        return (first[0], "fly", second[2])


class Unpicklable(ToySpace):
    def __init__(self):
        self.rule = lambda arch: arch


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (NodesByPosition, "graphs_lead_back_whatever_the_order_of_nodes_and_edges"),
        (InnerNodesByPosition, "graphs_lead_back_whatever_the_order_of_nodes_and_edges"),
        (EdgesByPosition, "graphs_lead_back_whatever_the_order_of_nodes_and_edges"),
        (AcceptsAnyGraph, "other_graphs_are_refused"),
        (OffByOne, "indices_lead_back"),
        (NegativeIndices, "indices_outside_are_refused"),
        (OwnNeighbor, "neighbors"),
        (RepeatedNeighbors, "neighbors"),
        (UnorderedNeighbors, "neighbors"),
        (OneWay, "neighbors_are_symmetric"),
        (GlobalState, "mutations_are_seeded_neighbors"),
        (UnseededSample, "samples_follow_the_generator"),
        (LossyStrings, "strings_lead_back"),
        (CanonicalByIndex, "batches_agree_with_single_architectures"),
        (AcceptsAnything, "members_are_valid_and_others_are_told_why_not"),
        (NoReason, "members_are_valid_and_others_are_told_why_not"),
        (FloatCosts, "costs_are_positive_integers"),
        (CostsByIndex, "batches_by_index_agree_with_those_by_architecture"),
        (EdgeIntoPadding, "graphs"),
        (Cyclic, "graphs"),
        (WrongCrossover, "crossover_is_seeded_and_valid"),
    ],
)
def test_faults_are_found(broken, check):
    space, case = broken(), SpaceTestCase()
    # Those of the sound space, so that no fault hides behind another.
    archs = ToySpace().sample(12, torch.Generator().manual_seed(0))
    arguments = [space] if check == "indices_outside_are_refused" else [space, archs]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(case, f"test_{check}")(*arguments)


def test_spaces_that_cannot_be_pickled_are_found():
    space = Unpicklable()
    with pytest.raises((AttributeError, TypeError, ValueError), match="pickle"):
        SpaceTestCase().test_the_space_can_be_pickled(space, [space[0]])


def test_what_a_space_lacks_is_skipped():
    huge, toy = MobileNetV3Space(), ToySpace()
    with pytest.raises(pytest.skip.Exception, match="too large to be enumerated"):
        SpaceTestCase().test_size(huge)
    with pytest.raises(pytest.skip.Exception, match="do not fit into 64 bits"):
        SpaceTestCase().test_sampled_indices_are_those_of_the_sample(huge, [huge[huge.size - 1]])
    with pytest.raises(pytest.skip.Exception, match="no crossover"):
        SpaceTestCase().test_crossover_is_seeded_and_valid(toy, [toy[0], toy[1]])


def test_a_case_without_a_space_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"SpaceTestCase must implement make_space\(\)"):
        SpaceTestCase().make_space()


class Renamed(ParameterSpace):
    """Gives records under other names."""

    def records(self, archs):
        return [{f"{name}_": value for name, value in record.items()} for record in super().records(archs)]


class Foreign(ParameterSpace):
    """Is standardised by configurations of another space."""

    def reference(self, n, generator=None):
        return [Configuration({"b": 1})] * n


@pytest.mark.parametrize(
    ("broken", "check", "arguments"),
    [(Renamed, "records_lead_back", 2), (Foreign, "references_are_members", 1)],
)
def test_faults_of_records_are_found(broken, check, arguments):
    space = broken(a=[1, 2, 3])
    given = [space, space.sample(2, torch.Generator().manual_seed(0))][:arguments]
    with pytest.raises((AssertionError, InvalidArchitectureError)):
        getattr(SpaceTestCase(), f"test_{check}")(*given)
