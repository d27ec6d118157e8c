r"""The test suite of a search space, as a class to subclass.

A subclass makes its space and inherits all checks: indices, strings, values, neighbors, crossover, sampling, graphs in
any order of their nodes, batches against single architectures, costs. Checks of capabilities that a space lacks (a
crossover, indices of 64 bits) are skipped. pytest collects only the subclasses.

Example:
    >>> from pyg_nas_np.spaces import NASBench201Space
    >>> class TestNASBench201(SpaceTestCase):
    ...     def make_space(self):
    ...         return NASBench201Space()
"""

from __future__ import annotations

import itertools
import pickle
from typing import Any, ClassVar

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import CellSpace, Costs, EnumerableSpace, GraphView, SearchSpace
from pyg_nas_np.spaces.operations import OperationView
from pyg_nas_np.spaces.parameters import RecordView, Repeat
from pyg_nas_np.spaces.views import to_networkx
from pyg_nas_np.utils import InvalidArchitectureError, SpaceTooLargeError

Space = CellSpace[Any]
"""The richest kind; what a space has less, its checks ask for first (:func:`need`)."""


def need(space: SearchSpace[Any], capability: type) -> None:
    r"""Skips a check of what the space cannot do."""
    if not isinstance(space, capability):
        pytest.skip(f"{space.name} is no {capability.__name__}")


def identity(space: SearchSpace[Any], arch: Any) -> Any:
    r"""Returns what tells architectures apart: the official index where there is one, which isomorphic ones share."""
    return space.index(arch) if isinstance(space, EnumerableSpace) else arch


def seeded(seed: int = 0) -> torch.Generator:
    r"""Returns a generator with a seed."""
    return torch.Generator(device="cpu").manual_seed(seed)


def renumbered(data: Data, generator: torch.Generator) -> Data:
    r"""Returns the same graph with nodes and edges in a random order."""
    order = torch.randperm(data.num_nodes, generator=generator, device="cpu")
    edges = torch.randperm(data.num_edges, generator=generator, device="cpu")
    position = order.argsort()
    return Data(x=data.x[order], edge_index=position[data.edge_index][:, edges])


class SpaceFixtures:
    r"""The space that a subclass makes, and a seeded sample of its architectures."""

    num_archs: ClassVar[int] = 12

    def make_space(self) -> Space:
        r"""Returns the space to check."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_space()")

    @pytest.fixture
    def space(self) -> Space:
        r"""The space."""
        return self.make_space()

    @pytest.fixture
    def archs(self, space: Space) -> list[Any]:
        r"""A sample of architectures."""
        return space.sample(self.num_archs, seeded())

    def indices(self, space: Space, archs: list[Any]) -> Tensor:
        r"""Returns official indices as a tensor, or skips the test if they do not fit into one."""
        index = [space.index(arch) for arch in archs]
        if max(index) > torch.iinfo(torch.long).max:
            pytest.skip(f"indices of {space.name} do not fit into 64 bits")
        return torch.tensor(index, dtype=torch.long, device="cpu")


class SpaceTestCase(SpaceFixtures):
    r"""Checks a :class:`~pyg_nas_np.spaces.CellSpace`."""

    num_orders: ClassVar[int] = 10
    # Whether an architecture is a neighbor of each of its neighbors.
    symmetric: ClassVar[bool] = True

    # -- the set ----------------------------------------------------------------------------------------------------

    def test_names_of_operations(self, space: Space) -> None:
        need(space, GraphView)
        names = space.op_names
        assert names[:2] == ("input", "output")
        assert len(set(names)) == len(names)
        for roles in (space.zero_ops, space.identity_ops, space.averaging_ops):
            assert set(roles) <= set(names[2:])

    def test_size(self, space: Space) -> None:
        need(space, EnumerableSpace)
        assert space.size > 0
        assert bool(space)
        try:
            assert len(space) == space.size
        except SpaceTooLargeError:
            pytest.skip(f"{space.name} is too large to be enumerated")

    def test_indices_lead_back(self, space: Space, archs: list[Any]) -> None:
        need(space, EnumerableSpace)
        for index in [0, space.size - 1, *(space.index(arch) for arch in archs)]:
            assert isinstance(index, int)
            assert space.index(space[index]) == index
        for arch in archs:
            found = space[space.index(arch)]
            assert space.canonical(found) == space.canonical(arch) if isinstance(space, GraphView) else found == arch

    def test_indices_outside_are_refused(self, space: Space) -> None:
        need(space, EnumerableSpace)
        for index in (-1, space.size):
            with pytest.raises(IndexError):
                space[index]

    def test_enumeration_follows_the_index(self, space: Space) -> None:
        need(space, EnumerableSpace)
        for index, arch in zip(range(5), space.enumerate(), strict=False):
            assert arch == space[index]

    # -- values -----------------------------------------------------------------------------------------------------

    def test_architectures_are_values(self, space: Space, archs: list[Any]) -> None:
        for arch in archs:
            copies = [pickle.loads(pickle.dumps(arch))]
            if isinstance(space, EnumerableSpace):
                copies.append(space[space.index(arch)])
            for same in copies:
                assert same == arch
                assert hash(same) == hash(arch)
        assert len(set(archs)) == len({identity(space, arch) for arch in archs}) == len(archs)

    def test_the_space_can_be_pickled(self, space: Space, archs: list[Any]) -> None:
        again = pickle.loads(pickle.dumps(space))
        assert [again.to_str(arch) for arch in archs] == [space.to_str(arch) for arch in archs]
        if isinstance(space, EnumerableSpace):
            assert again.size == space.size
            assert [again.index(arch) for arch in archs] == [space.index(arch) for arch in archs]
        if isinstance(space, Costs):
            costs = space.costs(archs)
            assert {name: column.tolist() for name, column in again.costs(archs).items()} == {
                name: column.tolist() for name, column in costs.items()
            }

    def test_members_are_valid_and_others_are_told_why_not(self, space: Space, archs: list[Any]) -> None:
        for arch in archs:
            assert space.is_valid(arch)
            assert arch in space
            assert space.check(arch) is arch
        for other in (None, object(), "", ()):
            validity = space.is_valid(other)
            assert not validity
            assert validity.reason
            assert other not in space
            with pytest.raises(InvalidArchitectureError):
                space.check(other)

    def test_strings_lead_back(self, space: Space, archs: list[Any]) -> None:
        texts = [space.to_str(arch) for arch in archs]
        assert [space.from_str(text) for text in texts] == archs
        assert len(set(texts)) == len(archs)
        for text in ("", "no architecture", texts[0] + "?"):
            with pytest.raises(InvalidArchitectureError):
                space.from_str(text)

    # -- sampling and editing ---------------------------------------------------------------------------------------

    def test_samples_follow_the_generator(self, space: Space, archs: list[Any]) -> None:
        state = torch.get_rng_state()
        assert space.sample(self.num_archs, seeded()) == archs
        assert space.sample(self.num_archs, seeded(1)) != archs
        assert len(space.sample(self.num_archs, seeded(), replace=True)) == self.num_archs
        assert space.sample(0, seeded()) == []
        assert torch.equal(torch.get_rng_state(), state)
        with pytest.raises(ValueError, match="-1"):
            space.sample(-1)
        if isinstance(space, EnumerableSpace):
            with pytest.raises(ValueError, match=str(space.size + 1)):
                space.sample(space.size + 1, seeded())

    def test_sampled_indices_are_those_of_the_sample(self, space: Space, archs: list[Any]) -> None:
        need(space, EnumerableSpace)
        index = self.indices(space, archs)
        assert torch.equal(space.sample_indices(self.num_archs, seeded()), index)

    def test_neighbors(self, space: Space, archs: list[Any]) -> None:
        for arch in archs[:4]:
            found = space.neighbors(arch)
            assert found
            assert found == space.neighbors(arch)
            index = [identity(space, neighbor) for neighbor in found]
            assert len(set(index)) == len(index)
            assert identity(space, arch) not in index
            assert all(space.is_valid(neighbor) for neighbor in found)

    def test_neighbors_are_symmetric(self, space: Space, archs: list[Any]) -> None:
        if not self.symmetric:
            pytest.skip(f"edits of {space.name} cannot always be undone by one edit")
        for arch in archs[:4]:
            found = space.neighbors(arch)
            for neighbor in found[:: max(1, len(found) // 8)]:
                assert identity(space, arch) in {identity(space, back) for back in space.neighbors(neighbor)}

    def test_mutations_are_seeded_neighbors(self, space: Space, archs: list[Any]) -> None:
        state = torch.get_rng_state()
        for arch in archs[:4]:
            mutants = [space.mutate(arch, seeded(seed)) for seed in range(6)]
            assert mutants == [space.mutate(arch, seeded(seed)) for seed in range(6)]
            assert all(space.is_valid(mutant) for mutant in mutants)
            assert arch not in mutants
            # Where there are too many changes to list, neighbors are a part of them.
            if isinstance(space, EnumerableSpace):
                assert set(mutants) <= set(space.neighbors(arch))
        assert torch.equal(torch.get_rng_state(), state)

    def test_crossover_is_seeded_and_valid(self, space: Space, archs: list[Any]) -> None:
        try:
            space.crossover(archs[0], archs[1], seeded())
        except NotImplementedError:
            pytest.skip(f"{space.name} has no crossover")
        state = torch.get_rng_state()
        for seed, (first, second) in enumerate(itertools.pairwise(archs)):
            child = space.crossover(first, second, seeded(seed))
            assert child == space.crossover(first, second, seeded(seed))
            assert space.is_valid(child)
            assert identity(space, space.crossover(first, first, seeded(seed))) == identity(space, first)
        assert torch.equal(torch.get_rng_state(), state)

    # -- records ------------------------------------------------------------------------------------------------------

    def test_records_lead_back(self, space: Space, archs: list[Any]) -> None:
        need(space, RecordView)
        view: RecordView[Any] = space  # type: ignore[assignment]
        records = view.records(archs)
        assert [space.check(record) for record in records] == archs
        for record in records:
            assert [name for name in view.parameters if name in record] == list(record)
            for name, value in record.items():
                if isinstance(view.parameters[name], Repeat):
                    assert isinstance(value, list)
                    assert all(isinstance(layer, dict) for layer in value)
                else:
                    assert value is None or type(value) in (str, bool, int, float)
        assert view.records([]) == []

    def test_references_are_members(self, space: Space) -> None:
        need(space, RecordView)
        view: RecordView[Any] = space  # type: ignore[assignment]
        references = view.reference(self.num_archs, seeded())
        assert 0 < len(references) <= self.num_archs
        assert references == view.reference(self.num_archs, seeded())
        assert all(space.is_valid(arch) for arch in references)

    # -- graphs -----------------------------------------------------------------------------------------------------

    def test_graphs(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        graphs = space.dense(archs)
        width = graphs.ops.size(1)
        assert graphs.adjacency.shape == (len(archs), width, width)
        assert graphs.adjacency.dtype == torch.bool
        assert torch.equal(graphs.node_mask.sum(dim=1), graphs.num_nodes)
        assert torch.equal(graphs.node_mask, torch.arange(width, device="cpu") < graphs.num_nodes.unsqueeze(1))
        assert not bool((graphs.adjacency & ~graphs.node_mask.unsqueeze(1)).any())
        assert not bool((graphs.adjacency & ~graphs.node_mask.unsqueeze(2)).any())
        for op in (0, 1):
            assert bool(((graphs.ops == op).sum(dim=1) == 1).all())
        # In an acyclic graph, the longest walk has fewer edges than there are nodes.
        walks = graphs.adjacency.double()
        for _ in range(width):
            walks = (walks @ graphs.adjacency.double()).clamp_max(1.0)
        assert not bool(walks.any())

    def test_graphs_lead_back_whatever_the_order_of_nodes_and_edges(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        generator = seeded()
        for arch in archs:
            data = space.encode(arch)
            assert data.x.shape == (data.num_nodes, len(space.op_names))
            assert space.decode(data) == arch
            found = [space.decode(renumbered(data, generator)) for _ in range(self.num_orders)]
            graph = to_networkx(space, arch)
            for other in set(found):
                assert nx.is_isomorphic(to_networkx(space, other), graph, lambda a, b: a["op"] == b["op"])
            assert set(space.batch_canonical(found)) == {space.canonical(arch)}
            assert set(space.batch_num_parameters(found).tolist()) == {space.num_parameters(arch)}
            assert set(space.batch_flops(found).tolist()) == {space.flops(arch)}

    def test_other_graphs_are_refused(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        data = space.encode(archs[0])
        inputs = torch.zeros_like(data.x)
        inputs[:, 0] = 1.0
        wrong = [
            Data(x=inputs, edge_index=data.edge_index),
            Data(x=data.x, edge_index=data.edge_index.flip(0)),
            Data(x=data.x, edge_index=data.edge_index[:, :0]),
            Data(x=2.0 * data.x, edge_index=data.edge_index),
        ]
        for graph in wrong:
            with pytest.raises(InvalidArchitectureError):
                space.decode(graph)

    # -- many at once -----------------------------------------------------------------------------------------------

    def test_batches_agree_with_single_architectures(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        assert space.batch_canonical(archs) == [space.canonical(arch) for arch in archs]
        assert space.batch_num_parameters(archs).tolist() == [space.num_parameters(arch) for arch in archs]
        assert space.batch_flops(archs).tolist() == [space.flops(arch) for arch in archs]
        for graph, arch in zip(space.batch_encode(archs).to_data_list(), archs, strict=True):
            alone = space.encode(arch)
            assert torch.equal(graph.x, alone.x)
            assert torch.equal(graph.edge_index, alone.edge_index)

    def test_batches_by_index_agree_with_those_by_architecture(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        index = self.indices(space, archs)
        assert list(space.resolve(index)) == archs
        assert space.batch_canonical(index) == space.batch_canonical(archs)
        assert torch.equal(space.batch_num_parameters(index), space.batch_num_parameters(archs))
        assert torch.equal(space.batch_flops(index), space.batch_flops(archs))
        assert torch.equal(space.batch_encode(index).arch_index, index)
        for one, other in zip(space.dense(index), space.dense(archs), strict=True):
            assert torch.equal(one, other)

    def test_empty_batches(self, space: Space) -> None:
        need(space, CellSpace)
        none = torch.empty(0, dtype=torch.long, device="cpu")
        nothings: list[Any] = [none, []]
        for nothing in nothings:
            assert list(space.resolve(nothing)) == []
            assert space.batch_canonical(nothing) == []
            assert space.batch_encode(nothing).num_graphs == 0
            assert space.batch_num_parameters(nothing).shape == space.batch_flops(nothing).shape == (0,)

    def test_costs_are_positive_integers(self, space: Space, archs: list[Any]) -> None:
        need(space, CellSpace)
        for costs in (space.batch_num_parameters(archs), space.batch_flops(archs)):
            assert costs.dtype == torch.long
            assert costs.shape == (len(archs),)
            assert int(costs.min()) > 0

    # -- graphs of operations -----------------------------------------------------------------------------------------

    def test_operation_graphs(self, space: Space, archs: list[Any]) -> None:
        need(space, OperationView)
        view: OperationView[Any] = space  # type: ignore[assignment]
        graphs = view.operation_graphs(archs)
        size, names = graphs.op.numel(), graphs.attribute_names
        assert graphs.num_graphs == len(archs)
        assert graphs.operations[: len(view.operations)] == view.operations
        assert names[: len(view.attribute_names)] == view.attribute_names
        assert graphs.attributes.shape == (size, len(names))
        assert int(graphs.ptr[-1]) == size
        assert int(graphs.ptr.diff().min()) > 0
        owner = graphs.batch
        source, target = graphs.edge_index
        assert bool((source < target).all())
        assert bool(((target * size + source).diff() >= 0).all())
        for edges in (graphs.edge_index, graphs.recurrent_index):
            assert torch.equal(owner[edges[0]], owner[edges[1]])
            assert bool((edges[1].diff() >= 0).all())
        for row, arch in enumerate(archs):
            alone, chosen = view.operation_graphs([arch]), graphs.select(torch.tensor([row], device="cpu"))
            for one, other in ((alone.op, chosen.op), (alone.edge_index, chosen.edge_index)):
                assert torch.equal(one, other)
