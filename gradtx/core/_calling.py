# SPDX-License-Identifier: Apache-2.0
"""Compiled functions, and where a call of one is worth it.

Outside of a trace a call is one dispatch. Inside it is an operation of its own, with a trace of its own that is shared
by all calls with the same shapes: less work than to repeat what is inside, if that is more than a few operations.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

FEW = 3
"""So many operations are traced and lowered in less time than a call."""

_IN_PLACE: Any = jax.Inline.JAX_EARLY if hasattr(jax, "Inline") else True
"""At once. In jax 0.12, True is for a later stage, at which a call has cost what it costs."""


def compiled_outside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, compiled outside of a trace only: for few operations, or what is called once."""
    compiled = jax.jit(function)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        is_traced = any([isinstance(x, Tracer) for x in jax.tree.leaves(arguments)])
        return (function if is_traced else compiled)(*arguments)

    return run


def called_on_leaves(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The same function, compiled. Inside of a trace its operations take the place of a call where they are few.

    Whether they are is found for each shape of the argument at the place `at`. It is always called if that is in a box,
    which may hold a stack.
    """
    called, in_place = jax.jit(function), jax.jit(function, inline=_IN_PLACE)
    few: dict[tuple[int, ...], bool] = {}

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        x = arguments[at]
        if not isinstance(x, Tracer):
            return called(*arguments)
        shape = x.shape
        if shape not in few:
            few[shape] = _live(called.trace(*arguments).jaxpr) <= FEW
        return (in_place if few[shape] else called)(*arguments)

    return run


def _live(jaxpr: Any) -> int:
    """The number of operations whose results somebody uses."""
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars} | set(map(id, jaxpr.jaxpr.outvars))
    return sum(any(id(x) in used for x in equation.outvars) for equation in jaxpr.eqns)
