r"""One typed table of records: numbers stay numbers, categories become columns, lists of layers are summarised."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_nas_np.features.tables import KeptRows, reference_sample
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.columns import ConfigurationTable, Floats, Layers, encode_records, has_numbers
from pyg_nas_np.spaces.parameters import Categorical, Float, Integer, Parameter, RecordView, Repeat

REFERENCE = 1 << 12
"""Architectures, drawn with a fixed seed or from the pool of the space, that columns are standardised by."""

DECADES = 100.0
"""Positive numbers whose range spans this ratio are read as logarithms."""

LIST = 3
"""So many layers or numbered parameters, such as ``width_0``, ``width_1`` and ``width_2``, are a structure."""

FAR = 10.0
"""Standard deviations from the mean beyond which all numbers are alike; the space may not know all values."""

COUNTS = "counts"
"""Name of the group of counts over parameters that share a domain."""

_LEAST = 1e-300


class Column(NamedTuple):
    r"""A raw column: ``[n]`` float64, NaN where it does not apply.

    Attributes:
        name: What it is.
        group: Parameter that it tells of.
        block: Parameter or position of a list whose value it is a part of; :obj:`None` for summaries.
        values: The numbers.
    """

    name: str
    group: str
    block: str | None
    values: Floats


class _Statistics(NamedTuple):
    keep: list[int]
    names: list[str]
    groups: dict[str, list[int]]
    blocks: dict[str, list[int]]
    summaries: list[int]
    mean: Floats
    std: Floats


class RecordFeatures:
    r"""Named, standardised columns of the records of a space.

    - A **number** is one column: its logarithm where the parameter is declared so, or where its range is positive and
      spans two decades. An ordered category is its rank. A category of numbers is a number: write codes as strings.
    - A **category** has a column for each choice (a single one for two choices), all on one scale.
    - A **conditional** parameter has one more column, whether it is active. Inactive numbers stand at the mean, unknown
      categories at none.
    - A **list of layers** is padded: each position is like a parameter that is active in some architectures.
      It is summarised besides: total, mean, minimum, maximum, slope over the depth, first and last of each number, the
      count of each category, and the number of layers. At least :data:`LIST` parameters of one kind whose names differ
      in numbers only (``width_0`` ... ``width_11``, ``stage1_kernel``, ...) are summarised like a list.
    - Parameters with the **same categories** have their counts as well.

    Mean and standard deviation are those of :meth:`~pyg_nas_np.spaces.parameters.RecordView.reference`. Columns that
    are constant there are left out; of equal columns, the first stands for all.

    The table does not depend on what categories and (but for numbers in their names) parameters are called, on the
    order of architectures, or on the unit of numbers.

    Args:
        space: A space that gives records.
    """

    def __init__(self, space: RecordView[Any]) -> None:
        self.space = space
        self._rows = KeptRows(self._computed)

    # -- what the columns are ---------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the ``F`` columns."""
        return list(self._statistics.names)

    @property
    def scales(self) -> list[tuple[float, float]]:
        r"""Mean and standard deviation of each column before it is standardised."""
        return list(zip(self._statistics.mean.tolist(), self._statistics.std.tolist(), strict=True))

    @property
    def feature_groups(self) -> Mapping[str, list[int]]:
        r"""Columns of each parameter, summaries included; those of shared counts are called ``counts``.

        A column that tells of several parameters, such as whether a layer is there, is in the groups of all of them.
        """
        return {name: list(columns) for name, columns in self._statistics.groups.items()}

    @property
    def blocks(self) -> list[list[int]]:
        r"""Columns that hold the value of one parameter, or of one position of a list, for all of these."""
        return [list(columns) for columns in self._statistics.blocks.values()]

    @property
    def summaries(self) -> list[int]:
        r"""Columns that summarise several values."""
        return list(self._statistics.summaries)

    @property
    def lengths(self) -> list[int]:
        r"""Columns of the number of layers of each list that is declared as such."""
        lists = [_length_of(name) for name, p in self.space.parameters.items() if isinstance(p, Repeat)]
        return [i for i, name in enumerate(self.feature_names) if name in lists]

    @cached_property
    def has_lists(self) -> bool:
        r"""Whether records have lists of at least :data:`LIST` layers, declared or numbered."""
        parameters = self.space.parameters
        declared = (isinstance(p, Repeat) and p.max_length >= LIST for p in parameters.values())
        return any(declared) or bool(numbered_lists(parameters))

    # -- computing --------------------------------------------------------------------------------------------------

    def table(self, archs: Archs) -> Tensor:
        r"""Features of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices.

        Returns:
            ``[B, F]`` float32.
        """
        archs = self.space.resolve(archs)
        # One that is a table has nothing by which its rows would be known again.
        return self._computed(archs) if isinstance(archs, ConfigurationTable) else self._rows(archs)

    def _computed(self, archs: Sequence[Any]) -> Tensor:
        stats = self._statistics
        columns = self._columns(archs)
        values = np.stack([columns[column].values for column in stats.keep], axis=1)
        scores = np.clip(np.nan_to_num((values - stats.mean) / stats.std), -FAR, FAR)
        return torch.from_numpy(scores.astype(np.float32))

    @cached_property
    def _statistics(self) -> _Statistics:
        columns = self._columns(reference_sample(self.space, REFERENCE))
        moments = [_moments(column) for column in columns]
        centres, scales = [mean for mean, _ in moments], _shared_scales(columns, [std for _, std in moments])
        keep: list[int] = []
        position: dict[int, int] = {}
        seen: dict[bytes, int] = {}
        for i, (column, (centre, spread)) in enumerate(zip(columns, moments, strict=True)):
            if spread == 0.0:
                continue
            # Rounding must not tell columns apart that are equal.
            key = (np.nan_to_num((column.values - centre) / spread).round(6) + 0.0).tobytes()
            if key not in seen:
                seen[key] = len(keep)
                keep.append(i)
            position[i] = seen[key]
        groups: dict[str, dict[int, None]] = {}
        blocks: dict[str, dict[int, None]] = {}
        for i, place in position.items():
            groups.setdefault(columns[i].group, {})[place] = None
            if (block := columns[i].block) is not None:
                blocks.setdefault(block, {})[place] = None
        in_blocks = set(chain.from_iterable(blocks.values()))
        return _Statistics(
            keep,
            [columns[i].name for i in keep],
            {name: list(members) for name, members in groups.items()},
            {name: list(members) for name, members in blocks.items()},
            [place for place in range(len(keep)) if place not in in_blocks],
            np.array([centres[i] for i in keep]),
            np.array([scales[i] for i in keep]),
        )

    def _columns(self, archs: Sequence[Any]) -> list[Column]:
        """All columns, constant ones included."""
        parameters = self.space.parameters
        if isinstance(archs, ConfigurationTable):
            given = archs.codes
        else:
            given = encode_records(parameters, self.space.records(archs))
        columns: list[Column] = []
        codes: dict[str, Floats] = {}
        for name, parameter in parameters.items():
            found = given[name]
            if isinstance(found, Layers):
                assert isinstance(parameter, Repeat)
                columns += _layers(name, parameter, found)
            else:
                codes[name] = _scaled(parameter, found)
                columns += _value(name, name, parameter, codes[name])
        for title, members in numbered_lists(parameters).items():
            stacked = np.stack([codes[member] for member in members], axis=1)
            columns += _summaries(title, title, parameters[members[0]], stacked)
        for choices, members in shared_domains(parameters).items():
            stacked = np.stack([codes[member] for member in members], axis=1)
            columns += _counts("all", COUNTS, choices, stacked)
        return columns

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r})"


def numbered_lists(parameters: Mapping[str, Parameter]) -> dict[str, list[str]]:
    r"""Returns parameters whose names differ in numbers only, in the order of these: name with ``#`` → names.

    Members of a list are of one kind: numbers, or categories with the same choices.

    Example:
        >>> numbered_lists({f"block{i}_width": Integer(8, 64) for i in (10, 2, 1)})
        {'block#_width': ['block1_width', 'block2_width', 'block10_width']}
    """
    found: dict[tuple[str, Any], list[str]] = {}
    for name, parameter in parameters.items():
        template = re.sub(r"\d+", "#", name)
        if template != name and not isinstance(parameter, Repeat):
            found.setdefault((template, _domain(parameter)), []).append(name)
    return {
        template: sorted(members, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        for (template, _), members in found.items()
        if len(members) >= LIST
    }


def shared_domains(parameters: Mapping[str, Parameter]) -> dict[tuple[Any, ...], list[str]]:
    r"""Returns categorical parameters that have the same choices: the choices → at least two names.

    Example:
        >>> shared_domains({name: Categorical(["relu", "tanh"]) for name in ("first", "second")})
        {('relu', 'tanh'): ['first', 'second']}
    """
    found: dict[Any, list[str]] = {}
    for name, parameter in parameters.items():
        # That two switches are on says nothing in common.
        if not isinstance(parameter, Repeat) and _nominal(parameter) and not _switch(parameter):
            found.setdefault(_domain(parameter), []).append(name)
    return {parameters[members[0]].choices: members for members in found.values() if len(members) > 1}  # type: ignore[attr-defined]


# -- values of a parameter --------------------------------------------------------------------------------------------


def _nominal(parameter: Parameter) -> bool:
    return isinstance(parameter, Categorical) and not parameter.ordered and not has_numbers(parameter)


def _switch(parameter: Parameter) -> bool:
    return isinstance(parameter, Categorical) and all(isinstance(choice, bool) for choice in parameter.choices)


def _domain(parameter: Parameter) -> Any:
    """What makes values of two parameters comparable."""
    return frozenset(map(repr, parameter.choices)) if _nominal(parameter) else None  # type: ignore[attr-defined]


def _logarithmic(parameter: Parameter) -> bool:
    if isinstance(parameter, Categorical):
        low, high = min(parameter.choices), max(parameter.choices)
        return bool(low > 0 and high >= DECADES * low)
    assert isinstance(parameter, Integer | Float)
    return parameter.log or (parameter.low > 0 and parameter.high >= DECADES * parameter.low)


def _scaled(parameter: Parameter, codes: Floats) -> Floats:
    """Numbers whose ratios matter as logarithms, all others as they are."""
    if has_numbers(parameter) and _logarithmic(parameter):
        return np.log(np.maximum(codes, _LEAST))
    return codes


def _value(name: str, group: str, parameter: Parameter, codes: Floats) -> Iterator[Column]:
    """Columns that hold one value, and whether it is there."""
    active = ~np.isnan(codes)
    if not _nominal(parameter):
        yield Column(name, group, name, codes)
    elif len(parameter.choices) == 2:  # type: ignore[attr-defined]
        yield Column(name, group, name, np.where(codes < 0, math.nan, codes))
    else:
        for i, choice in enumerate(parameter.choices):  # type: ignore[attr-defined]
            yield Column(f"{name}={choice}", group, name, np.where(active, codes == i, 0.0))
    yield Column(f"{name} is active", group, name, active.astype(np.float64))


def _layers(name: str, parameter: Repeat, layers: Layers) -> Iterator[Column]:
    for field, inner in parameter.parameters.items():
        title = f"{name}.{field}"
        codes = _scaled(inner, layers.codes[field])
        # A space that was inferred takes more layers than it has seen.
        for depth in range(parameter.max_length):
            yield from _value(f"{name}[{depth}].{field}", title, inner, codes[:, depth])
        yield from _summaries(title, title, inner, codes)
    yield Column(_length_of(name), name, None, layers.lengths.astype(np.float64))


def _length_of(name: str) -> str:
    return f"number of {name}"


# -- summaries of a list ----------------------------------------------------------------------------------------------


def _summaries(title: str, group: str, parameter: Parameter, codes: Floats) -> Iterator[Column]:
    """Summaries of codes ``[n, L]``, NaN where a layer has no such value."""
    if _nominal(parameter):
        yield from _counts(title, group, parameter.choices, codes)  # type: ignore[attr-defined]
        return
    there = ~np.isnan(codes)
    number = there.sum(axis=1)
    none = number == 0
    filled = np.where(there, codes, 0.0)
    raw, logarithmic = filled, has_numbers(parameter) and _logarithmic(parameter)
    if logarithmic:
        raw = np.where(there, np.exp(filled), 0.0)
    total = raw.sum(axis=1)
    if logarithmic:
        total = np.log(total, out=np.full_like(total, math.nan), where=~none)
    mean = filled.sum(axis=1) / np.maximum(number, 1)
    # Of the depth from the first to the last of them, whatever their number.
    order = there.cumsum(axis=1) - 1
    depth = np.where(there, order / np.maximum(number - 1, 1)[:, None] - 0.5, 0.0)
    slope = (depth * filled).sum(axis=1) / np.maximum((depth**2).sum(axis=1), 1e-12)
    rows = np.arange(len(codes))
    first, last = there.argmax(axis=1), codes.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    values = {
        "total": total,
        "mean": mean,
        "minimum": np.where(there, codes, math.inf).min(axis=1),
        "maximum": np.where(there, codes, -math.inf).max(axis=1),
        "slope": np.where(number > 1, slope, 0.0),
        "first": codes[rows, first],
        "last": codes[rows, last],
    }
    for kind, column in values.items():
        yield Column(f"{kind} of {title}", group, None, np.where(none, 0.0 if kind == "slope" else math.nan, column))


def _counts(title: str, group: str, choices: Sequence[Any], codes: Floats) -> Iterator[Column]:
    for i, choice in enumerate(choices):
        yield Column(f"count of {choice} in {title}", group, None, (codes == i).sum(axis=1).astype(np.float64))


# -- scales -----------------------------------------------------------------------------------------------------------


def _moments(column: Column) -> tuple[float, float]:
    """Mean and standard deviation where the column applies; a deviation of rounding errors is none."""
    values = column.values[~np.isnan(column.values)]
    if values.size == 0:
        return 0.0, 0.0
    mean, std = float(values.mean()), float(values.std())
    return mean, std if std > 1e-9 * (1e-300 + float(np.abs(values).max())) else 0.0


def _shared_scales(columns: Sequence[Column], scales: list[float]) -> list[float]:
    """The columns of the choices of one category get one scale, so that rare choices are not far from all others."""
    members: dict[str, list[int]] = {}
    for i, column in enumerate(columns):
        if column.block is not None and column.name.startswith(f"{column.block}="):
            members.setdefault(column.block, []).append(i)
    for indices in members.values():
        varying = [i for i in indices if scales[i] > 0.0]
        common = math.sqrt(sum(scales[i] ** 2 for i in varying) / max(1, len(varying)))
        for i in varying:
            scales[i] = common
    return scales
