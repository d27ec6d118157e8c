r"""Synthesised prediction tasks."""
