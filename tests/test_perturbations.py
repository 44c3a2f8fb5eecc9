# SPDX-License-Identifier: Apache-2.0
"""Perturbed functions: values and derivatives in expectation and draw by draw, against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx.perturbations as pt

KEY = jax.random.key(3)
X = jnp.asarray([1.0, 1.1, 0.8])
NOISES = [("Gumbel", pt.Gumbel()), ("Normal", pt.Normal())]
each = pytest.mark.parametrize(("name", "noise"), NOISES, ids=[n for n, _ in NOISES])


def choice(x):
    return jax.nn.one_hot(jnp.argmax(x), 3)


@each
@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.usefixtures("standard_promotion")
def test_numbers_of_optax(name, noise, baseline):
    """The same draws, so the same numbers, for trees too."""
    theirs_noise = getattr(optax.perturbations, name)()

    def tree(x):
        return {"choice": choice(x["a"]), "sum": jnp.sum(x["a"]) * x["b"]}

    for fun, x in ((choice, X), (tree, {"a": X, "b": jnp.asarray(2.0)})):
        ours = pt.make_perturbed_fun(fun, 50, 0.5, noise, baseline)
        theirs = optax.perturbations.make_perturbed_fun(fun, 50, 0.5, theirs_noise, baseline)
        for f, g in (
            (ours, theirs),
            (jax.jacrev(ours, 1), jax.jacrev(theirs, 1)),
            (jax.jacfwd(ours, 1), jax.jacfwd(theirs, 1)),
        ):
            close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)  # noqa: E731
            jax.tree.map(close, f(KEY, x), g(KEY, x))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("baseline", [True, False])
def test_derivatives_by_hand(baseline):
    """Of a normal density: mean (f - b) z / σ, and mean f (z zᵀ - 1) / σ² for the second ones."""
    sigma, n = 0.7, 40
    x = X.astype(float)

    def fun(x):
        return jnp.where(jnp.sum(x) > 3, 2.0, -1.0) + jax.lax.stop_gradient(x[0])

    keys = jax.random.split(KEY, n)
    z = np.stack([jax.random.normal(jax.random.split(k, 1)[0], (3,), float) for k in keys])
    values = np.asarray([fun(x + sigma * y) for y in z])
    f = pt.make_perturbed_fun(fun, n, sigma, pt.Normal(), baseline)
    np.testing.assert_allclose(f(KEY, x), values.mean(), rtol=1e-12)
    rest = values - float(fun(x)) if baseline else values
    np.testing.assert_allclose(jax.grad(f, 1)(KEY, x), (rest[:, None] * z).mean(0) / sigma, rtol=1e-10)
    outer = z[:, :, None] * z[:, None] - np.eye(3)
    np.testing.assert_allclose(
        jax.hessian(f, 1)(KEY, x), (rest[:, None, None] * outer).mean(0) / sigma**2, rtol=1e-9, atol=1e-9
    )


def test_gumbel_argmax_is_the_softmax():
    f = jax.jit(pt.make_perturbed_fun(choice, 100_000, 0.5))
    p = np.asarray(jax.nn.softmax(X / 0.5))
    np.testing.assert_allclose(f(KEY, X), p, atol=0.01)
    np.testing.assert_allclose(jax.jacobian(f, 1)(KEY, X), (np.diag(p) - np.outer(p, p)) / 0.5, atol=0.03)


@each
def test_the_expectation_of_a_square_and_its_derivatives(name, noise):
    """With mean m and variance v of the noise: E (x + σ z)² = x² + 2 σ m x + σ² (v + m²)."""
    m, v = (np.euler_gamma, np.pi**2 / 6) if name == "Gumbel" else (0.0, 1.0)

    def f(x, sigma):
        return pt.make_perturbed_fun(lambda x: x**2, 400_000, sigma, noise)(KEY, x)

    x, sigma = jnp.asarray(1.5), jnp.asarray(0.5)
    f = jax.jit(f)
    np.testing.assert_allclose(f(x, sigma), 1.5**2 + 2 * 0.5 * m * 1.5 + 0.25 * (v + m**2), rtol=0.01)
    np.testing.assert_allclose(jax.grad(f)(x, sigma), 2 * 1.5 + 2 * 0.5 * m, rtol=0.02)
    np.testing.assert_allclose(jax.grad(f, 1)(x, sigma), 2 * m * 1.5 + 2 * 0.5 * (v + m**2), rtol=0.03)
    np.testing.assert_allclose(jax.hessian(f)(x, sigma), 2.0, rtol=0.2)


def test_derivatives_of_what_the_function_closes_over():
    def f(w):
        return pt.make_perturbed_fun(lambda x: w * jnp.sum(choice(x) * x), 100, 0.5)(KEY, X)

    np.testing.assert_allclose(jax.grad(f)(2.0), f(1.0), rtol=1e-5)


def test_baseline_lowers_the_variance():
    def spread(baseline):
        f = pt.make_perturbed_fun(lambda x: 100 + jnp.sum(x**2), 10, 0.1, pt.Normal(), baseline)
        return jnp.std(jax.vmap(jax.grad(f, 1), (0, None))(jax.random.split(KEY, 200), X))

    assert spread(True) < spread(False) / 10


def test_densities_integrate_to_one():
    z = np.linspace(-20, 40, 200_001)
    for name, noise in NOISES:
        log_p = np.asarray(noise.log_prob(jnp.asarray(z, jnp.float32)), np.float64)
        total = np.trapezoid(np.exp(log_p), z)
        np.testing.assert_allclose(total, 1.0 if name == "Gumbel" else np.sqrt(2 * np.pi), rtol=1e-4)
        sample = noise.sample(KEY, [4, 2], jnp.bfloat16)
        assert sample.shape == (4, 2) and sample.dtype == jnp.bfloat16


def test_dtypes_none_and_infinity():
    x = {"a": jnp.asarray([1.0, 2.0], jnp.bfloat16), "n": None}
    f = pt.make_perturbed_fun(lambda x: (jnp.argmax(x["a"]), x["a"]), 300)
    index, mean = f(KEY, x)
    assert index.dtype == mean.dtype == jnp.float32
    assert jax.grad(lambda x: f(KEY, x)[0])(x)["a"].dtype == jnp.bfloat16
    g = pt.make_perturbed_fun(lambda x: jnp.where(x[0] > 0, jnp.inf, 1.0), 10)
    assert g(KEY, X) == jnp.inf and np.all(np.isfinite(jax.grad(g, 1)(KEY, X)))
    vmapped = jax.jit(jax.vmap(f, (0, None)))(jax.random.split(KEY, 3), x)
    np.testing.assert_allclose(vmapped[1][1], f(jax.random.split(KEY, 3)[1], x)[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: pt.make_perturbed_fun(3), TypeError, "fun must be a function"),
        (lambda: pt.make_perturbed_fun(choice, 0), ValueError, "num_samples"),
        (lambda: pt.make_perturbed_fun(choice, sigma=-1.0), ValueError, "sigma"),
        (lambda: pt.make_perturbed_fun(choice, noise="normal"), TypeError, "method sample"),
        (lambda: pt.make_perturbed_fun(lambda x: x)(KEY, {"a": jnp.arange(3)}), TypeError, r"\['a'\] must be floating"),
    ],
)
def test_errors(call, error, said):
    with pytest.raises(error, match=said):
        call()
