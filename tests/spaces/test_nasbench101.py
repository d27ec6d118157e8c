from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_nas_np.spaces import nasbench101 as module
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
from pyg_nas_np.utils import InvalidArchitectureError, VerificationError

GOLDEN = [
    (0, "00005c142e6f48ac74fdcf73e3439874", "100110100001001010101", "3p331", 8_555_530),
    (1, "0000718c96730a92ea6d5242f8ce77e2", "100000100001000111101", "11313", 5_878_154),
    (6992, "043721b9c7fe8c5fad811d47d83132ec", "1", "", 882_570),
    (16569, "09fc2d10bdd6225e167a6f81a22a3f06", "111", "1", 2_793_866),
    (138614, "53cee42601ad14d661bb6878031d6acb", "101", "p", 882_570),
    (184119, "6f6257bc3b12d87b8736e81cd4b7ed8b", "111", "p", 1_756_298),
    (298419, "b49ac8c578b4561d79ac7087988f1c61", "101", "3", 10_177_674),
    (346019, "d1269d9156ddc027c40473008192958a", "101", "1", 1_920_138),
    (349290, "d32d0b26d534203b48d866facd98cc3e", "111", "3", 11_051_402),
    (211812, "804b6e245096a36d54a544c8cd3b1ab9", "100000101001001110101", "p3p3p", 5_095_946),
    (423623, "ffff76fafa7b0cdf545fd7feee9c8bf9", "100000110000011100111", "1p33p", 2_490_930),
]
README_CELL = NASBench101Arch("111010000010001100011", "1333p")
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"

space = NASBench101Space()
indices = st.integers(0, len(space) - 1)


@pytest.mark.parametrize(("index", "digest", "edges", "labels", "parameters"), GOLDEN)
def test_golden_cells(index: int, digest: str, edges: str, labels: str, parameters: int) -> None:
    arch = NASBench101Arch(edges, labels)
    assert space[index] == arch
    assert space.index(arch) == index
    assert space.canonical(arch) == digest
    assert space.batch_canonical(torch.tensor([index])) == [digest]
    assert space.num_parameters(arch) == parameters


def test_readme_cell_is_found_through_its_canonical_form() -> None:
    assert space.canonical(README_CELL) == "28cfc7874f6d200472e1a9dcd8650aa0"
    assert space[space.index(README_CELL)] == NASBench101Arch("111100000010001001101", "31p33")
    assert space.num_parameters(README_CELL) == space.num_parameters(space[space.index(README_CELL)]) == 2_694_282


def test_space_statistics() -> None:
    graphs = space.dense()
    edges = graphs.adjacency.sum((1, 2))
    assert torch.bincount(graphs.num_nodes).tolist() == [0, 0, 1, 6, 84, 2441, 62010, 359082]
    assert torch.bincount(edges).tolist() == [0, 1, 3, 12, 60, 339, 2134, 13984, 78822, 328269]
    parameters = space.batch_num_parameters()
    assert parameters.double().mean().item() == pytest.approx(8_459_761.888, abs=1e-3)
    assert parameters.median() == 5_356_682
    assert parameters.unique().numel() == 3_336
    assert (int(parameters.min()), int((parameters == 227_274).sum())) == (227_274, 32)
    assert (int(parameters.max()), int((parameters == 49_979_274).sum())) == (49_979_274, 42)
    hashes = space.batch_canonical()
    assert hashes == sorted(set(hashes))


def test_parameters_of_the_measured_networks(shared_data: Path) -> None:
    import csv
    import gzip

    with gzip.open(shared_data / "nasbench101" / "nb101_20001.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    archs = [NASBench101Arch(row["adj_upper_rowmajor"], row["interior_ops"]) for row in rows]
    assert archs == space.resolve(torch.arange(len(rows)))
    assert space.batch_num_parameters(archs).tolist() == [int(row["trainable_parameters"]) for row in rows]
    assert space.index_hashes([row["module_hash"] for row in rows]).tolist() == list(range(len(rows)))


def test_flops_of_the_smallest_cells_by_hand() -> None:
    stem, classifier = 27 * 128 * 32**2, 5120
    projections = 3 * 128 * 128 * 32**2 + (128 + 2 * 256) * 256 * 16**2 + (256 + 2 * 512) * 512 * 8**2
    assert space.flops(space.from_str("2:1:")) == stem + classifier + projections
    # input -> conv3x3 -> output: a projection and nine taps at full width
    taps = 9 * 3 * (128**2 * 32**2 + 256**2 * 16**2 + 512**2 * 8**2)
    assert space.flops(space.from_str("3:101:3")) == stem + classifier + projections + taps


@given(st.lists(indices, min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_forms_of_many_architectures_agree(chosen: list[int]) -> None:
    index = torch.tensor(chosen)
    archs = [space[i] for i in chosen]
    for left, right in zip(space.dense(index), space.dense(archs), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(space.batch_num_parameters(index), space.batch_num_parameters(archs))
    assert torch.equal(space.batch_flops(index), space.batch_flops(archs))
    assert space.batch_canonical(index) == space.batch_canonical(archs) == [space.canonical(a) for a in archs]


@given(indices, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_relabelled_cells_are_the_same_cell(index: int, random: object) -> None:
    arch = space[index]
    assert space.from_str(space.to_str(arch)) == arch
    data = space.encode(arch)
    assert space.decode(data) == arch
    order = list(range(arch.num_vertices))
    random.shuffle(order)  # type: ignore[attr-defined]
    place = torch.tensor(order).argsort()
    shuffled = Data(x=data.x[order], edge_index=place[data.edge_index])
    assert space.index(space.decode(shuffled)) == index


def test_decode_keeps_a_cell_in_topological_order_as_it_stands() -> None:
    assert space.decode(space.encode(README_CELL)) == README_CELL


def test_decode_refuses_what_is_no_cell() -> None:
    data = space.encode(space.from_str("4:101101:3p"))
    loop = Data(x=data.x, edge_index=torch.cat([data.edge_index, torch.tensor([[2], [1]])], dim=1))
    with pytest.raises(InvalidArchitectureError, match="cycle"):
        space.decode(loop)
    with pytest.raises(InvalidArchitectureError, match="one input and one output"):
        space.decode(Data(x=data.x[1:], edge_index=torch.tensor([[0], [1]])))
    with pytest.raises(InvalidArchitectureError, match="no predecessor and the output no successor"):
        space.decode(Data(x=data.x, edge_index=data.edge_index.flip(0)))
    with pytest.raises(InvalidArchitectureError, match="6 columns"):
        space.decode(Data(x=torch.nn.functional.pad(data.x, (0, 1)), edge_index=data.edge_index))


def test_user_cells_are_pruned_before_the_limits_hold() -> None:
    # Nine vertices, of which 2 leads nowhere and 3 to 7 come from nowhere.
    matrix = np.zeros((9, 9), dtype=int)
    matrix[0, 1] = matrix[0, 2] = matrix[1, 8] = 1
    matrix[3, 4:9] = matrix[4, 5:9] = 1
    ops = ["input", CONV3, *[POOL] * 6, "output"]
    assert str(NASBench101Arch.from_matrix(matrix, ops)) == "3:101:3"
    assert str(NASBench101Arch.from_matrix(torch.from_numpy(matrix), ops)) == "3:101:3"
    with pytest.raises(InvalidArchitectureError, match="vertex 2 is not on a path"):
        NASBench101Arch.from_matrix(matrix, ops, prune=False)


def chain(size: int) -> list[list[int]]:
    return [[int(j == i + 1) for j in range(size)] for i in range(size)]


@pytest.mark.parametrize(
    ("matrix", "ops", "reason"),
    [
        (chain(8), ["input", *[CONV3] * 6, "output"], "8 vertices, at most 7"),
        (np.triu(np.ones((5, 5), int), 1), ["input", *[CONV3] * 3, "output"], "10 edges, at most 9"),
        (chain(3), ["input", "conv5x5", "output"], "unknown operation 'conv5x5'"),
        ([[0, 0], [0, 0]], ["input", "output"], "no path from input to output"),
        (chain(3), ["input", "output"], "3 vertices need as many labels, got 2"),
        (chain(3), ["input", "input", "output"], "first label must be 'input'"),
        ([[0, 1], [0]], ["input", "output"], "rows of different lengths"),
        ([[0, 2], [0, 0]], ["input", "output"], "only 0 and 1"),
        ([[0, float("nan")], [0, 0]], ["input", "output"], "only 0 and 1"),
        ([[0, 1, 0]], ["input", "output"], r"\[V, V\]"),
        ([[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], ["input", CONV3, POOL, "output"], "cycle"),
        (
            [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]],
            ["input", CONV3, POOL, "output"],
            "topological order",
        ),
    ],
)
def test_cells_outside_the_domain_are_refused_with_the_reason(matrix: object, ops: list[str], reason: str) -> None:
    with pytest.raises(InvalidArchitectureError, match=reason):
        NASBench101Arch.from_matrix(matrix, ops)
    validity = space.is_valid((matrix, ops))
    assert not validity
    assert reason.split("'")[0].split("\\")[0] in validity.reason


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        (NASBench101Arch("100011", "33"), "vertex 2 has no predecessor"),
        (NASBench101Arch("110001", "33"), "vertex 1 has no successor"),
        (NASBench101Arch("1000", "33"), "need 6 characters"),
        (NASBench101Arch("101", "x"), "unknown operation letter 'x'"),
        ("101", "got str"),
    ],
)
def test_invalid_values_have_a_reason(arch: object, reason: str) -> None:
    assert reason in space.is_valid(arch).reason
    assert arch not in space
    with pytest.raises(InvalidArchitectureError, match=reason):
        space.batch_num_parameters([arch])


@pytest.mark.parametrize("text", ["", "3:101", "3:101:x", "4:101:3", "3:201:3", "3:001:3"])
def test_malformed_strings_are_refused(text: str) -> None:
    with pytest.raises(InvalidArchitectureError):
        space.from_str(text)


def test_indices_outside_are_refused() -> None:
    for index in (-1, len(space)):
        with pytest.raises(IndexError, match=str(index)):
            space[index]
    with pytest.raises(InvalidArchitectureError, match="f" * 32):
        space.index_hashes(["f" * 32])
    with pytest.raises(InvalidArchitectureError, match="'nonsense' is not an MD5"):
        space.index_hashes(["nonsense"])


@given(indices)
@settings(max_examples=10, deadline=None)
def test_neighbors_are_distinct_canonical_cells_one_edit_away(index: int) -> None:
    found = space.neighbors(space[index])
    positions = [space.index(arch) for arch in found]
    assert [space[i] for i in positions] == found
    assert len(set(positions)) == len(found) > 0
    assert index not in positions
    assert found == space.neighbors(space[index])


@given(indices)
@settings(max_examples=10, deadline=None)
def test_neighbors_are_the_edits_of_the_original_api(index: int) -> None:
    arch = space[index]
    matrix, labels = arch.matrix, list(arch.ops)
    edits = [
        (matrix, [*labels[:v], op, *labels[v + 1 :]])
        for v in range(1, len(labels) - 1)
        for op in space.op_names[2:]
        if op != labels[v]
    ]
    pairs = list(zip(*np.triu_indices(len(labels), 1), strict=True))
    for i, j in pairs:
        flipped = matrix.copy()
        flipped[i, j] ^= 1
        edits.append((flipped, labels))
    for i, j in pairs:
        grown = np.insert(np.insert(matrix, j, 0, axis=0), j, 0, axis=1)
        grown[i, j] = grown[j, j + 1] = 1
        edits += [(grown, [*labels[:j], op, *labels[j:]]) for op in space.op_names[2:]]
    expected = {}
    for edited, ops in edits:
        # The limits of the space are those of the constructor.
        with suppress(InvalidArchitectureError):
            expected[space.index(NASBench101Arch.from_matrix(edited, ops))] = None
    expected.pop(index, None)
    assert [space.index(arch) for arch in space.neighbors(arch)] == list(expected)


def test_indices_of_many_cells_are_those_of_their_hashes() -> None:
    # Isomorphic forms have one index.
    archs = [space.from_str(text) for text in ("2:1:", "4:110011:13", "4:110011:31", "5:1100110011:3p1")]
    archs += [space[i] for i in range(0, len(space), 50_000)]
    assert space.indices(archs) == [space.index(arch) for arch in archs]
    assert space.indices([]) == []
    with pytest.raises(InvalidArchitectureError, match="edges"):
        space.indices([NASBench101Arch("1", "3")])


def test_edits_reach_every_small_cell() -> None:
    small = set(map(space.__getitem__, torch.where(space.dense().num_nodes <= 4)[0].tolist()))
    frontier = {space.from_str("2:1:")}
    reached = set(frontier)
    while frontier:
        step = {n for arch in frontier for n in space.neighbors(arch) if n.num_vertices <= 4}
        frontier = step - reached
        reached |= frontier
    assert reached == small
    assert len(small) == 91


def test_mutation_is_a_seeded_neighbor() -> None:
    draw = [space.mutate(README_CELL, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draw[0] == draw[1]
    assert draw[0] in space.neighbors(README_CELL)


def test_damaged_cache_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = module._load_table()
    calls = []

    def enumerate_again() -> module._Table:
        calls.append(1)
        return module._Table(
            module.Digests(*(half.copy() for half in table.digests)), table.adjacency.copy(), table.ops.copy()
        )

    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "enumerate_cells", enumerate_again)
    load = module._load_table.__wrapped__
    load()
    load()
    assert len(calls) == 1
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:1000]), b""):
        path.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            again = load()
        assert "damaged" in caplog.text
        assert np.array_equal(again.ops, table.ops)
        caplog.clear()
    assert len(calls) == 4
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_wrong_enumeration_is_never_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = module._load_table()
    wrong = module._Table(table.digests, table.adjacency, table.ops.copy())
    wrong.ops[5, 1] = 4 if wrong.ops[5, 1] != 4 else 3
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "enumerate_cells", lambda: wrong)
    with pytest.raises(VerificationError, match="not the published ones"):
        module._load_table.__wrapped__()
    assert not list(tmp_path.iterdir())
