# SPDX-License-Identifier: Apache-2.0
"""All runs of one contender on one task, all rates and seeds side by side in one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._roles._boxing import with_roles
from gradtx.core._apply import apply_updates
from gradtx.core._evaluation import eval_params
from gradtx.core._transformation import with_extra_args_support
from gradtx.race._contender import Contender
from gradtx.race._task import Task

MEASUREMENTS = 50
"""A run is measured about so many times."""


def spacing(steps: int) -> int:
    """The number of steps between measurements, which divides the number of all steps."""
    return max(n for n in range(1, max(steps // MEASUREMENTS, 1) + 1) if steps % n == 0)


def curves(contender: Contender, task: Task, factors: np.ndarray, seeds: int, tick: Callable[[], Any]) -> np.ndarray:
    """The measured losses, of shape (factors, seeds, 1 + measurements), that of the initial parameters first.

    The seed alone decides initial parameters, data and their order: all contenders and rates get the same.
    """
    every = spacing(task.steps)

    def transformation(factor: jax.Array) -> Any:
        tx = contender.make(factor)
        return with_extra_args_support(with_roles(task.roles, tx) if task.roles and contender.takes_roles else tx)

    def start(factor: jax.Array, seed: jax.Array) -> tuple:
        params = task.init(jax.random.fold_in(jax.random.key(seed), 0))
        return (params, transformation(factor).init(params)), task.measured(params)

    def advance(factor: jax.Array, seed: jax.Array, carry: tuple, begin: jax.Array) -> tuple:
        tx, keys = transformation(factor), jax.random.fold_in(jax.random.key(seed), 1)

        def step(carry: tuple, i: jax.Array) -> tuple:
            params, state = carry
            key = jax.random.fold_in(keys, i)

            def loss(p: Any) -> jax.Array:
                return task.loss(p, key)

            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
            return (apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, carry, begin + jnp.arange(every, dtype=jnp.int32))
        return carry, task.measured(eval_params(carry[1], carry[0]))

    def everywhere(f: Callable, *others: int | None) -> Callable:
        """Mapped over seeds and, outside of them, over factors."""
        by_seed = jax.vmap(f, (None, 0, *others))
        return jax.jit(jax.vmap(by_seed, (0, None, *others)))

    lanes = jnp.asarray(factors, jnp.float32), jnp.arange(seeds, dtype=jnp.int32)
    carry, measured = everywhere(start)(*lanes)
    rows, further = [np.asarray(measured)], everywhere(advance, 0, None)
    for begin in range(0, task.steps, every):
        carry, measured = further(*lanes, carry, jnp.int32(begin))
        rows.append(np.asarray(measured))
        tick()
    return np.stack(rows, axis=-1)
