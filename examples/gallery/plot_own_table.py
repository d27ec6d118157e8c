r"""
Rank configurations from forty trained ones
===========================================

Small fully connected networks are trained on scikit-learn's digits. Forty results rank two hundred others, with
intervals.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.spaces import Categorical, Float, Integer, ParameterSpace

space = ParameterSpace(
    width=Integer(2, 64, log=True),
    depth=Integer(1, 3),
    lr=Float(1e-4, 1e-1, log=True),
    activation=Categorical(("relu", "tanh", "logistic")),
)
x, y = load_digits(return_X_y=True)
x_train, x_valid, y_train, y_valid = train_test_split(x / 16, y, train_size=400, random_state=0)


def accuracy(config: dict) -> float:
    r"""Trains one network for eight epochs and returns its validation accuracy in percent."""
    network = MLPClassifier(
        [config["width"]] * config["depth"], activation=config["activation"], learning_rate_init=config["lr"],
        max_iter=1, warm_start=True, random_state=0,
    )  # fmt: skip
    for _ in range(8):
        network.partial_fit(x_train, y_train, classes=range(10))
    return 100 * network.score(x_valid, y_valid)


# %%
# All are trained here, so that predictions can be compared with the truth; only the first forty are labels.

configs = space.sample(140, generator=torch.Generator().manual_seed(0))
measured = torch.tensor([accuracy(config) for config in configs])
predictor = ConvNPPredictor(space).fit(configs[:40], measured[:40])
mean, std = predictor.predict(configs[40:], return_std=True)

# %%
# Bars are intervals of two standard deviations.

plt.errorbar(measured[40:], mean, yerr=2 * std, fmt="o", markersize=4, alpha=0.6, elinewidth=0.7)
plt.plot([0, 100], [0, 100], color="black", linewidth=0.8)
plt.xlabel("measured accuracy, %")
plt.ylabel("predicted accuracy, %")
plt.title(f"Kendall's tau {float(kendall_tau(mean, measured[40:])):.2f} from 40 labels")
plt.tight_layout()
plt.show()
