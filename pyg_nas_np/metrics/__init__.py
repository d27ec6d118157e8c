r"""Ranking and calibration metrics."""
