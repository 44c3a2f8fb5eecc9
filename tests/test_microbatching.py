# SPDX-License-Identifier: Apache-2.0
"""Microbatching: equal to the whole batch and to optax, for all accumulators, axes and paddings, in less memory."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import gradtx.microbatching as mb
from gradtx.microbatching import AccumulationType, Accumulator

MEAN, SUM, RUNNING_MEAN, CONCAT = (getattr(AccumulationType, n) for n in ("MEAN", "SUM", "RUNNING_MEAN", "CONCAT"))
X, Y = jnp.arange(8.0), jnp.arange(8.0) * 2 - 3
M = jnp.arange(24.0).reshape(3, 8)
W = jnp.asarray(3.0)


def product(a, b):
    return jnp.sum(a * b)


def loss(w, a, b):
    return jnp.mean((a * w - b) ** 2)


def close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    chex.assert_trees_all_close(a, b, **{"rtol": 1e-5, "atol": 1e-5, **tolerance})


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_equal_to_the_whole_batch(size):
    for jit in (jax.jit, lambda f: f):
        close(jit(mb.microbatch(product, (0, 1), size))(X, Y), product(X, Y))
        close(jit(mb.microbatch(loss, (1, 2), size, MEAN))(W, X, Y), loss(W, X, Y))
        close(jit(mb.microbatch(loss, (1, 2), size, RUNNING_MEAN))(W, X, Y), loss(W, X, Y))
        close(jit(mb.microbatch(lambda a: (a**2, {"b": a[:, None]}), 0, size, CONCAT))(X), (X**2, {"b": X[:, None]}))
    close(jax.grad(mb.microbatch(loss, (1, 2), size, MEAN))(W, X, Y), jax.grad(loss)(W, X, Y))
    close(mb.microbatch(jax.grad(loss), (1, 2), size, MEAN)(W, X, Y), jax.grad(loss)(W, X, Y))
    assert mb.microbatch(product, (0, 1), None)(X, Y) == product(X, Y)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("real", [None, 1, 3, 4])
def test_numbers_of_optax(real):
    theirs = optax.microbatching.AccumulationType
    for kind in (SUM, RUNNING_MEAN, CONCAT) + (() if real else (MEAN,)):
        for f in (product, lambda a, b: {"v": a * b, "m": jnp.stack([a, b], 1)}):
            close(
                mb.microbatch(f, (0, 1), 2, kind, num_real_microbatches=real)(X, Y),
                optax.microbatching.microbatch(f, (0, 1), 2, theirs[kind.name], num_real_microbatches=real)(X, Y),
            )
    a = mb.micro_grad(loss, batch_argnums=(1, 2), microbatch_size=2, num_real_microbatches=real)(W, X, Y)
    b = optax.microbatching.micro_grad(loss, batch_argnums=(1, 2), microbatch_size=2, num_real_microbatches=real)(
        W, X, Y
    )
    close(a[0], b[0])
    close(tuple(a[1]), tuple(b[1]))
    assert a[1]._fields == b[1]._fields
    close(mb.reshape_batch_axis({"x": M}, 2, 1), optax.microbatching.reshape_batch_axis({"x": M}, 2, 1))


@pytest.mark.parametrize("kind", [MEAN, RUNNING_MEAN])
def test_padding_is_not_there(kind):
    """The examples that are padding are those whose index modulo the number of microbatches is too large."""
    real = jnp.arange(8) % 4 < 3
    expected = loss(W, X[real], Y[real])
    close(mb.microbatch(loss, (1, 2), 2, kind, num_real_microbatches=3)(W, X, Y), expected)
    traced = jax.jit(lambda n: mb.microbatch(loss, (1, 2), 2, kind, num_real_microbatches=n)(W, X, Y))
    close(traced(3), expected)
    close(traced(99), loss(W, X, Y))
    broken = jnp.where(real, X, jnp.nan)
    close(mb.microbatch(loss, (1, 2), 2, kind, num_real_microbatches=3)(W, broken, Y), expected)
    close(mb.micro_vmap(lambda a: a, microbatch_size=2, num_real_microbatches=3)(X), jnp.where(real, X, 0))
    assert mb.microbatch(jnp.sum, 0, 2, num_real_microbatches=0)(X) == 0


def test_a_tree_of_accumulators():
    def f(a, b):
        return {"sum": jnp.sum(a), "each": (a, b), "mean": jnp.mean(a * b)}

    got = mb.microbatch(f, (0, 1), 2, {"sum": SUM, "each": CONCAT, "mean": MEAN})(X, Y)
    close(got, {"sum": jnp.sum(X), "each": (X, Y), "mean": jnp.mean(X * Y)})
    largest = Accumulator(
        init=lambda value: jnp.full(value.shape, -jnp.inf, value.dtype),
        update=lambda carry, value, i: jnp.maximum(carry, value),
        finalize=lambda carry: carry + 1,
        aggregate=lambda values: jnp.max(values, axis=0),
    )
    assert mb.microbatch(jnp.max, 0, 2, largest)(X) == 8
    assert mb.micro_vmap(lambda a, b: a - b, microbatch_size=2, accumulator=largest)(X, Y) == jnp.max(X - Y) + 1


def test_axes_and_names():
    close(mb.microbatch(lambda a, b: a @ b, (0, 1), 2, in_axes=(1, 0))(M, Y), M @ Y)
    close(mb.microbatch(lambda a: a.sum(1), 0, 2, in_axes=-1)(M), M.sum(1))
    tree = {"m": M, "n": Y, "fixed": W}
    axes = [{"m": 1, "n": 0, "fixed": None}]
    got = mb.microbatch(lambda t: t["fixed"] * (t["m"] @ t["n"]), 0, 2, in_axes=axes)(tree)
    close(got, W * (M @ Y))
    close(mb.microbatch(lambda a, *, b: jnp.sum(a * b), 0, 2, argnames="b")(X, b=Y), product(X, Y))
    by_name = mb.microbatch(lambda *, a, b: jnp.sum(a[0] * b), (), 2, argnames=("a", "b"), in_axes=(1, 0))
    close(by_name(a=M[:1], b=Y), product(M[0], Y))
    close(mb.microbatch(lambda a, *, b: jnp.sum(a) * b, 0, 2)(X, b=2.0), 2 * jnp.sum(X))  # b is no batch


@pytest.mark.slow
def test_vmap():
    def f(a, w):
        return a.sum() * w

    for size in (None, 2):
        got = mb.micro_vmap(f, in_axes=(1, None), microbatch_size=size)(M, W)
        close(got, jax.vmap(f, in_axes=(1, None))(M, W))
        close(mb.micro_vmap(f, (1, None), microbatch_size=size, accumulator=SUM)(M, W), M.sum() * W)
        close(mb.micro_vmap(f, (1, None), microbatch_size=size, accumulator=MEAN)(M, W), M.sum() * W / 8)
        close(mb.micro_vmap(jnp.multiply, microbatch_size=size)(X, Y), X * Y)  # 0 is for all arguments
    names = []

    def spying(fun, in_axes, out_axes):
        names.append("used")
        return jax.vmap(fun, in_axes=in_axes, out_axes=out_axes)

    mb.micro_vmap(f, (1, None), microbatch_size=2, vmap_fn=spying)(M, W)
    assert names


def test_gradients_of_examples():
    def with_aux(w, a, b):
        return loss(w, a, b), a.shape

    each = jax.vmap(jax.grad(loss), (None, 0, 0))(W, X, Y)
    run = jax.jit(mb.micro_grad(loss, batch_argnums=(1, 2), microbatch_size=2, accumulator=CONCAT, metrics_fn=jnp.abs))
    gradients, aux = run(W, X, Y)
    close(gradients, each)
    close(aux.metrics, jnp.abs(each))
    close(aux.values, jax.vmap(loss, (None, 0, 0))(W, X, Y))
    clipped, _ = mb.micro_grad(
        loss, batch_argnums=(1, 2), microbatch_size=2, transform_fn=lambda g: jnp.clip(g, -1.0, 1.0)
    )(W, X, Y)
    close(clipped, jnp.clip(each, -1, 1).sum())
    pair, _ = mb.micro_grad(lambda w, v, a: jnp.sum(w * v * a), argnums=(0, 1), batch_argnums=2)(W, W + 1, X)
    close(pair, ((W + 1) * X.sum(), W * X.sum()))
    for keep, shape in ((True, (1,)), (False, ())):
        seen = []

        def spy(w, a, seen=seen):
            seen.append(a.shape)
            return jnp.sum(w * a), {"aux": 2 * jnp.sum(a)}

        _, aux = mb.micro_grad(spy, True, keep_batch_dim=keep, microbatch_size=4)(W, X)
        assert set(seen) == {shape}
        close(aux.aux, {"aux": 2 * X})


@pytest.mark.slow
def test_sums_are_exact_and_dtypes_stay():
    ones = jnp.ones(600, jnp.bfloat16)
    total = mb.microbatch(jnp.sum, 0, 1)(ones)
    assert total.dtype == jnp.bfloat16 and total == 600  # optax: 256
    for dtype in (jnp.float16, jnp.float32, jnp.int32, jnp.complex64):
        x = jnp.arange(8).astype(dtype)
        for kind in (SUM, CONCAT) + (() if dtype == jnp.int32 else (MEAN, RUNNING_MEAN)):
            assert mb.microbatch(lambda a: a, 0, 2, kind)(x).dtype == dtype
    assert mb.microbatch(lambda a: jnp.all(a > 0), 0, 2)(X) == 3  # booleans are counted
    with pytest.raises(ValueError, match="whole numbers"):
        mb.microbatch(jnp.sum, 0, 1, MEAN)(jnp.arange(4))


def test_memory_is_that_of_a_microbatch():
    a, b = jnp.ones((256, 10)), jnp.ones((10, 4000))

    def f(a, b):
        return jnp.sum(jnp.sort(jnp.sin(a @ b), axis=1)[:, ::7])

    def memory(f):
        return jax.jit(f).lower(a, b).compile().memory_analysis().temp_size_in_bytes

    assert memory(mb.microbatch(f, 0, 8)) < memory(f) / 4


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: mb.microbatch(product, (0, 1), 3)(X, Y), ValueError, "size 8 is no multiple of microbatch_size 3"),
        (lambda: mb.microbatch(product, (0, 1), 0), ValueError, "microbatch_size must be a whole number"),
        (lambda: mb.microbatch(product, (0, 1), 2)(X, Y[:6]), ValueError, r"of one size, got \[6, 8\]"),
        (lambda: mb.microbatch(product, (0, 1), 2)(X, b=Y), ValueError, "1 positional arguments"),
        (lambda: mb.microbatch(product, 0, 2, argnames="c")(X, b=Y), ValueError, "argnames has 'c'"),
        (lambda: mb.microbatch(product, (0, 1), 2, in_axes=(0,)), ValueError, "in_axes must have an entry"),
        (lambda: mb.microbatch(product, (0, 1), 2, "sum")(X, Y), TypeError, "accumulator must be"),
        (lambda: mb.microbatch(product, (0, 1), 2, num_real_microbatches=5)(X, Y), ValueError, "between 0 and 4"),
        (lambda: mb.reshape_batch_axis(M, 2), ValueError, "size 3"),
        (lambda: mb.reshape_batch_axis(M, 2, 5), ValueError, r"axis is 5.*\(3, 8\)"),
        (lambda: mb.micro_vmap(product, out_axes=1), ValueError, "out_axes must be 0"),
        (lambda: mb.micro_vmap(product, (0,))(X, Y), ValueError, "1 entries for 2"),
        (lambda: mb.micro_vmap(product, None)(X, Y), ValueError, "at least one"),
    ],
)
def test_errors(call, error, said):
    with pytest.raises(error, match=said):
        call()


@pytest.mark.parametrize("size", [2, None])
def test_keyword_arguments_are_mapped_as_by_vmap(size):
    x, weight = jnp.arange(4.0), jnp.arange(4.0) + 1
    mapped = mb.micro_vmap(lambda x, weight, shift=0.0: x * weight + shift, microbatch_size=size)
    np.testing.assert_array_equal(mapped(x, weight=weight), x * weight)
    np.testing.assert_array_equal(mapped(x, weight, shift=x), x * weight + x)


@pytest.mark.slow
def test_explicit_shardings_stay():
    """Of a batch, sharded along its examples, and of gradients, sharded as their parameters."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(np.arange(64, dtype=np.float32).reshape(16, 4), P("d", None))
        w = jax.device_put(np.ones((4, 8), np.float32), P(None, "d"))

        def squares(w, x):
            return jnp.sum(jnp.dot(x, w, out_sharding=P("d", None)) ** 2)

        sums = jax.jit(mb.microbatch(jax.grad(squares), 1, 8))(w, x)
        assert jax.typeof(sums).sharding.spec == P(None, "d")
        np.testing.assert_allclose(sums, jax.grad(squares)(w, x), rtol=1e-6)
        rows = jax.jit(mb.microbatch(lambda x: 2 * x, 0, 8, CONCAT))(x)
        assert jax.typeof(rows).sharding.spec == P("d", None)
        np.testing.assert_array_equal(rows, 2 * x)


@pytest.mark.parametrize("size", [None, 4])
def test_a_batch_without_examples(size):
    """Its sums and means are 0, in the shapes of those of others."""
    none = jnp.zeros([0, 3])
    for kind in (SUM, MEAN, RUNNING_MEAN):
        found = mb.micro_vmap(lambda x: {"s": x * x}, accumulator=kind, microbatch_size=size)(none)
        chex.assert_trees_all_equal(found, {"s": jnp.zeros(3)})
    assert mb.micro_vmap(lambda x: x[:, None], microbatch_size=size)(none).shape == (0, 3, 1)
    gradient, aux = mb.micro_grad(loss, batch_argnums=(1, 2), microbatch_size=size)(W, none[:, 0], none[:, 0])
    assert gradient == 0 and aux.values.shape == (0,)
