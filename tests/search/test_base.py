from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.predictors import GPPredictor, RidgePredictor
from pyg_nas_np.search import BananasSearch, LocalSearch, PredictorSearch, RandomSearch, RegularizedEvolution
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space, SearchSpace, Validity
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidLabelsError

METHODS = {
    "random": RandomSearch,
    "evolution": lambda space, **kw: RegularizedEvolution(space, population=6, tournament=3, **kw),
    "local": lambda space, **kw: LocalSearch(space, initial=4, **kw),
    "bananas": lambda space, **kw: BananasSearch(space, RidgePredictor, initial=5, **kw),
    "predictor": lambda space, **kw: PredictorSearch(space, RidgePredictor(labels="rank"), initial=5, **kw),
    "thompson": lambda space, **kw: PredictorSearch(
        space, RidgePredictor(labels="rank"), initial=5, acquisition="thompson", **kw
    ),
}
every = pytest.mark.parametrize("make", METHODS.values(), ids=list(METHODS))


def labels(space):
    """A strict order with a single best cell at 89."""
    index = torch.arange(128)
    return space.batch_flops(index).double() - (index - 89).abs() / 100


@every
@pytest.mark.parametrize("batch", [1, 3])
def test_every_method_visits_every_candidate_once(make, batch, toy_space):
    candidates = torch.arange(0, 128, 3)
    search, y = make(toy_space, candidates=candidates), labels(toy_space)
    asked = []
    while archs := search.ask(batch):
        assert len(archs) <= batch
        asked += [toy_space.index(arch) for arch in archs]
        assert search.pending == archs
        search.tell(archs, y[asked[-len(archs) :]])
    assert sorted(asked) == candidates.tolist()
    assert search.index.tolist() == asked
    assert torch.equal(search.y, y[asked])
    assert search.best == (toy_space[int(candidates[y[candidates].argmax()])], float(y[candidates].max()))
    assert search.ask() == []


@every
@pytest.mark.parametrize("maximize", [True, False])
def test_minimising_is_maximising_the_negative(make, maximize, toy_space):
    y = labels(toy_space) * (1 if maximize else -1)
    search, mirror = make(toy_space, maximize=maximize), make(toy_space, maximize=not maximize)
    for _ in range(14):
        archs = search.ask()
        if "evolution" not in repr(search):
            assert mirror.ask() == archs
        search.tell(archs, y[[toy_space.index(a) for a in archs]])
        mirror.tell(archs, -y[[toy_space.index(a) for a in archs]])
    assert search.best == (mirror.best[0], -mirror.best[1])


@every
@settings(max_examples=5)
@given(st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_resumed_searches_go_on_as_if_nothing_had_happened(make, toy_space, tmp_path_factory, steps, batch, waiting):
    space, y = toy_space, labels(toy_space)
    path = tmp_path_factory.mktemp("search") / "state.pt"
    search = make(space, seed=7)
    for _ in range(steps):
        archs = search.ask(batch)
        search.tell(archs, y[[space.index(arch) for arch in archs]])
    if waiting:
        search.discard(search.ask(2)[1:])
    search.save(path)
    other = make(space, seed=8).resume(path)
    assert repr(other) == repr(search)
    for _ in range(3):
        archs = search.ask(batch)
        assert other.ask(batch) == archs
        for s in (search, other):
            s.tell(archs, y[[space.index(arch) for arch in archs]])


@every
def test_one_seed_one_search(make, toy_space):
    y = labels(toy_space)

    def run(seed):
        search = make(toy_space, seed=seed)
        for _ in range(12):
            archs = search.ask()
            search.tell(archs, y[[toy_space.index(a) for a in archs]])
        return search.index.tolist()

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_late_foreign_and_repeated_measurements(toy_space):
    search = RandomSearch(toy_space)
    asked = search.ask(4)
    search.tell([asked[2], toy_space[5]], [1.0, 2.0])
    search.tell([asked[2]], [7.0])
    assert search.pending == [asked[0], asked[1], asked[3]]
    assert search.best == (asked[2], 7.0)
    search.discard(asked[:1])
    search.reserve([toy_space[5], toy_space[9]])
    assert search.pending == [asked[1], asked[3], toy_space[9]]
    rest = [toy_space.index(a) for a in search.ask(128)]
    assert len(rest) == len(set(rest)) == 128 - 4 - (toy_space[5] not in asked) - (toy_space[9] not in asked)
    search.reset()
    assert (search.pending, search.index.numel()) == ([], 0)
    assert search.ask(4) == asked


def test_unusable_input_is_refused(toy_space):
    search = RandomSearch(toy_space)
    with pytest.raises(InvalidLabelsError, match="NaN or infinite"):
        search.tell([toy_space[0]], [float("nan")])
    with pytest.raises(InvalidLabelsError, match="2 labels for 1"):
        search.tell([toy_space[0]], [1.0, 2.0])
    with pytest.raises(IndexError, match="128"):
        search.tell(torch.tensor([128]), [1.0])
    with pytest.raises(InvalidLabelsError, match="no measurement"):
        _ = search.best
    assert search.index.numel() == 0
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        search.ask(0)
    with pytest.raises(ValueError, match="candidates is empty"):
        RandomSearch(toy_space, candidates=torch.empty(0, dtype=torch.long))
    with pytest.raises(InvalidArchitectureError):
        RandomSearch(NASBench201Space()).tell(["not an architecture"], [1.0])


def test_states_of_other_searches_are_refused(toy_space, tmp_path):
    search = RandomSearch(toy_space)
    state = search.state_dict()
    with pytest.raises(InvalidArchitectureError, match="from toy, the search is on nasbench201"):
        RandomSearch(NASBench201Space()).load_state_dict(state)
    with pytest.raises(DataFileError, match="method 'RandomSearch', this search has 'LocalSearch'"):
        LocalSearch(toy_space).load_state_dict(state)
    with pytest.raises(DataFileError, match="maximize True"):
        RandomSearch(toy_space, maximize=False).load_state_dict(state)
    with pytest.raises(DataFileError, match="search/2"):
        search.load_state_dict({"format": "other"})
    path = tmp_path / "state.pt"
    search.save(path)
    for content in (b"", path.read_bytes()[:200], b"cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match="is corrupt or not a saved search"):
            search.resume(path)


def test_random_draws_from_a_space_too_large_to_list(monkeypatch):
    space = NASBench101Space()
    search = RandomSearch(space)
    monkeypatch.setattr(torch, "randperm", None)
    index = [space.index(arch) for arch in search.ask(50)]
    assert len(set(index)) == 50
    assert max(index) > 200_000


def test_a_gp_is_no_worse_than_random_on_a_simple_target(toy_space):
    y = labels(toy_space)
    search = PredictorSearch(toy_space, GPPredictor(), initial=6)
    while float(y.max()) not in search.y.tolist():
        archs = search.ask()
        search.tell(archs, y[[toy_space.index(a) for a in archs]])
    assert search.index.numel() < 40


def test_threads_that_share_a_search_ask_for_different_architectures(toy_space):
    search = PredictorSearch(toy_space, RidgePredictor(), initial=4)

    def work(_):
        (arch,) = search.ask()
        search.tell([arch], [float(toy_space.flops(arch))])
        return arch

    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(work, range(40)))
    assert len(set(asked)) == 40
    assert len(search.y) == 40
    assert search.pending == []


class Lattice(SearchSpace[tuple[int, ...]]):
    """Points of a lattice too large for any index."""

    name = "lattice"

    def sample(self, n, generator=None, *, replace=False):
        return [tuple(row) for row in torch.randint(100, (n, 12), generator=generator).tolist()]

    def neighbors(self, arch):
        return [(*arch[:i], (arch[i] + 1) % 100, *arch[i + 1 :]) for i in range(12)]

    def to_str(self, arch):
        return " ".join(map(str, arch))

    def from_str(self, text):
        return tuple(map(int, text.split()))

    def is_valid(self, arch):
        return Validity(isinstance(arch, tuple) and len(arch) == 12, "not twelve numbers")


@pytest.mark.parametrize("kind", [RandomSearch, RegularizedEvolution, LocalSearch])
def test_spaces_without_an_index_and_lists_of_candidates(kind, tmp_path):
    space = Lattice()
    small = {RandomSearch: {}, LocalSearch: {"initial": 4}}.get(kind, {"population": 4, "tournament": 2})
    pool = space.sample(30, torch.Generator().manual_seed(1))
    for candidates in (None, pool):
        search = kind(space, candidates=candidates, **small)
        for _ in range(20):
            archs = search.ask()
            search.tell(archs, [float(sum(arch)) for arch in archs])
        assert len(set(search.measured)) == 20
        assert candidates is None or set(search.measured) <= set(pool)
        search.save(tmp_path / "state.pt")
        again = kind(space, candidates=candidates, **small).resume(tmp_path / "state.pt")
        assert again.best == search.best
        assert again.ask(3) == search.ask(3)
    with pytest.raises(InvalidArchitectureError, match="no official index"):
        _ = search.index


def test_counts_and_seeds_are_whole_numbers(toy_space):
    for batch in (0, -1, 1.5, "x", None):
        with pytest.raises(ValueError, match="batch must be"):
            RandomSearch(toy_space).ask(batch)
    assert len(RandomSearch(toy_space).ask(torch.tensor(2))) == 2
    for seed in (2**64, -1, "x"):
        with pytest.raises(ValueError, match="a seed must be"):
            RandomSearch(toy_space, seed=seed)
