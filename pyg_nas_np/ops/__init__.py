r"""Set-convolution operators."""
