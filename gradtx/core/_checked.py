# SPDX-License-Identifier: Apache-2.0
"""Plain functions whose signature is their specification, as that of a factory is."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp

from gradtx.core._arguments import Arguments
from gradtx.core._kinds import shown
from gradtx.core._ranges import Range, is_array, is_number

F = TypeVar("F", bound=Callable[..., Any])


class Signature(Arguments):
    """The arguments of a plain function: its numbers are scalars, and no schedules."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function.__name__, function, schedules=False)

    def _constant(self, name: str, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        spec = self.specs[name]
        assert isinstance(spec, Range)  # only numbers have a `_constant`

        def check_scalar(value: Any) -> Any:
            if value is not None and not is_number(value):
                if not is_array(value):
                    raise TypeError(f"{self.name}: {name} must be {spec}, got {shown(value)}")
                if jnp.ndim(value) != 0 and not spec.many:
                    raise ValueError(f"{self.name}: {name} must have the shape of a scalar, (), got {jnp.shape(value)}")
            return check(value)

        return check_scalar


def checked(function: F) -> F:
    """The function, whose arguments are checked against its annotations before it runs.

    Ranges (`Positive`, `Fraction`, ...), kinds (`Axes`, `Tree`, ...), `bool`, `str`, `Literal` and functions are what
    they are in a factory, and a name that is no argument is answered with those that are. A number is a scalar; traced
    ones are of any value. Under `jit` this costs a little of the time of tracing, and nothing after.
    """
    arguments = Signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = arguments.apart(arguments.bind(args, kwargs))
        return function(*args, **kwargs)

    call.__signature__ = arguments.printed()  # type: ignore[attr-defined]  # what inspect and help show
    return call  # type: ignore[return-value]  # takes the same arguments
