# SPDX-License-Identifier: Apache-2.0
"""Trees like other trees, and what optax makes of the same calls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import tree

pytestmark = pytest.mark.usefixtures("standard_promotion")

X = {"a": jnp.arange(6.0).reshape(2, 3), "b": (jnp.ones((), jnp.bfloat16), None), "c": jnp.arange(2)}
FLOATS = {"a": X["a"], "b": X["b"]}
KEY = jax.random.key(3)

CALLS = [
    ("zeros_like", (X,)),
    ("zeros_like", (X, jnp.float16)),
    ("ones_like", (X,)),
    ("ones_like", (X, jnp.int32)),
    ("full_like", (X, 3)),
    ("full_like", (X, 0.5, jnp.float32)),
    ("cast", (X, jnp.bfloat16)),
    ("cast", (X, None)),
    ("cast_like", (FLOATS, jax.tree.map(jnp.bfloat16, FLOATS))),
    ("batch_shape", (X, (4, 2))),
    ("batch_shape", (X,)),
    ("random_like", (KEY, FLOATS)),
    ("random_like", (jax.random.PRNGKey(3), FLOATS, jax.random.rademacher, jnp.float32)),
    ("unwrap_random_key_data", ({"new": KEY, "old": jax.random.PRNGKey(1), "text": "x", "none": None},)),
]


@pytest.mark.parametrize(("name", "args"), CALLS, ids=[f"{i}-{c[0]}" for i, c in enumerate(CALLS)])
def test_as_optax(name, args):
    found, theirs = getattr(tree, name)(*args), getattr(optax.tree, name)(*args)
    assert jax.tree.structure(found) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(theirs), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b) if not isinstance(a, str) else a == b
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(3)])
def test_a_key_for_each_leaf(key):
    found, theirs = tree.split_key_like(key, X), optax.tree.split_key_like(key, X)
    assert jax.tree.structure(found) == jax.tree.structure(theirs) == jax.tree.structure(X)
    data = [jax.random.key_data(k) if key is KEY else k for k in jax.tree.leaves(found)]
    theirs = [jax.random.key_data(k) if key is KEY else k for k in jax.tree.leaves(theirs)]
    np.testing.assert_array_equal(data, theirs)
    assert len({tuple(np.asarray(k)) for k in data}) == 3
    assert tree.split_key_like(key, {}) == {}


def test_casting_loses_nothing_in_silence():
    z = tree.cast({"z": jnp.asarray([1 + 2j]), "key": KEY}, jnp.float32)
    np.testing.assert_array_equal(z["z"], [1 + 2j])
    assert z["key"] is KEY
    found = tree.cast_like({"a": jnp.ones(1), "b": jnp.ones(1)}, {"a": None, "b": jnp.ones(1, jnp.bfloat16)})
    assert found["a"].dtype == jnp.float32 and found["b"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="cast_like: the trees do not match"):
        tree.cast_like({"a": jnp.ones(1)}, {"b": jnp.ones(1)})


def test_zeros_keep_the_sharding():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    x = jax.device_put(jnp.ones(16), sharding)
    for made in (tree.zeros_like(x), tree.ones_like(x), tree.full_like(x, 2)):
        assert made.sharding.is_equivalent_to(sharding, 1)
