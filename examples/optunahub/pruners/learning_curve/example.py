"""Thirty trials of twenty epochs; most hopeless ones are stopped."""

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    height = trial.suggest_float("height", 0.5, 0.9)
    value = 0.0
    for epoch in range(20):
        value = height * (1 - 0.7 ** (epoch + 1))  # train an epoch here
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


if __name__ == "__main__":
    module = optunahub.load_module("pruners/learning_curve")
    study = optuna.create_study(direction="maximize", pruner=module.CurvePruner())
    study.optimize(objective, n_trials=30)
    print(study.best_value, sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials), "stopped")
