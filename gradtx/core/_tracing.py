# SPDX-License-Identifier: Apache-2.0
"""Whether somebody's `jit`, `grad`, `vmap` or `eval_shape` is at work."""

import functools
from collections.abc import Callable
from typing import Any

from jax.core import eval_context


@functools.cache
def _trace_state() -> tuple[Callable[..., Any], Any]:
    """The function that tells which trace is current, and what it returns outside of all traces."""
    with eval_context():
        # Not at the top: it loads Pallas, which would make the import of gradtx a fifth longer.
        from jax.extend.core import get_opaque_trace_state

        return get_opaque_trace_state, get_opaque_trace_state(convention="gradtx")


def is_tracing() -> bool:
    """Whether this runs inside of what JAX traces."""
    current, outside = _trace_state()
    return current(convention="gradtx") != outside
