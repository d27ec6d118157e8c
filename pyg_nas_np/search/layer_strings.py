r"""Chains of layers as text, in the grammar of the MetaQNN tables: ``[C(64,3,1), P(2,2), GAP(10), SM(10)]``."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pyg_nas_np.utils import InvalidArchitectureError

ARITY: Final = {"C": 3, "P": 2, "D": 2, "FC": 1, "GAP": 1, "SM": 1}
"""Layers and their numbers: convolution (filters, size, stride), pooling (size, stride), dropout (i of n), fully
connected (width), global average pooling (classes), softmax (classes)."""

_TOKEN = re.compile(r"\s*([A-Z]+)\((\d+(?:\s*,\s*\d+)*)\)\s*")


class Layer(NamedTuple):
    r"""One layer.

    Args:
        kind: Key of :data:`ARITY`.
        numbers: As many numbers as it says.
    """

    kind: str
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind}({','.join(map(str, self.numbers))})"


Net = tuple[Layer, ...]


def parse_net(text: str) -> Net:
    r"""Reads a chain of layers.

    Raises:
        InvalidArchitectureError: If the text does not follow the grammar, or does not end in one softmax.

    Example:
        >>> [str(layer) for layer in parse_net("[C(64,3,1), P(2,2), GAP(10), SM(10)]")]
        ['C(64,3,1)', 'P(2,2)', 'GAP(10)', 'SM(10)']
    """
    body = text.strip()
    if not (body.startswith("[") and body.endswith("]")):
        raise InvalidArchitectureError(f"a net is written in brackets, got {text!r}")
    layers, place = [], 1
    while place < len(body) - 1:
        match = _TOKEN.match(body, place)
        if match is None:
            raise InvalidArchitectureError(f"no layer at character {place} of {text!r}")
        numbers = tuple(int(n) for n in match[2].split(","))
        if ARITY.get(match[1]) != len(numbers) or (0 in numbers and match[1] != "D"):
            raise InvalidArchitectureError(f"{match[0].strip()!r} is none of {', '.join(ARITY)} with its numbers")
        layers.append(Layer(match[1], numbers))
        place = match.end()
        if place < len(body) - 1:
            if body[place] != ",":
                raise InvalidArchitectureError(f"a comma is missing at character {place} of {text!r}")
            place += 1
    if not layers or [layer.kind for layer in layers].count("SM") != 1 or layers[-1].kind != "SM":
        raise InvalidArchitectureError(f"a net ends in its only softmax, got {text!r}")
    return tuple(layers)


def format_net(net: Net) -> str:
    r"""Inverse of :func:`parse_net`.

    Example:
        >>> format_net(parse_net("[GAP(10),SM(10)]"))
        '[GAP(10), SM(10)]'
    """
    return f"[{', '.join(map(str, net))}]"


def net_depth(net: Net) -> int:
    r"""Returns the number of layers, dropout aside: the column ``depth`` of the tables.

    Example:
        >>> net_depth(parse_net("[C(64,3,1), D(1,1), GAP(10), SM(10)]"))
        3
    """
    return sum(layer.kind != "D" for layer in net)


def image_size(net: Net, size: int = 32) -> int:
    r"""Returns the side of the representation after the layers, 1 from the first flat layer on.

    Convolutions and pools keep the border and divide the side by their stride, rounded up.

    Example:
        >>> image_size(parse_net("[C(64,3,1), P(3,2), P(2,2), SM(10)]")[:-1])
        8
    """
    for kind, numbers in net:
        if kind in ("C", "P"):
            size = -(-size // numbers[-1])
        elif kind in ("FC", "GAP", "SM"):
            size = 1
    return size
