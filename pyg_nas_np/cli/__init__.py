r"""The command ``pyg-nas-np``."""

from pyg_nas_np.cli.app import app, main

__all__ = ["app", "main"]
