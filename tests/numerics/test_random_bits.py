# SPDX-License-Identifier: Apache-2.0
"""Bits for rounding: evenly spread, without a trace of the place, the step or the key, and the same on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gradtx.numerics._random_bits import random_bits

SHAPE = (512, 1024)
N = SHAPE[0] * SHAPE[1]
STEPS = 4


def drawn(step: int, shape: tuple = SHAPE, slot: int = 0) -> np.ndarray:
    """The numbers as `stored` has them."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), step), slot)
    return np.asarray(jax.jit(random_bits)(key, jnp.zeros(shape)))


def uniform(step: int, slot: int = 0) -> np.ndarray:
    return drawn(step, slot=slot) / 2.0**32 - 0.5


def standard_errors(products: np.ndarray) -> float:
    return abs(products.mean()) / (products.std() / np.sqrt(products.size))


@pytest.mark.parametrize("step", range(STEPS))
def test_every_bit_is_balanced_and_every_byte_is_as_frequent(step: int):
    bits = drawn(step)
    ones = (bits[..., None] >> np.arange(32, dtype=np.uint32) & 1).mean((0, 1))
    assert np.all(np.abs(ones - 0.5) < 4.5 * 0.5 / np.sqrt(N))
    for shift in (0, 8, 16, 24):
        counts = np.bincount((bits >> shift & 255).ravel(), minlength=256)
        chi = np.sum((counts - N / 256) ** 2 / (N / 256))
        assert abs(chi - 255) < 4.5 * np.sqrt(2 * 255)


@pytest.mark.parametrize("step", range(STEPS))
def test_places_steps_and_slots_have_nothing_to_do_with_each_other(step: int):
    u = uniform(step)
    for shift in (1, 2, 7, 256, 1024):
        flat = u.ravel()
        assert standard_errors(flat[shift:] * flat[:-shift]) < 4.5
    for other in (uniform(step + 1), uniform(step + 256), uniform(step, slot=1)):
        assert standard_errors(u * other) < 4.5
    assert standard_errors(u.mean(0)) < 4.5 and standard_errors(u.mean(1)) < 4.5


@pytest.mark.slow
def test_numbers_do_not_repeat():
    """In an array no two places have the same; of another step's 2^19, 64 of the 2^32 are expected again."""
    assert np.unique(drawn(0)).size == N
    assert 20 < np.intersect1d(drawn(0), drawn(1)).size < 110


def test_they_are_two_rounds_of_the_hash():
    """By Python's whole numbers. A restarted run needs the same bits, from other versions too."""

    def mixed(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    key = jax.random.key(7)
    first, second = map(int, np.asarray(jax.random.key_data(key)))
    expected = [mixed((mixed(place ^ first) + second) % 2**32) for place in range(60)]
    np.testing.assert_array_equal(np.asarray(random_bits(key, jnp.zeros((3, 4, 5)))).ravel(), expected)


def test_they_depend_on_the_place_and_not_on_the_rank_of_the_array():
    np.testing.assert_array_equal(drawn(3, (6, 4)).ravel(), drawn(3, (24,)))
    np.testing.assert_array_equal(drawn(3, (2, 3, 4)).ravel(), drawn(3, (24,)))
    assert drawn(3, ()) == drawn(3, (1,))[0] and drawn(3, (0, 4)).shape == (0, 4)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_is_unsharded(axis_type: AxisType):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(axis_type,) * 2)
    x, key = jnp.zeros((8, 16)), jax.random.key(5)
    expected = random_bits(key, x)
    with jax.set_mesh(mesh):
        found = jax.jit(random_bits)(key, jax.device_put(x, NamedSharding(mesh, P("x", "y"))))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_all_kinds(impl: str):
    x = jnp.zeros(1000)
    one, two = (random_bits(jax.random.key(seed, impl=impl), x) for seed in (0, 1))
    assert one.dtype == jnp.uint32 and np.mean(np.asarray(one) == np.asarray(two)) < 0.01
