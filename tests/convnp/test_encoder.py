import copy
import pickle

import pytest
import torch

from pyg_nas_np.convnp.encoder import (
    Encoders,
    PriorEncoder,
    SpaceScores,
    read_encoders,
    shipped_encoders,
    short_fingerprints,
    unbiased_scores,
    write_encoders,
)
from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features import OperationInputs
from pyg_nas_np.features.tables import CHECKED
from pyg_nas_np.nn import OperationEncoder
from pyg_nas_np.spaces import (
    GraphSpace,
    NASBench101Space,
    NASBench201Space,
    NASBenchGraphSpace,
    Operation,
    ParameterSpace,
)
from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.utils import DataFileError, DeviceUnavailableError, InvalidArchitectureError

SPACE = NASBench201Space()


def prior(families, members=2, seed=0, left_out=()):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders = [OperationEncoder(channels=8, num_layers=2, out_channels=4).eval() for _ in range(members)]
    return PriorEncoder(encoders, {"families": list(families), "members": members, "left_out": list(left_out)})


def convolutions(count, names):
    """All chains of `count` convolutions with two kernels."""
    operations = [Operation(name, kind="conv", kernel=kernel) for name, kernel in zip(names, (1, 3), strict=True)]
    chains = []
    for code in range(2**count):
        nodes = [(names[code >> i & 1], {}) for i in range(count)]
        chains.append(OperationGraph.of(nodes, [(i, i + 1) for i in range(count - 1)]))
    return GraphSpace(chains, operations=operations)


def test_scores_are_standardised_over_the_space():
    scores = prior(["a"]).scores(SPACE)
    assert scores.shape == (15625,)
    assert abs(float(scores.mean())) < 0.1
    assert abs(float(scores.std()) - 1.0) < 0.1


def test_rows_and_values_get_the_same_scores():
    own = SpaceScores(prior(["a"]), SPACE)
    index = torch.tensor([5, 6111, 5])
    torch.testing.assert_close(own(index), own()[index], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own([SPACE[5], SPACE[6111]]), own(index[:2]), rtol=1e-4, atol=1e-4)
    assert own([]).shape == (0,)


def test_scores_of_a_space_survive_pickling_and_copies():
    own = SpaceScores(prior(["a"]), SPACE)
    for other in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own)):
        torch.testing.assert_close(other([SPACE[5]]), own([SPACE[5]]))


def test_encoders_run_where_they_are_asked_to():
    own, inputs = prior(["a"]), OperationInputs(SPACE)(torch.arange(9)).to("meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        own.raw(inputs)
    elsewhere = own.on(torch.device("meta"))
    assert elsewhere.raw(inputs).is_meta
    assert not own.raw(OperationInputs(SPACE)(torch.arange(9))).is_meta
    assert own.on(torch.device("cpu")).encoders[0] is own.encoders[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_gpu_are_those_of_the_cpu():
    own = prior(["a"])
    torch.testing.assert_close(own.scores(SPACE, device="cuda"), own.scores(SPACE, device="cpu"), rtol=1e-4, atol=1e-4)


def test_a_missing_device_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceUnavailableError, match="no CUDA device"):
        prior(["a"]).scores(SPACE, torch.arange(3), device="cuda")


def test_a_state_gives_the_same_encoder():
    own = prior(["a"])
    again = PriorEncoder.from_state(own.state_dict())
    inputs = OperationInputs(SPACE)(torch.arange(9))
    torch.testing.assert_close(again.raw(inputs), own.raw(inputs))
    assert again.card == own.card


def test_files_keep_encoders_in_half_precision(tmp_path):
    space = convolutions(4, ("small", "large"))
    known = {"chains": short_fingerprints(OperationInputs(space).fingerprints(None))}
    write_encoders(tmp_path / "e.safetensors", Encoders([prior(["chains"]), prior([], seed=1)], known))
    found = read_encoders(tmp_path / "e.safetensors")
    assert [p.card["families"] for p in found.priors] == [["chains"], []]
    inputs = OperationInputs(SPACE)(torch.arange(9))
    torch.testing.assert_close(found.priors[0].raw(inputs), prior(["chains"]).raw(inputs), rtol=2e-2, atol=2e-2)
    assert found.seen(space) == ["chains"]


def test_cells_are_known_whatever_their_operations_are_called():
    seen, named, longer = (
        convolutions(count, names)
        for count, names in ((5, ("small", "large")), (5, ("conv1x1", "conv3x3")), (6, ("small", "large")))
    )
    everything, nothing = prior(["chains"]), prior(["others"], left_out=["chains"])
    encoders = Encoders([everything, nothing], {"chains": short_fingerprints(OperationInputs(seen).fingerprints(None))})
    assert encoders.seen(named) == ["chains"]
    assert encoders.unbiased(named) is nothing
    assert encoders.seen(longer) == []
    assert encoders.unbiased(longer) is everything
    assert Encoders([everything], encoders.fingerprints).unbiased(named) is None


def test_the_shipped_file_is_small():
    assert (WEIGHTS / "universal.safetensors").stat().st_size <= 5_000_000


@pytest.mark.parametrize(
    ("space", "family"),
    [(NASBench201Space(), "nb201"), (NASBench101Space(), "nb101"), (NASBenchGraphSpace("photo"), "graph")],
    ids=lambda value: getattr(value, "name", value),
)
def test_no_shipped_encoder_is_asked_about_what_it_has_seen(space, family):
    encoders = shipped_encoders()
    assert family in encoders.priors[0].card["families"]
    assert family in encoders.seen(space)
    chosen = encoders.unbiased(space)
    assert chosen is not None
    assert family not in chosen.card["families"]
    assert set(chosen.card["families"]).isdisjoint(encoders.seen(space))


def test_a_space_keeps_its_scores():
    assert unbiased_scores(SPACE) is unbiased_scores(SPACE)
    assert unbiased_scores(ParameterSpace.from_records([{"a": 1}, {"a": 2}])) is None


def test_scores_of_a_large_space_are_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path))
    every = torch.arange(len(SPACE))
    scores = SpaceScores(prior(["a"]), SPACE)(every)
    (path,) = tmp_path.iterdir()
    seen = []
    original = SpaceScores._compute
    monkeypatch.setattr(
        SpaceScores, "_compute", lambda self, archs, *a: seen.append(archs) or original(self, archs, *a)
    )
    assert torch.equal(SpaceScores(prior(["a"]), SPACE)(every), scores)
    assert [len(rows) for rows in seen] == [CHECKED]
    # Another encoder has another file.
    assert not torch.equal(SpaceScores(prior(["a"], seed=1), SPACE)(every), scores)
    assert len(list(tmp_path.iterdir())) == 2
    assert path.exists()


def test_spaces_without_graphs_are_refused():
    with pytest.raises(InvalidArchitectureError, match="no graphs"):
        prior(["a"]).scores(ParameterSpace.from_records([{"a": 1}, {"a": 2}]))


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "tensor"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "e.safetensors"
    write_encoders(path, Encoders([prior(["a"])], {"a": torch.arange(3)}))
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("weights")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        broken = prior(["a"])
        broken.encoders[1].score = torch.nn.Linear(9, 1)
        write_encoders(path, Encoders([broken], {}))
    with pytest.raises(DataFileError, match=r"e\.safetensors"):
        read_encoders(path)
