r"""The exceptions of the package: one base class; user errors are also :class:`ValueError`."""

from __future__ import annotations


class NASError(Exception):
    r"""Base class of every exception raised on purpose by :mod:`pyg_nas_np`."""


class InvalidArchitectureError(NASError, ValueError):
    r"""An architecture, string or graph lies outside its search space."""


class InvalidSpaceError(NASError, ValueError):
    r"""A declaration of a search space contradicts itself, or cannot be inferred from what was given."""


class SpaceTooLargeError(NASError, OverflowError):
    r"""A search space has too many architectures for a table of all of them."""


class InvalidLabelsError(NASError, ValueError):
    r"""Measured labels cannot be used: empty, NaN, infinite, or not one per architecture."""


class InvalidFidelityError(NASError, ValueError):
    r"""Levels or prices of cheap trainings contradict each other: unordered, negative, missing."""


class InvalidCurvesError(NASError, ValueError):
    r"""Learning curves cannot be used: unordered epochs, shapes that disagree, too few finished ones."""


class InvalidFeaturesError(NASError, ValueError):
    r"""Features of a data set cannot be used: an empty class, NaN, or another width than expected."""


class InvalidImagesError(NASError, ValueError):
    r"""Images cannot be used: no class, an empty one, labels that do not fit, or pixels out of range."""


class DataFileError(NASError, ValueError):
    r"""A file from outside is truncated, corrupt or of another format."""


class ChecksumError(DataFileError):
    r"""A file does not have the checksum of its published original."""


class ForbiddenPickleError(DataFileError):
    r"""A pickle asks for a global that is not on the allow-list of its format."""


class UnwritableFileError(NASError, OSError):
    r"""A file cannot be written: the disk is full, or the folder is not writable."""


class VerificationError(NASError, ValueError):
    r"""A data set disagrees with its published statistics."""


class SingularCovarianceError(NASError, ValueError):
    r"""A covariance is not finite, or not positive definite by more than rounding."""


class MissingLabelsError(NASError, LookupError):
    r"""No available label source provides the requested metric."""


class MissingWeightsError(NASError, LookupError):
    r"""No trained weights exist for a search space."""


class BackendUnavailableError(NASError, RuntimeError):
    r"""The requested back end of an operator cannot run here; the message says what is missing."""


class DeviceUnavailableError(NASError, ValueError):
    r"""A device was asked for that this machine does not have."""


class MissingExtraError(NASError, ImportError):
    r"""An optional dependency is not installed.

    Example:
        >>> str(MissingExtraError("optuna", "search"))
        "'optuna' is not installed. Install it with: pip install 'pyg-nas-np[search]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        # The original arguments, so that the exception can be pickled by worker processes.
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return f"'{self.package}' is not installed. Install it with: pip install 'pyg-nas-np[{self.extra}]'"
