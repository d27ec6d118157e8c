r"""A package, so that other processes import these tests and not a ``tests`` that some distribution has installed."""
