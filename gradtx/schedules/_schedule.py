# SPDX-License-Identifier: Apache-2.0
"""Schedules as values: functions of the step that print, compare and hash as the expression that makes them.

Their algebra is here too: each method is a factory whose first argument is a schedule.
"""

from collections.abc import Callable
from typing import Annotated, Any, Concatenate, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core._calls import Call, Value, expand_inside, factory_decorator, register_value
from gradtx.core._checked import checked
from gradtx.core._naming import naming, wide
from gradtx.core._ranges import (
    Bound,
    LimitOrZero,
    Positive,
    PositiveInt,
    Range,
    Real,
    at_step,
    is_number,
)
from gradtx.core._types import Numeric, StepFn
from gradtx.schedules._cycles import cycle_at, cycle_begin
from gradtx.schedules._steps import counted, floating, joined, longest, paired, since, total

P = ParamSpec("P")
Growth = Annotated[Any, Range(low=1.0, example=2.0)]


class Lasting(NamedTuple):
    """What the body of a schedule with an end returns: the function, and the number of steps until the end."""

    function: Callable[..., Any]
    length: Any

    def __call__(self, count: Numeric) -> Numeric:
        return self.function(count)


class _Later:
    """Stands for `Schedule`, which does not exist yet while its methods are defined."""

    @staticmethod
    def from_call(call: Call) -> "Schedule":
        return Schedule.from_call(call)


def _method(body: Callable[Concatenate[Any, P], Any]) -> Callable[Concatenate[Any, P], "Schedule"]:
    return factory_decorator(body, _Later, _expand, schedules=False)  # type: ignore[arg-type]  # see _Later


def _operator(body: Callable[Concatenate[Any, P], Any]) -> Callable[Concatenate[Any, P], "Schedule"]:
    """A method whose argument may be a number or a schedule."""
    return factory_decorator(body, _Later, _expand)  # type: ignore[arg-type]  # see _Later


def _expand(call: Call) -> Lasting:
    result = call.factory.run(call.arguments)
    function, length = result, getattr(result, "length", None)
    if isinstance(result, Lasting):
        function, length = result
    if wide(call.arguments, call.factory.hyperparameters):
        function = naming(call.factory, call.arguments, function)
    return Lasting(function, length)


def _expand_in_floats(call: Call) -> Lasting:
    function, length = _expand(call)
    return Lasting(function if isinstance(function, Schedule) else lambda count: function(floating(count)), length)


@register_value
class Schedule(Value):
    """A pure function of the step count: `schedule(count) -> value`, where `count` is the number of updates made.

    `count` is a scalar (or array) of integers or floats, traced or not; the value is a float of its shape. The numeric
    arguments of the call are the leaves of the pytree, so a new peak value does not cause a new compilation.

    Methods and operators make new schedules from it: `3e-4 * warmup(1000).then(cosine(9000))`.
    """

    __slots__ = ("_expansion",)
    __array_ufunc__ = None  # so that np.float64(2) * schedule calls the schedule's __rmul__

    def __call__(self, count: Numeric) -> jax.Array:
        return self._expanded()._expansion.function(counted(count))

    @property
    def length(self) -> Any:
        """The number of updates until its end, after which the value stays; None for a schedule without an end."""
        return self._expanded()._expansion.length

    def _expanded(self) -> "Schedule":
        if not hasattr(self, "_expansion"):
            assert self._call is not None
            object.__setattr__(self, "_expansion", self._call.factory.expand(self._call))
            expand_inside(self._call)
        return self

    @_method
    def then(self, following: StepFn, after: LimitOrZero | None = None):
        """This schedule until its end, then another one, which counts steps from there.

        Args:
          following: any function of the step.
          after: the step at which to change over; None for the end of this schedule.

        Raises:
          ValueError: for a schedule without an end, if `after` is not given.
        """
        boundary = self.length if after is None else after
        if boundary is None:
            raise ValueError(f"then: {self!r} has no end; say at which step the next one begins: after=1000")
        length = total(boundary, getattr(following, "length", None))
        return Lasting(lambda count: joined(count, (self, following), (boundary,)), length)

    @_operator
    def scale(self, factor: Real):
        """Its values times a number or those of another schedule: `factor * schedule`."""
        return Lasting(lambda count: self(count) * _values(factor, count), _longer(self, factor))

    @_operator
    def add(self, other: Real):
        """Its values plus a number or those of another schedule: `schedule + other`."""
        return Lasting(lambda count: self(count) + _values(other, count), _longer(self, other))

    @_operator
    def subtract(self, other: Real):
        """Its values minus a number or those of another schedule: `schedule - other`."""
        return Lasting(lambda count: self(count) - _values(other, count), _longer(self, other))

    @_operator
    def divide(self, divisor: Real):
        """Its values divided by a number or by those of another schedule: `schedule / divisor`."""
        return Lasting(lambda count: self(count) / _values(divisor, count), _longer(self, divisor))

    @_method
    def clip(self, low: Bound | None = None, high: Bound | None = None):
        """Its values, but none below `low` or above `high`."""
        known = not any(x is None or isinstance(x, Tracer) for x in (low, high))
        if known and np.any(np.asarray(high) < np.asarray(low)):
            raise ValueError(f"clip: high must be at least low = {low}, got {high}")

        def at(count):
            value = self(count)
            value = value if low is None else jnp.maximum(value, jnp.asarray(low, value.dtype))
            return value if high is None else jnp.minimum(value, jnp.asarray(high, value.dtype))

        return Lasting(at, self.length)

    @_method
    def shift(self, steps: Bound):
        """The schedule begun `steps` later, with its first value until then: `schedule(max(t - steps, 0))`.

        With a traced `steps` the run decides when a decay begins: `rate * linear(1000).shift(start)`, where an infinite
        `start` means "not yet". A negative number leaves out the beginning.
        """
        length = total(self.length, steps)
        return Lasting(lambda count: self(since(count, steps)), longest(length, 0))

    @_method
    def until(self, end: Bound):
        """The schedule, begun so late that it ends at step `end`: `shift(end - length)`.

        `rate * linear(c).until(N)` multiplies any rate by the cooldown min(1, (N - t) / c). A traced `end`, such as the
        current step plus the steps that the budget still allows, may change at any step; infinity means no end yet.

        Raises:
          ValueError: for a schedule without an end.
        """
        length = _length(self, "until")
        begin = end - length if is_number(end) and is_number(length) else total(end, -jnp.asarray(length))
        return Lasting(lambda count: self(since(count, begin)), longest(end, 0))

    @_method
    def stretch(self, factor: Positive):
        """The schedule, `factor` times as long: `schedule(t / factor)`.

        With the number of updates in an epoch as `factor`, the schedule counts epochs.
        """

        def at(count):
            steps, width = paired(count, factor)
            whole = jnp.floor_divide(steps, width)
            # Not steps / width: the compiler makes that a product with a reciprocal, which is below 1 for 49 / 49.
            return self(floating(whole) + floating(steps - whole * width) / floating(width))

        return Lasting(at, None if self.length is None else _times(self.length, factor))

    @_method
    def staircase(self, every: Positive):
        """The schedule, but changing only every `every` updates: `schedule(floor(t / every) * every)`."""

        def at(count):
            steps, width = paired(count, every)
            return self(jnp.floor_divide(steps, width) * width)

        return Lasting(at, None if self.length is None else _whole_times(self.length, every))

    @_method
    def repeat(self, times: PositiveInt | None = None, growth: Growth = 1.0, factor: Positive = 1.0):
        """The schedule, repeated from its start whenever it reaches its end.

        Args:
          times: the number of repetitions, the first run included; None to repeat without an end.
          growth: the length of a repetition relative to the one before, at least 1.
          factor: the height of a repetition relative to the one before.

        Raises:
          ValueError: for a schedule without an end.

        Reference: Loshchilov and Hutter 2016, arXiv:1608.03983, whose T_mult is `growth`.
        """
        length = _length(self, "repeat")

        def at(count):
            if is_number(growth) and growth == 1:
                steps, period = paired(count, length)
                cycle = _at_most(jnp.floor_divide(steps, period), None if times is None else times - 1)
                own, cycle = steps - cycle * period, floating(cycle)
            else:
                steps = floating(count)
                cycle = _at_most(cycle_at(steps, length, growth), None if times is None else times - 1)
                own = (steps - cycle_begin(cycle, length, growth)) / jnp.asarray(growth, steps.dtype) ** cycle
            own = own if times is None else _at_most(own, length)  # after the last repetition, the value at its end
            return self(own) * jnp.asarray(factor, cycle.dtype) ** cycle

        return Lasting(at, None if times is None else cycle_begin(times, length, growth))

    __mul__ = __rmul__ = scale
    __add__ = __radd__ = add
    __sub__, __truediv__ = subtract, divide

    def __neg__(self) -> "Schedule":
        return self.scale(-1)

    def __rsub__(self, other: Any) -> "Schedule":
        return self.scale(-1).add(other)


@checked
def schedule(body: Callable[P, Callable[..., Any]]) -> Callable[P, Schedule]:
    """Makes a function that returns a function of the step into a factory of `Schedule` values.

    The function that `body` returns gets the step as a floating-point array.

    Args:
      body: gets its arguments as given (numbers stay Python numbers). It returns a function of the step;
        `Lasting(function, length)` for a schedule with an end; or a `Schedule`, composed of others.
    """
    return factory_decorator(body, Schedule, _expand_in_floats, schedules=False)


def composition(body: Callable[P, Callable[..., Any]]) -> Callable[P, Schedule]:
    """`schedule` for functions of the step that get it unchanged, integers as integers, and pass it on to schedules."""
    return factory_decorator(body, Schedule, _expand, schedules=False)


def _values(x: Any, count: jax.Array) -> jax.Array:
    return jnp.asarray(at_step("a sum or product of schedules", x, count), floating(count).dtype)


def _longer(one: Schedule, other: Any) -> Any:
    """The length of what is made of a schedule and a number or a function of the step."""
    return longest(one.length, getattr(other, "length", None)) if callable(other) else one.length


def _at_most(x: jax.Array, limit: Any) -> jax.Array:
    if limit is None:
        return x
    x, limit = paired(x, limit)
    return jnp.minimum(x, limit)


def _length(x: Schedule, where: str) -> Any:
    if x.length is None:
        raise ValueError(f"{where}: {x!r} has no end; give it one, as in constant(1000)")
    if where == "repeat" and is_number(x.length) and x.length <= 0:
        raise ValueError(f"repeat: {x!r} must take at least one step, got length {x.length}")
    return x.length


def _times(length: Any, factor: Any) -> Any:
    if is_number(length) and is_number(factor):
        return length * factor
    return jnp.asarray(length, float) * jnp.asarray(factor, float)


def _whole_times(length: Any, every: Any) -> Any:
    """The length, rounded up to a multiple of `every`."""
    if is_number(length) and is_number(every):
        return -(-length // every) * every
    return -jnp.floor_divide(-jnp.asarray(length, float), jnp.asarray(every, float)) * jnp.asarray(every, float)
