from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyg_nas_np.search.resumable import Resumable
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, UnwritableFileError


class Counter(Resumable):
    state_format = "counter/1"
    state_entries = {"space": str, "step": int, "count": int}  # noqa: RUF012
    state_kind = "counter"

    def __init__(self, step: int = 1) -> None:
        super().__init__()
        self.step, self.count = step, 0

    def add(self) -> None:
        with self._lock:
            self.count += self.step

    def state_dict(self) -> dict[str, Any]:
        return {"format": self.state_format, "space": "numbers", "step": self.step, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._check_state(state, "numbers", {"step": self.step})
        self.count = state["count"]


@pytest.fixture
def saved(tmp_path):
    counter = Counter(2)
    counter.add()
    counter.save(tmp_path / "state.pt")
    return tmp_path / "state.pt"


def test_a_file_restores_the_state(saved):
    counter = Counter(2)
    assert counter.resume(saved) is counter
    assert counter.count == 2


def test_other_searches_are_refused_before_anything_changes(saved):
    counter = Counter(3)
    with pytest.raises(DataFileError, match="the state has step 2, this search has 3"):
        counter.resume(saved)
    assert counter.count == 0
    with pytest.raises(InvalidArchitectureError, match="the state is from letters, the search is on numbers"):
        counter.load_state_dict({**counter.state_dict(), "space": "letters"})
    with pytest.raises(DataFileError, match="'count' is a str"):
        counter.load_state_dict({**counter.state_dict(), "count": "two"})
    assert counter.count == 0


def test_damaged_and_missing_files_are_named(saved):
    saved.write_bytes(saved.read_bytes()[:-20])
    with pytest.raises(DataFileError, match=r"state\.pt.*start a new search"):
        Counter(2).resume(saved)
    with pytest.raises(DataFileError, match=r"absent\.pt"):
        Counter(2).resume(saved.with_name("absent.pt"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFileError, match="file"):
        Counter().save(tmp_path / "file" / "state.pt")


def test_copies_have_locks_of_their_own(saved):
    counter = Counter(2).resume(saved)
    copy = pickle.loads(pickle.dumps(counter))
    assert copy.count == 2
    with counter._lock, ThreadPoolExecutor(1) as pool:
        pool.submit(copy.add).result(timeout=10)
    assert copy.count == 4
