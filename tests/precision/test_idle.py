# SPDX-License-Identifier: Apache-2.0
"""Parameters whose gradients end stop where they do with float32 moments, however few bits keep these."""

import functools
import io
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.precision import companded8, float8, int4, int8

RATE = 1e-3
SHAPE = (2, 256)


def adam(**policy: Any) -> Any:
    return gradtx.chain(gradtx.stored(gradtx.scale_by_adam(), policy, min_size=0), gradtx.scale(-RATE))


IDLE = np.arange(SHAPE[1]) % 2 == 0


def run(tx: Any, steps: int) -> tuple[float, float]:
    """How far elements have moved on average whose gradients end after 20 steps, and how far their next step is.

    Those beside them go on.
    """

    def step(i: jax.Array, carry: tuple) -> tuple:
        params, state, _ = carry
        g = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), SHAPE)
        updates, state = tx.update(jnp.where(IDLE & (i >= 20), 0, g), state, params)
        return gradtx.apply_updates(params, updates), state, updates

    zeros = jnp.zeros(SHAPE)
    end, _, last = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, step, carry))((zeros, tx.init(zeros), zeros))
    return float(jnp.mean(jnp.abs(end[:, IDLE]))), float(jnp.max(jnp.abs(last[:, IDLE])))


def sgd(codec: Any) -> Any:
    return gradtx.stored(gradtx.sgd(RATE, momentum=0.9), {"trace": codec}, min_size=0)


PRESET = gradtx.adamw8bit(RATE, weight_decay=0.0, min_size=0)
LOW = {
    "int8": ("adam", adam(mu=int8())),
    "both in float8": ("adam", adam(mu=float8(), nu=float8("e5m2", signed=False))),
    "both in 4 bits": ("adam", adam(mu=int4(), nu=int4(signed=False))),
    "adamw8bit": ("adam", PRESET),
    "mu_dtype=float16": ("adam", gradtx.adam(RATE, mu_dtype=jnp.float16)),
    "SGD, int4": ("sgd", sgd(int4())),
}


@functools.cache
def exact(name: str) -> float:
    return run({"adam": gradtx.adam(RATE), "sgd": gradtx.sgd(RATE, momentum=0.9)}[name], 400)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOW)
def test_idle_elements_stop_where_they_do_in_float32(name: str):
    """After 400 steps their moments are 0, so that they are there after 20,000 and 60,000 too."""
    like, tx = LOW[name]
    moved, last = run(tx, 400)
    assert last == 0
    np.testing.assert_allclose(moved, exact(like), rtol=0.1)


@pytest.mark.slow
def test_idle_elements_are_there_after_20_000_steps():
    np.testing.assert_allclose(run(adam(mu=int8()), 20_000)[0], exact("adam"), rtol=0.1)


@pytest.mark.slow
def test_the_sign_of_lion_ends():
    """Its steps are as long as ever until the average is 0: in float32 after about 8,300, by underflow."""
    moved, last = run(gradtx.lion8bit(RATE, weight_decay=0.0, min_size=0), 3000)
    assert last == 0 and moved < 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "codec", [int8(block=8), companded8(block=8), float8("e4m3", 8), float8("e5m2", 8), int4(8)], ids=repr
)
def test_an_average_ends_beside_one_that_goes_on(codec: Any):
    """It falls as it does in float32, on average over 7,000 elements, and comes to be exactly 0."""
    shape = (1000, 8)

    def step(payload: Any, i: jax.Array) -> tuple:
        x = codec.decode(payload, shape)
        x = jnp.where(jnp.arange(8)[None] == 0, x, 0.9 * x)
        return codec.encode(x, jax.random.fold_in(jax.random.key(1), i)), jnp.mean(x[:, 1:])

    start = codec.encode(jnp.full(shape, 0.3).at[:, 0].set(1))
    last, means = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(400)))(start)
    np.testing.assert_allclose(means[:25], means[0] * 0.9 ** np.arange(25), rtol=0.1)
    ended = np.asarray(codec.decode(last, shape))
    np.testing.assert_array_equal(ended[:, 0], 1)
    np.testing.assert_array_equal(ended[:, 1:], 0)


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_a_float16_average_ends(decay: float):
    """Of all subnormal numbers, the smallest four too: to the nearest, 0.9 of each of them is that number again."""
    tx = gradtx.trace(decay, accumulator_dtype=jnp.float16)
    start = (jnp.arange(1024, dtype=jnp.float32) * 2.0**-24).astype(jnp.float16)
    step = jax.jit(lambda i, state: tx.update(jnp.zeros(1024), state)[1])
    state = jax.lax.fori_loop(0, 1100, step, gradtx.states.TraceState(start))
    np.testing.assert_array_equal(state.trace, 0)


@pytest.mark.slow
def test_float16_rounds_to_the_nearest_what_grows_and_second_moments():
    grows = gradtx.trace(0.9, accumulator_dtype=jnp.float16)
    _, state = grows.update(jnp.full(3, 1.6 * 2.0**-24), grows.init(jnp.zeros(3)))
    np.testing.assert_array_equal(state.trace, np.float16(2 * 2.0**-24))
    tx = gradtx.scale_by_adam(nu_dtype=jnp.float16)
    kept = jnp.full(3, 9 * 2.0**-24, jnp.float16)
    state = tx.init(jnp.zeros(3))._replace(nu=kept)
    for _ in range(20):
        _, state = tx.update(jnp.zeros(3), state)
    np.testing.assert_array_equal(state.nu, kept)  # 0 beside a first moment that is not would make a step without limit


@pytest.mark.slow
@pytest.mark.parametrize("codec", [int8(), int4()], ids=repr)
def test_tiny_gradients_make_no_huge_steps_beside_second_moments_in_float32(codec: Any):
    """From 1 down to 1e-11 of the largest in each block."""
    sizes = jnp.asarray(np.random.default_rng(0).permutation(10.0 ** np.linspace(-11, 0, 256)), jnp.float32)
    tx = adam(mu=codec)

    def step(i: jax.Array, carry: tuple) -> tuple:
        state, largest = carry
        g = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), SHAPE) * sizes[None]
        updates, state = tx.update(g, state)
        return state, jnp.maximum(largest, jnp.max(jnp.abs(updates)))

    start = tx.init(jnp.zeros(SHAPE)), jnp.float32(0)
    assert jax.jit(lambda c: jax.lax.fori_loop(0, 2000, step, c))(start)[1] < 30 * RATE


@pytest.mark.slow
@pytest.mark.parametrize("codec", [float8("e5m2"), float8()], ids=repr)
def test_payloads_in_files_of_equinox(codec: Any):
    tx = gradtx.stored(gradtx.trace(0.9), {"trace": codec}, min_size=0)
    params = {"w": jnp.linspace(0.0, 1.0, 32).reshape(4, 8)}
    _, state = tx.update(params, tx.init(params))
    file = io.BytesIO()
    equinox.tree_serialise_leaves(file, state)
    file.seek(0)
    loaded = equinox.tree_deserialise_leaves(file, tx.init(params))
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, loaded, state)
