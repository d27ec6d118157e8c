from __future__ import annotations

import itertools
from xml.etree import ElementTree

import torch

from pyg_nas_np.cli.stages import draw_stages
from pyg_nas_np.spaces import MobileNetV3Space

SPACE = MobileNetV3Space()


def test_a_box_for_each_layer_within_the_picture():
    for arch in [
        *SPACE.sample(5, torch.Generator().manual_seed(0)),
        SPACE.from_str("r224" + "|k7e6-k7e6-k7e6-k7e6" * 5),
    ]:
        root = ElementTree.fromstring(draw_stages(SPACE.stages(arch), str(arch)))
        boxes = root.findall("rect")
        assert len(boxes) == 2 + sum(arch.depths)
        width, height = float(root.get("width")), float(root.get("height"))
        for box in boxes:
            assert float(box.get("x")) >= 0
            assert float(box.get("x")) + float(box.get("width")) <= width
            assert float(box.get("y")) + float(box.get("height")) <= height
        # No two boxes of a row overlap.
        for one, two in itertools.pairwise(boxes):
            assert one.get("y") != two.get("y") or float(one.get("x")) + float(one.get("width")) < float(two.get("x"))


def test_names_layers_and_stages():
    arch = SPACE.from_str("r160|k3e4-k5e3|k3e3-k3e3-k7e6|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3")
    texts = [text.text for text in ElementTree.fromstring(draw_stages(SPACE.stages(arch), str(arch))).findall("text")]
    assert texts[0] == "image 160 × 160 · stem"
    assert [text for text in texts if "·" in text][1:4] == ["3×3 · e4", "5×5 · e3", "3×3 · e3"]
    assert {"stage 1", "stage 2, SE", "24 channels, stride 2", "112 channels"} <= set(texts)
