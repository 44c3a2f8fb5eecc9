# SPDX-License-Identifier: Apache-2.0
"""The border of a transformation: inside it updates are wide, and they leave in the dtype that its caller computes in.

So stages and wrappers hand each other at least float32, and what a chain returns is rounded once. `init` has a border
too, behind which there are arrays, where its caller has only their shapes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._trees import is_none, show_path
from gradtx.core._types import OptState, Params, Updates

Parts = Callable[[OptState], Mapping[str, tuple[Any, OptState]]]


def bordered(update: Callable[..., Any], parts: Parts | None) -> Callable[..., Any]:
    """The same function, whose updates are `narrowed`; `parts` as in `GradientTransformation`."""

    @functools.wraps(update)
    def narrow(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        new, state = update(updates, state, params, **extra)
        return narrowed(new, updates, params, state, parts), state

    return narrow


def narrowed(new: Updates, updates: Updates, params: Params, state: OptState, parts: Parts | None = None) -> Updates:
    """The new updates, each in the promoted dtype of its gradient and its parameter if its own is wider.

    They stay as they are where a stage inside rounds the parameters itself: the class of its state says
    `lands_exactly = True`. So does a tree that is not like the gradients, such as an aggregator's statistics.

    Args:
      new, updates: what `update` returned and what it got.
      state: the state that it returned.
      parts: as in `GradientTransformation`.
    """
    leaves, treedef = jax.tree.flatten(new)
    gs, of_gs = jax.tree.flatten(updates)
    ps, of_ps = (gs, of_gs) if params is None else jax.tree.flatten(params)
    if not treedef == of_gs == of_ps:  # such as None where there is a parameter
        leaves, treedef = jax.tree.flatten(new, is_leaf=is_none)
        try:
            gs = treedef.flatten_up_to(updates)
            ps = gs if params is None else treedef.flatten_up_to(params)
        except (ValueError, TypeError):
            return new
    casts = {}
    for i, u in enumerate(leaves):  # without calls where nothing is to be done: this runs at each update outside jit
        dtype = getattr(u, "dtype", None)
        if dtype is None or dtype == (of_g := getattr(gs[i], "dtype", None)):
            continue
        of_p = getattr(ps[i], "dtype", None)
        if dtype != of_p and (wanted := _narrower(dtype, of_g, of_p)):
            casts[i] = wanted
    if not casts or _lands_exactly(state, parts):
        return new
    return treedef.unflatten([u.astype(casts[i]) if i in casts else u for i, u in enumerate(leaves)])


@functools.lru_cache
def _narrower(dtype: Any, of_g: Any, of_p: Any) -> Any:
    """The dtype to cast an update to; None if it stays as it is."""
    known = [d for d in (of_g, of_p) if d is not None]
    try:
        with jax.numpy_dtype_promotion("standard"):
            wanted = functools.reduce(jnp.promote_types, known) if known else dtype
            narrower = jnp.promote_types(dtype, wanted) == dtype
    except (ValueError, TypeError):  # floats of 8 bits, which have no common dtype with others
        return None
    # As an integer, or a real number where it is complex, an update would lose more than digits.
    kind = jnp.complexfloating if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.inexact
    return wanted if narrower and wanted != dtype and jnp.issubdtype(wanted, kind) else None


def _lands_exactly(state: Any, parts: Parts | None) -> bool:
    """Whether a stage in the state rounds parameters itself, also if a wrapper keeps its state in another layout."""
    if _says_so(state):
        return True
    inside = {} if parts is None else parts(state)
    return any(_lands_exactly(part, getattr(tx, "parts", None)) for tx, part in inside.values())


def _says_so(state: Any) -> bool:
    if getattr(type(state), "lands_exactly", False):
        return True
    children = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return any(map(_says_so, children))


def of_shapes(init: Callable[[Params], OptState]) -> Callable[[Params], OptState]:
    """The same function, which also takes `jax.ShapeDtypeStruct`s for parameters that nobody has made yet.

    The state consists of arrays nevertheless, as from Optax's `init`. Where it depends on the values of parameters,
    that is an error.
    """

    @functools.wraps(init)
    def init_of_shapes(params: Params) -> OptState:
        if not any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
            return init(params)
        traced, shapes = jax.make_jaxpr(init, return_shape=True)(params)
        known = _depending_on_inputs(traced.jaxpr)
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
        for path, var in zip(paths, traced.jaxpr.outvars, strict=True):
            if id(var) in known:
                raise ValueError(
                    f"init: the state at {show_path(path)} depends on the values of the parameters, of which only "
                    f"shapes are given; jax.eval_shape(tx.init, params) returns the shapes of the state"
                )
        return init(jax.tree.map(_zeros, params))

    return init_of_shapes


def _zeros(x: Any) -> Any:
    return jnp.zeros(x.shape, x.dtype, device=x.sharding) if isinstance(x, jax.ShapeDtypeStruct) else x


def _depending_on_inputs(jaxpr: Any) -> set[int]:
    """The variables, by identity, that are computed from an input of the program."""
    found = set(map(id, jaxpr.invars))
    for equation in jaxpr.eqns:
        if any(id(x) in found for x in equation.invars):
            found.update(map(id, equation.outvars))
    return found
