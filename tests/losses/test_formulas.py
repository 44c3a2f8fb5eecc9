# SPDX-License-Identifier: Apache-2.0
"""Every loss against its formula: values and gradients in float64, values in float32 and bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import losses
from support.losses import CASES, Case
from support.losses.case import softmax
from support.losses.others import FRAMES

every_case = pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c}" for i, c in enumerate(CASES)])


def arguments(case: Case, dtype) -> list[jax.Array]:
    """The arrays, floating ones in a dtype."""
    return [jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None) for x in case.arrays.values()]


def weighted(f, weights):
    return lambda *arrays: (f(*arrays) * weights).sum()


@every_case
def test_values_in_float64(case: Case, x64):
    expected = case.expected(*case.arrays.values())
    found = jax.jit(case.call)(*arguments(case, jnp.float64))
    assert (found.shape, found.dtype) == (expected.shape, jnp.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@every_case
def test_gradients_in_float64(case: Case, x64):
    """Against central differences of the formula."""
    arrays = list(case.arrays.values())
    weights = np.random.default_rng(1).normal(size=case.expected(*arrays).shape)
    formula = weighted(case.expected, weights)
    gradient_of = jax.jit(jax.grad(weighted(case.call, weights), argnums=case.differentiable))
    found = gradient_of(*arguments(case, jnp.float64))
    for i, gradient in zip(case.differentiable, found, strict=True):
        expected = np.zeros_like(arrays[i])
        for index in np.ndindex(arrays[i].shape):
            step = np.zeros_like(arrays[i])
            step[index] = 1e-5
            ahead, behind = (formula(*arrays[:i], arrays[i] + s, *arrays[i + 1 :]) for s in (step, -step))
            expected[index] = (ahead - behind) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=2e-6, atol=1e-7, err_msg=list(case.arrays)[i])


@pytest.mark.slow
@every_case
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_values_in_low_precision(case: Case, dtype):
    """The formula of the rounded arguments: nothing is computed in less than float32. Gradients are rounded again."""
    arrays = arguments(case, dtype)
    both = jax.value_and_grad(lambda *a: (case.call(*a).sum(), case.call(*a)), case.differentiable, has_aux=True)
    (_, found), gradients = jax.jit(both)(*arrays)
    wide = [np.asarray(x, np.float64 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype) for x in arrays]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, case.expected(*wide), rtol=2e-5, atol=2e-5)
    for gradient in gradients:
        assert gradient.dtype == dtype and np.all(np.isfinite(gradient.astype(jnp.float32)))


def test_every_loss_has_a_case():
    names = {n for n, x in vars(losses).items() if callable(x)}
    assert names - {c.name for c in CASES} == {"make_fenchel_young_loss"}


def test_integers_are_computed_in_float32():
    assert losses.squared_error(jnp.arange(3), jnp.ones(3, bool)).dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_fun", "gradient"),
    [
        (lambda x: jax.nn.logsumexp(x, axis=-1), softmax),
        (lambda x: jnp.max(x, axis=-1), lambda x: x == x.max(-1, keepdims=True)),
        (lambda x: jnp.sum(x * x, axis=-1) / 2, lambda x: x),
    ],
    ids=["entropy", "maximum", "squares"],
)
def test_fenchel_young(max_fun, gradient, x64):
    x, y = (np.random.default_rng(0).normal(size=(3, 4)) for _ in range(2))
    loss = losses.make_fenchel_young_loss(max_fun)
    np.testing.assert_allclose(loss(x, y), max_fun(jnp.asarray(x)) - (x * y).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda z: loss(z, y).sum())(jnp.asarray(x)), gradient(x) - y, atol=1e-12)
    np.testing.assert_allclose(loss(x[0], y[0]), loss(x, y)[0])


def test_fenchel_young_hands_arguments_on():
    loss = losses.make_fenchel_young_loss(lambda x, power, scale=1.0: scale * jnp.sum(x**power, axis=-1))
    assert loss(jnp.full(2, 2.0), jnp.zeros(2), 3, scale=0.5) == 8.0


@pytest.mark.slow
def test_second_derivatives_of_the_sparsemax_loss(x64):
    x, y = jnp.asarray([0.3, 0.1, -0.2, -3.0]), jnp.asarray(1)
    hessian = jax.hessian(lambda z: losses.multiclass_sparsemax_loss(z, y))(x)
    support = np.array([1.0, 1, 1, 0])
    np.testing.assert_allclose(hessian, np.diag(support) - np.outer(support, support) / 3, atol=1e-12)


@pytest.mark.slow
def test_forward_probabilities_of_ctc(x64):
    """By adding up all beginnings, frame by frame."""
    logits, frame_paddings, labels, label_paddings = (jnp.asarray(x[:2]) for x in FRAMES.values())
    losses_, phi, emit = losses.ctc_loss_with_forward_probs(logits, frame_paddings, labels, label_paddings)
    assert (phi.shape, emit.shape) == ((5, 2, 3), (5, 2, 2))
    for t in range(1, 5):
        paddings = jnp.ones((2, 5), int).at[:, :t].set(0)
        # After t frames, n labels have been read by those that end in a blank or in the label n - 1.
        for n in (1, 2):
            beginning = losses.ctc_loss(logits, paddings, labels[:, :n], label_paddings[:, :n])
            both = jnp.logaddexp(phi[t - 1, :, n], emit[t - 1, :, n - 1])
            np.testing.assert_allclose(jnp.exp(-beginning), jnp.exp(both), atol=1e-12)
    np.testing.assert_allclose(phi[-1, :, 2], -losses_, rtol=1e-12)
