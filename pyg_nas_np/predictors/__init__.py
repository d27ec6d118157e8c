r"""Predictors behind one estimator interface."""
