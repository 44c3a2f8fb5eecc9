# SPDX-License-Identifier: Apache-2.0
"""The parameters with which to evaluate a model, which are not always those that are trained."""

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core._types import OptState, Params


def eval_params(state: OptState, params: Params) -> Params:
    """The parameters to validate, save and deploy, for any state: `params` unless a stage provides others.

    Averaging methods (Schedule-Free, LAWA, moving averages of the parameters) provide their average, also from inside
    chains, masks and wrappers. If several stages provide the same parameter, the last stage counts.
    """
    method = getattr(type(state), "eval_params", None)
    if method is not None:
        return method(state, params)
    children = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    for child in children:
        params = eval_params(child, params)
    return params


def eval_from(f: Callable[..., Any], params: Params, *slots: Any) -> Params:
    """`f(p, *slots)` for each parameter, in its dtype; the parameter itself where slots are empty (None or masked).

    For the `eval_params` method of a state class: `return eval_from(lambda p, ema: ema, params, self.ema)`.

    Args:
      f: a function from a parameter and its slots, one array each, to the parameter to evaluate with.
      *slots: trees like the parameters, such as fields of the state; slots in few-bit storage are decoded first.
    """
    leaves, treedef = jax.tree.flatten(slots[0], is_leaf=lambda x: _is_empty(x) or _is_stored(x))
    rows = zip(leaves, treedef.flatten_up_to(params), *(treedef.flatten_up_to(s) for s in slots[1:]), strict=True)
    new = [
        p if _is_empty(first) else f(p, *(_read(x, p) for x in (first, *rest))).astype(p.dtype)
        for first, p, *rest in rows
    ]
    return jax.tree.unflatten(treedef, new)


def _is_stored(x: Any) -> bool:
    """Whether a slot is stored as the payload of a storage codec, which can be decoded."""
    return hasattr(x, "decoded")


def _read(x: Any, p: Any) -> Any:
    return x.decoded(p.shape) if _is_stored(x) else x


def _is_empty(x: Any) -> bool:
    return not jax.tree.leaves(x) and not isinstance(x, dict | list)
