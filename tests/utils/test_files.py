from __future__ import annotations

import collections
import hashlib
import io
import os
import pickle
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pyg_nas_np.utils import (
    ChecksumError,
    DataFileError,
    ForbiddenPickleError,
    atomic_path,
    cache_dir,
    check_sha256,
    file_digest,
    load_pickle,
    numpy_scalar_globals,
    read_tensors,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
posix_only = pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")


# -- atomic_path ------------------------------------------------------------------------------------------------------


def test_success_leaves_the_file_alone_in_its_folder(tmp_path):
    target = tmp_path / "new" / "folders" / "table.csv.gz"
    with atomic_path(str(target)) as tmp:
        assert not target.exists()
        assert tmp.parent == target.parent
        assert tmp.suffix == ".gz"
        assert tmp.name.startswith(".")
        tmp.write_text("done")
    assert target.read_text() == "done"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_failure_leaves_everything_as_it_was(tmp_path, error, before):
    target = tmp_path / "table.csv"
    if before is not None:
        target.write_text(before)

    def write():
        with atomic_path(target) as tmp:
            tmp.write_text("half of a tab")
            raise error

    with pytest.raises(error):
        write()
    assert (target.read_text() if target.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([] if before is None else [target])


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(OSError, match=r"table\.csv"), atomic_path(tmp_path / "table.csv") as tmp:
        tmp.write_text("done")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_writer_may_remove_or_replace_the_temporary_file(tmp_path):
    with atomic_path(tmp_path / "table.csv") as tmp:
        tmp.unlink()
        tmp.write_text("written anew")
    assert (tmp_path / "table.csv").read_text() == "written anew"


@posix_only
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o000, 0o666)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "table.csv") as tmp:
            tmp.write_text("done")
        assert stat.S_IMODE((tmp_path / "table.csv").stat().st_mode) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


@posix_only
def test_the_umask_of_other_threads_is_never_touched(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "umask", calls.append)
    with atomic_path(tmp_path / "table.csv") as tmp:
        tmp.write_text("done")
    assert not calls


def test_concurrent_writers_never_mix(tmp_path):
    target, writers, size = tmp_path / "table.bin", 8, 1 << 18
    target.write_bytes(bytes(size))
    barrier, done, seen = threading.Barrier(writers), threading.Event(), set()

    def write(i):
        barrier.wait()
        for _ in range(5):
            with atomic_path(target) as tmp, open(tmp, "wb") as file:
                for _ in range(4):
                    file.write(bytes([i]) * (size // 4))

    def read():
        while not done.is_set():
            content = target.read_bytes()
            seen.add((len(content), len(set(content))))

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(read)
        for writer in [pool.submit(write, i) for i in range(1, writers + 1)]:
            writer.result()
        done.set()
        reader.result()
    assert seen == {(size, 1)}
    assert list(tmp_path.iterdir()) == [target]


# -- digests ----------------------------------------------------------------------------------------------------------

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_published_test_vectors(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_digest(path) == ABC
    assert file_digest(str(path), "md5") == "900150983cd24fb0d6963f7d28e17f72"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 19) + 7])
def test_digest_over_block_boundaries(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_check_names_the_file_and_both_digests(tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(b"abc")
    check_sha256(path, ABC)
    path.write_bytes(b"abd")
    with pytest.raises(ChecksumError) as caught:
        check_sha256(path, ABC)
    for part in (str(path), ABC, hashlib.sha256(b"abd").hexdigest(), "download it again"):
        assert part in str(caught.value)


# -- load_pickle ------------------------------------------------------------------------------------------------------


def load(content, **kwargs):
    return load_pickle(io.BytesIO(content), label="table.pkl", **kwargs)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_need_no_global(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@given(value=plain, protocol=st.sampled_from(PROTOCOLS), cut=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_an_error(value, protocol, cut):
    content = pickle.dumps(value, protocol)
    with pytest.raises(DataFileError, match=r"table\.pkl is truncated or corrupt"):
        load(content[: int(cut * len(content))])


class RunsCommand:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("allowed", [None, {("collections", "OrderedDict"): collections.OrderedDict}])
def test_code_is_refused_by_name_and_never_run(tmp_path, protocol, allowed):
    payload = collections.OrderedDict(good=1.0, bad=[RunsCommand(tmp_path / "owned")])
    with pytest.raises(ForbiddenPickleError, match=r"table\.pkl asks for the global"):
        load(pickle.dumps(payload, protocol), allowed=allowed)
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(payload, protocol))
    assert (tmp_path / "owned").exists(), "the pickle is harmless, so that the test shows nothing"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (os.system, f"{os.name if os.name == 'nt' else 'posix'}.system"),
        (eval, "eval"),
        (Path, "pathlib"),
        (collections.Counter("ab"), "collections.Counter"),
        (np.zeros(2), "numpy.*(_reconstruct|_frombuffer)"),
    ],
)
def test_the_forbidden_global_is_named(protocol, value, name):
    with pytest.raises(ForbiddenPickleError, match=name):
        load(pickle.dumps(value, protocol), allowed=numpy_scalar_globals())


def test_an_allowed_class_does_not_open_its_attributes():
    nested = b"\x80\x04\x8c\x0bcollections\x8c\x13OrderedDict.popitem\x93."
    assert pickle.loads(nested) is collections.OrderedDict.popitem
    with pytest.raises(ForbiddenPickleError, match=r"collections\.OrderedDict\.popitem"):
        load(nested, allowed={("collections", "OrderedDict"): collections.OrderedDict})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_allowed_globals_resolve_to_what_the_list_says(protocol):
    class Standin(dict):
        pass

    content = pickle.dumps([collections.OrderedDict(a=1, b=[2])], protocol)
    allowed = {("collections", "OrderedDict"): Standin}
    (value,) = load(content, allowed=allowed)
    assert type(value) is Standin
    assert value == {"a": 1, "b": [2]}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty file"),
        pytest.param(b"<!DOCTYPE html><title>Virus scan warning</title>", id="web page"),
        pytest.param(b"\x80\xff.", id="unknown protocol"),
        pytest.param(b"\x80\x04.", id="empty stack"),
        pytest.param(b"\x80\x04h\x05.", id="unknown memo"),
        pytest.param(b"\x80\x04K\x01(K\x01K\x02u.", id="items of a number"),
        pytest.param(b"\x80\x04K\x01K\x02b.", id="state of a number"),
        pytest.param(b"\x80\x04]K\x00R.", id="call of a list"),
        pytest.param(b"\x80\x04}](K\x01s.", id="unhashable or unpaired key"),
        pytest.param(b"\x80\x04\x8c\x02\xff\xfe.", id="invalid text"),
        pytest.param(b"\x80\x04\x8e" + b"\xff" * 8 + b".", id="impossible length"),
        pytest.param(b"\x80\x02\x82\x7f.", id="unregistered extension"),
        pytest.param(b"\x80\x04K\x01Q.", id="persistent object"),
        pytest.param(b"I1x\n.", id="malformed number"),
        pytest.param(b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00K\x01.", id="frame too long"),
    ],
)
def test_corrupt_content_is_one_kind_of_error(content):
    with pytest.raises(DataFileError, match=r"^table\.pkl is truncated or corrupt \(\w+: ") as caught:
        load(content)
    assert not isinstance(caught.value, ForbiddenPickleError)
    assert caught.value.__cause__ is not None


def test_a_stream_is_read_object_by_object():
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps("two"))
    assert load_pickle(file) == [1]
    assert load_pickle(file) == "two"


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("scalar", [np.float64(1.5), np.float32(-0.25), np.int64(7), np.bool_(True)])
def test_numpy_scalars_of_either_major_version(module, scalar):
    # Protocol 3 spells names as lines of text, so that the other version's name can be put in.
    content = pickle.dumps({"para": scalar}, protocol=3)
    own = b"cnumpy._core.multiarray\n" if b"numpy._core" in content else b"cnumpy.core.multiarray\n"
    assert own in content
    content = content.replace(own, f"c{module}\n".encode())
    with pytest.raises(ForbiddenPickleError, match=module):
        load(content)
    value = load(content, allowed=numpy_scalar_globals())["para"]
    assert value == scalar
    assert value.dtype == scalar.dtype


# -- cache_dir --------------------------------------------------------------------------------------------------------


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PYG_NAS_NP_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert cache_dir().is_dir()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the XDG variable is Linux's")
@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_falls_back_to_the_system(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("PYG_NAS_NP_CACHE", raising=False)
    else:
        monkeypatch.setenv("PYG_NAS_NP_CACHE", value)
    assert cache_dir() == tmp_path / "pyg_nas_np"
    assert cache_dir().is_dir()


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
        with pytest.raises(DataFileError, match="missing, corrupt or not a safetensors file"):
            read_tensors(broken)
