# SPDX-License-Identifier: Apache-2.0
"""Calls of functions written in Python, those of JAX too: what tracing, lowering and dispatch take, without a clock."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import jax

from .contenders import Ready


def calls(function: Callable[[], object]) -> int:
    count = 0

    def on_event(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    gc.collect()
    gc.disable()
    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def calls_of(work: str, x: Ready) -> int:
    """Of tracing a step, of lowering it, with JAX's caches cleared, or of a warm update outside `jit`."""
    if work == "update":
        for _ in range(3):
            x.update()
        return calls(x.update)
    arguments = (x.params, x.state, x.grads)
    x.jitted(x.tx).trace(*arguments).lower()  # imports
    jax.clear_caches()
    function, traced = x.jitted(x.tx), []
    count = calls(lambda: traced.append(function.trace(*arguments)))
    return count if work == "trace" else calls(traced[0].lower)
