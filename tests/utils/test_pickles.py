from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.utils import DataFileError, ForbiddenPickleError, load_pickle, numpy_scalar_globals
from pyg_nas_np.utils.pickles import Ignored, latin1_bytes

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


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
    with pytest.raises(DataFileError, match=r"table\.pkl is corrupt or not a pickle"):
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
    with pytest.raises(DataFileError, match=r"^table\.pkl is corrupt or not a pickle of its format \(\w+") as caught:
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


class Scalar:
    """Pickles as NumPy's scalar of a type that it does not have."""

    def __init__(self, code, state, data):
        self.parts = code, state, data

    def __reduce__(self):
        code, state, data = self.parts
        return np.float64(0.0).__reduce__()[0], (Dtype(code, state), data)


class Dtype:
    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


PLAIN = (3, "<", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    ("code", "state", "data"),
    [
        pytest.param("O8", (3, "|", None, None, None, -1, -1, 63), b"\x10" * 8, id="object"),
        pytest.param("f8", (3, "|", None, None, None, -1, -1, 63), b"\x10" * 8, id="object flags on a float"),
        pytest.param("V8", (3, "|", None, ("x",), {"x": ("O", 0)}, 8, 1, 0), b"\x10" * 8, id="structure with objects"),
        pytest.param("f8", PLAIN, b"\x10" * 4, id="too few bytes"),
        pytest.param("f8", PLAIN, [1.0], id="no bytes"),
        pytest.param("M8[s]", PLAIN, b"\x10" * 8, id="date"),
        pytest.param("f8,f8", PLAIN, b"\x10" * 16, id="several"),
        pytest.param(["f8"], PLAIN, b"\x10" * 8, id="unhashable"),
    ],
)
def test_only_plain_numbers_are_built(code, state, data):
    content = pickle.dumps(Scalar(code, state, data))
    with pytest.raises(DataFileError):
        load(content, allowed=numpy_scalar_globals())


@pytest.mark.parametrize("order", "<>")
def test_byte_order(order):
    number = np.array(1.5, dtype=f"{order}f4")[()]
    content = pickle.dumps(Scalar("f4", (3, order, None, None, None, -1, -1, 0), np.array(1.5, f"{order}f4").tobytes()))
    assert load(content, allowed=numpy_scalar_globals()) == number == 1.5


def test_what_stands_for_a_global_cannot_be_changed():
    names = [*numpy_scalar_globals(), ("a", "function")]
    allowed = {**numpy_scalar_globals(), ("a", "function"): latin1_bytes}
    for module, name in names:
        # A pair as state sets attributes one by one.
        content = f"c{module}\n{name}\n(N(dVevil\nI1\nstb.".encode()
        with pytest.raises(DataFileError, match=r"corrupt or not"):
            load(content, allowed=allowed)
        assert not hasattr(allowed[module, name], "evil")
        content = f"c{module}\n{name}\n(dVevil\nI1\nsb.".encode()
        with pytest.raises(DataFileError, match=r"corrupt or not"):
            load(content, allowed=allowed)
        assert not hasattr(allowed[module, name], "evil")


def test_arrays_that_nobody_needs_are_forgotten():
    allowed = {("numpy", "dtype"): Ignored, ("numpy", "ndarray"): Ignored}
    allowed[np.zeros(0).__reduce__()[0].__module__, "_reconstruct"] = Ignored
    first, second = load(pickle.dumps((np.zeros(3), 2.0), protocol=3), allowed=allowed)
    assert isinstance(first, Ignored)
    assert second == 2.0


def test_bytes_of_old_protocols():
    assert load(pickle.dumps(b"\xff\x00", 2), allowed={("_codecs", "encode"): latin1_bytes}) == b"\xff\x00"
    with pytest.raises(DataFileError, match="latin1"):
        load(b"c_codecs\nencode\n(Va\nVhex\ntR.", allowed={("_codecs", "encode"): latin1_bytes})


def test_deep_nesting_is_an_error_and_no_crash():
    depth = 200_000
    with pytest.raises(DataFileError):
        load(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"\x93.")


def test_damage_is_an_error_of_one_kind(mutations):
    content = pickle.dumps({str(i): [np.float64(i), np.int32(i), "text"] for i in range(20)}, protocol=4)
    for damaged in mutations(content):
        with contextlib.suppress(DataFileError):
            load(damaged, allowed=numpy_scalar_globals())


@pytest.mark.parametrize("content", [b"\x80\x04Nr\xff\xff\xff\x7f.", b"Np2000000000\n."])
def test_a_number_in_the_memo_allocates_nothing(content):
    with pytest.raises(DataFileError, match="corrupt or not a pickle"):
        load(content)


def test_what_looks_like_a_large_number_in_the_memo_is_read():
    value = ["r\xff\xff\xff\x7f", "p2000000000\n", *range(300)]
    for protocol in PROTOCOLS:
        assert load(pickle.dumps([value, value], protocol)) == [value, value]


def test_large_pickles_are_read_from_where_the_file_stands():
    value = b"x" * (1 << 25)
    file = io.BytesIO(b"head" + pickle.dumps(value))
    file.seek(4)
    assert load_pickle(file) == value
