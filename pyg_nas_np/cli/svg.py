r"""Figures as inline SVG: no image files, no fonts, colours from the style sheet of the page around them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from pyg_nas_np.spaces import CellSpace, to_networkx
from pyg_nas_np.spaces.views import layered_layout

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 46


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    r"""Returns about :obj:`count` round numbers between two.

    Example:
        >>> ticks(84.2, 91.9), ticks(1.0, 1.0)
        ([86.0, 88.0, 90.0], [1.0])
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if raw <= power * factor * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 12) + 0.0 for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    r"""Returns 1, 2 and 5 times the powers of ten between two positive numbers.

    Example:
        >>> log_ticks(0.07, 1.6)
        [0.1, 0.2, 0.5, 1.0]
    """
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [round(value, 12) for value in values if low <= value <= high]


class Plot:
    r"""A plane with two axes; marks are added one kind after the other and lie in this order.

    Marks outside the ranges are left out, lines and spans are cut.

    Args:
        x: Range of the horizontal axis.
        y: Range of the vertical axis.
        label: What the figure shows, for screen readers.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        log_x: Whether the horizontal axis is logarithmic.
        width: In pixels, where the page does not shrink it.
        height: In pixels.
        x_ticks: Texts at places of the horizontal axis. (default: round numbers)

    Example:
        >>> plot = Plot((0, 1), (0, 2), "a line", "x", "y")
        >>> plot.line([0, 1], [0, 2], "guide")
        >>> plot.points([0.5, 9.0], [1.0, 1.0], "dots")
        1
        >>> plot.render()[:4]
        '<svg'
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        label: str,
        x_label: str,
        y_label: str,
        *,
        log_x: bool = False,
        width: int = 520,
        height: int = 360,
        x_ticks: Mapping[float, str] | None = None,
    ) -> None:
        self.x, self.y = _widened(x), _widened(y)
        self.label, self.x_label, self.y_label = label, x_label, y_label
        self.log_x, self.width, self.height = log_x, width, height
        if x_ticks is None:
            x_ticks = {value: f"{value:g}" for value in (log_ticks(*self.x) if log_x else ticks(*self.x))}
        self.x_ticks = x_ticks
        self._marks: list[str] = []

    def points(self, x: Sequence[float], y: Sequence[float], kind: str) -> int:
        r"""Adds dots as one path of class :obj:`kind`; returns how many lie within the ranges."""
        inside = [(a, b) for a, b in zip(x, y, strict=True) if self._inside(a, b)]
        path = "".join(f"M{self._x(a):.1f} {self._y(b):.1f}h0" for a, b in inside)
        self._marks.append(f'<path class="{kind}" d="{path}"/>')
        return len(inside)

    def named_points(self, x: Sequence[float], y: Sequence[float], names: Iterable[str], kind: str) -> None:
        r"""Adds dots that tell their names where the mouse rests on them."""
        for a, b, name in zip(x, y, names, strict=True):
            if self._inside(a, b):
                mark = f'<circle class="{kind}" cx="{self._x(a):.1f}" cy="{self._y(b):.1f}" r="4">'
                self._marks.append(f"{mark}<title>{escape(name)}</title></circle>")

    def line(self, x: Sequence[float], y: Sequence[float], kind: str) -> None:
        r"""Adds a line through points."""
        pairs = zip(x, y, strict=True)
        path = " ".join(f"{self._x(_clamp(a, self.x)):.1f},{self._y(_clamp(b, self.y)):.1f}" for a, b in pairs)
        self._marks.append(f'<polyline class="{kind}" points="{path}"/>')

    def spans(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> None:
        r"""Adds vertical bars from :obj:`low` to :obj:`high`."""
        path = "".join(
            f"M{self._x(a):.1f} {self._y(_clamp(b, self.y)):.1f}V{self._y(_clamp(c, self.y)):.1f}"
            for a, b, c in zip(x, low, high, strict=True)
        )
        self._marks.append(f'<path class="{kind}" d="{path}"/>')

    def render(self) -> str:
        r"""Returns the ``<svg>`` element."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        parts = [_open(self.width, self.height, self.label)]
        for value, text in self.x_ticks.items():
            at = self._x(value)
            parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
            parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
        for value in ticks(*self.y):
            at = self._y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
        parts += self._marks
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
        for name, where in (
            (self.x_label, f'x="{(_LEFT + right) / 2}" y="{self.height - 8}"'),
            (self.y_label, f'transform="translate(14 {(_TOP + bottom) / 2}) rotate(-90)"'),
        ):
            parts.append(f'<text class="name" {where} text-anchor="middle">{escape(name)}</text>')
        return "".join([*parts, "</svg>"])

    def _inside(self, x: float, y: float) -> bool:
        return self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]

    def _x(self, value: float) -> float:
        scale: Callable[[float], float] = math.log if self.log_x else float
        low, high = map(scale, self.x)
        return _LEFT + (scale(value) - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.y
        return self.height - _BOTTOM - (value - low) / (high - low) * (self.height - _TOP - _BOTTOM)


def interval(
    low: float, center: float, high: float, measured: float | None, span: tuple[float, float], *, width: int = 200
) -> str:
    r"""Returns a small bar with a dot at :obj:`center`, and a diamond at the measured value, for a row of a table."""
    start, stop = _widened(span)

    def at(value: float) -> float:
        return 8 + (_clamp(value, (start, stop)) - start) / (stop - start) * (width - 16)

    parts = [_open(width, 20, f"{center:.3f}, from {low:.3f} to {high:.3f}")]
    parts.append(f'<path class="grid" d="M8 10H{width - 8}"/>')
    parts.append(f'<path class="band" d="M{at(low):.1f} 10H{at(high):.1f}"/>')
    parts.append(f'<circle class="model" cx="{at(center):.1f}" cy="10" r="4"/>')
    if measured is not None:
        x = at(measured)
        parts.append(f'<path class="truth" d="M{x:.1f} 4l6 6l-6 6l-6 -6z"/>')
    return "".join([*parts, "</svg>"])


def bar(share: float) -> str:
    r"""Returns a bar of a share of its width."""
    width = 100.0 * min(1.0, max(0.0, share))
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="model" width="{width:.1f}" height="10"/></svg>'
    )


def cell(space: CellSpace[Any], arch: Any) -> str:
    r"""Draws an architecture as a layered graph, input on the left, one hue an operation.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> cell(space, space[6111]).count("<rect")
        8
    """
    graph = to_networkx(space, arch)
    position, routes = layered_layout(graph)
    column, row, box, tall, pad = 108, 46, 80, 34, 10
    top = max(y for _, y in position.values())
    depth = max(x for x, _ in position.values())
    place = {node: (pad + box / 2 + column * x, pad + tall / 2 + row * (top - y)) for node, (x, y) in position.items()}
    height = max(y for _, y in place.values()) + tall / 2 + pad
    parts = [_open(int(2 * pad + box + column * depth), int(height), space.to_str(arch))]
    for source, target in graph.edges:
        (x0, y0), (x1, y1) = place[source], place[target]
        end = x1 - box / 2
        points = [(x0 + box / 2, y0)]
        for holder in routes[source, target]:
            x, y = place[holder]
            # Straight past the boxes of a layer, so that no line runs into one.
            points += [(x - box / 2, y), (x + box / 2, y)]
        points.append((end - 4, y1))
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (a, b), (c, d) in itertools.pairwise(points):
            middle = (a + c) / 2
            path += f"C{middle:.1f} {b:.1f} {middle:.1f} {d:.1f} {c:.1f} {d:.1f}"
        parts.append(f'<path class="edge" d="{path}"/>')
        parts.append(
            f'<path class="head" d="M{end - 8:.1f} {y1 - 4:.1f}L{end:.1f} {y1:.1f}L{end - 8:.1f} {y1 + 4:.1f}z"/>'
        )
    for node, op in graph.nodes(data="op"):
        x, y = place[node]
        kind = space.op_names.index(op)
        # Hues by the golden angle lie far apart, however many operations there are.
        fill = "" if kind < 2 else f' style="fill:hsl({(210 + 137.5 * (kind - 2)) % 360:.0f} 60% var(--op))"'
        corner = f'x="{x - box / 2:.1f}" y="{y - tall / 2:.1f}"'
        parts.append(f'<rect class="op" {corner} width="{box}" height="{tall}" rx="6"{fill}/>')
        lines = op.rsplit("_", 1) if len(op) > 11 else [op]
        for i, line in enumerate(lines):
            at = y + 4 + 13 * (i - (len(lines) - 1) / 2)
            parts.append(f'<text class="op" x="{x:.1f}" y="{at:.1f}" text-anchor="middle">{escape(line)}</text>')
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int, label: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">'


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    """A range that is one point becomes one that can be divided by."""
    low, high = span
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _clamp(value: float, span: tuple[float, float]) -> float:
    return min(max(value, span[0]), span[1])
