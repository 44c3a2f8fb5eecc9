# SPDX-License-Identifier: Apache-2.0
"""Whether somebody's `jit`, `grad`, `vmap` or `eval_shape` is at work."""

import functools
from collections.abc import Callable
from typing import Any

from jax.core import eval_context


@functools.cache
def _trace_state() -> tuple[Callable[..., Any], Any]:
    """What says which trace is current, and what it says outside of all."""
    with eval_context():
        # Here, as it loads Pallas, which takes as long as a fifth of gradtx.
        from jax.extend.core import get_opaque_trace_state

        return get_opaque_trace_state, get_opaque_trace_state(convention="gradtx")


def is_tracing() -> bool:
    """Whether this runs inside of what JAX traces."""
    current, outside = _trace_state()
    return current(convention="gradtx") != outside
