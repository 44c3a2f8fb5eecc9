# SPDX-License-Identifier: Apache-2.0
"""What is masked is as if it were not there, in value and gradient, even if it is NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses
from support.losses import CASES, Case, Masked

MASKED = [(c, m) for c in CASES for m in c.masks]
every_mask = pytest.mark.parametrize(("case", "mask"), MASKED, ids=[f"{i}-{c}" for i, (c, _) in enumerate(MASKED)])


def where(mask: Masked, size: int, none: bool = False) -> np.ndarray:
    """The mask itself: False for the last entries along its axis, or for all."""
    shape = [1] * len(mask.shape)
    shape[mask.axis] = size
    counts = np.arange(size) < (0 if none else size - mask.count)
    return np.broadcast_to(counts.reshape(shape), mask.shape)


def size_of(case: Case, mask: Masked) -> int:
    return case.arrays[mask.arrays[0]].shape[mask.axis]


def poisoned(case: Case, mask: Masked, counts: np.ndarray) -> list[jax.Array]:
    """The arguments with NaN, and labels that are no class, where they are masked."""
    kept = counts.any(axis=tuple(i for i in range(counts.ndim) if i != mask.axis % counts.ndim))
    found = []
    for name, x in case.arrays.items():
        if name in mask.arrays:
            shape = [1] * x.ndim
            shape[mask.axis] = -1
            bad = np.nan if np.issubdtype(x.dtype, np.floating) else -100
            x = np.where(kept.reshape(shape), x, bad).astype(x.dtype)
        found.append(jnp.asarray(x))
    return found


@pytest.mark.slow
@every_mask
def test_masked_entries_are_as_if_deleted(case: Case, mask: Masked, x64):
    size = size_of(case, mask)
    kept = slice(0, size - mask.count)
    short = [np.take(x, range(size - mask.count), mask.axis) if n in mask.arrays else x for n, x in case.arrays.items()]
    counts = where(mask, size)
    arrays = poisoned(case, mask, counts)

    def masked(*a):
        return case.call(*a, **{mask.name: jnp.asarray(counts)})

    floats = case.differentiable
    (_, found), gradients = jax.jit(
        jax.value_and_grad(lambda *a: (masked(*a).sum(), masked(*a)), argnums=floats, has_aux=True)
    )(*arrays)
    expected = case.expected(*short)
    if mask.out is not None:
        assert not np.any(np.take(found, range(size - mask.count, size), mask.out))
        found = np.take(found, range(size - mask.count), mask.out)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    of_short = jax.jit(jax.grad(lambda *a: case.call(*a).sum(), argnums=floats))(*map(jnp.asarray, short))
    for i, gradient, of_kept in zip(floats, gradients, of_short, strict=True):
        if list(case.arrays)[i] in mask.arrays:
            along = [slice(None)] * gradient.ndim
            along[mask.axis] = slice(size - mask.count, size)
            assert not np.any(gradient[tuple(along)])
            along[mask.axis] = kept
            gradient = gradient[tuple(along)]
        np.testing.assert_allclose(gradient, of_kept, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@every_mask
def test_without_anything_that_counts_the_loss_is_zero(case: Case, mask: Masked):
    counts = where(mask, size_of(case, mask), none=True)
    arrays = poisoned(case, mask, counts)
    values, gradients = jax.jit(
        jax.value_and_grad(
            lambda *a: case.call(*a, **{mask.name: jnp.asarray(counts)}).sum(), argnums=case.differentiable
        )
    )(*arrays)
    assert values == 0
    assert not any(np.any(g) for g in gradients)


def test_a_mask_of_one_number():
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(losses.squared_error(x, where=jnp.asarray(True)), x * x)
    np.testing.assert_array_equal(losses.squared_error(x, where=False), jnp.zeros(3))


def test_a_label_whose_class_is_masked():
    x, counts = jnp.zeros((2, 3)), jnp.asarray([[True, True, False]] * 2)
    labels = jnp.asarray([2, 0])
    expected = [0.0, np.log(2)]
    integer = losses.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(integer(x, labels, where=counts), expected, rtol=1e-6)
    one_hot = jax.nn.one_hot(labels, 3)
    np.testing.assert_allclose(losses.softmax_cross_entropy(x, one_hot, where=counts), expected, rtol=1e-6)
    assert losses.multiclass_hinge_loss(x, labels, where=counts)[0] == 0


@pytest.mark.slow
def test_ctc_pays_no_heed_to_padding():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 3)), jnp.float32)
    long = jnp.concatenate([x, jnp.full((1, 2, 3), jnp.nan)], axis=1)
    paddings = jnp.asarray([[0, 0, 0, 0, 1, 1]])
    loss, gradient = jax.value_and_grad(
        lambda z: losses.ctc_loss(z, paddings, jnp.asarray([[1, 2, -7]]), jnp.asarray([[0, 0, 1]])).sum()
    )(long)
    expected = losses.ctc_loss(x, jnp.zeros((1, 4)), jnp.asarray([[1, 2]]), jnp.zeros((1, 2)))[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert not np.any(gradient[:, 4:]) and np.all(np.isfinite(gradient))


def test_a_reduction_that_is_masked_is_handed_the_lists():
    x, counts = jnp.zeros((2, 3)), jnp.asarray([[True] * 3, [False] * 3])
    total = losses.ranking_softmax_loss(x, jnp.ones((2, 3)), where=counts, reduce_fn=jnp.sum)
    np.testing.assert_allclose(total, 3 * np.log(3), rtol=1e-6)
