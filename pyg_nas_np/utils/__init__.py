r"""Helpers without domain knowledge: errors, files, optional imports, threads."""

from pyg_nas_np.utils.errors import (
    ChecksumError,
    DataFileError,
    ForbiddenPickleError,
    InvalidArchitectureError,
    InvalidCurvesError,
    InvalidFeaturesError,
    InvalidImagesError,
    InvalidLabelsError,
    MissingExtraError,
    MissingLabelsError,
    MissingWeightsError,
    NASError,
    SingularCovarianceError,
    SpaceTooLargeError,
    VerificationError,
)
from pyg_nas_np.utils.files import (
    atomic_path,
    cache_dir,
    check_sha256,
    file_digest,
    load_pickle,
    numpy_scalar_globals,
    read_tensors,
)
from pyg_nas_np.utils.imports import require
from pyg_nas_np.utils.parallel import map_chunks

__all__ = [
    "ChecksumError",
    "DataFileError",
    "ForbiddenPickleError",
    "InvalidArchitectureError",
    "InvalidCurvesError",
    "InvalidFeaturesError",
    "InvalidImagesError",
    "InvalidLabelsError",
    "MissingExtraError",
    "MissingLabelsError",
    "MissingWeightsError",
    "NASError",
    "SingularCovarianceError",
    "SpaceTooLargeError",
    "VerificationError",
    "atomic_path",
    "cache_dir",
    "check_sha256",
    "file_digest",
    "load_pickle",
    "map_chunks",
    "numpy_scalar_globals",
    "read_tensors",
    "require",
]
