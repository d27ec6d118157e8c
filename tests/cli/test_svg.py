from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.cli import svg
from pyg_nas_np.spaces import NASBench201Space, NASBenchGraphSpace, to_networkx

finite = st.floats(-1e6, 1e6)


def parse(text):
    """Inline SVG inherits the name space of its page."""
    return ElementTree.fromstring(text)


@given(finite, st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low, width):
    high = low + width
    found = svg.ticks(low, high)
    assert 1 <= len(found) <= 7
    assert found == sorted(set(found))
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert all(low - slack <= value <= high + slack for value in found)


@given(st.floats(1e-6, 1e6), st.floats(10.0, 1e4))
def test_logarithmic_ticks_are_1_2_5(low, factor):
    found = svg.log_ticks(low, low * factor)
    assert len(found) >= 2
    for value in found:
        mantissa = value / 10 ** math.floor(math.log10(value) + 1e-9)
        assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-3


def test_marks_lie_where_their_values_say():
    plot = svg.Plot((0, 10), (0, 1), "a <plot>", "x & y", "y", width=500, height=300)
    plot.line([-5, 15], [0.5, 2.0], "curve")
    plot.spans([5], [-1], [0.5], "band")
    assert plot.points([0, 10, 11], [0, 1, 0], "dots") == 2
    plot.named_points([5, 50], [0.5, 0.5], ["<middle>", "outside"], "model")
    root = parse(plot.render())
    assert root.get("aria-label") == "a <plot>"
    assert "x & y" in [text.text for text in root.iter("text")]
    (dot,) = root.iter("circle")
    assert dot.find("title").text == "<middle>"
    (dots,) = (path.get("d") for path in root.iter("path") if path.get("class") == "dots")
    first, last = (tuple(map(float, part.split())) for part in dots.replace("h0", "").split("M")[1:])
    center = float(dot.get("cx")), float(dot.get("cy"))
    assert center == pytest.approx([(a + b) / 2 for a, b in zip(first, last, strict=True)], abs=0.11)
    assert first[0] < last[0]
    assert first[1] > last[1]
    # Lines that leave the frame end at it.
    (line,) = root.iter("polyline")
    ends = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    assert ends[0][0] == first[0]
    assert ends[1] == last


def test_logarithmic_axis_halves_at_the_geometric_mean():
    plot = svg.Plot((1, 100), (0, 1), "log", "x", "y", log_x=True)
    plot.named_points([1, 10, 100], [0.5] * 3, "abc", "model")
    left, middle, right = (float(dot.get("cx")) for dot in parse(plot.render()).iter("circle"))
    assert middle == pytest.approx((left + right) / 2, abs=0.11)


def test_ranges_of_one_point_are_drawn():
    plot = svg.Plot((3, 3), (0, 0), "one", "x", "y")
    assert plot.points([3], [0], "dots") == 1
    parse(plot.render())
    parse(svg.interval(1, 1, 1, None, (1, 1)))


def test_interval_shows_the_measured_label_only_where_known():
    assert 'class="truth"' in svg.interval(0, 1, 2, 1.5, (0, 2))
    assert 'class="truth"' not in svg.interval(0, 1, 2, None, (0, 2))


def test_bars_end_at_their_cell():
    widths = [float(parse(svg.bar(share)).find("rect").get("width")) for share in (-1.0, 0.25, 7.0)]
    assert widths == [0.0, 25.0, 100.0]


@pytest.mark.parametrize(("space", "index"), [(NASBench201Space(), 6111), (NASBenchGraphSpace(), 20_000)])
def test_cells_show_every_node_and_edge_without_overlap(space, index):
    graph = to_networkx(space, space[index])
    root = parse(svg.cell(space, space[index]))
    boxes = [[float(box.get(key)) for key in ("x", "y", "width", "height")] for box in root.iter("rect")]
    assert len(boxes) == graph.number_of_nodes()
    assert sum(path.get("class") == "edge" for path in root.iter("path")) == graph.number_of_edges()
    width, height = map(float, root.get("viewBox").split()[2:])
    for i, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        for other in boxes[:i]:
            assert abs(x - other[0]) >= w or abs(y - other[1]) >= h
