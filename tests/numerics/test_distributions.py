# SPDX-License-Identifier: Apache-2.0
"""Normal distributions against their formula and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gt

pytestmark = pytest.mark.usefixtures("standard_promotion")

LOC, LOG_SCALE = jnp.asarray([1.0, 2.0]), jnp.asarray([0.0, 1.0])
X = jnp.asarray([[1.0, 2.0], [0.0, -3.0]])


def test_as_optax():
    ours, theirs = gt.numerics.multi_normal(LOC, LOG_SCALE), optax.multi_normal(LOC, LOG_SCALE)
    np.testing.assert_allclose(ours.log_prob(X), theirs.log_prob(X), rtol=1e-6)
    np.testing.assert_allclose(ours.sample((3,), jax.random.key(0)), theirs.sample((3,), jax.random.key(0)), rtol=1e-6)
    assert len(ours.params) == len(theirs.params)
    np.testing.assert_array_equal(ours.log_scale, theirs.log_scale)


def test_the_density():
    scale = np.exp(np.float64(LOG_SCALE))
    z = (np.float64(X) - np.float64(LOC)) / scale
    expected = np.sum(-0.5 * z**2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=1)
    np.testing.assert_allclose(gt.numerics.multi_normal(LOC, LOG_SCALE).log_prob(X), expected, rtol=1e-6)


def test_samples_follow_the_parameters():
    def mean(loc, log_scale):
        return jnp.mean(gt.numerics.multi_normal(loc, log_scale).sample((20_000,), jax.random.key(1)) ** 2)

    slopes = jax.grad(mean, argnums=(0, 1))(LOC, LOG_SCALE)
    np.testing.assert_allclose(slopes[0], LOC, rtol=0.1)  # E[x²] = loc² + scale², and a mean over two
    np.testing.assert_allclose(slopes[1], np.exp(2 * np.asarray(LOG_SCALE)), rtol=0.1)


def test_shapes_and_dtypes():
    normal = gt.numerics.multi_normal(jnp.zeros((2, 3), jnp.bfloat16), jnp.zeros((2, 3), jnp.bfloat16))
    assert normal.sample((4,), jax.random.key(0)).shape == (4, 2, 3)
    assert normal.log_prob(jnp.zeros((4, 2, 3))).shape == (4,)
    assert normal.log_prob(jnp.zeros((2, 3), jnp.bfloat16)).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"multi_normal: log_scale must have loc's shape \(2,\), got \(1,\)"):
        gt.numerics.multi_normal(LOC, jnp.zeros(1))
