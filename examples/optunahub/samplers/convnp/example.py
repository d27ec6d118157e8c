"""Twenty trials of a conditional space."""

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    depth = trial.suggest_int("depth", 1, 8)
    width = trial.suggest_int("width", 16, 256, log=True)
    score = -((depth - 5) ** 2) - abs(width - 96) / 32
    if trial.suggest_categorical("norm", ["none", "batch"]) == "batch":
        score += trial.suggest_float("momentum", 0.5, 0.99)
    return score  # train the network here


if __name__ == "__main__":
    module = optunahub.load_module("samplers/convnp")
    study = optuna.create_study(direction="maximize", sampler=module.ConvNPSampler(seed=0))
    study.optimize(objective, n_trials=20)
    print(study.best_value, study.best_params)
