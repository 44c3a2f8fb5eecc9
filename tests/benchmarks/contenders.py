# SPDX-License-Identifier: Apache-2.0
"""Who is compared: a transformation and its parameters, with its step and all that is measured of it."""

import functools
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx

from .timing import Laps
from .trees import Params

STAGES = ("trace", "lower", "compile")


class Contender(NamedTuple):
    """A transformation, made anew by each call, for parameters that are made only when it is their turn."""

    make: Callable[[], Any]
    params: Callable[[], Params]
    apply_updates: Callable = gradtx.apply_updates
    in_place: bool = True
    """Whether a step may write its results over its parameters and state, as it should."""


class Ready:
    """A contender with its arrays."""

    def __init__(self, contender: Contender):
        self.make, self.apply_updates = contender.make, contender.apply_updates
        self.donated = (0, 1) if contender.in_place else ()
        self.tx = self.make()
        self.params = contender.params()
        self.grads = jax.tree.map(lambda p: 0.01 * jnp.cos(p), self.params)
        self.state = self.tx.init(self.params)

    def jitted(self, tx: Any) -> Any:
        """A step, as a new function, so that nothing of an earlier trace is used again."""

        # JAX pairs the arrays that are donated with results of equal shape by their order. In another order than that
        # of the results, XLA copies parameters and moments into each other's places.
        def step(params: Params, state: Any, grads: Params) -> tuple[Params, Any]:
            updates, state = tx.update(grads, state, params)
            return self.apply_updates(params, updates), state

        return jax.jit(step, donate_argnums=self.donated)

    @functools.cached_property
    def function(self) -> Any:
        return self.jitted(self.tx)

    @functools.cached_property
    def traced(self) -> Any:
        return self.function.trace(self.params, self.state, self.grads)

    @functools.cached_property
    def compiled(self) -> Any:
        return self.traced.lower().compile()

    def stages(self, last: str, clock: Callable[[], float]) -> Laps:
        """Traces, lowers and compiles once more, as far as `last`."""
        jax.clear_caches()
        arguments = (self.params, self.state, self.grads)
        works: list[Callable[..., Any]] = [self.jitted(self.tx).trace, lambda x: x.lower(), lambda x: x.compile()]
        laps: Laps = {}
        for stage, work in zip(STAGES[: STAGES.index(last) + 1], works, strict=False):
            begin = clock()
            made = work(*arguments)
            laps[stage] = clock() - begin
            arguments = (made,)
        return laps

    def restored(self) -> None:
        """The trace of a step whose state was read from a file: `init` never ran."""
        jax.clear_caches()
        self.jitted(self.make()).trace(self.params, self.state, self.grads)

    def stepper(self) -> Callable[[], object]:
        """Each call makes one step, in place."""
        held = jax.tree.map(jnp.copy, (self.params, self.state))

        def run() -> object:
            nonlocal held
            held = self.compiled(*held, self.grads)
            return held

        return run

    def pages(self) -> int:
        """Pages of memory that the system hands out in a warm step: the median of a few."""
        import resource  # which Windows lacks

        def handed_out() -> int:
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        run, found = self.stepper(), []
        for _ in range(6):
            before = handed_out()
            jax.block_until_ready(run())
            found.append(handed_out() - before)
        return round(statistics.median(found[1:]))

    def update(self) -> object:
        return self.tx.update(self.grads, self.state, self.params)

    def init(self) -> object:
        return self.tx.init(self.params)

    def construct(self) -> None:
        """A hundred times, as one is too short for a clock."""
        for _ in range(100):
            self.make()
