# SPDX-License-Identifier: Apache-2.0
"""Storage codecs under JAX's transformations and over devices, and as the memory of Adam."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx as gt
from gradtx.precision import bfloat16, companded8, float8, float32, int4, int8

pytestmark = pytest.mark.slow

STOCHASTIC = [int8(), companded8(), float8(), int4()]
CODECS = [
    *(float32(), bfloat16(), bfloat16(stochastic=True), float8("e5m2", stochastic=False)),
    *(codec.nearest for codec in STOCHASTIC),
    *(int8(signed=False), companded8(signed=False), float8("e5m2", signed=False), int4(signed=False)),
    *STOCHASTIC,
    *(dataclasses.replace(codec, signed=False) for codec in STOCHASTIC),
]
KEY = jax.random.key(3)


def numbers(codec, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) * np.exp(4 * rng.normal(size=shape))
    return jnp.asarray(x if codec.signed else x * x, jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def both(codec, x):
    payload = codec.encode(x, KEY)
    return payload, codec.decode(payload, x.shape)


@pytest.mark.parametrize("spec", [P("x"), P(None, "x"), P("y", "z")], ids=str)
@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_sharded_is_unsharded(codec, spec):
    """Bit for bit, whether devices share the leading axis, the last one in whole blocks, or both."""
    x = numbers(codec, (16, 2048))
    expected = both(codec, x)
    sizes, names = ((2, 4), ("y", "z")) if "y" in spec else ((8,), ("x",))
    mesh = jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))
    sharded = jax.device_put(x, NamedSharding(mesh, spec))
    payload, y = both(codec, sharded)
    chex.assert_trees_all_equal((payload, y), expected)
    if spec == P("x"):
        leading = jax.tree.leaves(payload)[:2]  # all but the maxima of columns
        assert all(leaf.sharding.spec[0] == "x" for leaf in [*leading, y])


@pytest.mark.parametrize("codec", [c for c in CODECS if not c.needs_key], ids=repr)
def test_in_shard_map(codec):
    """Each device keeps its rows as if they were all there are; maxima of columns are of its own then."""
    x = numbers(codec, (8, 2, 300))
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(lambda a: both(codec, a), mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    chex.assert_trees_all_equal(mapped(x), both(codec, x))


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_vmap_and_scan(codec):
    x = numbers(codec, (3, 4, 300))
    expected = [both(codec, a) for a in x]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)
    chex.assert_trees_all_equal(jax.jit(jax.vmap(lambda a: both(codec, a)))(x), stacked)
    chex.assert_trees_all_equal(jax.lax.scan(lambda _, a: (None, both(codec, a)), None, x)[1], stacked)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_carried_by_a_scan_and_donated(codec):
    """An average of constants, in a payload that is the carry of a loop, and given back to the next call."""
    x = numbers(codec, (4, 256))

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(payload):
        def step(payload, i):
            average = 0.5 * codec.decode(payload, x.shape) + 0.5 * x
            return codec.encode(average, jax.random.fold_in(KEY, i)), None

        return jax.lax.scan(step, payload, jnp.arange(8))[0]

    first = jax.tree.map(jnp.copy, both(codec, jnp.zeros_like(x))[0])
    payload = steps(first)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    bound = codec.error_bound(float(jnp.max(jnp.abs(x))))
    assert np.max(np.abs(codec.decode(payload, x.shape) - x)) <= float(jnp.max(jnp.abs(x))) / 128 + 4 * bound


def test_stochastic_bits_depend_on_the_key_alone():
    codec, x = bfloat16(stochastic=True), numbers(int8(), (16, 256))
    chex.assert_trees_all_equal(codec.encode(x, KEY), codec.encode(x, KEY))
    other = codec.encode(x, jax.random.fold_in(KEY, 1))
    # Two draws differ with the probability 2 p (1 - p), a third if p is anything.
    assert 0.3 < np.mean(np.asarray(other) != np.asarray(codec.encode(x, KEY))) < 0.36


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_with_64_bit_numbers_on(codec):
    """The same dtypes."""
    x = numbers(codec, (2, 300))
    expected = jax.eval_shape(lambda a: (codec.encode(a, KEY), codec.decode(codec.encode(a, KEY), a.shape)), x)
    with jax.enable_x64(True):
        found = jax.eval_shape(lambda a: (codec.encode(a, KEY), codec.decode(codec.encode(a, KEY), a.shape)), x)
    assert found == expected


def adam_steps(mu, nu, gradients):
    """The updates of Adam without its learning rate, with moments kept by codecs between the steps."""
    tx = gt.scale_by_adam()
    shape = gradients.shape[1:]

    def step(kept, g):
        count, m, v = kept
        state = gt.states.ScaleByAdamState(count, mu.decode(m, shape), nu.decode(v, shape))
        u, state = tx.update(g, state)
        return kept_of(state), u

    def kept_of(state):
        key = jax.random.fold_in(KEY, state.count)
        return state.count, mu.encode(state.mu, key), nu.encode(state.nu, key)

    state = tx.init(jnp.zeros(shape))
    return jax.jit(lambda g: jax.lax.scan(step, kept_of(state), g))(gradients)[1]


PAIRS = [
    (int8(), int8(signed=False)),
    (companded8(), companded8(signed=False)),
    (int8(), int8(signed=False, stochastic=True)),
    (companded8(stochastic=True), companded8(signed=False, stochastic=True)),
    (float8(), float8("e5m2", signed=False)),
    (float8(), float8(signed=False)),
    (int4(), int4(signed=False)),
]


@pytest.mark.parametrize(("mu", "nu"), PAIRS, ids=repr)
@pytest.mark.parametrize("after", ["random", "zero", "smaller", "larger"])
def test_no_step_of_adam_is_wild(mu, nu, after):
    """Gradients from 1e-12 to 1e4 in one tensor, then none, or much smaller or larger ones, for a while."""
    rng = np.random.default_rng(0)
    sizes = rng.permutation(10.0 ** np.linspace(-12, 4, 8 * 512)).reshape(8, 512)
    gradients = rng.normal(size=(60, 8, 512)) * sizes
    gradients[30:] *= {"random": 1, "zero": 0, "smaller": 1e-6, "larger": 1e3}[after]
    steps = np.asarray(adam_steps(mu, nu, jnp.asarray(gradients, jnp.float32)))
    assert np.all(np.isfinite(steps))
    # In float32 it is 1.3 here, and for other gradients could be (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) = 7.3.
    assert np.abs(steps).max() <= (5 if isinstance(mu, int4) else 3)


@pytest.mark.parametrize(("mu", "nu"), PAIRS, ids=repr)
def test_a_bad_gradient_does_not_stay(mu, nu):
    """One NaN and one infinity: after their step everything is finite, and other blocks have not noticed."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 4, 512)).astype(np.float32)
    spoiled = gradients.copy()
    spoiled[2, 0, 3], spoiled[2, 0, 300] = np.nan, np.inf
    steps, clean = (np.asarray(adam_steps(mu, nu, jnp.asarray(g))) for g in (spoiled, gradients))
    assert np.all(np.isfinite(np.delete(steps, 2, axis=0)))
    assert np.abs(np.delete(steps, 2, axis=0)).max() <= 7.3
    if nu != int4(signed=False):
        np.testing.assert_array_equal(steps[:, 1:], clean[:, 1:])
