r"""Drawings of MobileNetV3 sub-networks: a row a stage, boxes as wide as their layers."""

from __future__ import annotations

from html import escape

from pyg_nas_np.spaces.mobilenetv3 import KERNELS, SQUEEZE, STRIDES, WIDTHS, MobileNetV3Arch

_LABEL, _UNIT, _GAP, _TALL, _ROW, _PAD = 150, 22, 22, 34, 58, 10
_HUES = dict(zip(KERNELS, ("#d7e4f4", "#cfe9cf", "#f6dcb8"), strict=True))


def draw_subnet(arch: MobileNetV3Arch) -> str:
    r"""Draws a sub-network as an ``<svg>`` element.

    A row is a stage, with its channels, its stride and whether it has squeeze-and-excitation. A box is a layer: its
    colour the kernel, its width the expansion. Stem and head, which all sub-networks share, are one box each.

    Example:
        >>> from pyg_nas_np.spaces import MobileNetV3Space
        >>> arch = MobileNetV3Space().from_str("r224|k3e4-k5e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3-k7e6")
        >>> draw_subnet(arch).count('<rect class="op"')
        13
    """
    start = _PAD + _LABEL
    width = start + 4 * 6 * _UNIT + 3 * _GAP + 24 + _PAD
    height = 2 * _PAD + 7 * _ROW - (_ROW - _TALL)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg {size} role="img" aria-label="{escape(str(arch))}">']

    parts.append(_box(start, _PAD, 9 * _UNIT, "#e6e6e6", f"image {arch.resolution} × {arch.resolution} · stem"))
    end, y = start + 9 * _UNIT, _PAD
    for number, stage in enumerate(arch.stages):
        above, y = y, y + _ROW
        marks = [f"{WIDTHS[number + 1]} channels", *([f"stride {STRIDES[number]}"] if STRIDES[number] > 1 else [])]
        parts.append(f'<text x="{_PAD}" y="{y + 15}">stage {number + 1}{", SE" if SQUEEZE[number] else ""}</text>')
        parts.append(f'<text x="{_PAD}" y="{y + 29}">{", ".join(marks)}</text>')
        parts.append(_turn(end, above, start, y))
        end = start
        for position, (kernel, expansion) in enumerate(stage):
            if position:
                parts.append(_arrow(f"M{end} {y + _TALL / 2}H{end + _GAP - 6}", end + _GAP, y + _TALL / 2))
                end += _GAP
            parts.append(_box(end, y, expansion * _UNIT, _HUES[kernel], f"{kernel}×{kernel} · e{expansion}"))
            end += expansion * _UNIT
    parts.append(_turn(end, y, start, y + _ROW))
    parts.append(_box(start, y + _ROW, 9 * _UNIT, "#e6e6e6", "pooling · classifier"))
    return "".join([*parts, "</svg>"])


def _box(x: float, y: float, width: float, fill: str, text: str) -> str:
    corner = f'x="{x}" y="{y}" width="{width}" height="{_TALL}" rx="6"'
    at = f'x="{x + width / 2}" y="{y + _TALL / 2 + 4}" text-anchor="middle"'
    return f'<rect class="op" {corner} style="fill:{fill}"/><text class="op" {at}>{escape(text)}</text>'


def _turn(end: float, above: float, start: float, y: float) -> str:
    """From the last box of a row to the first one of the next."""
    middle = above + _TALL + (_ROW - _TALL) / 2
    path = f"M{end} {above + _TALL / 2}h12V{middle}H{start + 12}V{y - 6}"
    return _arrow(path, start + 12, y, down=True)


def _arrow(path: str, x: float, y: float, *, down: bool = False) -> str:
    head = f"M{x - 4} {y - 8}L{x} {y}L{x + 4} {y - 8}z" if down else f"M{x - 8} {y - 4}L{x} {y}L{x - 8} {y + 4}z"
    return f'<path class="edge" d="{path}"/><path class="head" d="{head}"/>'
