r"""Search spaces of configurations: numbers, choices, conditions and lists of layers."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.spaces.base import Archs, Costs, Scores, Validity, draw_indices
from pyg_nas_np.spaces.columns import (
    Codes,
    ConfigurationTable,
    Floats,
    Refused,
    encode_records,
    numbers,
    read_columns,
    row_keys,
)
from pyg_nas_np.spaces.configuration import Configuration, Level
from pyg_nas_np.spaces.parameters import Categorical, Float, Integer, Parameter, Repeat, TableView, is_missing, plain
from pyg_nas_np.utils.errors import DataFileError, InvalidArchitectureError, InvalidSpaceError
from pyg_nas_np.utils.files import foreign_file, read_bytes

if TYPE_CHECKING:
    from pyg_nas_np.spaces.inference import InferredSpace

Cost: TypeAlias = "str | Callable[[Configuration], float]"
"""A cost: the name of a numeric parameter or of a column of the pool, or a function of configurations."""

Score: TypeAlias = Cost
"""The same of a score; with a minus before the name of a column, smaller is better."""

_ROUNDS = 20
"""Rounds of independent draws, after which a small space is listed to find what is left."""
_LISTED = 1 << 20

_KINDS: dict[str, type[Parameter]] = {
    "integer": Integer,
    "float": Float,
    "categorical": Categorical,
    "repeat": Repeat,
}


class ParameterSpace(TableView[Configuration], Costs[Configuration], Scores[Configuration]):
    r"""A space whose architectures are configurations: values by the names of parameters.

    It may be continuous or of any size. Parameters come by keyword or as a mapping; a list is short for a
    :class:`Categorical`. Other ways to one are :meth:`from_records` (the user's own table), :meth:`from_dict` and
    :meth:`from_file` (TOML or JSON), :meth:`from_optuna`, :meth:`from_configspace` and :meth:`from_neps`.

    Wherever architectures are asked for, dictionaries will do; :meth:`check` turns them into :class:`Configuration`.

    Args:
        parameters: Parameters by name.
        name: Name of the space, which saved states tell. (default: made from the declaration, so that equal
            declarations have equal names)
        costs: Costs by name: the name of a numeric parameter, of a column in :obj:`pool`, or a function that takes a
            configuration. Sizes come first. A column may be given with every record.
        scores: Zero-cost scores by name, of which larger ones are supposed to be better: as costs, and with a minus
            before the name of a column (``{"grad_norm": "-grad_norm"}``) where smaller ones are.
        pool: Known configurations as records, by which features are standardised.
        more: Parameters by keyword.

    Raises:
        InvalidSpaceError: If there is no parameter, a condition contradicts itself or another, a cost or score is not
            known, or a column is both.
        InvalidArchitectureError: If a record of the pool is not one of the space.

    Example:
        >>> space = ParameterSpace(
        ...     depth=Integer(6, 24),
        ...     optimizer=["sgd", "adam"],
        ...     momentum=Float(0.0, 0.99, when={"optimizer": "sgd"}),
        ...     layers=Repeat({"kernel": [3, 5, 7], "width": Integer(16, 256, step=16, log=True)}, 2, 8),
        ... )
        >>> arch = space.check({"depth": 6, "optimizer": "adam", "layers": [{"kernel": 3, "width": 16}] * 2})
        >>> space.to_str(arch)
        '{"depth":6,"optimizer":"adam","layers":[{"kernel":3,"width":16},{"kernel":3,"width":16}]}'
        >>> len(space.neighbors(arch)), space.is_valid({"depth": 40, "optimizer": "adam", "layers": []}).reason
        (10, 'depth: 40 is not between 6 and 24')
    """

    _exact = True

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        name: str | None = None,
        costs: Mapping[str, Cost] | None = None,
        scores: Mapping[str, Score] | None = None,
        pool: Iterable[Mapping[str, Any]] = (),
        **more: Any,
    ) -> None:
        if twice := [key for key in more if key in (parameters or {})]:
            raise InvalidSpaceError(f"parameter {twice[0]!r} is given twice; give it once")
        self._level = Level({**(parameters or {}), **more}, self._exact)
        self.parameters = self._level.parameters
        self._costs, self._scores = dict(costs or {}), dict(scores or {})
        self.name = self._digest() if name is None else name
        self._set_pool(pool)

    def _digest(self) -> str:
        declared = json.dumps(_plain_tree(self.parameters))
        return f"parameters-{hashlib.sha256(declared.encode()).hexdigest()[:8]}"

    def _set_pool(self, pool: Iterable[Mapping[str, Any]]) -> None:
        sources = [*self._costs.values(), *(score_column(score) for score in self._scores.values())]
        columns = [source for source in sources if isinstance(source, str)]
        names = [*self._costs, *self._scores]
        if twice := [name for given in (columns, names) for name in given if given.count(name) > 1]:
            raise InvalidSpaceError(f"{twice[0]!r} is named twice as a cost or score; name it once")
        self.known_columns = [column for column in columns if column not in self.parameters]
        archs: dict[Configuration, Configuration] = {}
        rows = []
        for row, record in enumerate(pool):
            try:
                arch = self.check(record)
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"row {row} of the pool: {error}") from None
            rows.append(arch)
            if arch in archs:
                arch = Configuration(arch, {**arch.costs, **archs[arch].costs})
                arch.checked_by = self._level
            archs[arch] = arch
        self._rows = tuple(rows)
        self._known, self._pool = archs, tuple(archs.values())
        known = {column for arch in archs.values() for column in arch.costs}
        known |= {name for name, kind in self.parameters.items() if isinstance(kind, Integer | Float)}
        for name, source in zip(names, sources, strict=True):
            what = f"{'cost' if name in self._costs else 'score'} {name!r}"
            if not isinstance(source, str) and not callable(source):
                raise InvalidSpaceError(f"{what} must be a column or a function, got {source!r}")
            if isinstance(source, str) and source not in known:
                raise InvalidSpaceError(
                    f"{what}: {source!r} is neither a numeric parameter nor a column of numbers in the pool"
                )

    @property
    def pool_rows(self) -> tuple[Configuration, ...]:
        r"""What the records of the pool were read as, in their order, each as often as it was given."""
        return self._rows

    @property
    def pool(self) -> tuple[Configuration, ...]:
        r"""The distinct configurations of the pool, in their order."""
        return self._pool

    # -- drawing and editing ----------------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        r"""Number of configurations; :obj:`None` where they are continuous, or conditions make them hard to count."""
        return self._level.size

    def sample(self, n: int, generator: torch.Generator | None = None, *, replace: bool = False) -> list[Configuration]:
        r"""Draws :obj:`n` configurations, distinct unless :obj:`replace`: each parameter uniformly where it is active.

        Raises:
            ValueError: If :obj:`n` is negative, or larger than the space without replacement.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        if replace:
            return [Configuration(record) for record in self._level.draw(n, generator)]
        size = self.size
        if size is not None and n > size:
            raise ValueError(f"cannot draw n={n} distinct architectures from a space of {size}; pass replace=True")
        drawn: dict[Configuration, None] = {}
        for _ in range(_ROUNDS):
            if len(drawn) == n:
                return list(drawn)
            more = self._level.draw(n - len(drawn), generator)
            drawn.update((Configuration(record), None) for record in more)
        left = [arch for arch in self._listed() if arch not in drawn]
        if len(left) < n - len(drawn):
            raise ValueError(f"found only {len(drawn)} distinct architectures, not n={n}; pass replace=True")
        return [*drawn, *(left[i] for i in draw_indices(len(left), n - len(drawn), generator))]

    def _listed(self) -> Iterable[Configuration]:
        if self.size is None or self.size > _LISTED:
            return ()
        return map(Configuration, self._level.enumerate())

    def neighbors(self, arch: Configuration) -> list[Configuration]:
        r"""Returns the configurations in which one parameter differs, in the order of the parameters.

        Of a category they have every other choice, of a number the values one step and a tenth of the range away, of
        layers one changed, left out or doubled. What becomes active gets a typical value.
        """
        found = dict.fromkeys(map(Configuration, self._level.neighbors(arch.to_dict())))
        found.pop(arch, None)
        return list(found)

    def mutate(self, arch: Configuration, generator: torch.Generator | None = None) -> Configuration:
        r"""Returns a configuration in which one parameter, each equally likely, was drawn anew.

        Numbers move by normal steps; layers are changed, left out or added. What becomes active is drawn.
        """
        return Configuration(self._level.mutate(arch.to_dict(), generator))

    def crossover(
        self, first: Configuration, second: Configuration, generator: torch.Generator | None = None
    ) -> Configuration:
        r"""Draws every parameter from one of two parents, layers position by position."""
        return Configuration(self._level.cross(first.to_dict(), second.to_dict(), generator))

    # -- representations --------------------------------------------------------------------------------------------

    def to_str(self, arch: Configuration) -> str:
        r"""Returns the configuration as JSON, in the order of the parameters and without spaces."""
        return json.dumps(arch.to_dict(), separators=(",", ":"), ensure_ascii=False)

    def from_str(self, text: str) -> Configuration:
        r"""Reads a configuration from JSON.

        Raises:
            InvalidArchitectureError: If :obj:`text` is not JSON, or not a configuration of the space.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArchitectureError(f"{text[:60]!r} is not a configuration in JSON: {error}") from None
        return self.check(record)

    def is_valid(self, arch: Any) -> Validity:
        r"""Tells whether a configuration or any other mapping is a member of the space, and if not, why."""
        try:
            self._level.read(self._nested(arch))
        except InvalidArchitectureError as error:
            return Validity(False, str(error))
        return Validity(True)

    def check(self, arch: Any) -> Configuration:
        r"""Returns a configuration, made from any mapping that is one.

        Raises:
            InvalidArchitectureError: With the reason, if it is none.
        """
        if isinstance(arch, Configuration) and arch.checked_by is self._level:
            return arch
        try:
            record = self._level.read(self._nested(arch))
        except InvalidArchitectureError as error:
            raise InvalidArchitectureError(f"{arch!r} is not a valid {self.name} architecture: {error}") from None
        made = Configuration(record, self._costs_of(arch))
        # Equal values may be of another type, 1.0 for 1.
        checked = arch if isinstance(arch, Configuration) and repr(arch) == repr(made) else made
        checked.checked_by = self._level
        return checked

    def check_table(self, columns: Mapping[str, Any], *, first_row: int = 0) -> ConfigurationTable:
        r"""Returns many configurations that are given by columns, as :meth:`check` does one, but much faster.

        Args:
            columns: One column a parameter, and one a cost or score where there is any: lists, NumPy arrays, columns of
                a :class:`pandas.DataFrame` or of a :class:`pyarrow.Table`; empty cells where a parameter is not active.
            first_row: Position of the first one, for messages.

        Raises:
            InvalidArchitectureError: With row and reason, if one is not a configuration.
            InvalidSpaceError: If columns differ in length.

        Example:
            >>> space = ParameterSpace(kernel=[3, 5], depth=Integer(1, 4))
            >>> table = space.check_table({"kernel": [3, 5], "depth": [1, 4]})
            >>> len(table), table[1]
            (2, {'kernel': 5, 'depth': 4})
        """
        return ConfigurationTable(self, columns, first_row)

    @property
    def table_parameters(self) -> dict[str, Parameter]:
        r"""The columns of a table of configurations, and the parameter that each has the values of."""
        return dict(self.parameters)

    def read_codes(self, columns: Mapping[str, Any], count: int) -> Codes:
        r"""Returns what :attr:`ConfigurationTable.codes` are of ``n`` configurations given by columns.

        Raises:
            Refused: With the first row that is found to be none.
        """
        given = self._nested_columns(columns, count)
        if not given.keys() <= self.parameters.keys():
            raise Refused(0)
        return read_columns(self._level, given, count)

    def _nested_columns(self, columns: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Columns as parameters name them, without costs and scores."""
        return {name: column for name, column in columns.items() if name not in self.known_columns}

    def _nested(self, arch: Any) -> Any:
        """A record as parameters name it, without columns of costs and scores."""
        if self.known_columns and isinstance(arch, Mapping):
            return {name: value for name, value in arch.items() if name not in self.known_columns}
        return arch

    def _costs_of(self, record: Mapping[str, Any]) -> dict[str, float]:
        if isinstance(record, Configuration):
            return record.costs
        given = {column: plain(record.get(column)) for column in self.known_columns}
        return {
            column: float(value)
            for column, value in given.items()
            if isinstance(value, int | float) and not is_missing(value)
        }

    def records(self, archs: Archs) -> list[dict[str, Any]]:
        r"""Returns configurations as plain dictionaries and lists."""
        return [arch.to_dict() for arch in self.resolve(archs)]

    def to_row(self, arch: Configuration) -> dict[str, Any]:
        r"""Returns a configuration as the row of a table: values by column, lists of layers as they are."""
        return arch.to_dict()

    def reference(self, n: int, generator: torch.Generator | None = None) -> list[Configuration]:
        r"""Returns the pool, or :obj:`n` of it; where there is none, independent draws."""
        if not self.pool:
            return super().reference(n, generator)
        if len(self.pool) <= n:
            return list(self.pool)
        return [self.pool[i] for i in draw_indices(len(self.pool), n, generator)]

    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns every cost by name, float64 ``[B]``; none where none was declared.

        A cost that is a column is known of the pool and of configurations that were read with it, and NaN for others.
        So is one that is a parameter where that is not active.
        """
        return self._known_of(self._costs, archs)

    def scores(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns every score by name, float64 ``[B]``, larger is better; none where none was declared.

        NaN where it is not known, as in :meth:`costs`.
        """
        found = self._known_of({name: score_column(score) for name, score in self._scores.items()}, archs)
        return {name: -column if _is_falling(self._scores[name]) else column for name, column in found.items()}

    def _known_of(self, sources: Mapping[str, Cost], archs: Archs) -> dict[str, Tensor]:
        given = self.resolve(archs)
        if isinstance(given, ConfigurationTable):
            return {name: torch.from_numpy(self._cost_column(source, given)) for name, source in sources.items()}
        return {
            name: torch.tensor([self._cost(source, arch) for arch in given], dtype=torch.float64, device="cpu")
            for name, source in sources.items()
        }

    def _cost_column(self, cost: Cost, table: ConfigurationTable) -> Floats:
        if not isinstance(cost, str):
            return np.array([float(cost(arch)) for arch in table])
        if isinstance(self.parameters.get(cost), Integer | Float):
            return table.codes[cost].copy()  # type: ignore[union-attr]
        values = numbers(table.columns[cost]) if cost in table.columns else np.full(len(table), np.nan)
        known = {key: arch.costs[cost] for key, arch in self._pool_keys.items() if cost in arch.costs}
        if known and np.isnan(values).any():
            keys = row_keys(self.parameters, table.codes)
            told = np.array([known.get(key, math.nan) for key in keys])
            values = np.where(np.isnan(values), told, values)
        return values

    @cached_property
    def _pool_keys(self) -> dict[bytes, Configuration]:
        codes = encode_records(self.parameters, [arch.to_dict() for arch in self._known])
        return dict(zip(row_keys(self.parameters, codes), self._known.values(), strict=True)) if self._known else {}

    def _cost(self, cost: Cost, arch: Configuration) -> float:
        if not isinstance(cost, str):
            return float(cost(arch))
        known = arch.costs if cost in arch.costs else getattr(self._known.get(arch), "costs", {})
        return float(known.get(cost, arch.get(cost, float("nan"))))

    # -- declarations -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the declaration in plain types, the inverse of :meth:`from_dict`; without costs, scores and pool.

        Example:
            >>> ParameterSpace(kernel=[3, 5], depth=Integer(1, 4)).to_dict()["parameters"]["depth"]
            {'type': 'integer', 'low': 1, 'high': 4}
        """
        return {"name": self.name, "parameters": _plain_tree(self.parameters)}

    def declaration(self) -> dict[str, Any] | None:
        r"""Returns class, declaration, costs, scores and pool in plain types.

        :obj:`None` where a cost or score is a function.
        """
        if any(callable(source) for source in (*self._costs.values(), *self._scores.values())):
            return None
        pool = [{**arch.to_dict(), **arch.costs} for arch in self._known.values()]
        known = {"costs": dict(self._costs), "scores": dict(self._scores)}
        return {"kind": type(self).__name__, "space": self.to_dict(), **known, "pool": pool}

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any], **options: Any) -> Self:
        r"""Reads a declaration in plain types: a table ``parameters`` and, if wanted, a ``name``.

        A parameter is a list of choices, or a table of the arguments of its class. The key ``type`` (``integer``,
        ``float``, ``categorical``, ``repeat``) may be left out: ``choices`` make a category, ``parameters`` a list of
        layers, whole bounds an integer.

        Args:
            declared: The declaration.
            options: Arguments of the constructor.

        Raises:
            InvalidSpaceError: If a key is missing, not known, or of the wrong kind.

        Example:
            >>> ParameterSpace.from_dict({"parameters": {"act": ["relu", "gelu"], "lr": {"low": 0.1, "high": 1.0}}})
            ParameterSpace(act=Categorical(('relu', 'gelu')), lr=Float(0.1, 1.0))
        """
        if not isinstance(declared, Mapping) or not isinstance(declared.get("parameters"), Mapping):
            raise InvalidSpaceError("a declaration must have a table 'parameters' of parameters by name")
        if unknown := [key for key in declared if key not in ("name", "parameters")]:
            raise InvalidSpaceError(f"{unknown[0]!r} is not a key of a declaration; it has 'name' and 'parameters'")
        name = declared.get("name")
        if name is not None and not isinstance(name, str):
            raise InvalidSpaceError(f"the name of a space must be a string, got {name!r}")
        parameters = {key: _from_dict(key, value) for key, value in declared["parameters"].items()}
        return cls(parameters, **{"name": name, **options})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        r"""Reads a declaration from a TOML or JSON file, told apart by the end of its name.

        .. code-block:: toml

            name = "my-vit"
            [parameters]
            depth = { low = 6, high = 24 }
            lr = { low = 1e-5, high = 1e-1, log = true }
            optimizer = ["sgd", "adam"]
            momentum = { low = 0.0, high = 0.99, when = { optimizer = "sgd" } }
            [parameters.layers]
            min_length = 2
            max_length = 8
            parameters = { kernel = [3, 5, 7], width = { low = 16, high = 256, step = 16, log = true } }

        Args:
            path: The file.
            options: Arguments of the constructor.

        Raises:
            DataFileError: If the file is missing or damaged, or is TOML and Python older than 3.11.
            InvalidSpaceError: If it does not declare a space.
        """
        name = os.fspath(path)
        try:
            return cls.from_dict(_read_declaration(name), **options)
        except InvalidSpaceError as error:
            raise InvalidSpaceError(f"{name}: {error}") from None

    @classmethod
    def from_records(
        cls,
        records: Any,
        *,
        parameters: Mapping[str, Any] | None = None,
        ignore: Sequence[str] = (),
        costs: Mapping[str, Cost] | None = None,
        scores: Mapping[str, Score] | None = None,
        name: str | None = None,
    ) -> InferredSpace:
        r"""Infers a space from a table of configurations, which become its pool; see :class:`InferredSpace`.

        Args:
            records: A list of dictionaries, a dictionary of columns, a :class:`pandas.DataFrame`, or the path of a CSV
                file.
            parameters: What some columns are, where the rules would guess otherwise; of numbered columns by their
                common name.
            ignore: Columns that are no parameters, labels for example.
            costs: As of the constructor; columns named here are no parameters, unless they are numbers of
                :obj:`parameters`.
            scores: The same of scores.
            name: Name of the space.

        Raises:
            DataFileError: If the CSV file cannot be read.
            InvalidSpaceError: If there is no row or no column that varies, columns differ in length, a column mixes
                numbers and text, or one that is named does not exist.

        Example:
            >>> columns = {"width_0": [16, 32], "width_1": [32, 32], "width_2": [None, 64], "act": ["relu", "gelu"]}
            >>> print(ParameterSpace.from_records(columns).describe())
            width  Repeat(parameters={'width': Integer(16, 64, step=16)}, min_length=2, max_length=3)
            act    Categorical(('gelu', 'relu'))
            width_0 ... width_2 were taken for the list of layers 'width'
        """
        from pyg_nas_np.spaces.inference import infer_space

        return infer_space(records, parameters=parameters or {}, ignore=ignore, costs=costs, scores=scores, name=name)

    @classmethod
    def from_optuna(cls, source: Any, **options: Any) -> ParameterSpace:
        r"""Takes over the search space of an Optuna study, or a dictionary of Optuna's distributions.

        The trials of a study tell under which conditions a parameter is suggested; they become the pool.

        Args:
            source: An ``optuna.Study`` with at least one trial, or distributions by name.
            options: Arguments of the constructor.

        Raises:
            InvalidSpaceError: If there is no parameter, or one is not of a distribution that is known.
        """
        from pyg_nas_np.spaces.foreign import from_optuna

        return from_optuna(source, **options)

    @classmethod
    def from_neps(cls, source: Any, **options: Any) -> ParameterSpace:
        r"""Takes over a NePS ``PipelineSpace`` of integers, floats and categories, without constants and fidelities.

        Args:
            source: The space, or its domains by name.
            options: Arguments of the constructor.

        Raises:
            InvalidSpaceError: If it has an operation, a repetition, or a category of other domains.
        """
        from pyg_nas_np.spaces.foreign import from_neps

        return from_neps(source, **options)

    @classmethod
    def from_configspace(cls, source: Any, **options: Any) -> ParameterSpace:
        r"""Takes over a ``ConfigSpace.ConfigurationSpace`` with its conditions.

        Args:
            source: The space.
            options: Arguments of the constructor.

        Raises:
            InvalidSpaceError: If it has forbidden clauses, or a condition that joins several parameters by "or".
            MissingExtraError: If ConfigSpace is not installed.
        """
        from pyg_nas_np.spaces.foreign import from_configspace

        return from_configspace(source, **options)

    # -- words ------------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        r"""Returns the parameters, one a line.

        Example:
            >>> print(ParameterSpace(kernel=[3, 5], depth=Integer(1, 4)).describe())
            kernel  Categorical((3, 5))
            depth   Integer(1, 4)
        """
        width = max(map(len, self.parameters))
        return "\n".join(f"{name:{width}}  {parameter!r}" for name, parameter in self.parameters.items())

    def __repr__(self) -> str:
        shown = [f"{name}={parameter!r}" for name, parameter in islice(self.parameters.items(), 8)]
        if len(self.parameters) > len(shown):
            shown.append(f"... {len(self.parameters)} parameters")
        return f"{type(self).__name__}({', '.join(shown)})"


def score_column(score: Score) -> Cost:
    r"""Returns where a score comes from, without the minus that says that smaller is better.

    Example:
        >>> score_column("-grad_norm"), score_column("naswot")
        ('grad_norm', 'naswot')
    """
    return score[1:] if _is_falling(score) else score  # type: ignore[index]


def _is_falling(score: Score) -> bool:
    return isinstance(score, str) and score.startswith("-")


def _to_dict(parameter: Parameter) -> dict[str, Any]:
    kind = next(name for name, known in _KINDS.items() if isinstance(parameter, known))
    declared: dict[str, Any] = {"type": kind}
    for item in fields(parameter):
        value = getattr(parameter, item.name)
        default = {} if item.default_factory is dict else item.default
        if default is MISSING or value != default:
            declared[item.name] = _plain_tree(value)
    # Behind what the parameter is: when it is active.
    declared.update((key, declared.pop(key)) for key in ("when", "optional") if key in declared)
    return declared


def _plain_tree(value: Any) -> Any:
    if isinstance(value, Parameter):
        return _to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain_tree(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _from_dict(name: str, declared: Any) -> Any:
    if not isinstance(declared, Mapping):
        return declared
    given = dict(declared)
    kind = given.pop("type", _kind_of(given))
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidSpaceError(f"parameter {name!r} has type {kind!r}; there are {', '.join(_KINDS)}")
    known = [item.name for item in fields(_KINDS[kind])]
    if unknown := [key for key in given if key not in known]:
        raise InvalidSpaceError(f"parameter {name!r}: {unknown[0]!r} is not a key of {kind}; it has {', '.join(known)}")
    needed = [item.name for item in fields(_KINDS[kind]) if item.default is MISSING and item.name != "when"]
    if missing := [key for key in needed if key not in given]:
        raise InvalidSpaceError(f"parameter {name!r}: the key {missing[0]!r} of {kind} is missing")
    if isinstance(given.get("parameters"), Mapping):
        given["parameters"] = {key: _from_dict(f"{name}.{key}", inner) for key, inner in given["parameters"].items()}
    for flag in ("log", "ordered", "optional"):
        if not isinstance(given.get(flag, False), bool):
            raise InvalidSpaceError(f"parameter {name!r}: {flag} must be true or false, got {given[flag]!r}")
    try:
        return _KINDS[kind](**given)
    except InvalidSpaceError as error:
        raise InvalidSpaceError(f"parameter {name!r}: {error}") from None


def _kind_of(given: Mapping[str, Any]) -> str:
    if "choices" in given:
        return "categorical"
    if "parameters" in given:
        return "repeat"
    return "float" if any(isinstance(given.get(key), float) for key in ("low", "high", "step")) else "integer"


def _read_declaration(path: str) -> Any:
    content = read_bytes(path)
    if path.lower().endswith(".json"):
        with foreign_file(path, "a declaration in JSON"):
            return json.loads(content)
    if sys.version_info < (3, 11):
        raise DataFileError(f"{path}: TOML needs Python 3.11; write the declaration as JSON")
    import tomllib

    with foreign_file(path, "a declaration in TOML"):
        return tomllib.loads(content.decode("utf-8"))
