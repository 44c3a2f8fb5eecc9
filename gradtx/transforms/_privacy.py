# SPDX-License-Identifier: Apache-2.0
"""Differential privacy: the mean of clipped per-example gradients, with noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core._dtypes import compute_dtype, promotion, widen
from gradtx.core._factory import transformation
from gradtx.core._kinds import Seed
from gradtx.core._ranges import NonNegative, Positive
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.core._trees import check_state, is_hole, is_none
from gradtx.core._types import OptState, Params, Updates
from gradtx.numerics._examples import check_examples, example_norms, weighted_sum
from gradtx.numerics._keys import key_maker
from gradtx.numerics._safe import shrink_factor


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The random key for the next update."""

    rng_key: jax.Array


@transformation
def differentially_private_aggregate(
    l2_norm_clip: Positive, noise_multiplier: NonNegative, key: Seed | None = None, *, seed: Seed | None = None
) -> GradientTransformationExtraArgs:
    """Turns the gradients of a batch of B examples into one update, their mean after clipping, with Gaussian noise:

    ```
    u = (Σ_i g_i min(1, l2_norm_clip / ‖g_i‖) + l2_norm_clip noise_multiplier N(0, 1)) / B
    ```

    The first axis of the gradients is that of the examples (`jax.vmap(jax.grad(loss), (None, 0))`); updates have the
    parameters' shapes. The norm of an example is over all its gradients together. This must be the first stage of a
    chain: the bound on one example's influence holds only if nothing else depends on the gradients before.

    Args:
      l2_norm_clip: the largest norm of one example.
      noise_multiplier: the standard deviation of the noise on the sum, in units of `l2_norm_clip`.
      key, seed: a key of `jax.random`, or a whole number to make one from. Give one of the two and keep it secret:
        whoever knows it can subtract the noise.

    Raises:
      ValueError: if a gradient has no axis of examples, or the numbers of examples differ.

    Reference: Abadi et al. 2016, arXiv:1607.00133.
    """
    if (key is None) == (seed is None):
        raise ValueError("differentially_private_aggregate: give a key or a seed, one of the two: it must be a secret")
    fresh_key = key_maker("differentially_private_aggregate: key", seed if key is None else key)

    def init(params: Params) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(fresh_key())

    def update(updates: Updates, state: OptState, params: Params = None, **extra: Any) -> tuple[Updates, OptState]:
        check_state("differentially_private_aggregate", state, DifferentiallyPrivateAggregateState)
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        live = [i for i, g in enumerate(leaves) if not is_hole(g)]
        check_examples("differentially_private_aggregate", updates, leaves, live, params)
        next_key, *keys = jax.random.split(state.rng_key, len(live) + 1)
        if live:
            norms = example_norms([leaves[i] for i in live])
            factors = shrink_factor(norms, jnp.asarray(l2_norm_clip, norms.dtype))
            deviation = l2_norm_clip * noise_multiplier
            for i, k in zip(live, keys, strict=True):
                leaves[i] = _noisy_mean(leaves[i], factors, deviation, k)
        return jax.tree.unflatten(treedef, leaves), state._replace(rng_key=next_key)

    return GradientTransformationExtraArgs(init, update)


@jax.jit
def _noisy_mean(g: jax.Array, factors: jax.Array, deviation: Any, key: jax.Array) -> jax.Array:
    g, deviation = widen((g, deviation), compute_dtype(g))
    with promotion(g):
        total = weighted_sum(g, factors)
        noise = jax.random.normal(key, g.shape[1:], g.dtype)
        if jnp.iscomplexobj(g):  # real and imaginary part each get the full variance, where JAX's normal halves it
            noise = noise * 2**0.5
        return (total + deviation * noise) / g.shape[0]
