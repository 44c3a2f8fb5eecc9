# SPDX-License-Identifier: Apache-2.0
"""The laws of compression: odd, increasing, with an inverse, and right where the numbers are extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gt

CODECS = [
    gt.mu_law_compress(),
    gt.mu_law_compress(1e-3),
    gt.a_law_compress(),
    gt.a_law_compress(1.0),
    gt.softsign_compress(),
    gt.softsign_compress(1e-3),
]
each = pytest.mark.parametrize("codec", CODECS, ids=repr)


def apply(tx, g):
    g = jnp.asarray(g)
    return tx.update(g, tx.init(g))[0]


@each
def test_the_inverse_undoes_it(codec, x64):
    x = np.concatenate([-np.geomspace(1e-8, 3, 200), [0.0], np.geomspace(1e-8, 3, 200)])
    back = codec.replace(inverse=True)
    np.testing.assert_allclose(apply(back, apply(codec, x)), x, rtol=1e-9, atol=0)
    inside = x[np.abs(x) < 0.9] * (1e-3 if codec == CODECS[-1] else 1)
    np.testing.assert_allclose(apply(codec, apply(back, inside)), inside, rtol=1e-9, atol=0)


@each
def test_odd_increasing_and_made_smaller_by_more(codec):
    x = np.geomspace(1e-6, 1e4, 300).astype(np.float32)
    y = np.asarray(apply(codec, x))
    np.testing.assert_array_equal(apply(codec, -x), -y)
    assert np.all(np.diff(y) >= -1e-6 * y[:-1])
    assert np.all(np.diff(y / x) <= 1e-6 * (y / x)[:-1])


@each
@pytest.mark.parametrize("inverse", [False, True])
def test_the_slope_at_zero_is_that_beside_it(codec, inverse, x64):
    tx = codec.replace(inverse=inverse)
    at_zero, beside = (jax.grad(lambda x: apply(tx, x))(x) for x in (0.0, 1e-12))
    np.testing.assert_allclose(at_zero, beside, rtol=1e-6)


@pytest.mark.parametrize("codec", CODECS[:4], ids=repr)
def test_one_stays_one(codec):
    np.testing.assert_allclose(apply(codec, jnp.float32(1)), 1, rtol=1e-6)


def test_softsign_stays_within_its_limit():
    x = jnp.asarray([0.0, 1.0, 1e8, 1e38], jnp.float32)
    assert np.all(np.abs(apply(gt.softsign_compress(0.5), x)) <= 0.5)
    back = apply(gt.softsign_compress(0.5, inverse=True), jnp.asarray([0.5, -0.5, 7.0]))
    assert np.all(np.isfinite(back)) and np.all(np.abs(back) > 1e6) and back[1] < 0


@pytest.mark.slow
@each
def test_complex_numbers_keep_their_direction(codec):
    z = jnp.asarray([3 + 4j, -1j, 0.0, 1e-3 - 1e-3j], jnp.complex64)
    u = apply(codec, z)
    np.testing.assert_allclose(jnp.abs(u), apply(codec, jnp.abs(z)), rtol=1e-5)
    u, z = np.asarray(u), np.asarray(z)
    np.testing.assert_allclose(u * np.abs(z), z * np.abs(u), rtol=1e-5)
    slope = jax.grad(lambda x: jnp.real(apply(codec, x.astype(jnp.complex64))))(0.0)
    np.testing.assert_allclose(slope, jax.grad(lambda x: apply(codec, x))(0.0), rtol=1e-5)


@each
def test_float16_gradients_are_compressed_in_float32(codec):
    x = jnp.asarray([6e4, 6e-8], jnp.float16)
    u, wide = apply(codec, x), apply(codec, x.astype(jnp.float32))
    assert np.all(np.isfinite(u)) and np.all(u > 0)
    np.testing.assert_array_equal(u, wide.astype(jnp.float16))


def test_outliers_count_less_between_compression_and_expansion():
    """Around an average, the codec weighs a spike by its logarithm."""
    tx = gt.chain(gt.mu_law_compress(), gt.ema(0.9), gt.mu_law_compress(inverse=True))
    plain = gt.ema(0.9)
    state, plain_state = tx.init(jnp.zeros([])), plain.init(jnp.zeros([]))
    for g in [0.1] * 20 + [100.0]:
        u, state = tx.update(jnp.float32(g), state)
        plain_u, plain_state = plain.update(jnp.float32(g), plain_state)
    assert 0.1 < u < 0.3 and plain_u > 10


def test_a_is_at_least_one():
    with pytest.raises(ValueError, match="a_law_compress: a must be a number >= 1, got 0.5"):
        gt.a_law_compress(0.5)
