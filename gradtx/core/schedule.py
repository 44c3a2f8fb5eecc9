# SPDX-License-Identifier: Apache-2.0
"""Schedules as values: functions of the step that print, compare and hash as their constructor call."""

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from gradtx.core.call import Call, Value, factory_decorator, register_value
from gradtx.core.types import Numeric


@register_value
class Schedule(Value):
    """A pure function of the step count: `schedule(count) -> value`, where `count` is the number of updates made.

    `count` is a scalar (or array) of integers or floats, traced or not; the value is a float of its shape. The numeric
    arguments of the call are the leaves of the pytree, so a new peak value does not compile again.
    """

    __slots__ = ("_function",)

    def __call__(self, count: Numeric) -> jax.Array:
        return self._expanded()._function(_as_float(count))

    def _expanded(self) -> "Schedule":
        if not hasattr(self, "_function"):
            assert self._call is not None
            object.__setattr__(self, "_function", self._call.factory.expand(self._call))
        return self


P = ParamSpec("P")


def schedule(body: Callable[P, Callable]) -> Callable[P, Schedule]:
    """Makes a function that returns a function of the step into a factory of `Schedule` values.

    The body gets its arguments as given (numbers stay Python numbers), the function it returns gets the step as a
    floating-point array.
    """
    return factory_decorator(body, Schedule, _expand, schedules=False)


def _expand(call: Call) -> Callable:
    return call.factory.run(call.arguments)


def _as_float(count: Any) -> jax.Array:
    count = jnp.asarray(count)
    return count if jnp.issubdtype(count.dtype, jnp.floating) else count.astype(jnp.result_type(float))
