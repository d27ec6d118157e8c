r"""Search spaces that other tools declare, as :class:`~pyg_nas_np.spaces.ParameterSpace`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pyg_nas_np.spaces.inference import with_conditions
from pyg_nas_np.spaces.parameter_space import ParameterSpace
from pyg_nas_np.spaces.parameters import Categorical, Float, Integer, Parameter, Value
from pyg_nas_np.utils.errors import InvalidSpaceError
from pyg_nas_np.utils.imports import require

_LISTED = 1000
"""Values of a parameter, up to which a comparison with it becomes a list of values."""


def from_optuna(source: Any, **options: Any) -> ParameterSpace:
    r"""See :meth:`ParameterSpace.from_optuna`.

    Example:
        >>> optuna = require("optuna", "search")
        >>> lr = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
        >>> from_optuna({"lr": lr, "act": optuna.distributions.CategoricalDistribution(["relu", "gelu"])})
        ParameterSpace(lr=Float(0.0001, 0.1, log=True), act=Categorical(('relu', 'gelu')))
    """
    if isinstance(source, Mapping):
        return ParameterSpace({name: _from_distribution(name, given) for name, given in source.items()}, **options)
    trials = [trial for trial in source.get_trials(deepcopy=False) if trial.distributions]
    if not trials:
        raise InvalidSpaceError("the study has no trial with a parameter; run one, or give distributions by name")
    found: dict[str, Value] = {}
    known: dict[str, list[Any]] = {}
    for trial in trials:
        for name, given in trial.distributions.items():
            if given in known.setdefault(name, []):
                continue
            known[name].append(given)
            parameter = _from_distribution(name, given)
            found[name] = _union(name, found[name], parameter) if name in found else parameter
    # A waiting trial has no parameters yet, one that runs only its first ones.
    complete = [trial.params for trial in trials if trial.state.is_finished() and trial.state.name != "FAIL"]
    rows = complete or [trial.params for trial in trials]
    table = {name: [row.get(name) for row in rows] for name in found}
    return ParameterSpace(with_conditions(found, table), **{"pool": rows, **options})


def _from_distribution(name: str, given: Any) -> Value:
    kind = type(given).__name__
    try:
        if kind == "CategoricalDistribution":
            return Categorical(given.choices)
        if kind == "IntDistribution":
            return Integer(given.low, given.high, given.step, given.log)
        if kind == "FloatDistribution":
            return Float(given.low, given.high, given.step, given.log)
    except InvalidSpaceError as error:
        raise InvalidSpaceError(f"parameter {name!r}: {error}") from None
    raise InvalidSpaceError(f"parameter {name!r} is a {kind}, which is not a distribution of Optuna 3 or later")


def _union(name: str, first: Value, second: Value) -> Value:
    """The smallest parameter that holds two ranges; a study may change them from trial to trial."""
    if first == second:
        return first
    if isinstance(first, Categorical) and isinstance(second, Categorical):
        return Categorical((*first.choices, *(choice for choice in second.choices if choice not in first.choices)))
    if isinstance(first, Integer | Float) and type(first) is type(second):
        assert isinstance(second, Integer | Float)
        same = first.step == second.step and first.low == second.low
        wider: dict[str, Any] = {"low": min(first.low, second.low), "high": max(first.high, second.high)}
        wider["step"] = first.step if same else 1 if isinstance(first, Integer) else None
        return replace(first, **wider)
    raise InvalidSpaceError(
        f"parameter {name!r} is {first!r} in one trial and {second!r} in another; give the two different names"
    )


def from_configspace(source: Any, **options: Any) -> ParameterSpace:
    r"""See :meth:`ParameterSpace.from_configspace`."""
    package = require("ConfigSpace", "configspace")
    if source.forbidden_clauses:
        raise InvalidSpaceError(
            f"forbidden clauses cannot be taken over ({source.forbidden_clauses[0]}); write them as conditions"
        )
    found = {name: _from_hyperparameter(name, given) for name, given in source.items()}
    when: dict[str, dict[str, tuple[Any, ...]]] = {name: {} for name in found}
    for condition in source.conditions:
        _add_condition(package, condition, found, when)
    parameters: dict[str, Parameter] = {name: replace(given, when=when[name]) for name, given in found.items()}
    return ParameterSpace(parameters, **{"name": source.name, **options})


def _from_hyperparameter(name: str, given: Any) -> Value:
    kind = type(given).__name__
    try:
        if kind == "Constant":
            return Categorical((given.value,))
        if kind == "CategoricalHyperparameter":
            return Categorical(tuple(given.choices))
        if kind == "OrdinalHyperparameter":
            return Categorical(tuple(given.sequence), ordered=True)
        if kind.endswith("IntegerHyperparameter"):
            return Integer(given.lower, given.upper, log=given.log)
        if kind.endswith("FloatHyperparameter"):
            return Float(given.lower, given.upper, log=given.log)
    except InvalidSpaceError as error:
        raise InvalidSpaceError(f"parameter {name!r}: {error}") from None
    raise InvalidSpaceError(f"parameter {name!r} is a {kind}, which is not known")


def _add_condition(
    package: Any, condition: Any, found: Mapping[str, Value], when: dict[str, dict[str, tuple[Any, ...]]]
) -> None:
    if isinstance(condition, package.AndConjunction):
        for part in condition.components:
            _add_condition(package, part, found, when)
        return
    parents = {parent.name for parent in _parents(package, condition)}
    if len(parents) > 1:
        raise InvalidSpaceError(
            f"a condition that joins several parameters by 'or' cannot be taken over ({condition}); split the parameter"
        )
    parent, child = parents.pop(), _child(package, condition).name
    size = found[parent].size
    if size is None or size > _LISTED:
        raise InvalidSpaceError(
            f"the condition {condition} compares with one of too many values; make {parent!r} categorical or ordinal"
        )
    holds = _test(package, condition, found[parent])
    known = when[child].get(parent, found[parent].values())
    allowed = tuple(value for value in known if holds(value))
    if not allowed:
        raise InvalidSpaceError(f"the conditions of {child!r} on {parent!r} can never hold; drop {child!r}")
    when[child][parent] = allowed


def _parents(package: Any, condition: Any) -> list[Any]:
    if isinstance(condition, package.OrConjunction | package.AndConjunction):
        return [parent for part in condition.components for parent in _parents(package, part)]
    return [condition.parent]


def _child(package: Any, condition: Any) -> Any:
    if isinstance(condition, package.OrConjunction | package.AndConjunction):
        return _child(package, condition.components[0])
    return condition.child


def _test(package: Any, condition: Any, parent: Value) -> Callable[[Any], bool]:
    """Whether a value of the only parent satisfies a condition."""
    if isinstance(condition, package.OrConjunction | package.AndConjunction):
        join = any if isinstance(condition, package.OrConjunction) else all
        parts = [_test(package, part, parent) for part in condition.components]
        return lambda value: join(part(value) for part in parts)
    if isinstance(condition, package.InCondition):
        options = [parent.read(value) for value in condition.values]
        return lambda value: value in options
    bound = parent.read(condition.value)
    # The order of an ordinal is that of its choices.
    order = list(parent.values()).index
    tests: dict[str, Callable[[Any], bool]] = {
        "EqualsCondition": lambda value: bool(value == bound),
        "NotEqualsCondition": lambda value: bool(value != bound),
        "GreaterThanCondition": lambda value: order(value) > order(bound),
        "LessThanCondition": lambda value: order(value) < order(bound),
    }
    kind = type(condition).__name__
    if kind not in tests:
        raise InvalidSpaceError(f"the condition {condition} is a {kind}, which is not known")
    return tests[kind]


def from_neps(source: Any, **options: Any) -> ParameterSpace:
    r"""See :meth:`ParameterSpace.from_neps`."""
    attributes = source if isinstance(source, Mapping) else source.get_attrs()
    found = {name: _from_domain(name, given) for name, given in attributes.items() if not _is_fixed(given)}
    return ParameterSpace(found, **options)


def _is_fixed(given: Any) -> bool:
    """Whether it is a constant, or a fidelity, which says how long an architecture is trained and not what it is."""
    return isinstance(given, str | int | float) or type(given).__name__.endswith("Fidelity")


def _from_domain(name: str, given: Any) -> Value:
    kind = type(given).__name__
    try:
        if kind == "Categorical" and isinstance(given.choices, tuple | list):
            return Categorical(tuple(given.choices))
        if kind == "Integer":
            return Integer(given.lower, given.upper, log=given.log)
        if kind == "Float":
            return Float(given.lower, given.upper, log=given.log)
    except InvalidSpaceError as error:
        raise InvalidSpaceError(f"parameter {name!r}: {error}") from None
    raise InvalidSpaceError(
        f"parameter {name!r} is a {kind}; only integers, floats and categories can be taken over from NePS"
    )
