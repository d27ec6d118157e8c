r"""The three official layouts hold the same records; the fixture rebuilds the two large ones from the small files."""

from __future__ import annotations

import bz2
import hashlib
import io
import pickle
import shutil

import pytest
import torch

from pyg_nas_np.datasets import nats
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import ChecksumError, DataFileError, ForbiddenPickleError

STRINGS = [str(arch) for arch in NASBench201Space().enumerate()]
FIRST = STRINGS[:285]  # All of which there are small files.


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "nasbench201" / nats.SIMPLE_FOLDER


@pytest.fixture(scope="module")
def records(folder):
    return {i: pickle.loads(bz2.open(folder / f"{i:06d}.pickle.bz2".replace("bz2", "pbz2")).read()) for i in (0, 11)}


@pytest.fixture
def any_checksum(monkeypatch):
    monkeypatch.setattr(nats, "check_md5_suffix", lambda path: None)


def equal(left, right):
    assert left.keys() == right.keys()
    for name, metric in left.items():
        assert torch.equal(metric.values[[0, 11]].nan_to_num(-1), right[name].values[[0, 11]].nan_to_num(-1)), name


@pytest.fixture(scope="module")
def large(tmp_path_factory, records):
    """The large files with the records of the small ones: one pickle, and PyTorch's new and old format."""
    folder = tmp_path_factory.mktemp("large")
    meta = {"meta_archs": FIRST, "total_archs": len(FIRST), "evaluated_indexes": {0, 11}}
    (folder / nats.SINGLE_PICKLE).write_bytes(bz2.compress(pickle.dumps({**meta, "arch2infos": records}, protocol=4)))
    infos = {i: {"less": record["12"], "full": record["200"]} for i, record in records.items()}
    for name, zipped in (("new", True), ("old", False)):
        torch.save({**meta, "arch2infos": infos}, folder / name, _use_new_zipfile_serialization=zipped)
    return folder


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "ImageNet16-120"])
def test_layouts_agree(folder, large, any_checksum, dataset):
    simple = nats.read_simple(folder, dataset, FIRST)
    equal(simple, nats.read_single(large / nats.SINGLE_PICKLE, dataset, FIRST))
    for name in ("new", "old"):
        equal(simple, nats.read_torch(large / name, dataset, FIRST))


def test_checksum_is_the_end_of_the_name(tmp_path):
    path = tmp_path / nats.SINGLE_PICKLE
    path.write_bytes(b"x")
    digest = hashlib.md5(b"x").hexdigest()
    with pytest.raises(ChecksumError, match=f"{digest}, which must end in 3ffb9"):
        nats.read_single(path, "cifar10", STRINGS)


def test_damaged_files(tmp_path, folder, any_checksum):
    path = tmp_path / "000000.pickle.pbz2"
    with pytest.raises(DataFileError, match="no file like"):
        nats.read_simple(tmp_path, "cifar10", STRINGS)
    path.write_bytes((folder / path.name).read_bytes()[:-1000])
    with pytest.raises(DataFileError, match="corrupt or not"):
        nats.read_simple(tmp_path, "cifar10", STRINGS)
    path.write_bytes(bz2.compress(pickle.dumps({"12": {}}, protocol=4)))
    with pytest.raises(DataFileError, match="not a record of NATS-Bench"):
        nats.read_simple(tmp_path, "cifar10", STRINGS)
    path.write_bytes(bz2.compress(pickle.dumps(io.BytesIO, protocol=4)))
    with pytest.raises(ForbiddenPickleError, match=r"_io\.BytesIO"):
        nats.read_simple(tmp_path, "cifar10", STRINGS)
    path.unlink()
    shutil.copy(folder / "000011.pickle.pbz2", tmp_path / "000012.pickle.pbz2")
    assert not nats.read_simple(tmp_path, "cifar10", STRINGS)["test_accuracy@200"].mask[12].any()
    shutil.copy(folder / "000011.pickle.pbz2", tmp_path / "015625.pickle.pbz2")
    with pytest.raises(DataFileError, match="outside the 15625"):
        nats.read_simple(tmp_path, "cifar10", STRINGS)


def test_record_of_another_space(folder, records, any_checksum):
    wrong = list(STRINGS)
    wrong[11] = STRINGS[12]
    with pytest.raises(DataFileError, match="architecture 11 is stored as"):
        nats.read_simple(folder, "cifar10", wrong)


def test_torch_file_of_another_kind(tmp_path, any_checksum):
    path = tmp_path / nats.TORCH_FILE
    torch.save({"state": 1}, path)
    with pytest.raises(DataFileError, match="arch2infos"):
        nats.read_torch(path, "cifar10", STRINGS)
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(DataFileError, match=r"torch\.save"):
        nats.read_torch(path, "cifar10", STRINGS)
