# SPDX-License-Identifier: Apache-2.0
"""Hyperparameter ranges as annotations: `b1: Decay`, `eps: NonNegative`, `max_norm: Positive`.

A range specifies three things: that the parameter is numeric (so it may be a number, an array, a traced value or a
schedule, and is a leaf of the transformation), which values are legal, and an example of a legal value.
"""

import dataclasses
import functools
import inspect
import math
import types
import typing
from typing import Annotated, Any, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from gradtx.core._types import NumberOrSchedule, ScalarOrSchedule


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of real numbers, of `whole` ones; `integer` marks a static whole number (a size, never a leaf).

    `static` marks a number that decides sizes: a Python number, never a leaf. Infinity is a value only where it means
    something, such as no limit (`endless`). A number of a plain function is one, but where it may be an array (`many`).
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    integer: bool = False
    example: float = 0.1
    whole: bool = False
    static: bool = False
    endless: bool = False
    many: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.integer or self.whole else "a finite number" if self.finite else "a number"
        if self.low == -math.inf and self.high == math.inf:
            return kind
        if self.high == math.inf:
            return f"{kind} {'>' if self.low_open else '>='} {self.low:g}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"

    @property
    def finite(self) -> bool:
        """Whether infinity is no value, where there is no other bound."""
        return self.high == math.inf and self.high_open

    def of_finite(self) -> str:
        """In words, with what infinity is outside of."""
        low_open, high_open = self.low_open or math.isinf(self.low), self.high_open or math.isinf(self.high)
        return str(dataclasses.replace(self, low_open=low_open, high_open=high_open))

    def holds(self, value: Any) -> bool:
        """Whether every element of a concrete value lies inside; NaN lies in no range."""
        x = value if is_number(value) else np.asarray(value, dtype=np.float64)
        above = x > self.low if self.low_open else x >= self.low
        below = x < self.high if self.high_open else x <= self.high
        inside = above & below
        if self.whole:
            inside &= x == np.round(x)
        return inside if isinstance(inside, bool) else bool(np.all(inside))


@dataclasses.dataclass(frozen=True)
class Floating:
    """Marks a parameter that is the dtype in which something is stored; `None` means the library's choice."""


Real = Annotated[NumberOrSchedule, Range()]
Positive = Annotated[NumberOrSchedule, Range(low=0.0, low_open=True, example=0.5)]
NonNegative = Annotated[NumberOrSchedule, Range(low=0.0, example=0.01)]
FiniteNonNegative = Annotated[NumberOrSchedule, Range(low=0.0, high_open=True, example=0.01)]
Decay = Annotated[NumberOrSchedule, Range(low=0.0, high=1.0, high_open=True, example=0.9)]
Fraction = Annotated[NumberOrSchedule, Range(low=0.0, high=1.0, example=0.5)]
StaticFraction = Annotated[float, Range(low=0.0, high=1.0, low_open=True, static=True, example=0.5)]
Numbers = Annotated[NumberOrSchedule, Range(many=True)]
Whole = Annotated[NumberOrSchedule, Range(low=0.0, whole=True, example=2.0)]
Minimum = Annotated[NumberOrSchedule, Range(low=0.0, many=True, example=0.01)]
Bound = Annotated[NumberOrSchedule, Range(endless=True)]
Limit = Annotated[NumberOrSchedule, Range(low=0.0, low_open=True, endless=True, example=0.5)]
LimitOrZero = Annotated[NumberOrSchedule, Range(low=0.0, endless=True, example=0.01)]
Momentum = Annotated[NumberOrSchedule, Range(low=-1.0, high=1.0, example=0.9)]  # 1 is a sum; below 0 for games
PositiveInt = Annotated[int, Range(low=1, integer=True, example=2)]
NonNegativeInt = Annotated[int, Range(low=0, integer=True, example=0)]
DType = Annotated[DTypeLike | None, Floating()]


_NAMES = {
    Real: "Real",
    Positive: "Positive",
    NonNegative: "NonNegative",
    FiniteNonNegative: "FiniteNonNegative",
    Decay: "Decay",
    Fraction: "Fraction",
    Momentum: "Momentum",
    PositiveInt: "PositiveInt",
    NonNegativeInt: "NonNegativeInt",
    DType: "DType",
    Bound: "Real",
    Limit: "Positive",
    LimitOrZero: "NonNegative",
}


class Readable:
    """An annotation that prints as people read it: as the name of its range, or as what it demands."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def readable(annotation: Any) -> Any:
    """What stands for an annotation in a printed signature; for one without a range, the annotation itself."""
    members, union = typing.get_args(annotation), typing.get_origin(annotation) in (Union, types.UnionType)
    if union and any(typing.get_origin(m) is Annotated for m in members):
        return Readable(" | ".join(inspect.formatannotation(None if m is type(None) else readable(m)) for m in members))
    if typing.get_origin(annotation) is not Annotated:
        return annotation
    if (spec := specification(annotation)) is None:
        return annotation.__origin__  # what a note says of a function, the docstring says too
    kind = "a whole number" if isinstance(spec, Range) and spec.integer else "a number"
    words = str(spec) if str(spec).startswith(kind) else f"{kind} {spec}"
    return Readable(_NAMES.get(annotation, words))


_RATE = Range(low=0.0, high_open=True, example=0.01)
"""The range of learning rates, whose annotation is that of Optax."""


def specification(annotation: Any) -> Range | Floating | None:
    """The specification in an annotation: a range, `Floating` for a dtype, or None."""
    if annotation == ScalarOrSchedule:
        return _RATE
    if typing.get_origin(annotation) is Annotated:
        return next((m for m in annotation.__metadata__ if isinstance(m, Range | Floating)), None)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = typing.get_args(annotation)
        if set(typing.get_args(ScalarOrSchedule)) <= set(members):  # Optional[ScalarOrSchedule] is one flat union
            return _RATE
        return next((s for m in members if (s := specification(m)) is not None), None)
    return None


def is_number(value: Any) -> bool:
    """Whether this is a Python number, which stays one (and is folded in double precision) until it is traced."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_array(value: Any) -> bool:
    """Whether this is a real array or scalar of NumPy or JAX, traced or not."""
    return isinstance(value, jax.Array | np.ndarray | np.generic) and (
        jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    )


_INFINITIES = (math.inf, -math.inf)


def _has_infinities(value: Any) -> bool:
    return bool(np.any(np.isinf(np.asarray(value, dtype=np.float64))))


def check_argument(where: str, name: str, value: Any, spec: Range | Floating, optional: bool) -> Any:
    """The checked value of an argument, or an error that names the argument, the value given and the legal values."""
    if value is None and (optional or isinstance(spec, Floating)):
        return None
    if isinstance(spec, Floating):
        return _check_dtype(where, name, value)
    if spec.integer:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{where}: {name} must be {spec}, got {value!r} ({type(value).__name__})")
        value = int(value)
    elif spec.static and not is_number(value):
        raise TypeError(f"{where}: {name} must be a Python number {spec}, as sizes depend on it, got {value!r}")
    elif not is_number(value):
        if inspect.isfunction(value) and hasattr(value, "factory"):
            call = f"{value.__name__}(...)"
            raise TypeError(
                f"{where}: {name} must be {spec} or a schedule, got the factory {call[:-5]}: call it, {call}"
            )
        if callable(value) or isinstance(value, Tracer) and is_array(value):
            return value
        if not is_array(value):
            raise TypeError(
                f"{where}: {name} must be a number, an array or a schedule (a function of the step), "
                f"got {value!r} ({type(value).__name__})"
            )
    elif isinstance(value, np.float64):
        value = float(value)  # one of Python's floats that JAX takes for a float64
    if not spec.holds(value):
        raise ValueError(f"{where}: {name} must be {spec}, got {value}")
    if not spec.endless and (value in _INFINITIES if isinstance(value, int | float) else _has_infinities(value)):
        raise ValueError(f"{where}: {name} must be {spec.of_finite()}, got {value}")
    return value


_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def at_step(where: str, x: Any, step: Any, hint: str = "") -> Any:
    """The number that a hyperparameter is at a step: the value of a schedule (of a condition, 0 or 1), or itself.

    Raises:
      TypeError: for a function that returns no real number, or that cannot be traced.
    """
    if not callable(x):
        return x
    try:
        value = x(step)
    except _TRACED as error:
        raise TypeError(
            f"{where}: the schedule {_name(x)} makes a Python decision or a NumPy array of the step, whose value "
            f"is not known under jit: use jnp.where and jnp functions{hint}"
        ) from error
    if is_number(value) or is_array(value):
        return value
    if isinstance(value, bool) or getattr(value, "dtype", None) == np.bool_:
        return jnp.asarray(value, jnp.result_type(float))
    raise TypeError(f"{where}: the schedule {_name(x)} must return a real number, got {value!r}{hint}")


def _name(function: Any) -> str:
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__qualname__", None) or repr(function)


def _check_dtype(where: str, name: str, value: Any) -> np.dtype:
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be a floating dtype or None, got {value!r}") from None
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"{where}: {name} must be a floating dtype or None, got {dtype.name}")
    return dtype
