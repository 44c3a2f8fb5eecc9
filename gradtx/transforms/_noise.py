# SPDX-License-Identifier: Apache-2.0
"""Gradient noise."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._counts import safe_increment
from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._kinds import Seed
from gradtx.core._over_devices import Split, drawn
from gradtx.core._ranges import NonNegative
from gradtx.core._roles import splits_of
from gradtx.core._said import check_said
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._keys import key_maker
from gradtx.numerics._safe import safe_sqrt


class AddNoiseState(NamedTuple):
    """The number of updates made, and the random key for the next one."""

    count: jax.Array
    rng_key: jax.Array

    counts_from = {"count": 0}


@transformation
def add_noise(
    eta: NonNegative, gamma: NonNegative, key: Seed | None = None, *, seed: Seed | None = None
) -> GradientTransformationExtraArgs:
    """u = g + N(0, eta / (1 + count)^gamma), where `count` is the number of updates made before: 0 at the first.

    The noise depends only on the key, the step and the position of the leaf in the tree, and equals Optax's. Two
    stages with the same key add the same noise.

    Args:
      eta: the variance of the noise at the first step.
      gamma: the power with which the variance decays over the steps; 0 for a constant one.
      key: a key of `jax.random`, or a whole number to make one from; None to use `seed`.
      seed: a whole number to make the key from, in place of `key`; without either it is 0.

    Reference: Neelakantan et al. 2015, arXiv:1511.06807.
    """
    if key is not None and seed is not None:
        raise ValueError("add_noise: give a key or a seed, not both")
    fresh_key = key_maker("add_noise: key", next((x for x in (key, seed) if x is not None), 0))

    def init(params: Params) -> AddNoiseState:
        return AddNoiseState(jnp.zeros([], jnp.int32), fresh_key())

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("add_noise", state, AddNoiseState)
        check_said("add_noise", params)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        t = 1 + state.count.astype(jnp.result_type(float))
        deviation = safe_sqrt(eta / t**gamma)
        next_key, used = jax.random.split(state.rng_key)
        keys = jax.random.split(used, max(len(leaves), 1))
        rows = zip(leaves, keys, splits_of(updates), strict=False)  # without leaves, there is a key nevertheless
        noisy = [g if is_hole(g) else _with_noise(g, key, deviation, split) for g, key, split in rows]
        return jax.tree.unflatten(treedef, noisy), AddNoiseState(safe_increment(state.count), next_key)

    return GradientTransformationExtraArgs(init, update)


@functools.partial(jax.jit, static_argnames="split")
def _with_noise(g: Any, key: jax.Array, deviation: jax.Array, split: Split | None) -> jax.Array:
    g, deviation = widen((g, deviation), compute_dtype(g))
    normal = drawn(lambda shape: jax.random.normal(key, shape, g.dtype), g.shape, split)
    with promotion(g):
        return g + deviation * normal
