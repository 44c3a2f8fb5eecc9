# SPDX-License-Identifier: Apache-2.0
"""Which parameters to evaluate a model with: some methods train at one point and answer with another."""

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core._types import OptState, Params


def eval_params(state: OptState, params: Params) -> Params:
    """The parameters to validate, save and deploy, for any state: `params` themselves unless a stage knows better.

    Averaging methods (Schedule-Free, LAWA, moving averages of the parameters) answer with their average; the answer is
    found through chains, masks and wrappers. Of several that answer for one parameter, the last stage counts.
    """
    method = getattr(type(state), "eval_params", None)
    if method is not None:
        return method(state, params)
    children = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    for child in children:
        params = eval_params(child, params)
    return params


def eval_from(f: Callable, params: Params, *slots: Any) -> Params:
    """`f(p, *slots)` for each parameter; where the slots hold nothing (None, a masked node), the parameter itself.

    For the `eval_params` method of a state class: `return eval_from(lambda p, ema: ema, params, self.ema)`. The result
    has the parameter's dtype.
    """
    leaves, treedef = jax.tree.flatten(slots[0], is_leaf=lambda x: _is_empty(x) or _is_stored(x))
    rows = zip(leaves, treedef.flatten_up_to(params), *(treedef.flatten_up_to(s) for s in slots[1:]), strict=True)
    new = [
        p if _is_empty(first) else f(p, *(_read(x, p) for x in (first, *rest))).astype(p.dtype)
        for first, p, *rest in rows
    ]
    return jax.tree.unflatten(treedef, new)


def _is_stored(x: Any) -> bool:
    """Whether a slot is kept by a storage codec, whose payloads can be decoded."""
    return hasattr(x, "decoded")


def _read(x: Any, p: Any) -> Any:
    return x.decoded(p.shape) if _is_stored(x) else x


def _is_empty(x: Any) -> bool:
    return not jax.tree.leaves(x) and not isinstance(x, dict | list)
