# SPDX-License-Identifier: Apache-2.0
"""The parameters with which to evaluate a model, which are not always those that are trained."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._kinds import StateTree
from gradtx.core._placement import on_device
from gradtx.core._types import OptState, Params
from gradtx.core._unwrapping import unwrapped


@checked
def eval_params(state: StateTree, params: Params) -> Params:
    """The parameters to validate, save and deploy, for any state: `params` unless a stage provides others.

    Averaging methods (Schedule-Free, LAWA, moving averages of the parameters) provide their average, also from inside
    chains, masks and wrappers. If several stages provide the same parameter, the last stage counts. Variables of Flax's
    nnx in the state are opened, those in the parameters kept.

    Raises:
      TypeError: for swapped arguments, and for an object that holds the state, such as Flax's `TrainState`.
    """
    if hasattr(state, "opt_state") and not isinstance(state, tuple):
        raise TypeError(f"eval_params: give the state of the optimizer, opt_state of the {type(state).__name__}")
    if holds_state(params) and not holds_state(state):
        raise TypeError(
            f"eval_params: params holds a state, state does not: got {type(state).__name__} and "
            f"{type(params).__name__}; the order is eval_params(state, params)"
        )
    return _evaluated(unwrapped(on_device(state)), params)


def _evaluated(state: OptState, params: Params) -> Params:
    method = getattr(type(state), "eval_params", None)
    if method is not None:
        return method(state, params)
    children = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    for child in children:
        params = _evaluated(child, params)
    return params


def holds_state(tree: Any) -> bool:
    """Whether there is the state of a stage in a tree; the classes of states are called so, here and in Optax."""

    def is_state(x: Any) -> bool:
        return isinstance(x, tuple) and hasattr(x, "_fields") and type(x).__name__.endswith("State")

    return any(map(is_state, jax.tree.leaves(tree, is_leaf=is_state)))


@checked
def eval_from(f: Callable[..., Any], params: Params, *slots: Any) -> Params:
    """`f(p, *slots)` for each parameter, in its dtype; the parameter itself where slots are empty (None or masked).

    So it is where the first slot is `set_aside`, and for a parameter of whole numbers, which no optimizer moves.

    For the `eval_params` method of a state class: `return eval_from(lambda p, ema: ema, params, self.ema)`.

    Args:
      f: a function from a parameter and its slots, one array each, to the parameter to evaluate with.
      *slots: trees like the parameters, such as fields of the state; slots in few-bit storage are decoded first.
    """
    slots = tuple(map(unwrapped, slots))
    leaves, treedef = jax.tree.flatten(slots[0], is_leaf=lambda x: _is_empty(x) or _is_stored(x))
    columns = [treedef.flatten_up_to(x) for x in (unwrapped(params), *slots[1:])]
    rows = zip(leaves, *columns, strict=True)
    new = [p if _is_empty(first) else _value(f, p, *(_read(x, p) for x in (first, *rest))) for first, p, *rest in rows]
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(new))


def set_aside(average: Any, is_first: Any) -> Any:
    """An average of a parameter that has no gradient: at the first update it is set aside, a huge value in its place.

    The parameter then moves in ways that the average knows nothing of, as counters and running means do, so it is the
    parameter's own value until `begun` starts it at the first gradient. The slots of later pauses stay as they are.

    Args:
      average: an array, or what stands for none.
      is_first: whether this is the first update.
    """

    def aside(x: jax.Array) -> jax.Array:
        return jnp.where(is_first, jnp.asarray(_ASIDE, x.dtype), x) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(aside, average)


def begun(average: jax.Array, p: Any) -> jax.Array:
    """The average, or the parameter where it was set aside. It may have rows of the parameter's shape."""
    return jnp.where(_is_aside(average), jnp.asarray(p, average.dtype), average)


_ASIDE = 3e38
"""Infinity only in float16: few-bit codecs turn that into 0."""


def _is_aside(average: jax.Array) -> jax.Array:
    return ~(jnp.abs(average) < _ASIDE / 4)


def _value(f: Callable[..., Any], p: jax.Array, first: Any, *rest: Any) -> jax.Array:
    if not jnp.issubdtype(p.dtype, jnp.inexact):
        return p
    rows = first.ndim - p.ndim
    if rows < 0 or first.shape[rows:] != p.shape:
        return f(p, first, *rest).astype(p.dtype)
    own = jnp.all(_is_aside(first), axis=tuple(range(rows)))
    return jnp.where(own, p, f(p, begun(first, p), *rest).astype(p.dtype))


def _is_stored(x: Any) -> bool:
    """Whether a slot is stored as the payload of a storage codec, which can be decoded."""
    return hasattr(x, "decoded")


def _read(x: Any, p: Any) -> Any:
    return x.decoded(p.shape) if _is_stored(x) else x


def _is_empty(x: Any) -> bool:
    return not jax.tree.leaves(x) and not isinstance(x, dict | list)
