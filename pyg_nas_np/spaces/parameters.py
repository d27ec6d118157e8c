r"""Parameters of configurations, and the capability of a space whose architectures are records of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch

from pyg_nas_np.spaces.base import Archs, ArchT, SearchSpace
from pyg_nas_np.utils.errors import InvalidSpaceError


@dataclass(frozen=True)
class Parameter:
    r"""One parameter of a configuration.

    Args:
        when: The condition under which a configuration has this parameter: name of another parameter of the same
            configuration (in a :class:`Repeat`: of the same layer) → the values it may have. All must hold. A parameter
            that is not active is absent from the configuration. (default: always active)
    """

    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True, hash=False)

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


@dataclass(frozen=True)
class Integer(Parameter):
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
        >>> Integer(16, 512, log=True)
        Integer(low=16, high=512, step=1, log=True)
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or value != math.floor(value):
                raise InvalidSpaceError(f"{name} of Integer must be a whole number, got {value!r}; take Float")
            object.__setattr__(self, name, int(value))
        _check_range(self, self.low, self.high, self.step, self.log)


@dataclass(frozen=True)
class Float(Parameter):
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
        >>> Float(1e-4, 1e-1, log=True, when={"optimizer": "sgd"}).when
        {'optimizer': ('sgd',)}
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if name == "step" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise InvalidSpaceError(f"{name} of Float must be a finite number, got {value!r}")
            object.__setattr__(self, name, float(value))
        _check_range(self, self.low, self.high, self.step, self.log)


@dataclass(frozen=True)
class Categorical(Parameter):
    r"""One of several choices: strings, numbers, booleans or :obj:`None`.

    Args:
        choices: The choices, at least one; where :obj:`ordered`, from the least to the most.
        ordered: Whether the order of the choices matters.

    Raises:
        InvalidSpaceError: If there is no choice, one occurs twice, or one is not a plain value.

    Example:
        >>> Categorical(["relu", "gelu"]).choices
        ('relu', 'gelu')
    """

    choices: tuple[Any, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence) or not len(self.choices):
            raise InvalidSpaceError(f"choices must be a list of at least one value, got {self.choices!r}")
        choices = tuple(self.choices)
        for choice in choices:
            if not (choice is None or isinstance(choice, str | bool | int | float)) or choice != choice:
                raise InvalidSpaceError(f"a choice must be a string, a number, a boolean or None, got {choice!r}")
        if twice := [choice for i, choice in enumerate(choices) if choice in choices[:i]]:
            raise InvalidSpaceError(f"choice {twice[0]!r} occurs twice in {list(choices)}; leave one out")
        object.__setattr__(self, "choices", choices)


@dataclass(frozen=True)
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
        if nested := [name for name, inner in self.parameters.items() if isinstance(inner, Repeat)]:
            raise InvalidSpaceError(f"{nested[0]!r} is a Repeat inside a Repeat; give the layers one list")
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise InvalidSpaceError(
                f"the number of layers must go from at least 0 to at least 1, "
                f"got min_length={self.min_length}, max_length={self.max_length}"
            )
        object.__setattr__(self, "parameters", dict(self.parameters))


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


def _check_range(parameter: Parameter, low: float, high: float, step: float | None, log: bool) -> None:
    kind = type(parameter).__name__
    if low > high:
        raise InvalidSpaceError(f"low={low} of {kind} is larger than high={high}; exchange them")
    if step is not None and step <= 0:
        raise InvalidSpaceError(f"step of {kind} must be positive, got {step}")
    if log and low <= 0:
        raise InvalidSpaceError(f"log=True of {kind} needs low > 0, got low={low}; raise low or drop log")
