from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pyg_nas_np.utils import (
    ChecksumError,
    DataFileError,
    UnwritableFileError,
    atomic_path,
    cache_dir,
    check_sha256,
    file_digest,
)
from pyg_nas_np.utils.files import only_user

posix_only = pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")


# -- atomic_path ------------------------------------------------------------------------------------------------------


@posix_only
def test_a_pipe_or_device_is_written_to_and_stays_what_it_is(tmp_path):
    pipe, found = tmp_path / "pipe.csv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with atomic_path(pipe) as tmp:
        assert tmp.suffix == ".csv"
        tmp.write_bytes(b"done")
    reader.join(60)
    assert found == [b"done"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
    # Another name for the terminal, the file or the pipe that is written to.
    code = "from pyg_nas_np.utils import atomic_path\nwith atomic_path('/dev/stdout') as tmp: tmp.write_text('done')"
    for run in ({"stdout": subprocess.PIPE}, {"stdout": (tmp_path / "out").open("wb")}):
        done = subprocess.run([sys.executable, "-c", code], check=True, **run)
        assert (done.stdout or (tmp_path / "out").read_bytes()) == b"done"
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is full")
def test_a_device_that_is_full_is_told():
    refused = pytest.raises(UnwritableFileError, match=r"/dev/full cannot be written \(No space left")
    with refused, atomic_path("/dev/full") as tmp:
        tmp.write_text("done")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


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


# -- what is left behind, and what cannot be written ----------------------------------------------------------------


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path):
    old, fresh = tmp_path / f".table.{'0' * 16}.csv", tmp_path / f".table.{'1' * 16}.csv"
    others = [
        tmp_path / name for name in (".table.csv", f".other.{'0' * 16}.csv", f".table.{'g' * 16}.csv", "table.txt")
    ]
    for path in (old, fresh, *others):
        path.touch()
    for path in (old, *others):
        os.utime(path, (0, 0))
    with atomic_path(tmp_path / "table.csv") as tmp:
        tmp.write_text("done")
    assert not old.exists()
    assert all(path.exists() for path in (fresh, *others))


def test_processes_that_clean_at_once_do_not_disturb_each_other(tmp_path):
    for i in range(200):
        path = tmp_path / f".table.{i:016x}.csv"
        path.touch()
        os.utime(path, (0, 0))

    def write(i):
        with atomic_path(tmp_path / "table.csv") as tmp:
            tmp.write_text(str(i))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import torch
from pyg_nas_np.utils import UnwritableFileError, atomic_path, write_state, write_tensors

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
large = torch.zeros(1 << 20)
def by_path():
    with atomic_path(folder / "a.pt") as tmp:
        torch.save({"x": large}, tmp)
def arrays():
    with atomic_path(folder / "a.npz") as tmp:
        np.savez(tmp, x=large.numpy())
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for write in (by_path, arrays, lambda: write_state(folder / "s.pt", {"x": large}),
              lambda: write_tensors(folder / "t.safetensors", {"x": large}, {})):
    try:
        write()
    except UnwritableFileError as error:
        assert "cannot be written" in str(error) and str(folder) in str(error), error
    else:
        raise AssertionError("the limit did not hold")
assert not list(folder.iterdir()), list(folder.iterdir())
"""


@posix_only
def test_a_full_disk_is_a_named_error_that_leaves_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True, env=environment, timeout=300)


@posix_only
def test_a_folder_that_is_a_file_is_a_named_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UnwritableFileError, match=r"file/table\.csv cannot be written"),
        atomic_path(tmp_path / "file" / "table.csv"),
    ):
        pass


def test_errors_of_the_body_pass_unchanged(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "denied", "/another/file")
    for error in (RuntimeError("something else"), DataFileError("mine"), FileNotFoundError("no"), elsewhere):
        with pytest.raises(type(error), match=re.escape(str(error))), atomic_path(tmp_path / "x"):
            raise error
    assert not list(tmp_path.iterdir())


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


# -- only_user --------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pyg_nas_np.utils.files import only_user
with only_user(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_and_a_killed_one_frees_the_file(tmp_path):
    path = tmp_path / "s.pt"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], **pipes) as holder:
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(DataFileError, match=r"s\.pt is in use by another process"), only_user(path):
            pass
        holder.kill()
        holder.wait()
    with only_user(path):
        pass
    with only_user(path):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UnwritableFileError, match="cannot be written"), only_user(tmp_path / "s.pt"):
        pass
