from __future__ import annotations

import gc
import weakref

import pytest
import torch
from safetensors.torch import save_file

from pyg_nas_np.convnp import weights
from pyg_nas_np.convnp.predictor import process_inputs
from pyg_nas_np.convnp.weights import read_card, read_weights, shipped_model, shipped_weights, write_weights
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.spaces import NASBench201Space, space_by_name
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, MissingWeightsError, state_files


@pytest.fixture(scope="module")
def model(toy_space):
    return ConvNP(len(process_inputs(shared_descriptors(toy_space))), num_base=3, channels=8, heads=2)


def test_round_trip(tmp_path, toy_space, model):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {"seed": 0})
    again = read_weights(path, toy_space)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert again.config == model.config
    assert not again.training
    assert read_card(path) == {"seed": 0}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_weights_of_rescaled_descriptors_are_refused(tmp_path, toy_space, model, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {})
    monkeypatch.setattr(weights, "_probe", lambda space: 2 * shared_descriptors(space).table(torch.arange(8)))
    with pytest.raises(InvalidArchitectureError, match="other descriptors of toy"):
        read_weights(path, toy_space)


def test_damaged_and_foreign_files(tmp_path, toy_space, model):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {})
    with pytest.raises(InvalidArchitectureError, match="other descriptors of toy"):
        read_weights(path, NASBench201Space())
    path.write_bytes(path.read_bytes()[:-100])
    for read in (lambda: read_weights(path, toy_space), lambda: read_card(path)):
        with pytest.raises(DataFileError, match="corrupt"):
            read()
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataFileError, match="format None"):
        read_weights(path, toy_space)
    with pytest.raises(DataFileError, match="lacks the entry 'card'"):
        read_card(path)


def test_other_descriptors_in_number_are_refused(tmp_path, toy_space, model, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {})
    monkeypatch.setattr(weights, "_probe", lambda space: shared_descriptors(space).table(torch.arange(8))[:, 1:])
    with pytest.raises(InvalidArchitectureError, match=r"other descriptors of toy; train again with pretrain\(\)"):
        read_weights(path, toy_space)


def test_a_failed_write_leaves_no_file(tmp_path, toy_space, model, monkeypatch):
    monkeypatch.setattr(state_files, "save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_weights(tmp_path / "w.safetensors", model, toy_space, {})
    assert list(tmp_path.iterdir()) == []


def test_spaces_without_weights(toy_space):
    with pytest.raises(MissingWeightsError, match=r"'toy' \(shipped: .*pretrain"):
        shipped_model(toy_space)


@pytest.mark.parametrize("name", shipped_weights())
def test_shipped_weights_fit_their_space_and_tell_of_themselves(name):
    space = space_by_name(name)
    assert shipped_model(space) is shipped_model(space)
    assert all(value.isfinite().all() for value in shipped_model(space).parameters())
    path = weights.WEIGHTS / f"convnp-{name}.safetensors"
    assert path.stat().st_size <= 3 << 20
    card = read_card(path)
    assert card["space"] == name
    assert {"priors", "tables", "seed", "steps", "minutes", "final_nll"} <= set(card)


@pytest.mark.parametrize("path", sorted(weights.WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_file_tells_of_its_making(path):
    card = read_card(path)
    assert card.keys() & {"priors", "data", "tuples", "tables"}
    assert card.keys() & {"minutes", "seconds"}


def test_a_discarded_space_takes_its_shipped_process_along():
    space = NASBench201Space()
    gone = weakref.ref(shipped_model(space))
    assert shipped_model(space) is gone()
    del space
    gc.collect()
    assert gone() is None
