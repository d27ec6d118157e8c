r"""Integrations with Optuna, Ray Tune and Lightning; import the module of the library in use."""
