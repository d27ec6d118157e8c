"""Columns of tables of descriptors."""

from __future__ import annotations

import pickle

import pytest
import torch

from pyg_nas_np.features.tables import (
    CHECKED,
    KeptRows,
    informative,
    kept_on_disk,
    reference_sample,
    seeded_sample,
    space_sample,
)
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from tests.conftest import ToySpace


def lengths(words):
    CALLS.append(list(words))
    return torch.tensor([[float(len(word)), 1.0] for word in words]).reshape(-1, 2)


CALLS: list[list[str]] = []


def test_rows_are_computed_once():
    CALLS.clear()
    rows = KeptRows(lengths)
    assert rows(["a", "bb", "a"])[:, 0].tolist() == [1.0, 2.0, 1.0]
    assert rows(["bb", "ccc"])[:, 0].tolist() == [2.0, 3.0]
    assert rows([]).shape == (0, 2)
    assert CALLS == [["a", "bb"], ["ccc"], []]
    copy = pickle.loads(pickle.dumps(rows))
    assert copy(["bb"])[:, 0].tolist() == [2.0]
    assert CALLS[-1] == ["bb"]


def test_memory_is_bounded():
    CALLS.clear()
    rows = KeptRows(lengths, limit=2)
    for _ in range(2):
        assert rows(["a", "bb", "ccc"])[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert rows(["a"])[0, 0] == 1.0
    assert CALLS == [["a", "bb", "ccc"]] * 2 + [["a"]]


def test_the_reference_is_the_pool_the_space_or_a_sample():
    parameters = {"depth": Integer(1, 9)}
    pool = [{"depth": 3}, {"depth": 5}]
    assert reference_sample(ParameterSpace(parameters, pool=pool), 10) == pool
    assert len(reference_sample(ParameterSpace(parameters), 100)) == 100
    space = NASBench201Space()
    assert len(set(reference_sample(space, 50))) == 50
    assert reference_sample(space, 20_000)[7] == space[7]


@pytest.mark.parametrize("size", [1, 50])
def test_the_reference_is_the_same_each_time(size):
    space = NASBench201Space()
    assert reference_sample(space, size) == reference_sample(space, size)


def test_constant_and_repeated_columns_are_left_out():
    raw = torch.tensor([[1.0, 2.0, 2.0, 2.0], [1.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    found = informative([("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")], raw)
    assert found.names == ["b", "d"]
    assert found.groups == {"x": [0], "y": [1]}
    assert found.scale(raw, standardize=False).tolist() == [[2.0, 2.0], [5.0, 5.0]]


def test_bins_of_a_histogram_share_a_scale():
    raw = torch.tensor([[0.0, 0.0], [2.0, 200.0]], dtype=torch.float64)
    found = informative([("a", "x"), ("b", "x")], raw, {"x"})
    assert float(found.std[0]) == float(found.std[1])


def test_small_spaces_are_their_own_reference():
    assert len(reference_sample(ToySpace(), 1000)) == 128
    assert len(reference_sample(NASBench201Space(), 50)) == 50


def test_a_space_is_known_by_indices_where_it_has_some():
    indexed = space_sample(NASBench201Space(), 8)
    assert torch.equal(indexed, seeded_sample(NASBench201Space(), 8))
    flat = ParameterSpace(width=Integer(1, 100))
    assert list(space_sample(flat, 8)) == list(reference_sample(flat, 8))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Calls `kept_on_disk` on a table, and returns what was computed beside the result."""
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path))

    def get(table, name="t"):
        asked = []

        def compute(rows):
            asked.append("all" if rows is None else len(rows))
            return table.clone() if rows is None else table[rows]

        return kept_on_disk(name, len(table), compute), asked

    return get


def test_a_table_is_read_from_disk_if_some_rows_are_right(kept, tmp_path):
    table = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    for asked in (["all"], [CHECKED], [CHECKED]):
        assert kept(table)[1] == asked
    assert torch.equal(kept(table + 1e-6)[0], table)  # rounding is no difference
    found, asked = kept(table + 0.1)
    assert torch.equal(found, table + 0.1)
    assert asked == [CHECKED, "all"]
    assert kept(table[:900])[1] == ["all"]
    assert kept(table[:900, :1])[1] == [CHECKED, "all"]
    assert kept(table[:5, :1])[1] == ["all"]
    assert kept(table[:5, :1])[1] == [5]
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize("damage", [b"", b"no table", None])
def test_a_damaged_table_is_computed_again(kept, tmp_path, damage, caplog):
    table = torch.randn(300, generator=torch.Generator().manual_seed(0))
    kept(table)
    path = tmp_path / "t.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + bytes(4) if damage is None else damage)
    found, asked = kept(table)
    assert torch.equal(found, table)
    assert asked == ["all"]
    assert "damaged" in caplog.text
    assert kept(table)[1] == [CHECKED]


def test_a_folder_that_cannot_be_written_is_no_error(kept, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path / "file" / "cache"))
    table = torch.arange(4.0)
    found, asked = kept(table)
    assert torch.equal(found, table)
    assert asked == ["all"]
    assert "could not be kept" in caplog.text
