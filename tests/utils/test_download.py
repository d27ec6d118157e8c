from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyg_nas_np.utils import ChecksumError, DataFileError
from pyg_nas_np.utils.download import download

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    r"""Serves ``CONTENT``; can ignore ranges, cut connections, or answer with an error."""

    ranges = True
    cut_after: int | None = None
    status: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


def test_download_is_verified_and_done_once(tmp_path: Path, server: Server) -> None:
    target = tmp_path / "folder" / "file.bin"
    assert download(server.url, target, SHA) == target
    assert target.read_bytes() == CONTENT
    download(server.url, target, SHA)
    assert server.requests == [None]
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]


def test_broken_download_is_resumed(tmp_path: Path, server: Server) -> None:
    target = tmp_path / "file.bin"
    server.cut_after = 300_000
    with pytest.raises(DataFileError, match="Try again to continue"):
        download(server.url, target, SHA)
    assert not target.exists()
    arrived = (tmp_path / "file.bin.part").read_bytes()
    assert len(arrived) > 200_000
    assert arrived == CONTENT[: len(arrived)]
    server.cut_after = None
    download(server.url, target, SHA)
    assert server.requests == [None, f"bytes={len(arrived)}-"]
    assert target.read_bytes() == CONTENT
    assert not (tmp_path / "file.bin.part").exists()


def test_server_without_ranges_starts_again(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert download(server.url, tmp_path / "file.bin", SHA).read_bytes() == CONTENT


def test_complete_part_is_used(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "file.bin", SHA).read_bytes() == CONTENT


def test_wrong_checksum_is_not_kept(tmp_path: Path, server: Server) -> None:
    with pytest.raises(ChecksumError, match=SHA):
        download(server.url, tmp_path / "file.bin", "0" * 64)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(ChecksumError):
        download(server.url, tmp_path / "file.bin", SHA)
    download(server.url, tmp_path / "file.bin", SHA)


def test_present_file_with_a_wrong_checksum_is_not_touched(tmp_path: Path, server: Server) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"mine")
    with pytest.raises(ChecksumError, match="another version"):
        download(server.url, target, SHA)
    assert target.read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusals_name_the_cure(tmp_path: Path, server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DataFileError, match=f"{status}.*put it at"):
        download(server.url, tmp_path / "file.bin", SHA)


def test_unreachable_server(tmp_path: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DataFileError, match="could not download"):
        download(server.url, tmp_path / "file.bin", SHA)


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "file:///etc/hosts"])
def test_insecure_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="only https"):
        download(url, tmp_path / "x", SHA)
