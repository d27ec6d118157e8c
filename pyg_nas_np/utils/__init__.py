r"""Helpers without domain knowledge: errors, files, optional imports, threads, defaults, random draws."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.utils.checks import check_count, seeded
    from pyg_nas_np.utils.defaults import fixed_defaults
    from pyg_nas_np.utils.devices import as_device, on_device
    from pyg_nas_np.utils.errors import (
        BackendUnavailableError,
        ChecksumError,
        DataFileError,
        DeviceUnavailableError,
        ForbiddenPickleError,
        InvalidArchitectureError,
        InvalidCurvesError,
        InvalidFeaturesError,
        InvalidFidelityError,
        InvalidImagesError,
        InvalidLabelsError,
        InvalidSpaceError,
        MissingExtraError,
        MissingLabelsError,
        MissingWeightsError,
        NASError,
        SingularCovarianceError,
        SpaceTooLargeError,
        UnwritableFileError,
        VerificationError,
    )
    from pyg_nas_np.utils.files import atomic_path, cache_dir, check_sha256, file_digest, foreign_file, open_regular
    from pyg_nas_np.utils.imports import require
    from pyg_nas_np.utils.parallel import map_chunks, one_blas_thread
    from pyg_nas_np.utils.pickles import load_pickle, numpy_scalar_globals
    from pyg_nas_np.utils.random import drawing_from
    from pyg_nas_np.utils.stability import ExperimentalWarning, experimental
    from pyg_nas_np.utils.state_files import load_module, read_state, read_tensors, write_state, write_tensors

__all__ = [
    "BackendUnavailableError",
    "ChecksumError",
    "DataFileError",
    "DeviceUnavailableError",
    "ExperimentalWarning",
    "ForbiddenPickleError",
    "InvalidArchitectureError",
    "InvalidCurvesError",
    "InvalidFeaturesError",
    "InvalidFidelityError",
    "InvalidImagesError",
    "InvalidLabelsError",
    "InvalidSpaceError",
    "MissingExtraError",
    "MissingLabelsError",
    "MissingWeightsError",
    "NASError",
    "SingularCovarianceError",
    "SpaceTooLargeError",
    "UnwritableFileError",
    "VerificationError",
    "as_device",
    "atomic_path",
    "cache_dir",
    "check_count",
    "check_sha256",
    "drawing_from",
    "experimental",
    "file_digest",
    "fixed_defaults",
    "foreign_file",
    "load_module",
    "load_pickle",
    "map_chunks",
    "numpy_scalar_globals",
    "on_device",
    "one_blas_thread",
    "open_regular",
    "read_state",
    "read_tensors",
    "require",
    "seeded",
    "write_state",
    "write_tensors",
]

attach(__name__)
