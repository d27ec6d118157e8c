r"""Command line."""
