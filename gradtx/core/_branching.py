# SPDX-License-Identifier: Apache-2.0
"""Work that is not due at every step."""

from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer


def branch(take: jax.Array, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """The result of `if_true` or `if_false`, of which only one runs; both must return the same types.

    Outside of `jit` the function is simply called: `jax.lax.cond` would compile both at every call.
    """
    if isinstance(take, Tracer):
        return jax.lax.cond(take, if_true, if_false)
    return if_true() if take else if_false()
