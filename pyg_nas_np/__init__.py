r"""Performance prediction for neural architecture search on PyTorch Geometric."""

__version__ = "0.1.0"
