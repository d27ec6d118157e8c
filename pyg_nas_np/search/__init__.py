r"""Search loops around predictors."""
