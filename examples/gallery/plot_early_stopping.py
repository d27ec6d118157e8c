r"""
Stop trainings that will not win
================================

The rule learns from finished curves and stops a training when it is unlikely to beat the best one.
"""

import matplotlib.pyplot as plt
import numpy as np

from pyg_nas_np.curves import EarlyStopping

EPOCHS = 30
rng = np.random.default_rng(0)


def curve() -> np.ndarray:
    r"""A validation accuracy by epochs; a training with noise stands behind it in practice."""
    height, rate = rng.uniform(0.4, 0.95), rng.uniform(0.03, 0.4)
    return height * (1 - np.exp(-rate * np.arange(1, EPOCHS + 1))) + rng.normal(0, 0.01, EPOCHS)


rule = EarlyStopping(EPOCHS, "up", burn_in=25, delta=0.95)
for _ in range(25):
    rule.finish(curve())

# %%
# Forty more trainings, epoch by epoch. A dot shows where one was stopped.

spent = 0
for _ in range(40):
    values = curve()
    for epoch in range(3, EPOCHS + 1):
        if epoch == EPOCHS or rule.decide(values[:epoch]).stop:
            break
    spent += epoch
    if epoch == EPOCHS:
        rule.finish(values)
        plt.plot(range(1, EPOCHS + 1), values, color="tab:blue", linewidth=1.2)
    else:
        plt.plot(range(1, epoch + 1), values[:epoch], color="gray", linewidth=0.8)
        plt.plot(epoch, values[epoch - 1], "o", color="tab:red", markersize=4)

plt.xlabel("epoch")
plt.ylabel("validation accuracy")
plt.title(f"{spent} of {40 * EPOCHS} epochs were trained")
plt.tight_layout()
plt.show()
