# SPDX-License-Identifier: Apache-2.0
"""Errors of what a call stands for, in words of the call: `adamw: add_decayed_weights: weight_decay must be ...`."""

import functools
import re
import traceback
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx.core._ranges import is_array

PARTS = {"betas": ("b1", "b2")}
"""Arguments that are several in one, by the names that stages have for them."""


def is_raised_by_gradtx(error: Exception) -> bool:
    """Whether the error comes from gradtx itself, which says what is wrong, rather than from Python or JAX."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return len(frames) > 1 and frames[-1].f_globals.get("__name__", "").partition(".")[0] == "gradtx"


def wide(arguments: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Of these hyperparameters, those that are arrays of several numbers."""
    return {n: x for n in names if is_array(x := arguments[n]) and jnp.ndim(x) != 0}


def in_words_of(factory: Any, arguments: dict[str, Any], error: Exception) -> Exception | None:
    """The error that says of which argument of the call it is, if it is of one and does not say so yet."""
    said, where = str(error), f"{factory.name}: "
    if said.startswith(where):
        return None
    if several := wide(arguments, factory.hyperparameters):
        name, value = next(iter(several.items()))
        is_ours = is_raised_by_gradtx(error)
        if not is_ours or "must be a scalar at each step" in said:
            reason = said if is_ours else "to train a population, jax.vmap over the transformation or schedule"
            return ValueError(f"{where}{name} must be a scalar, got shape {jnp.shape(value)}: {reason}")
    if not is_raised_by_gradtx(error):
        return None
    for name in arguments:
        # What is `muon_weight_dimension_numbers` outside is `weight_dimension_numbers` inside.
        for inner in (name, name.partition("_")[2]):
            if inner and re.search(rf"\b{re.escape(inner)}\b[^:]* (must|has|have) ", said):
                return type(error)(where + re.sub(rf"\b{re.escape(inner)}\b", name, said))
        if any(f": {part} must " in said for part in PARTS.get(name, ())):
            return type(error)(where + said)
    return None


def naming(factory: Any, arguments: dict[str, Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose errors of an argument name the call that it was given to."""

    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            own = in_words_of(factory, arguments, error) if type(error) in (TypeError, ValueError) else None
            if own is None:
                raise
            raise own from error

    return named
