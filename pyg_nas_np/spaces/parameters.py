r"""Parameters of configurations, and the capability of a space whose architectures are records of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from typing import Any

import torch

from pyg_nas_np.spaces.base import Archs, ArchT, SearchSpace, draw_indices
from pyg_nas_np.utils.errors import InvalidArchitectureError, InvalidSpaceError

_STRIDE = 0.1
"""How far neighboring numbers lie, as a part of the range, beside those one step away."""
_JUMP = 0.2
"""Standard deviation of the step of a mutated number, as a part of the range."""
_TRIES = 16
"""Mutations of a number that end where they began are drawn again; after these tries it moves one step."""


@dataclass(frozen=True, repr=False)
class Parameter:
    r"""One parameter of a configuration.

    Args:
        when: The condition under which a configuration has this parameter: name of another parameter of the same
            configuration (in a :class:`Repeat`: of the same layer) → the values it may have. All must hold. A parameter
            that is not active is absent from the configuration. (default: always active)
        optional: Whether it may also be absent where the condition holds.
    """

    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True, hash=False)
    optional: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        given = self.when
        if not isinstance(given, Mapping):
            raise InvalidSpaceError(f"when must map the name of a parameter to its values, got {given!r}")
        when = {
            name: (values,) if isinstance(values, str) or not isinstance(values, Sequence) else tuple(values)
            for name, values in given.items()
        }
        if empty := [name for name, values in when.items() if not values]:
            raise InvalidSpaceError(f"the condition on {empty[0]!r} allows no value; name at least one")
        object.__setattr__(self, "when", when)

    def __repr__(self) -> str:
        given = []
        for item in fields(self):
            value = getattr(self, item.name)
            default = {} if item.default_factory is dict else item.default
            if default is MISSING:
                given.append(f"{item.name}={value!r}" if isinstance(self, Repeat) else repr(value))
            elif value != default:
                given.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(sorted(given, key=lambda text: text.startswith(('when=', 'opt'))))})"


class Value(Parameter):
    r"""A parameter with one value: a number or a choice."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        r"""Number of values; :obj:`None` where they are continuous."""

    @property
    @abstractmethod
    def middle(self) -> Any:
        r"""A typical value: the middle of a range, or the first choice."""

    @abstractmethod
    def values(self) -> Sequence[Any]:
        r"""Returns all values in order, where they are not continuous."""

    @abstractmethod
    def read(self, value: Any, *, exact: bool = True) -> Any:
        r"""Returns the plain form of a value.

        Args:
            value: The value; NumPy scalars and whole floats for integers will do.
            exact: Whether to refuse numbers outside the range and unknown choices.

        Raises:
            InvalidArchitectureError: If it is no value of this parameter.
        """

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator | None = None) -> list[Any]:
        r"""Draws :obj:`n` values uniformly, in logarithms where these matter."""

    @abstractmethod
    def neighbors(self, value: Any) -> list[Any]:
        r"""Returns the values next to another one, in a deterministic order."""

    def mutate(self, value: Any, generator: torch.Generator | None = None) -> Any:
        r"""Draws another value, unless there is only one."""
        others = self.neighbors(value)
        return others[draw_indices(len(others), 1, generator)[0]] if others else value


class Number(Value):
    r"""A number of a range, on a grid or not."""

    low: Any
    high: Any
    step: Any
    log: bool

    @property
    def size(self) -> int | None:
        r"""Number of values; :obj:`None` where they are continuous."""
        if self.low == self.high:
            return 1
        return None if self.step is None else self._steps(self.high, math.floor) + 1

    @property
    def middle(self) -> Any:
        r"""The middle of the range, in logarithms where these matter."""
        return self.at(0.5)

    def at(self, place: float) -> Any:
        r"""Returns the value at a part of the range, which is cut to 0 ... 1."""
        place = min(max(place, 0.0), 1.0)
        if self.log:
            value = math.exp(math.log(self.low) * (1 - place) + math.log(self.high) * place)
        else:
            value = self.low + (self.high - self.low) * place
        return self._snap(value)

    def place(self, value: Any) -> float:
        r"""Inverse of :meth:`at`."""
        if self.low == self.high:
            return 0.5
        if self.log:
            # The logarithms of close values may be equal; that of their ratio is not zero.
            part, whole = (math.log1p((end - self.low) / self.low) for end in (max(value, self.low), self.high))
            return part / whole
        return float((value - self.low) / (self.high - self.low))

    def draw(self, n: int, generator: torch.Generator | None = None) -> list[Any]:
        r"""Draws :obj:`n` values uniformly, in logarithms where these matter."""
        if self.size is not None and not self.log:
            return [self._grid(k) for k in draw_indices(self.size, n, generator, replace=True)]
        low, high = float(self.low), float(self.high)
        if self.step is not None:
            # Every value of the grid is as likely as the interval around it.
            low, high = max(low - self.step / 2, low / 2), high + self.step / 2
        places = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu").tolist()
        if not self.log:
            return [self._snap(low + (high - low) * place) for place in places]
        start, ratio = math.log(low), math.log(high / low)
        return [self._snap(math.exp(start + ratio * place)) for place in places]

    def values(self) -> Sequence[Any]:
        r"""Returns all values in order, where they are not continuous."""
        if self.size is None:
            raise InvalidSpaceError(f"{self!r} is continuous; give it a step to list its values")
        return [self._grid(k) for k in range(self.size)]

    def neighbors(self, value: Any) -> list[Any]:
        r"""Returns the values one step below and above, then those a tenth of the range away."""
        near = [] if self.step is None else [self._snap(value - self.step), self._snap(value + self.step)]
        place = self.place(value)
        far = [self.at(place - _STRIDE), self.at(place + _STRIDE)]
        return [other for other in dict.fromkeys(near + far) if other != value]

    def mutate(self, value: Any, generator: torch.Generator | None = None) -> Any:
        r"""Draws another value, near ones most often."""
        steps = torch.randn(_TRIES, generator=generator, dtype=torch.float64, device="cpu").tolist()
        near = (self.at(self.place(value) + _JUMP * step) for step in steps)
        for other in near:
            if other != value:
                return other
        return super().mutate(value, generator)

    def _snap(self, value: Any) -> Any:
        """The value of the range that is nearest."""
        value = min(max(value, self.low), self.high)
        if self.size is None:
            return float(value) + 0.0
        return self._grid(0 if self.size == 1 else self._steps(value, round))

    def _steps(self, value: Any, whole: Callable[[float], int]) -> int:
        """Steps from the smallest value."""
        return whole((value - self.low) / self.step + 1e-9)

    def _grid(self, k: int) -> Any:
        return self.low + min(k, (self.size or 1) - 1) * (self.step or 0)

    def _checked(self, value: Any, exact: bool) -> Any:
        if exact and not self.low <= value <= self.high:
            raise InvalidArchitectureError(f"{value!r} is not between {self.low} and {self.high}")
        if exact and self.step is not None:
            nearest = self._snap(value)
            if abs(nearest - value) > 1e-6 * self.step:
                raise InvalidArchitectureError(f"{value!r} is not on the steps of {self.step} from {self.low}")
            return nearest
        return value

    def _check_range(self) -> None:
        kind = type(self).__name__
        if self.low > self.high:
            raise InvalidSpaceError(f"low={self.low} of {kind} is larger than high={self.high}; exchange them")
        if self.step is not None and self.step <= 0:
            raise InvalidSpaceError(f"step of {kind} must be positive, got {self.step}")
        if self.log and self.low <= 0:
            raise InvalidSpaceError(f"log=True of {kind} needs low > 0, got low={self.low}; raise low or drop log")


@dataclass(frozen=True, repr=False)
class Integer(Number):
    r"""A whole number: ``low``, ``low + step``, ... up to ``high``, both included.

    Args:
        low: The smallest value.
        high: The largest value.
        step: Distance of neighboring values.
        log: Whether equal ratios matter rather than equal differences; needs a positive ``low``.

    Raises:
        InvalidSpaceError: If ``low`` exceeds ``high``, ``step`` is not positive, a bound is not a whole number, or
            ``log`` is asked for where ``low`` is not positive.

    Example:
        >>> Integer(16, 512, log=True).middle
        91
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high", "step"):
            value = plain(getattr(self, name))
            if not _is_number(value) or not math.isfinite(value) or value != math.floor(value):
                raise InvalidSpaceError(f"{name} of Integer must be a whole number, got {value!r}; take Float")
            object.__setattr__(self, name, int(value))
        self._check_range()

    def _steps(self, value: Any, whole: Callable[[float], int]) -> int:
        # Whole numbers may be too large for floats.
        distance: int = round(value) - self.low
        return (distance + (self.step // 2 if whole is round else 0)) // self.step

    def read(self, value: Any, *, exact: bool = True) -> Any:
        r"""Returns a whole number as ``int``; any number, where :obj:`exact` is false."""
        if type(value) is int:
            return self._checked(value, exact)
        value = _finite(value)
        if value == math.floor(value):
            return self._checked(int(value), exact)
        if exact:
            raise InvalidArchitectureError(f"{value!r} is not a whole number")
        return value


@dataclass(frozen=True, repr=False)
class Float(Number):
    r"""A real number from ``low`` to ``high``, both included.

    Args:
        low: The smallest value.
        high: The largest value.
        step: Distance of neighboring values, counted from ``low``. (default: continuous)
        log: Whether equal ratios matter rather than equal differences; needs a positive ``low``.

    Raises:
        InvalidSpaceError: If ``low`` exceeds ``high``, a bound is not finite, ``step`` is not positive, or ``log`` is
            asked for where ``low`` is not positive.

    Example:
        >>> Float(1e-4, 1e-1, log=True, when={"optimizer": "sgd"})
        Float(0.0001, 0.1, log=True, when={'optimizer': ('sgd',)})
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high", "step"):
            value = plain(getattr(self, name))
            if name == "step" and value is None:
                continue
            if not _is_number(value) or not math.isfinite(value):
                raise InvalidSpaceError(f"{name} of Float must be a finite number, got {value!r}")
            object.__setattr__(self, name, float(value) + 0.0)
        self._check_range()

    def read(self, value: Any, *, exact: bool = True) -> float:
        r"""Returns a number as ``float``."""
        # Minus zero would be equal to zero and be written differently.
        return float(self._checked(float(_finite(value)) + 0.0, exact))

    def _grid(self, k: int) -> float:
        # Decimal steps are not exact in binary; twelve digits are what was meant.
        return min(float(f"{super()._grid(k):.12g}") + 0.0, self.high) if k else self.low


@dataclass(frozen=True, repr=False)
class Categorical(Value):
    r"""One of several choices: strings, numbers, booleans or :obj:`None`.

    Args:
        choices: The choices, at least one; where :obj:`ordered`, from the least to the most.
        ordered: Whether the order of the choices matters.

    Raises:
        InvalidSpaceError: If there is no choice, one occurs twice, or one is not a plain value.

    Example:
        >>> Categorical(["relu", "gelu"])
        Categorical(('relu', 'gelu'))
    """

    choices: tuple[Any, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence) or not len(self.choices):
            raise InvalidSpaceError(f"choices must be a list of at least one value, got {self.choices!r}")
        choices = tuple(plain(choice) for choice in self.choices)
        for choice in choices:
            if not _is_choice(choice):
                raise InvalidSpaceError(
                    f"a choice must be a string, a finite number, a boolean or None, got {choice!r}; name it instead"
                )
        if twice := [choice for i, choice in enumerate(choices) if choice in choices[:i]]:
            raise InvalidSpaceError(f"choice {twice[0]!r} occurs twice in {list(choices)}; leave one out")
        object.__setattr__(self, "choices", choices)

    @property
    def size(self) -> int:
        r"""Number of choices."""
        return len(self.choices)

    @property
    def middle(self) -> Any:
        r"""The first choice, or the middle one where they are ordered."""
        return self.choices[len(self.choices) // 2 if self.ordered else 0]

    def values(self) -> Sequence[Any]:
        r"""Returns the choices."""
        return self.choices

    def read(self, value: Any, *, exact: bool = True) -> Any:
        r"""Returns the choice that equals a value or is written like it; any other, where :obj:`exact` is false."""
        if type(value) is str and value in self.choices:
            return value
        value = None if is_missing(value) else plain(value)
        if not _is_choice(value):
            raise InvalidArchitectureError(f"{value!r} is not one of {list(self.choices)}")
        if value in self.choices:
            return self.choices[self.choices.index(value)]
        alike = [choice for choice in self.choices if str(choice).casefold() == str(value).casefold()]
        if len(alike) == 1:
            return alike[0]
        if exact:
            raise InvalidArchitectureError(f"{value!r} is not one of {list(self.choices)}")
        return value

    def draw(self, n: int, generator: torch.Generator | None = None) -> list[Any]:
        r"""Draws :obj:`n` choices uniformly."""
        return [self.choices[i] for i in draw_indices(len(self.choices), n, generator, replace=True)]

    def neighbors(self, value: Any) -> list[Any]:
        r"""Returns all other choices."""
        return [choice for choice in self.choices if choice != value]


@dataclass(frozen=True, repr=False)
class Repeat(Parameter):
    r"""A list of layers, each with a configuration of its own; the number of layers may vary.

    Args:
        parameters: Parameters of one layer by name; no :class:`Repeat` among them.
        min_length: The smallest number of layers.
        max_length: The largest number of layers.

    Raises:
        InvalidSpaceError: If there are no parameters, one is a :class:`Repeat`, or the lengths contradict each other.

    Example:
        >>> layers = Repeat({"kernel": Categorical([3, 5, 7]), "width": Integer(16, 64, step=16)}, 2, 8)
        >>> list(layers.parameters)
        ['kernel', 'width']
    """

    parameters: Mapping[str, Parameter] = field(hash=False)
    min_length: int
    max_length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.parameters, Mapping) or not self.parameters:
            raise InvalidSpaceError(f"a layer must have parameters by name, got {self.parameters!r}")
        parameters = {name: as_parameter(inner) for name, inner in self.parameters.items()}
        if nested := [name for name, inner in parameters.items() if isinstance(inner, Repeat)]:
            raise InvalidSpaceError(f"{nested[0]!r} is a Repeat inside a Repeat; give the layers one list")
        lengths = [plain(length) for length in (self.min_length, self.max_length)]
        if any(type(length) is not int for length in lengths) or not 0 <= lengths[0] <= lengths[1] or lengths[1] < 1:
            raise InvalidSpaceError(
                f"the number of layers must go from at least 0 to at least 1, "
                f"got min_length={self.min_length}, max_length={self.max_length}"
            )
        object.__setattr__(self, "parameters", parameters)


def as_parameter(given: Any) -> Parameter:
    r"""Returns a parameter; a list is short for a :class:`Categorical`.

    Raises:
        InvalidSpaceError: If it is neither.

    Example:
        >>> as_parameter([3, 5, 7])
        Categorical((3, 5, 7))
    """
    if isinstance(given, Parameter):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str):
        return Categorical(tuple(given))
    raise InvalidSpaceError(
        f"{given!r} is not a parameter; give an Integer, a Float, a Categorical, a Repeat or a list of choices"
    )


_BUILTIN = frozenset((bool, int, float, str))


def plain(value: Any) -> Any:
    r"""Returns a scalar of NumPy or PyTorch as the Python value, everything else as it is."""
    if type(value) in _BUILTIN:
        return value
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def is_missing(value: Any) -> bool:
    r"""Whether a cell of a table is empty: :obj:`None`, NaN, or the missing values of pandas.

    Example:
        >>> is_missing(float("nan")), is_missing(0)
        (True, False)
    """
    kind = type(value)
    if kind in _BUILTIN:
        return kind is float and value != value
    value = plain(value)
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or (isinstance(value, Real) and not isinstance(value, bool))


def _is_choice(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _finite(value: Any) -> Any:
    value = plain(value)
    if not _is_number(value) or not math.isfinite(value):
        raise InvalidArchitectureError(f"{value!r} is not a finite number")
    return value


class RecordView(SearchSpace[ArchT]):
    r"""A space whose architectures are configurations: values by the names of parameters.

    What a predictor knows of it are :attr:`parameters` (types, ranges, order, conditions) and :meth:`records`.
    """

    parameters: Mapping[str, Parameter]
    """The parameters by name, in the order in which records have them."""

    @abstractmethod
    def records(self, archs: Archs) -> list[dict[str, Any]]:
        r"""Returns architectures as plain records.

        A record has the value of each active parameter by name: ``int`` of an :class:`Integer`, ``float`` of a
        :class:`Float`, the choice of a :class:`Categorical`, and of a :class:`Repeat` the list of the records of its
        layers. Inactive parameters are absent.

        Args:
            archs: Architectures, ``n`` of them.
        """

    def reference(self, n: int, generator: torch.Generator | None = None) -> list[ArchT]:
        r"""Returns at most :obj:`n` architectures by which features are standardised.

        They are the known pool where the space has one, otherwise independent draws.
        """
        return self.sample(n, generator, replace=True)


class TableView(RecordView[ArchT]):
    r"""A space that reads many configurations at a time by the columns of a table."""

    known_columns: Sequence[str]
    """The columns of a table that are costs or scores."""

    @property
    @abstractmethod
    def table_parameters(self) -> dict[str, Parameter]:
        r"""The columns of a table of configurations, and the parameter that each has the values of."""

    @abstractmethod
    def check_table(self, columns: Mapping[str, Any], *, first_row: int = 0) -> Sequence[ArchT]:
        r"""Returns the configurations that are given by columns.

        Args:
            columns: One column a parameter, and one a cost or score where there is any.
            first_row: Position of the first one, for messages.

        Raises:
            InvalidArchitectureError: With row and reason, if one is not a configuration.
            InvalidSpaceError: If columns differ in length.
        """
