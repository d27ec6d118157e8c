r"""Configurations, and what can be done with the parameters of one of their levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

import torch

from pyg_nas_np.spaces.base import draw_indices
from pyg_nas_np.spaces.parameters import Categorical, Parameter, Repeat, Value, as_parameter, is_missing
from pyg_nas_np.utils.errors import InvalidArchitectureError, InvalidSpaceError

_ABSENT = object()
_COUNTABLE = 100_000
"""Combinations of the parameters that conditions name, up to which configurations are counted."""


class Configuration(Mapping[str, Any]):
    r"""An immutable, hashable record: the values of the active parameters by name; layers are a tuple of such records.

    Spaces make them, see :meth:`ParameterSpace.check <pyg_nas_np.spaces.ParameterSpace.check>`; it prints as a
    dictionary and equals one of the same values.

    Args:
        values: Values by name.
        costs: Costs and scores that were given with the configuration, by column; they are not a part of it.

    Example:
        >>> Configuration({"depth": 2, "layers": [{"width": 8}, {"width": 16}]})
        {'depth': 2, 'layers': [{'width': 8}, {'width': 16}]}
    """

    __slots__ = ("_hash", "_values", "checked_by", "costs")

    def __init__(self, values: Mapping[str, Any], costs: Mapping[str, float] | None = None) -> None:
        self._values = {
            name: tuple(map(_as_layer, value)) if isinstance(value, list | tuple) else value
            for name, value in values.items()
        }
        self._hash = hash(frozenset(self._values.items()))
        self.costs = dict(costs or {})
        self.checked_by: Level | None = None
        """The parameters that it was last found to follow, so that nobody checks it again; no part of it either."""

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Configuration):
            return self._hash == other._hash and self._values == other._values
        return isinstance(other, Mapping) and self.to_dict() == dict(other)

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew: hashes of strings differ between processes.
        return Configuration, (self._values, self.costs)

    def to_dict(self) -> dict[str, Any]:
        r"""Returns plain dictionaries and lists."""
        return {
            name: [layer.to_dict() for layer in value] if isinstance(value, tuple) else value
            for name, value in self._values.items()
        }

    def __repr__(self) -> str:
        return repr(self.to_dict())


def _as_layer(layer: Mapping[str, Any]) -> Configuration:
    return layer if type(layer) is Configuration else Configuration(layer)


class Level:
    r"""The parameters of a configuration, or of a layer, with their conditions in order.

    A configuration is a dictionary here: values by name, of a :class:`Repeat` a list of dictionaries.

    Args:
        parameters: Parameters by name; a list is short for a :class:`Categorical`.
        exact: Whether to refuse numbers outside their ranges, unknown choices and values of inactive parameters.

    Raises:
        InvalidSpaceError: If there are none, or a condition names a parameter or value that there is not, depends on
            itself, or can never hold.
    """

    def __init__(self, parameters: Mapping[str, Any], exact: bool = True) -> None:
        if not parameters:
            raise InvalidSpaceError("a space needs at least one parameter")
        self.parameters: dict[str, Parameter] = {}
        for name, given in parameters.items():
            if not isinstance(name, str) or not name:
                raise InvalidSpaceError(f"the name of a parameter must be a string, got {name!r}")
            try:
                self.parameters[name] = as_parameter(given)
            except InvalidSpaceError as error:
                raise InvalidSpaceError(f"parameter {name!r}: {error}") from None
        self.exact = exact
        self.layers = {
            name: Level(repeat.parameters, exact)
            for name, repeat in self.parameters.items()
            if isinstance(repeat, Repeat)
        }
        self._values_of = {name: known for name, known in self.parameters.items() if isinstance(known, Value)}
        self.order = self._ordered()
        self._in_order = self.order == [*self.parameters]
        self.conditions = self._conditions()

    def _ordered(self) -> list[str]:
        """Names, each after those that its condition names."""
        for name, parameter in self.parameters.items():
            for parent in parameter.when:
                if parent not in self.parameters:
                    raise InvalidSpaceError(
                        f"the condition of {name!r} names {parent!r}, which is not one of {', '.join(self.parameters)}"
                    )
                if isinstance(self.parameters[parent], Repeat):
                    raise InvalidSpaceError(f"the condition of {name!r} names {parent!r}, which is a list of layers")
        try:
            sorter = TopologicalSorter({name: [*parameter.when] for name, parameter in self.parameters.items()})
            return [*sorter.static_order()]
        except CycleError as error:
            raise InvalidSpaceError(
                f"conditions depend on themselves: {' -> '.join(error.args[1])}; drop one"
            ) from None

    def _conditions(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """Conditions with values as the parents read them, after a check that each can hold."""
        conditions: dict[str, dict[str, tuple[Any, ...]]] = {}
        needed: dict[str, dict[str, set[Any]]] = {}
        for name in self.order:
            conditions[name], needed[name] = {}, {}
            for parent, values in self.parameters[name].when.items():
                try:
                    allowed = tuple(self._value(parent).read(value) for value in values)
                except InvalidArchitectureError as error:
                    raise InvalidSpaceError(
                        f"the condition of {name!r} on {parent!r} can never hold: {error}"
                    ) from None
                conditions[name][parent] = allowed
                for other, options in [*needed[parent].items(), (parent, set(allowed))]:
                    needed[name][other] = needed[name].get(other, options) & options
                    if not needed[name][other]:
                        raise InvalidSpaceError(
                            f"the conditions of {name!r} contradict each other: no value of {other!r} satisfies all"
                        )
        return conditions

    def _value(self, name: str) -> Value:
        return self._values_of[name]

    def active(self, name: str, record: Mapping[str, Any]) -> bool:
        r"""Whether a configuration has a parameter, as far as its condition goes."""
        conditions = self.conditions[name]
        return not conditions or all(
            parent in record and record[parent] in allowed for parent, allowed in conditions.items()
        )

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, record: Any) -> dict[str, Any]:
        r"""Returns a configuration with plain values.

        Raises:
            InvalidArchitectureError: If it is none; the message names the parameter and the reason.
        """
        if not isinstance(record, Mapping):
            raise InvalidArchitectureError("a configuration is a mapping from the names of parameters to values")
        if not record.keys() <= self.parameters.keys():
            unknown = next(name for name in record if name not in self.parameters)
            raise InvalidArchitectureError(f"{unknown!r} is not one of the parameters {self._names}")
        values: dict[str, Any] = {}
        for name in self.order:
            given = record.get(name, _ABSENT)
            if given is _ABSENT or (is_missing(given) and not self._has_none(name)):
                if self.active(name, values) and not self.parameters[name].optional and self._required(name):
                    raise InvalidArchitectureError(f"{name!r} is missing; the parameters are {self._names}")
                continue
            if self.exact and not self.active(name, values):
                parents = " and ".join(f"{p}={values.get(p, 'absent')!r}" for p in self.conditions[name])
                raise InvalidArchitectureError(f"{name!r} is not active where {parents}; leave it out")
            try:
                values[name] = self._read_value(name, given)
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"{name}: {error}") from None
        return self._sorted(values)

    @property
    def _names(self) -> str:
        return ", ".join(self.parameters)

    def _has_none(self, name: str) -> bool:
        parameter = self.parameters[name]
        return isinstance(parameter, Categorical) and None in parameter.choices

    def _required(self, name: str) -> bool:
        """What conditions were guessed from examples may be absent where they hold."""
        return self.exact or not self.conditions[name]

    def _read_value(self, name: str, given: Any) -> Any:
        if name in self._values_of:
            return self._values_of[name].read(given, exact=self.exact)
        parameter = self.parameters[name]
        assert isinstance(parameter, Repeat)
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise InvalidArchitectureError(f"{given!r} is not a list of layers")
        low, high = parameter.min_length, parameter.max_length
        if self.exact and not low <= len(given) <= high:
            raise InvalidArchitectureError(f"{len(given)} layers are not between {low} and {high}")
        level, alone = self.layers[name], next(iter(parameter.parameters))
        layers = []
        for i, layer in enumerate(given):
            short = len(parameter.parameters) == 1 and not isinstance(layer, Mapping)
            try:
                layers.append(level.read({alone: layer} if short else layer))
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"layer {i}: {error}") from None
        return layers

    def _sorted(self, values: dict[str, Any]) -> dict[str, Any]:
        return values if self._in_order else {name: values[name] for name in self.parameters if name in values}

    # -- drawing and editing ----------------------------------------------------------------------------------------

    def draw(self, n: int, generator: torch.Generator | None = None) -> list[dict[str, Any]]:
        r"""Draws :obj:`n` configurations independently: each parameter uniformly, where it is active."""
        drawn: list[dict[str, Any]] = [{} for _ in range(n)]
        for name in self.order:
            parameter = self.parameters[name]
            if isinstance(parameter, Repeat):
                values = self._draw_layers(name, parameter, n, generator)
            else:
                values = self._value(name).draw(n, generator)
            kept = draw_indices(2, n, generator, replace=True) if parameter.optional else [1] * n
            for record, value, keep in zip(drawn, values, kept, strict=True):
                if keep and self.active(name, record):
                    record[name] = value
        return [self._sorted(record) for record in drawn]

    def _draw_layers(self, name: str, repeat: Repeat, n: int, generator: torch.Generator | None) -> list[Any]:
        spread = repeat.max_length - repeat.min_length + 1
        lengths = [repeat.min_length + k for k in draw_indices(spread, n, generator, replace=True)]
        layers = iter(self.layers[name].draw(sum(lengths), generator))
        return [[next(layers) for _ in range(length)] for length in lengths]

    def settled(self, values: Mapping[str, Any], fill: Callable[[Level, str], Any]) -> dict[str, Any]:
        r"""Returns a configuration in which what is active is present, made by :obj:`fill`, and nothing else is."""
        settled: dict[str, Any] = {}
        for name in self.order:
            if self.active(name, settled):
                if name in values:
                    settled[name] = values[name]
                elif not self.parameters[name].optional:
                    settled[name] = fill(self, name)
        return self._sorted(settled)

    def middle(self, name: str) -> Any:
        r"""A typical value of a parameter."""
        parameter = self.parameters[name]
        if isinstance(parameter, Repeat):
            return [self.layers[name].settled({}, Level.middle)] * max(parameter.min_length, 1)
        return self._value(name).middle

    def neighbors(self, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        r"""Yields the configurations in which one parameter differs, some more than once.

        Parameters that become active get a typical value.
        """
        for name in self.parameters:
            if name not in record:
                if self.parameters[name].optional and self.active(name, record):
                    yield self.settled({**record, name: self.middle(name)}, Level.middle)
                continue
            for value in self._alternatives(name, record[name]):
                yield self.settled({**record, name: value}, Level.middle)
            if self.parameters[name].optional:
                yield self.settled({key: record[key] for key in record if key != name}, Level.middle)

    def _alternatives(self, name: str, value: Any) -> Iterator[Any]:
        parameter = self.parameters[name]
        if not isinstance(parameter, Repeat):
            yield from self._value(name).neighbors(value)
            return
        for i, layer in enumerate(value):
            for other in self.layers[name].neighbors(layer):
                yield [*value[:i], other, *value[i + 1 :]]
        if len(value) > parameter.min_length:
            for i in range(len(value)):
                yield [*value[:i], *value[i + 1 :]]
        if len(value) < parameter.max_length:
            for i in range(len(value)):
                yield [*value[: i + 1], *value[i:]]
            if not value:
                yield self.middle(name)

    def mutate(self, record: Mapping[str, Any], generator: torch.Generator | None = None) -> dict[str, Any]:
        r"""Draws a configuration in which one parameter differs; of layers: one parameter of one, or their number.

        What becomes active is drawn. The configuration itself comes back only where it has no neighbor.
        """
        places = [name for name in self.parameters if self._can_change(name, record)]
        if not places:
            return dict(record)
        name = places[draw_indices(len(places), 1, generator)[0]]
        parameter, value = self.parameters[name], record.get(name, _ABSENT)

        def fill(level: Level, missing: str) -> Any:
            return level.drawn(missing, generator)

        if value is _ABSENT:
            return self.settled({**record, name: fill(self, name)}, fill)
        flip = parameter.optional and (not self._movable(name, value) or draw_indices(2, 1, generator)[0] == 0)
        if flip:
            return self.settled({key: record[key] for key in record if key != name}, fill)
        if isinstance(parameter, Repeat):
            moved: Any = self._mutated_layers(name, parameter, value, generator)
        else:
            moved = self._value(name).mutate(value, generator)
        return self.settled({**record, name: moved}, fill)

    def _can_change(self, name: str, record: Mapping[str, Any]) -> bool:
        optional = self.parameters[name].optional
        return (
            (optional or self._movable(name, record[name]))
            if name in record
            else optional and self.active(name, record)
        )

    def _movable(self, name: str, value: Any) -> bool:
        if name not in self.layers and (self._value(name).size or 0) > 1:
            return True
        return next(self._alternatives(name, value), _ABSENT) is not _ABSENT

    def _mutated_layers(
        self, name: str, repeat: Repeat, value: list[dict[str, Any]], generator: torch.Generator | None
    ) -> list[dict[str, Any]]:
        level = self.layers[name]
        edits: list[tuple[str, int]] = [
            ("change", i)
            for i, layer in enumerate(value)
            if any(level._can_change(inner, layer) for inner in level.order)
        ]
        edits += [("drop", i) for i in range(len(value)) if len(value) > repeat.min_length]
        edits += [("add", i) for i in range(len(value) + 1) if len(value) < repeat.max_length]
        # Every kind of edit is equally likely, so that lengths do not drift with the number of places.
        kinds = [*dict.fromkeys(kind for kind, _ in edits)]
        kind = kinds[draw_indices(len(kinds), 1, generator)[0]]
        options = [i for other, i in edits if other == kind]
        i = options[draw_indices(len(options), 1, generator)[0]]
        if kind == "change":
            return [*value[:i], level.mutate(value[i], generator), *value[i + 1 :]]
        if kind == "drop":
            return [*value[:i], *value[i + 1 :]]
        return [*value[:i], *level.draw(1, generator), *value[i:]]

    def drawn(self, name: str, generator: torch.Generator | None = None) -> Any:
        r"""Draws a value of one parameter."""
        parameter = self.parameters[name]
        if isinstance(parameter, Repeat):
            return self._draw_layers(name, parameter, 1, generator)[0]
        return self._value(name).draw(1, generator)[0]

    def cross(
        self, first: Mapping[str, Any], second: Mapping[str, Any], generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        r"""Draws each parameter from one of two parents, layers position by position; what none has is drawn anew."""
        child: dict[str, Any] = {}
        for name in self.order:
            if not self.active(name, child):
                continue
            options = [parent.get(name, _ABSENT) for parent in (first, second)]
            if not self.parameters[name].optional:
                options = [value for value in options if value is not _ABSENT] or [self.drawn(name, generator)]
            which = draw_indices(len(options), 1, generator)[0]
            value = options[which]
            if value is _ABSENT:
                continue
            if isinstance(self.parameters[name], Repeat) and all(other is not _ABSENT for other in options):
                other = options[1 - which] if len(options) > 1 else value
                mixed = [self.layers[name].cross(*pair, generator) for pair in zip(value, other, strict=False)]
                value = mixed + value[len(mixed) :]
            child[name] = value
        return self._sorted(child)

    # -- counting ---------------------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int | None:
        r"""Number of configurations; :obj:`None` where they are continuous, or conditions make them hard to count."""
        counts = {name: self._count(name) for name in self.order}
        parents = [name for name in self.order if any(name in self.conditions[other] for other in self.order)]
        combinations = 1
        for name in parents:
            combinations *= counts[name] or _COUNTABLE + 1
        if combinations > _COUNTABLE:
            return None
        total = 0
        for record in self._listed(parents):
            number = 1
            for name in self.order:
                if name not in parents and self.active(name, record):
                    count = counts[name]
                    if count is None:
                        return None
                    number *= count + self.parameters[name].optional
            total += number
        return total

    def _count(self, name: str) -> int | None:
        parameter = self.parameters[name]
        if not isinstance(parameter, Repeat):
            return self._value(name).size
        each = self.layers[name].size
        return None if each is None else sum(each**n for n in range(parameter.min_length, parameter.max_length + 1))

    def enumerate(self) -> Iterator[dict[str, Any]]:
        r"""Yields every configuration of a countable level."""
        return map(self._sorted, self._listed(self.order))

    def _listed(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every combination of some parameters, in order, among them all that their conditions name."""
        if not names:
            yield {}
            return
        *before, name = names
        for record in self._listed(before):
            active = self.active(name, record)
            if not active or self.parameters[name].optional:
                yield record
            if active:
                yield from ({**record, name: value} for value in self._values(name))

    def _values(self, name: str) -> Iterator[Any]:
        parameter = self.parameters[name]
        if not isinstance(parameter, Repeat):
            yield from self._value(name).values()
            return
        for length in range(parameter.min_length, parameter.max_length + 1):
            yield from (list(layers) for layers in product(self.layers[name].enumerate(), repeat=length))
