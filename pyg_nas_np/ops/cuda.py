r"""The CUDA back end."""
from __future__ import annotations


def is_available(): return False
def require_device(device): raise RuntimeError
