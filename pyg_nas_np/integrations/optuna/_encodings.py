r"""How a trial holds an architecture: which parameters it has, and what they say."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from pyg_nas_np.predictors import Architectures
from pyg_nas_np.spaces import (
    Categorical,
    EnumerableSpace,
    Float,
    InferredSpace,
    Integer,
    ParameterSpace,
    RecordView,
    Repeat,
    SearchSpace,
)
from pyg_nas_np.spaces.configuration import Level
from pyg_nas_np.spaces.parameters import Parameter
from pyg_nas_np.utils import InvalidArchitectureError, InvalidSpaceError, require

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import FrozenTrial, Trial, TrialState
else:
    optuna = require("optuna", "search")
    CategoricalDistribution = optuna.distributions.CategoricalDistribution
    FloatDistribution = optuna.distributions.FloatDistribution
    IntDistribution = optuna.distributions.IntDistribution
    TrialState = optuna.trial.TrialState

Values: TypeAlias = dict[str, Any]
"""What a trial says of its architecture: text, numbers and booleans by the names of parameters."""

Ask: TypeAlias = Callable[[str, "BaseDistribution"], Any]
"""Returns the value of a parameter."""

FIXED = "fixed_params"
"""System attribute of a trial from ``study.enqueue_trial``: the given parameters."""

_EXACT = 1 << 53
"""Optuna stores whole numbers as floats, which are exact below this."""

_SEEDS = (1 << 31) - 1


class Encoding(ABC):
    r"""What a trial's parameters say of an architecture.

    Values are the parameters as text, numbers and booleans: they are written into claims as JSON, and compared.
    """

    space: SearchSpace[Any]
    """The search space."""

    distributions: dict[str, BaseDistribution]
    """The parameters."""

    candidates: Architectures | None = None
    """The architectures that may be proposed, if not all of the space."""

    @abstractmethod
    def write(self, arch: Any) -> Values:
        r"""Returns the values that say :obj:`arch`."""

    @abstractmethod
    def read(self, values: Mapping[str, Any]) -> Any | None:
        r"""Returns the architecture of all its values; :obj:`None` where they are incomplete, or none."""

    def completed(self, given: Mapping[str, Any], others: Mapping[str, Any]) -> Any | None:
        r"""Returns an architecture with the given values, and others for what they leave open, if it is one."""
        return self.read(ChainMap(dict(given), dict(others)))

    def values(self, trial: FrozenTrial) -> Values:
        r"""Returns what a trial suggested, and before its end also what ``study.enqueue_trial`` gave."""
        fixed = {} if trial.state.is_finished() else trial.system_attrs.get(FIXED, {})
        given = {**fixed, **trial.params}
        found = {name: self._plain(name, given[name]) for name in self.distributions if name in given}
        return {name: value for name, value in found.items() if value is not None}

    def _plain(self, name: str, value: Any) -> Any:
        """A parameter as a plain value; None if it is not one of its distribution."""
        distribution = self.distributions[name]
        try:
            internal = distribution.to_internal_repr(value)
            return distribution.to_external_repr(internal) if distribution._contains(internal) else None
        except (TypeError, ValueError, OverflowError):
            return None

    def params(self, values: Values, trial: FrozenTrial) -> dict[str, Any]:
        r"""Returns the parameters that a trial is to suggest."""
        return values

    def attributes(self, values: Values) -> dict[str, Any]:
        r"""Returns the user attributes that a trial needs beside its parameters."""
        return {}

    def is_full(self, values: Values) -> bool:
        r"""Whether values include all that the trial may suggest."""
        return True

    def essential(self, values: Values) -> Values:
        r"""Returns the values that the trial suggests in any case."""
        return values

    def check(self, trial: FrozenTrial) -> None:
        r"""Checks that a trial is about the same space.

        Raises:
            ValueError: If one of its parameters has another distribution.
        """
        for name, wanted in self.distributions.items():
            if trial.distributions.get(name, wanted) != wanted:
                raise ValueError(
                    f"trial {trial.number} draws {name!r} from {trial.distributions[name]}, {self.space!r} needs "
                    f"{wanted}; use one study for one space"
                )


def encoding_of(space: SearchSpace[Any], name: str) -> RecordEncoding | IndexEncoding | TextEncoding:
    r"""Returns the encoding of a space: its parameters, an index, or else text.

    Args:
        space: The search space.
        name: Name of the parameter, where there is only one.
    """
    if isinstance(space, RecordView):
        return RecordEncoding(space)
    if isinstance(space, EnumerableSpace) and space.size <= _EXACT:
        return IndexEncoding(space, name)
    return TextEncoding(space, name)


class IndexEncoding(Encoding):
    r"""One integer, the official index."""

    def __init__(self, space: EnumerableSpace[Any], name: str) -> None:
        self.space: EnumerableSpace[Any] = space
        self.name = name
        self.distributions = {name: IntDistribution(0, space.size - 1)}

    def suggest(self, trial: Trial) -> Any:
        r"""Returns the architecture of a running trial."""
        return self.space[trial.suggest_int(self.name, 0, self.space.size - 1)]

    def write(self, arch: Any) -> Values:
        return {self.name: self.space.index(arch)}

    def read(self, values: Mapping[str, Any]) -> Any | None:
        return self.space[values[self.name]] if self.name in values else None


class PoolEncoding(Encoding):
    r"""One integer, the position in a list of candidates; of equal candidates the first."""

    def __init__(self, candidates: Architectures, name: str) -> None:
        self.space, self.candidates, self.name = candidates.space, candidates, name
        self.distributions = {name: IntDistribution(0, len(candidates) - 1)}
        self._archs = list(candidates)
        self._position: dict[Any, int] = {}
        for i, arch in enumerate(self._archs):
            self._position.setdefault(arch, i)

    def write(self, arch: Any) -> Values:
        return {self.name: self._position[arch]}

    def read(self, values: Mapping[str, Any]) -> Any | None:
        return self._archs[values[self.name]] if self.name in values else None


class TextEncoding(Encoding):
    r"""One integer that only seeds a draw where no sampler proposes; the architecture is a user attribute, as text."""

    def __init__(self, space: SearchSpace[Any], name: str) -> None:
        self.space, self.name = space, name
        self.distributions = {name: IntDistribution(0, _SEEDS)}

    def suggest(self, trial: Trial) -> Any:
        r"""Returns the architecture of a running trial."""
        seed = trial.suggest_int(self.name, 0, _SEEDS)
        text = trial.user_attrs.get(self.name)
        if text is None:
            arch = self.space.sample(1, torch.Generator("cpu").manual_seed(seed))[0]
            trial.set_user_attr(self.name, self.space.to_str(arch))
            return arch
        return self.space.from_str(text)

    def write(self, arch: Any) -> Values:
        return {self.name: self.space.to_str(arch)}

    def read(self, values: Mapping[str, Any]) -> Any | None:
        try:
            return self.space.from_str(values[self.name])
        except (KeyError, InvalidArchitectureError):
            return None

    def values(self, trial: FrozenTrial) -> Values:
        text = trial.user_attrs.get(self.name)
        return {self.name: text} if isinstance(text, str) else {}

    def params(self, values: Values, trial: FrozenTrial) -> dict[str, Any]:
        return {self.name: trial.number}

    def attributes(self, values: Values) -> dict[str, Any]:
        return values


# -- configurations -------------------------------------------------------------------------------------------------


class RecordEncoding(Encoding):
    r"""The parameters of a configuration; those of layer ``i`` of a list ``name`` are ``name_i_parameter``.

    Where layers have nothing but a parameter of the list's own name, that is ``name_i``. A list of variable length has
    a parameter ``name_length``, an optional parameter ``name_used``.

    Raises:
        InvalidSpaceError: If two parameters get one name.
    """

    def __init__(self, space: RecordView[Any]) -> None:
        self.space: RecordView[Any] = space
        self._level = Level(space.parameters)
        self.distributions = {}
        for name, distribution in _distributions(self._level, str):
            if name in self.distributions:
                raise InvalidSpaceError(f"two parameters of {space.name} would be {name!r} in a trial; rename one")
            self.distributions[name] = distribution

    def suggest(self, trial: Trial) -> Any:
        r"""Returns the architecture of a running trial."""
        return self.space.check(_asked(self._level, str, lambda name, wanted: _suggest(trial, name, wanted)))

    def write(self, arch: Any) -> Values:
        return dict(_written(self._level, str, self.space.records([arch])[0]))

    def read(self, values: Mapping[str, Any]) -> Any | None:
        try:
            return self.space.check(_asked(self._level, str, lambda name, _: values[name]))
        except (KeyError, InvalidArchitectureError):
            return None


def _suggest(trial: Trial, name: str, wanted: BaseDistribution) -> Any:
    if isinstance(wanted, IntDistribution):
        return trial.suggest_int(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
    if isinstance(wanted, FloatDistribution):
        return trial.suggest_float(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
    assert isinstance(wanted, CategoricalDistribution)
    return trial.suggest_categorical(name, wanted.choices)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Integer):
        # Optuna wants the last step to end at the bound, and knows no logarithms of steps.
        log = parameter.log and parameter.step == 1
        return IntDistribution(parameter.low, parameter.at(1.0), log=log, step=parameter.step)
    assert isinstance(parameter, Float)
    if parameter.step is None:
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.at(1.0), step=parameter.step)


Naming: TypeAlias = Callable[[str], str]
"""Name in a trial of a parameter of one level."""


def _distributions(level: Level, title: Naming) -> Iterable[tuple[str, BaseDistribution]]:
    for name, parameter in level.parameters.items():
        if parameter.optional:
            yield _used(title(name))
        if not isinstance(parameter, Repeat):
            yield title(name), _distribution(parameter)
            continue
        yield from _length(title(name), parameter)
        for i in range(parameter.max_length):
            yield from _distributions(level.layers[name], _titles_of_layer(title(name), i, name, parameter))


def _asked(level: Level, title: Naming, ask: Ask) -> dict[str, Any]:
    """The record of the values of its active parameters."""
    record: dict[str, Any] = {}
    for name in level.order:
        parameter = level.parameters[name]
        if not level.active(name, record) or (parameter.optional and not ask(*_used(title(name)))):
            continue
        if not isinstance(parameter, Repeat):
            record[name] = ask(title(name), _distribution(parameter))
            continue
        length = next((ask(*asked) for asked in _length(title(name), parameter)), parameter.max_length)
        record[name] = [
            _asked(level.layers[name], _titles_of_layer(title(name), i, name, parameter), ask) for i in range(length)
        ]
    return record


def _written(level: Level, title: Naming, record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Inverse of :func:`_asked`."""
    for name, parameter in level.parameters.items():
        if parameter.optional and level.active(name, record):
            yield _used(title(name))[0], name in record
        if name not in record:
            continue
        if not isinstance(parameter, Repeat):
            yield title(name), record[name]
            continue
        yield from ((length, len(record[name])) for length, _ in _length(title(name), parameter))
        for i, layer in enumerate(record[name]):
            yield from _written(level.layers[name], _titles_of_layer(title(name), i, name, parameter), layer)


def _titles_of_layer(title: str, i: int, name: str, repeat: Repeat) -> Naming:
    alone = [*repeat.parameters] == [name]
    return lambda inner: f"{title}_{i}" if alone else f"{title}_{i}_{inner}"


def _used(title: str) -> tuple[str, BaseDistribution]:
    return f"{title}_used", CategoricalDistribution((False, True))


def _length(title: str, repeat: Repeat) -> list[tuple[str, BaseDistribution]]:
    if repeat.min_length == repeat.max_length:
        return []
    return [(f"{title}_length", IntDistribution(repeat.min_length, repeat.max_length))]


# -- studies --------------------------------------------------------------------------------------------------------


class StudyEncoding(Encoding):
    r"""The parameters that the trials of a study suggested, whatever they are.

    The space is inferred from them (:meth:`ParameterSpace.from_optuna
    <pyg_nas_np.spaces.ParameterSpace.from_optuna>`): ranges that change are joined, and a parameter that is missing in
    trials with some value of another one is conditional on it. What was inferred is a guess, so the space is open.
    Choices that are neither all text, all numbers nor all booleans are told apart by how they are written.

    Args:
        trials: The trials, at least one of them with a parameter.
    """

    space: InferredSpace

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.distributions = {name: given for trial in trials for name, given in trial.distributions.items()}
        self._labels = {
            name: _labels(given.choices)
            for name, given in self.distributions.items()
            if isinstance(given, CategoricalDistribution)
        }
        rows = [_Row(self.values(trial), self._declared(trial), trial.state) for trial in trials]
        inferred = ParameterSpace.from_optuna(_Rows(rows), pool=())
        seen = [row.params for row in rows if row.state == TrialState.COMPLETE]
        self.space = InferredSpace(inferred.parameters, lists={}, left_out={}, pool=seen)

    def _declared(self, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {
            name: CategoricalDistribution(tuple(dict.fromkeys(self._labels[name]))) if name in self._labels else given
            for name, given in trial.distributions.items()
        }

    def write(self, arch: Any) -> Values:
        return dict(arch)

    def read(self, values: Mapping[str, Any]) -> Any | None:
        try:
            return self.space.check(values)
        except InvalidArchitectureError:
            return None

    def completed(self, given: Mapping[str, Any], others: Mapping[str, Any]) -> Any | None:
        record: Values = {}
        level, values = Level(self.space.parameters), {**others, **given}
        for name in level.order:
            if name in given or (name in values and level.active(name, record)):
                record[name] = values[name]
        return self.read(record) if self.is_full(record) else None

    def _plain(self, name: str, value: Any) -> Any:
        if name not in self._labels:
            # A range may change from trial to trial.
            return value if isinstance(value, int | float) and math.isfinite(value) else None
        try:
            return self._labels[name][int(self.distributions[name].to_internal_repr(value))]
        except (TypeError, ValueError):
            return None

    def params(self, values: Values, trial: FrozenTrial) -> dict[str, Any]:
        return {
            name: self.distributions[name].to_external_repr(self._labels[name].index(value))
            if name in self._labels
            else value
            for name, value in values.items()
        }

    def is_full(self, values: Values) -> bool:
        level = Level(self.space.parameters)
        return all(name in values or not level.active(name, values) for name in level.order)

    def essential(self, values: Values) -> Values:
        known = self.space.parameters
        return {name: value for name, value in values.items() if name in known and not known[name].optional}

    def check(self, trial: FrozenTrial) -> None:
        r"""Takes any trial: Optuna itself refuses other choices, and ranges may change."""


class _Row(NamedTuple):
    """A trial with labels for choices."""

    params: Values
    distributions: dict[str, BaseDistribution]
    state: TrialState


class _Rows(NamedTuple):
    """Trials as those of a study."""

    rows: list[_Row]

    def get_trials(self, deepcopy: bool = True) -> list[_Row]:
        return self.rows


def _labels(choices: Sequence[Any]) -> tuple[Any, ...]:
    """Choices as values of a category: themselves where they are of one plain kind, else text."""
    kinds = {"number" if type(choice) in (int, float) else type(choice).__name__ for choice in choices}
    if kinds in ({"str"}, {"bool"}) or (kinds == {"number"} and all(map(math.isfinite, choices))):
        return tuple(choices)
    texts = [repr(choice) for choice in choices]
    # Objects may be written alike.
    return tuple(text if texts.count(text) == 1 else f"{text} ({i})" for i, text in enumerate(texts))
