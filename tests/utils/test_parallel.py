from __future__ import annotations

import threading

import pytest
import threadpoolctl
import torch

from pyg_nas_np.utils import map_chunks, one_blas_thread


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_threads_stay_as_they_were(threads):
    chunks = torch.arange(100.0).split(7)
    assert torch.equal(torch.stack(map_chunks(torch.sum, chunks)), torch.stack([chunk.sum() for chunk in chunks]))
    assert torch.get_num_threads() == threads
    assert map_chunks(torch.sum, []) == []


def test_several_chunks_are_under_way_at_a_time(threads):
    meeting = threading.Barrier(threads, timeout=20)
    inside = map_chunks(lambda _: (meeting.wait(), torch.get_num_threads()), range(2 * threads))
    assert [count for _, count in inside] == [1] * (2 * threads)


def test_a_single_chunk_has_all_threads(threads):
    assert map_chunks(lambda _: torch.get_num_threads(), [0]) == [threads]


def test_chunks_within_chunks(threads):
    nested = map_chunks(lambda i: map_chunks(lambda j: 10 * i + j, range(3)), range(4))
    assert nested == [[10 * i + j for j in range(3)] for i in range(4)]
    assert torch.get_num_threads() == threads


def test_the_first_error_is_raised(threads):
    def invert(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        map_chunks(invert, [1, 0, 2])
    assert torch.get_num_threads() == threads


def test_no_chunk_follows_gradients(threads):
    weight = torch.ones(2, requires_grad=True)
    assert not any(value.requires_grad for value in map_chunks(lambda chunk: weight * chunk, [1, 2, 3]))


def blas_threads():
    return {i["filepath"]: i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"}


def test_blas_has_one_thread_meanwhile_and_its_own_afterwards():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with one_blas_thread():
            assert set(blas_threads().values()) <= {1}
            with pytest.raises(ZeroDivisionError), one_blas_thread():
                _ = 1 / 0
            assert set(blas_threads().values()) <= {1}
        assert blas_threads() == before


def test_other_threads_leave_blas_alone():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before, seen = blas_threads(), []

        def look():
            with one_blas_thread():
                seen.append(blas_threads())

        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert seen == [before]
        assert blas_threads() == before
