# SPDX-License-Identifier: Apache-2.0
"""Plain functions whose signature is their specification, as that of a factory is."""

import functools
import re
import sys
from collections.abc import Callable
from traceback import walk_tb
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core._arguments import Arguments
from gradtx.core._kinds import shown
from gradtx.core._ranges import Range, is_array, is_number
from gradtx.core._sentences import shortened

F = TypeVar("F", bound=Callable[..., Any])


class Signature(Arguments):
    """The arguments of a plain function: its numbers are scalars, and no schedules."""

    is_plain = True

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


OURS = {"gradtx", "jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", *sys.stdlib_module_names}


MISFITS = (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, OverflowError)
"""What JAX, NumPy and Python raise for arguments that do not fit together."""


def _in_own_words(name: str, bound: dict[str, Any], error: Exception) -> Exception | None:
    """The error as one of this function: of another function that it called, or of JAX, that arguments do not fit.

    None if it says already whose it is, or comes from a function that was given.
    """
    is_ours = type(error).__module__.startswith("gradtx.")
    if not (is_ours or type(error) in MISFITS) or f"{name}:" in str(error):
        return None
    said = str(error)
    modules = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    if not OURS.issuperset(modules):
        return None
    kind = type(error) if isinstance(error, TypeError) else ValueError
    named = any(re.search(rf"\b{re.escape(n.removesuffix('s'))}s?\b", said) for n in bound)
    if modules[-1] == "gradtx" and (named or is_ours):
        return kind(f"{name}: {said}")
    given = {n: x for n, x in bound.items() if x is not None and not isinstance(x, str | bool) and not callable(x)}
    what = ", ".join(f"{n} {_looks(x)}" for n, x in given.items())
    return kind(f"{name}: the arguments do not fit together, got {what}: {said.splitlines()[0] if said else error!r}")


def _looks(x: Any) -> str:
    """What an error shows of an argument: the number that it is, or the shapes in it."""
    if is_number(x):
        return repr(x)
    return shortened(str(jax.tree.map(lambda leaf: jnp.shape(leaf) if hasattr(leaf, "shape") else leaf, x)), 80)


def checked(function: F) -> F:
    """The function, whose arguments are checked against its annotations before it runs.

    Ranges (`Positive`, `Fraction`, ...), kinds (`Axes`, `Tree`, ...), `bool`, `str`, `Literal` and functions are what
    they are in a factory, and a name that is no argument is answered with those that are. A number is a scalar; traced
    ones are of any value. Under `jit` this costs a little of the time of tracing, and nothing after.
    """
    arguments = Signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # What gradtx gives its own functions was checked where it came in.
        if sys._getframe(1).f_globals.get("__name__", "").startswith("gradtx."):
            return function(*args, **kwargs)
        bound = arguments.bind(args, kwargs)
        by_place, by_name = arguments.apart(bound)
        try:
            return function(*by_place, **by_name)
        except MISFITS as error:
            own = _in_own_words(arguments.name, bound, error)
            if own is None:
                raise
            raise own from error

    call.__signature__ = arguments.printed()  # type: ignore[attr-defined]  # what inspect and help show
    return call  # type: ignore[return-value]  # takes the same arguments
