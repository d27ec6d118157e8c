r"""Drawings of chains of layers: a row a stage, boxes as wide as their layers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pyg_nas_np.spaces.base import Layer, Stage

_LABEL, _UNIT, _GAP, _TALL, _ROW, _PAD = 150, 22, 22, 34, 58, 10
_SHARED, _HUES = "#e6e6e6", ("#d7e4f4", "#cfe9cf", "#f6dcb8", "#ecd3e6", "#f4d6d2", "#d3ecec")


def draw_stages(stages: Sequence[Stage], label: str) -> str:
    r"""Draws the stages of an architecture as an ``<svg>`` element.

    A row is a stage, with its title and its note. A box is a layer: its colour is the kind, its width the size.

    Args:
        stages: Of :meth:`~pyg_nas_np.spaces.GraphView.stages`.
        label: Name of the architecture, for screen readers.

    Example:
        >>> from pyg_nas_np.spaces import MobileNetV3Space
        >>> space = MobileNetV3Space()
        >>> arch = space.from_str("r224|k3e4-k5e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3-k7e6")
        >>> draw_stages(space.stages(arch), str(arch)).count('<rect class="op"')
        13
    """
    start = _PAD + _LABEL
    widest = max(_UNIT * sum(layer.size for layer in stage.layers) + _GAP * len(stage.layers) for stage in stages)
    width, height = start + widest + 24 + _PAD, 2 * _PAD + len(stages) * _ROW - (_ROW - _TALL)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts, end, y = [f'<svg {size} role="img" aria-label="{escape(label)}">'], start, _PAD
    for number, stage in enumerate(stages):
        if number:
            parts.append(_turn(end, y, start, y + _ROW))
            y += _ROW
        lines = ((15, stage.title), (29, stage.note))
        parts += [f'<text x="{_PAD}" y="{y + below}">{escape(line)}</text>' for below, line in lines if line]
        end = start
        for position, layer in enumerate(stage.layers):
            if position:
                parts.append(_arrow(f"M{end} {y + _TALL / 2}H{end + _GAP - 6}", end + _GAP, y + _TALL / 2))
                end += _GAP
            parts.append(_box(end, y, layer))
            end += layer.size * _UNIT
    return "".join([*parts, "</svg>"])


def _box(x: float, y: float, layer: Layer) -> str:
    width = layer.size * _UNIT
    fill = _SHARED if layer.kind is None else _HUES[layer.kind % len(_HUES)]
    corner = f'x="{x}" y="{y}" width="{width}" height="{_TALL}" rx="6"'
    at = f'x="{x + width / 2}" y="{y + _TALL / 2 + 4}" text-anchor="middle"'
    return f'<rect class="op" {corner} style="fill:{fill}"/><text class="op" {at}>{escape(layer.text)}</text>'


def _turn(end: float, above: float, start: float, y: float) -> str:
    """From the last box of a row to the first one of the next."""
    middle = above + _TALL + (_ROW - _TALL) / 2
    path = f"M{end} {above + _TALL / 2}h12V{middle}H{start + 12}V{y - 6}"
    return _arrow(path, start + 12, y, down=True)


def _arrow(path: str, x: float, y: float, *, down: bool = False) -> str:
    head = f"M{x - 4} {y - 8}L{x} {y}L{x + 4} {y - 8}z" if down else f"M{x - 8} {y - 4}L{x} {y}L{x - 8} {y + 4}z"
    return f'<path class="edge" d="{path}"/><path class="head" d="{head}"/>'
