from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.spaces import _nasbench101_enumeration as enumeration
from pyg_nas_np.spaces._nasbench101_enumeration import Digests, batch_hash, cell_hash, full_dags, labellings, signatures


@pytest.mark.parametrize(("size", "count"), [(2, 1), (3, 2), (4, 10), (5, 121), (6, 1545), (7, 4793)])
def test_full_dags_match_the_published_counts(size: int, count: int) -> None:
    matrices = full_dags(size)
    assert len(matrices) == count
    assert matrices.sum((1, 2)).max() <= 9
    assert matrices[:, :-1].any(2).all()
    assert matrices[:, :, 1:].any(1).all()
    assert not np.tril(matrices).any()


def test_official_order_counts_through_the_bits() -> None:
    # bits 0-1, 0-2, 1-2 in this order: the chain is 0b101, the chain with a shortcut 0b111
    assert full_dags(3).astype(int).tolist() == [
        [[0, 1, 0], [0, 0, 1], [0, 0, 0]],
        [[0, 1, 1], [0, 0, 1], [0, 0, 0]],
    ]
    assert labellings(3).tolist() == [[0, 2, 1], [0, 3, 1], [0, 4, 1]]


@pytest.mark.parametrize(("size", "unique"), [(2, 1), (3, 6), (4, 84), (5, 2441), (6, 62010)])
def test_signatures_tell_the_published_number_of_cells_apart(size: int, unique: int) -> None:
    assert len(np.unique(signatures(full_dags(size), labellings(size)))) == unique


def test_signatures_agree_with_the_official_hash() -> None:
    matrices, labels = full_dags(4), labellings(4)
    short = signatures(matrices, labels).tolist()
    official = [cell_hash(matrix, ops) for matrix in matrices for ops in labels]
    pairs = set(zip(short, official, strict=True))
    assert len(pairs) == len(set(short)) == len(set(official)) == 84


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
def test_lockstep_equals_hashlib(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(size)
    matrices, labels = full_dags(size), labellings(size)
    matrix, ops = matrices[rng.integers(len(matrices), size=200)], labels[rng.integers(len(labels), size=200)]
    monkeypatch.setattr(enumeration, "_LOCKSTEP_PAYS", 0)
    monkeypatch.setattr(enumeration, "_CELLS_PER_CHUNK", 150)
    assert batch_hash(matrix, ops).to_hex() == [cell_hash(m, o) for m, o in zip(matrix, ops, strict=True)]


@given(st.integers(0, 200), st.integers(1, 40), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_md5_of_many_messages(length: int, count: int, random: object) -> None:
    rows = [random.randbytes(length) for _ in range(count)]  # type: ignore[attr-defined]
    text = np.frombuffer(b"".join(rows), dtype=f"V{length}") if length else b""
    digests = enumeration._md5([text, b"|"], count)
    assert [d.tobytes() for d in digests] == [hashlib.md5(row + b"|").digest() for row in rows]


def test_numpy_scalars_do_not_change_the_hash() -> None:
    matrix = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    plain = cell_hash(np.array(matrix), [0, 3, 1])
    assert plain == "09fc2d10bdd6225e167a6f81a22a3f06"
    assert cell_hash(np.array(matrix, dtype=np.int8), np.array([0, 3, 1], dtype=np.int8)) == plain


def test_digests_round_trip_and_sort_as_text() -> None:
    names = [hashlib.md5(bytes([i])).hexdigest() for i in range(50)]
    digests = Digests.from_hex(names)
    assert digests.to_hex() == names
    assert digests.take(np.lexsort((digests.low, digests.high))).to_hex() == sorted(names)
    with pytest.raises(ValueError, match="32 lower-case"):
        Digests.from_hex(["00", "11" * 31])
    with pytest.raises(ValueError, match="32 lower-case"):
        Digests.from_hex([names[0].upper()])
