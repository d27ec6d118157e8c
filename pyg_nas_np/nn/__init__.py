r"""Reusable PyG-style modules."""
