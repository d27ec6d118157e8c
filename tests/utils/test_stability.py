r"""Marks of experimental objects."""

from __future__ import annotations

import inspect
import pickle
import warnings

import pytest
from sklearn.base import BaseEstimator, clone

from pyg_nas_np.utils.stability import ExperimentalWarning, experimental


@experimental
class Estimator(BaseEstimator):
    """Fits nothing."""

    def __init__(self, alpha: float = 1.0, *, beta: int = 2) -> None:
        self.alpha, self.beta = alpha, beta


class Sub(Estimator):
    """Inherits the mark."""


def fresh():
    @experimental
    def function(x: int, *, y: int = 1) -> int:
        """Adds.

        Two numbers.
        """
        return x + y

    return function


def test_the_first_call_warns_at_the_caller_and_no_other():
    function = fresh()
    with pytest.warns(ExperimentalWarning, match="function is experimental") as caught:
        assert function(1, y=2) == 3
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert function(2) == 3


def test_errors_of_arguments_stay():
    with pytest.warns(ExperimentalWarning), pytest.raises(TypeError, match="missing 1 required positional argument"):
        fresh()()


def test_signature_and_documentation_are_kept():
    function = fresh()
    assert list(inspect.signature(function).parameters) == ["x", "y"]
    assert inspect.getdoc(function).startswith("Adds.\n\nTwo numbers.\n\n.. note::\n    Experimental")


def test_classes_stay_estimators():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = clone(Estimator(3.0, beta=4))
        sub = Sub(5.0)
    assert isinstance(Estimator, type)
    assert one.get_params() == {"alpha": 3.0, "beta": 4}
    assert sub.get_params() == {"alpha": 5.0, "beta": 2}
    assert pickle.loads(pickle.dumps(one)).get_params() == one.get_params()


def test_what_the_site_calls_experimental_is_marked():
    from pyg_nas_np.convnp.encoder_training import pretrain_encoder
    from pyg_nas_np.search import BudgetedSearch

    for marked in (BudgetedSearch, pretrain_encoder):
        assert "Experimental: its arguments" in marked.__doc__
