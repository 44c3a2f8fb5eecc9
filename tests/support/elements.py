# SPDX-License-Identifier: Apache-2.0
"""Gradients of single elements to run aggregators on, and their means and variances in NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

STEPS, SIZE = 12, 5
SHAPES = {"w": (3, 2), "b": (2,)}


def gradients(axis, steps=STEPS, size=SIZE):
    """Of each call; `axis` is where the elements are, None for means over them."""
    rng = np.random.default_rng(7)

    def one(shape):
        for a in sorted(np.atleast_1d(axis)) if axis is not None else ():
            n = a % (len(shape) + 1)
            shape = (*shape[:n], size, *shape[n:])
        return rng.normal(size=shape) + 0.5

    return [{n: one(shape) for n, shape in SHAPES.items()} for _ in range(steps)]


def as_jax(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def params_of(dtype):
    return {n: jnp.ones(shape, dtype) for n, shape in SHAPES.items()}


def run(tx, calls, dtype, wrap=lambda f: f, **extra):
    """What `update` returned at each call, and the last state."""
    params, update = params_of(dtype), wrap(functools.partial(tx.update, **extra))
    state, found = tx.init(params), []
    for g in calls:
        out, state = update(as_jax(g, dtype), state, params)
        found.append(out)
    return found, state


def elements_of(calls, axis):
    """All elements of some calls, stacked along a first axis, leaf by leaf."""

    def stacked(name):
        axes = tuple(np.atleast_1d(axis))
        moved = [np.moveaxis(g[name], axes, range(len(axes))) for g in calls]
        return np.concatenate([x.reshape(-1, *SHAPES[name]) for x in moved])

    return {n: stacked(n) for n in SHAPES}


def rounds(calls, k, of_round):
    """`of_round(the calls of the round)` where one ends, else zeros."""
    zeros = {n: np.zeros(shape) for n, shape in SHAPES.items()}
    return [of_round(calls[i + 1 - k : i + 1]) if i % k == k - 1 else zeros for i in range(len(calls))]


def mean_of(calls, axis):
    return {n: x.mean(0) for n, x in elements_of(calls, axis).items()}


def squares_of(calls, axis):
    return {n: ((x - x.mean(0)) ** 2).sum(0) for n, x in elements_of(calls, axis).items()}


def close(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    chex.assert_trees_all_close(found, expected, rtol=tolerance, atol=tolerance)
