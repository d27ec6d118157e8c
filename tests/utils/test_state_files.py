from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pyg_nas_np.utils import DataFileError, load_module, read_state, read_tensors, write_state, write_tensors
from pyg_nas_np.utils.state_files import read_json, read_metadata

STATE = {"format": "a/1", "x": torch.arange(6.0), "names": ["a", "b"], "inner": {"n": 3, "y": torch.ones(2, 2)}}
ENTRIES = {"x": torch.Tensor, "names": list, "inner": dict}


def read(path: Path, **kwargs):
    return read_state(path, "a saved thing", ENTRIES, form="a/1", cure="make it again", **kwargs)


def test_round_trip(tmp_path):
    write_state(tmp_path / "s.pt", STATE)
    state = read(tmp_path / "s.pt")
    assert state["names"] == ["a", "b"]
    assert torch.equal(state["inner"]["y"], torch.ones(2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "a/2"}, "its format is 'a/2', expected 'a/1'"),
        ({"x": None}, "'x' is a NoneType, expected Tensor"),
        ({"names": ("a",)}, "'names' is a tuple, expected list"),
        ({"inner": {"y": torch.tensor([0.0, float("nan")])}}, "'inner/y' has values that are NaN or infinite"),
        ({"names": [torch.tensor(float("inf"))]}, "'names/0' has values that are NaN"),
        ({"x": torch.ones(1).expand(1 << 40)}, "'x' claims the shape .1099511627776., for which there are not enough"),
        ({"x": torch.eye(2).to_sparse()}, "'x' is not a plain tensor"),
        ({"inner": {"m": torch.empty(3, device="meta")}}, "is corrupt or not|is not a plain tensor"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_and_the_cure(tmp_path, change, message):
    path = tmp_path / "s.pt"
    write_state(path, STATE | change)
    with pytest.raises(DataFileError, match=rf"s\.pt.*({message}).*; make it again"):
        read(path)


def test_a_missing_entry_is_named(tmp_path):
    write_state(tmp_path / "s.pt", {key: value for key, value in STATE.items() if key != "inner"})
    with pytest.raises(DataFileError, match="'inner' is missing; make it again"):
        read(tmp_path / "s.pt")


def test_nan_may_be_allowed(tmp_path):
    write_state(tmp_path / "s.pt", STATE | {"x": torch.tensor(float("nan"))})
    assert read(tmp_path / "s.pt", finite=False)["x"].isnan()


@pytest.mark.parametrize("value", [5, [], torch.zeros(2), None])
def test_other_content(tmp_path, value):
    torch.save(value, tmp_path / "s.pt")
    with pytest.raises(DataFileError, match="is not a saved thing but holds a"):
        read(tmp_path / "s.pt")


def test_a_state_that_holds_itself_is_refused(tmp_path):
    inner: dict = {}
    inner["again"] = inner
    write_state(tmp_path / "s.pt", STATE | {"inner": inner})
    with pytest.raises(DataFileError, match="nested too deeply"):
        read(tmp_path / "s.pt")


class RunsCommand:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_run(tmp_path):
    path, marker = tmp_path / "s.pt", tmp_path / "owned"
    for write in (
        lambda: torch.save(STATE | {"x": RunsCommand(marker)}, path),
        lambda: torch.save(STATE | {"x": RunsCommand(marker)}, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(RunsCommand(marker))),
    ):
        write()
        for reader in (lambda: read(path), lambda: read_tensors(path)):
            with pytest.raises(DataFileError, match="corrupt or not"):
                reader()
        assert not marker.exists()


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    path = tmp_path / "s.pt"
    write_state(path, STATE)
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    big = next(name for name in parts if name.endswith("data/0"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, part in parts.items():
            target.writestr(name, bytes(1 << 26) if name == big else part)
    with pytest.raises(DataFileError, match="claims more bytes than there are"):
        read(path)


def test_a_large_file_is_refused_unless_the_limit_is_raised(tmp_path, monkeypatch):
    write_state(tmp_path / "s.pt", STATE)
    monkeypatch.setenv("PYG_NAS_NP_MAX_BYTES", "1000")
    with pytest.raises(DataFileError, match=r"s\.pt holds .* bytes or more, the limit is 1000; .*PYG_NAS_NP_MAX_BYTES"):
        read(tmp_path / "s.pt")
    monkeypatch.setenv("PYG_NAS_NP_MAX_BYTES", "much")
    with pytest.raises(ValueError, match="must be a positive number of bytes, got 'much'"):
        read(tmp_path / "s.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(60)
def test_pipes_devices_folders_and_missing_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for reader in (lambda path=path: read(path), lambda path=path: read_tensors(path)):
            with pytest.raises(DataFileError, match="not a regular file"):
                reader()
    with pytest.raises(DataFileError, match="is missing; check the path"):
        read(tmp_path / "absent")


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_damage_is_found_or_harmless(tmp_path, mutations):
    path = tmp_path / "s.pt"
    write_state(path, STATE)
    for damaged in mutations(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            state = read(path)
        except DataFileError:
            continue
        assert same(state, STATE)


# -- safetensors ------------------------------------------------------------------------------------------------------


def test_tensors_come_with_their_metadata(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file({"x": torch.arange(3)}, path, {"format": "a/1"})
    metadata, tensors = read_tensors(path, "a/1")
    assert metadata == {"format": "a/1"}
    assert tensors["x"].tolist() == [0, 1, 2]
    with pytest.raises(DataFileError, match=r"t\.safetensors has format 'a/1', expected 'b/1'"):
        read_tensors(path, "b/1")
    path.write_bytes(path.read_bytes()[:20])
    for broken in (path, tmp_path / "absent"):
        with pytest.raises(DataFileError, match=r"missing|corrupt or not a safetensors file"):
            read_tensors(broken)


TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def test_a_changed_weight_is_found_by_its_digest(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, {"format": "a/1"})
    metadata, tensors = read_tensors(path, "a/1")
    assert metadata["format"] == "a/1"
    assert same(tensors, TENSORS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataFileError, match="do not have the digest"):
        read_tensors(path, "a/1")


def test_missing_metadata_and_nan_weights_are_named(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, {"format": "a/1"})
    with pytest.raises(DataFileError, match=r"t\.safetensors lacks the entry 'space'"):
        read_tensors(path, "a/1", ("space",))
    save_file({"x": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(DataFileError, match="tensor 'x' has values that are NaN or infinite; get the file again"):
        read_tensors(path)
    assert read_tensors(path, infinite=("x",))[1]["x"].isnan().any()


def test_weights_must_be_those_of_the_module():
    module = nn.Linear(3, 2)
    load_module(module, TENSORS, "w")
    assert torch.equal(module.weight, TENSORS["weight"])
    for change, message in [
        ({"weight": None}, "w lacks the tensor 'weight'"),
        ({"more": torch.ones(1)}, "w holds the tensor 'more', which the network does not have"),
        ({"bias": torch.ones(3)}, r"tensor 'bias' must have shape \[2\], not \[3\]"),
        ({"bias": torch.ones(2, dtype=torch.long)}, "tensor 'bias' is torch.int64"),
        ({"bias": "ones"}, r"tensor 'bias' must have shape \[2\], not str"),
    ]:
        tensors = {key: value for key, value in {**TENSORS, **change}.items() if value is not None}
        with pytest.raises(DataFileError, match=message):
            load_module(module, tensors, "w")
        assert torch.equal(module.weight, TENSORS["weight"])


def test_a_module_without_memory_takes_the_tensors():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    load_module(module, TENSORS, "w")
    assert torch.equal(module.bias, TENSORS["bias"])
    assert module.bias.requires_grad


def test_metadata_in_json():
    assert read_json({"config": "{}"}, "config", dict, "w") == {}
    for metadata in ({}, {"config": "{"}, {"config": "[" * 100_000}):
        with pytest.raises(DataFileError, match="w is corrupt or not a file of this package"):
            read_json(metadata, "config", dict, "w")
    with pytest.raises(DataFileError, match="'config' is a list, expected dict"):
        read_json({"config": "[]"}, "config", dict, "w")


def test_damaged_tensors_are_found_or_harmless(tmp_path, mutations):
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, {"format": "a/1"})
    for damaged in mutations(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            _, tensors = read_tensors(path, "a/1")
        except DataFileError:
            continue
        assert same(tensors, TENSORS)


def test_metadata_alone_is_read_whatever_the_tensors_hold(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"x": torch.tensor([float("inf"), float("nan")])}, {"format": "a/1", "card": "{}"})
    assert read_metadata(path, "a/1", ("card",))["card"] == "{}"
    with pytest.raises(DataFileError, match="expected 'b/1'"):
        read_metadata(path, "b/1")
    with pytest.raises(DataFileError, match="lacks the entry 'space'"):
        read_metadata(path, required=("space",))
    path.write_bytes(path.read_bytes()[:-1])
    for broken in (path, tmp_path / "absent", tmp_path):
        with pytest.raises(DataFileError):
            read_metadata(broken)
