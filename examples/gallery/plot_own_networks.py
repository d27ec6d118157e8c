r"""
Predict how long networks take
==============================

Networks are traced on the meta device into graphs of operations. Twelve measured run times order all others; nothing
of the others is run.
"""

import time

import matplotlib.pyplot as plt
import torch
from torch import nn

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.spaces import ModuleSpace


def build(width: int, depth: int, kernel: int) -> nn.Module:
    r"""A small convolutional network."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(width, width, kernel, padding="same") for _ in range(depth)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


choices = {"width": [8, 16, 24, 32], "depth": [1, 2, 4, 6], "kernel": [1, 3, 5]}
space = ModuleSpace.built(build, choices, torch.empty(1, 3, 32, 32))
configs = [{"width": w, "depth": d, "kernel": k} for w in (8, 16, 24, 32) for d in (1, 2, 4, 6) for k in (1, 3, 5)]


@torch.no_grad()
def milliseconds(config: dict) -> float:
    r"""The fastest of five forward passes."""
    network, images = build(**config).eval(), torch.rand(8, 3, 32, 32)
    passes = []
    for _ in range(5):
        start = time.perf_counter()
        network(images)
        passes.append(time.perf_counter() - start)
    return 1000 * min(passes)


times = torch.tensor([milliseconds(config) for config in configs])
labelled = list(range(0, len(configs), 4))
rest = [i for i in range(len(configs)) if i % 4]

# %%
# Times are better when small, and are predicted on the scale of their labels.

predictor = ConvNPPredictor(space, maximize=False).fit([configs[i] for i in labelled], times[labelled])
mean, std = predictor.predict([configs[i] for i in rest], return_std=True)

plt.errorbar(times[rest], mean, yerr=2 * std, fmt="o", markersize=4, alpha=0.7, elinewidth=0.7)
plt.plot([0, times.max()], [0, times.max()], color="black", linewidth=0.8)
plt.xlabel("measured time, ms")
plt.ylabel("predicted time, ms")
plt.title(f"{len(labelled)} networks were timed, {len(rest)} are predicted")
plt.tight_layout()
plt.show()
