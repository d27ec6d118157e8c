r"""
Search with Optuna
==================

An ordinary objective, whose space has a condition. Only the sampler differs between the curves. A formula stands in for the
training of a network.
"""

import matplotlib.pyplot as plt
import numpy as np
import optuna

from pyg_nas_np.integrations.optuna import ConvNPSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: optuna.Trial) -> float:
    r"""Returns the error of a network."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    depth = trial.suggest_int("depth", 2, 12)
    width = trial.suggest_int("width", 16, 256, step=16)
    expand = trial.suggest_int("expand", 1, 6) if trial.suggest_categorical("block", ["conv", "mbconv"]) == "mbconv" else 0
    return (np.log10(lr) + 2.5) ** 2 / 10 + (np.log2(depth * width) - 10) ** 2 / 20 + abs(expand - 4) / 20


samplers = {
    "ConvNPSampler": lambda seed: ConvNPSampler(seed=seed),
    "TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
for name, sampler in samplers.items():
    best = []
    for seed in range(3):
        study = optuna.create_study(sampler=sampler(seed))
        study.optimize(objective, n_trials=30)
        best.append(np.minimum.accumulate([trial.value for trial in study.trials]))
    plt.step(range(1, 31), np.mean(best, axis=0), where="post", label=name)

# %%
# Means of three searches; one formula says nothing of other spaces, for which there are the results pages.

plt.yscale("log")
plt.xlabel("trials")
plt.ylabel("best error so far")
plt.legend(frameon=False)
plt.tight_layout()
plt.show()
