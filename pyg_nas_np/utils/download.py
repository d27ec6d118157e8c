r"""Resumable downloads over TLS, checked against a published SHA-256."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from pyg_nas_np.utils.errors import DataFileError
from pyg_nas_np.utils.files import check_sha256

logger = logging.getLogger(__name__)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def download(url: str, target: str | os.PathLike[str], sha256: str, *, timeout: float = 30.0) -> Path:
    r"""Downloads a file, unless it exists with the right checksum.

    The bytes are written to ``target.part``, which a later call continues if the server allows it. It is renamed to
    :obj:`target` once the checksum is right.

    Args:
        url: An ``https`` address (``http`` for the local machine only).
        target: Path of the file.
        sha256: Published checksum.
        timeout: Seconds without data after which the download fails.

    Returns:
        The path of the file.

    Raises:
        ValueError: If :obj:`url` is not secure.
        ChecksumError: If the finished file has another checksum; it is deleted.
        DataFileError: If the server cannot be reached or refuses, or the connection breaks; received bytes are kept for
            the next call.
    """
    address = urlsplit(url)
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOOPBACK):
        raise ValueError(f"refusing to download {url}: only https is secure")
    path = Path(target)
    if path.exists():
        check_sha256(path, sha256)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part, timeout)
    except requests.RequestException as error:
        raise DataFileError(
            f"could not download {url} ({error}). Try again to continue, or get the file by other means and put it at "
            f"{path}"
        ) from error
    try:
        check_sha256(part, sha256)
    except DataFileError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def _fetch(url: str, part: Path, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    # Identity encoding: a compressed transfer could neither be resumed nor counted.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # Nothing is left to send; the checksum decides whether the part is the file.
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise requests.RequestException(f"server sent the range {response.headers.get('Content-Range')!r}")
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        logger.info("Downloading %s (%s bytes)", url, total)
        with (
            open(part, "ab" if have else "wb") as file,
            # disable=None: no bar where the output is not a terminal.
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
        ):
            # A chunk that is cut off is lost, so that they are small.
            for chunk in response.iter_content(1 << 16):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    if total is not None and have != total:
        raise requests.RequestException(f"the connection ended after {have} of {total} bytes")
