from __future__ import annotations

import inspect
import pickle

import pytest

from pyg_nas_np import utils
from pyg_nas_np.utils import MissingExtraError, NASError, errors

EVERY = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


def make(cls):
    return MissingExtraError("optuna", "search") if cls is MissingExtraError else cls("the reason")


@pytest.mark.parametrize("cls", EVERY)
def test_one_base_class_and_a_public_name(cls):
    assert issubclass(cls, NASError)
    assert getattr(utils, cls.__name__) is cls
    assert cls.__name__ in utils.__all__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.BackendUnavailableError, RuntimeError),
        (errors.InvalidArchitectureError, ValueError),
        (errors.InvalidLabelsError, ValueError),
        (errors.DataFileError, ValueError),
        (errors.ChecksumError, errors.DataFileError),
        (errors.ForbiddenPickleError, errors.DataFileError),
        (errors.VerificationError, ValueError),
        (errors.MissingLabelsError, LookupError),
        (errors.MissingWeightsError, LookupError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_code_that_knows_builtin_exceptions_only_can_catch_it(cls, builtin):
    with pytest.raises(builtin):
        raise make(cls)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", EVERY)
def test_exceptions_leave_worker_processes(cls, protocol):
    error = make(cls)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_missing_extra_says_what_to_install():
    error = MissingExtraError("optuna", "search")
    assert (error.package, error.extra) == ("optuna", "search")
    assert str(error) == "'optuna' is not installed. Install it with: pip install 'pyg-nas-np[search]'"
