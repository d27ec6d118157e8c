r"""Parts for the engines that people already use: Optuna, Ray Tune, Lightning. Import the module of the engine."""
