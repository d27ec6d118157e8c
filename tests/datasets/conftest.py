"""Records of the official NAS-Bench-101 files that are made, so that tests need no files."""

from __future__ import annotations

import base64
import json

import numpy as np
import numpy.typing as npt

from pyg_nas_np.datasets.tfrecord import frame


def encode_record(digest: str, epochs: int, matrix: npt.NDArray[np.int8], ops: list[str], metrics: bytes) -> bytes:
    r"""Returns one framed record in the format of the official files."""
    adjacency = "".join(str(int(bit)) for row in matrix for bit in row)
    text = json.dumps([digest, epochs, adjacency, ",".join(ops), base64.b64encode(metrics).decode()])
    return frame(text.encode())
