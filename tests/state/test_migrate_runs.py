# SPDX-License-Identifier: Apache-2.0
"""A run whose optimizer is exchanged in the middle goes on as if nothing had happened."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import migrate

pytestmark = pytest.mark.slow

STEPS, SWAP, SIDE = 100, 50, 16


def batch(step):
    """64 points in 16 dimensions, of one of 4 classes by a rotated quadratic form."""
    key = jax.random.fold_in(jax.random.key(0), step)
    x = jax.random.normal(key, (64, SIDE))
    y = jnp.argmax(jnp.square(x @ jax.random.normal(jax.random.key(1), (SIDE, 4))), axis=1)
    return x, y


def start():
    keys = jax.random.split(jax.random.key(2), 3)
    sizes = [(SIDE, 32), (32, 32), (32, 4)]
    return [
        {"w": jax.random.normal(k, (n, m)) / jnp.sqrt(jnp.float32(n)), "b": jnp.zeros(m)}
        for k, (n, m) in zip(keys, sizes, strict=True)
    ]


def loss(params, x, y):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    logits = x @ params[-1]["w"] + params[-1]["b"][None]
    return jnp.mean(gradtx.losses.softmax_cross_entropy_with_integer_labels(logits, y))


VALIDATION = [batch(i) for i in range(10_000, 10_008)]


def run(tx, params, state, begin, end):
    """Parameters, state and the losses on points that are not trained with, after each step."""

    @jax.jit
    def step(params, state, i):
        grads = jax.grad(loss)(params, *batch(i))
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
        return params, state, jnp.mean(jnp.stack([loss(params, *points) for points in VALIDATION]))

    losses = []
    for i in range(begin, end):
        params, state, value = step(params, state, jnp.int32(i))
        losses.append(float(value))
    return params, state, np.array(losses)


RATE = gradtx.cosine_decay_schedule(0.01, 200)
ADAMW = gradtx.adamw(RATE)


@functools.cache
def first_half(tx=ADAMW):
    params = start()
    return run(tx, params, tx.init(params), 0, SWAP)


@functools.cache
def whole():
    params, state, losses = first_half()
    return np.concatenate([losses, run(ADAMW, params, state, SWAP, STEPS)[2]])


def test_nothing_changed_is_bit_for_bit():
    import flax.serialization

    params, state, _ = first_half()
    want = run(ADAMW, params, state, SWAP, SWAP + 10)
    restored = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
    for old in (state, restored):
        new, _ = migrate(old, ADAMW, params)
        found = run(ADAMW, params, new, SWAP, SWAP + 10)
        jax.tree.map(np.testing.assert_array_equal, found[:2], want[:2])


def swapped(tx, old=ADAMW, carry=True, **options):
    params, state, _ = first_half(old)
    new, _ = migrate(state, tx, params, **options) if carry else (gradtx.restart(tx.init(params), SWAP), None)
    return run(tx, params, new, SWAP, STEPS)[2]


def test_a_clip_that_does_nothing_changes_nothing():
    found = swapped(gradtx.chain(gradtx.clip_by_global_norm(1e6), ADAMW))
    np.testing.assert_allclose(found, whole()[SWAP:], rtol=1e-6)


def test_a_mild_clip_leaves_no_jump():
    tx = gradtx.chain(gradtx.record_metrics(gradtx.clip_by_global_norm(0.8), ("clip_fraction",)), ADAMW)
    params, state, _ = first_half()
    new, _ = migrate(state, tx, params)
    _, last, found = run(tx, params, new, SWAP, STEPS)
    assert 0.05 < gradtx.metrics(last)["clip_fraction"] < 0.9
    np.testing.assert_allclose(found, whole()[SWAP:], rtol=0.02)


def test_from_scratch_there_is_a_jump():
    """What the same swap does without the old state: so the test above can fail."""
    found = swapped(gradtx.chain(gradtx.clip_by_global_norm(1e6), ADAMW), carry=False)
    assert np.max(np.abs(found / whole()[SWAP:] - 1)) > 0.02


LION, MUON = gradtx.lion(0.2 * RATE), gradtx.muon(RATE)


@pytest.mark.parametrize("tx", [LION, MUON], ids=["lion", "muon"])
def test_another_rule_goes_on_with_the_first_moment(tx):
    carried, fresh = swapped(tx), swapped(tx, carry=False)
    before = whole()[SWAP - 1]
    assert np.mean(carried[-10:]) < before
    assert np.max(carried) < 1.02 * before  # no jump upwards
    assert np.mean(carried[:10]) <= 1.01 * np.mean(fresh[:10])
    assert np.mean(carried[-10:]) <= 1.02 * np.mean(fresh[-10:])


def test_from_momentum_to_adamw():
    old = gradtx.sgd(0.1 * gradtx.constant_schedule(1.0), momentum=0.9)
    found = swapped(ADAMW, old)
    assert np.mean(found[-10:]) < first_half(old)[2][-1]


def test_a_run_of_optax_goes_on():
    theirs, ours = optax.adamw(0.01, weight_decay=0.1), gradtx.adamw(0.01, weight_decay=0.1)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params, state, _ = run(theirs, start(), theirs.init(start()), 0, SWAP)
        want = run(theirs, params, state, SWAP, STEPS)[2]
    new, report = migrate(state, ours, params)
    assert not (report.initialized or report.dropped)
    np.testing.assert_allclose(run(ours, params, new, SWAP, STEPS)[2], want, rtol=1e-3)


def test_8_bit_moments_go_on_from_those_in_float32_and_back():
    eight = gradtx.adamw8bit(RATE, min_size=0, block=32)
    np.testing.assert_allclose(swapped(eight), whole()[SWAP:], rtol=0.02)
    params, state, _ = first_half()
    stored, _ = migrate(state, eight, params)
    again, report = migrate(stored, ADAMW, params)
    assert not report.initialized and [row.slot for row in report.dropped] == ["0.count"]  # of the storage
    largest = jnp.max(jnp.abs(state[0].mu[1]["w"]))
    np.testing.assert_allclose(again[0].mu[1]["w"], state[0].mu[1]["w"], atol=0.01 * largest)
    jax.tree.map(np.testing.assert_array_equal, migrate(stored, eight, params)[0], stored)
