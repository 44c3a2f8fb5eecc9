# SPDX-License-Identifier: Apache-2.0
"""Perturbed functions: a smooth version of any function, such as one that picks the best of several choices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core._checked import checked
from gradtx.core._dtypes import compute_dtype, widen
from gradtx.core._ranges import Positive, PositiveInt, check_argument, specification
from gradtx.core._trees import paths


class Normal:
    """The standard normal distribution."""

    def sample(self, key: jax.Array, sample_shape: Sequence[int], dtype: Any = float) -> jax.Array:
        """Independent samples."""
        return jax.random.normal(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The logarithm of the density of each number, up to a constant: -z² / 2."""
        return -0.5 * jnp.square(inputs)

    def __repr__(self) -> str:
        return "Normal()"


class Gumbel:
    """The standard Gumbel distribution: an argmax of scores perturbed by it is a sample of their softmax."""

    def sample(self, key: jax.Array, sample_shape: Sequence[int], dtype: Any = float) -> jax.Array:
        """Independent samples."""
        return jax.random.gumbel(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The logarithm of the density of each number: -z - exp(-z)."""
        return -inputs - jnp.exp(-inputs)

    def __repr__(self) -> str:
        return "Gumbel()"


@checked
def make_perturbed_fun(
    fun: Callable[[Any], Any],
    num_samples: PositiveInt = 1000,
    sigma: Positive = 0.1,
    noise: Any = Gumbel(),  # noqa: B008  # it has no state
    use_baseline: bool = True,
) -> Callable[[jax.Array, Any], Any]:
    """A function (key, x) -> mean of fun(x + sigma z) over random z, differentiable in x even where `fun` is not.

    Its derivatives of every order, forward and reverse, are unbiased estimates from the same samples z, as in
    mean of fun(x + sigma z) ∇log p(z): `fun` is not differentiated with respect to x. Derivatives with respect to
    `sigma` and to values that `fun` closes over are correct too.

    Args:
      fun: a function from a tree of floating arrays to a tree of numbers.
      num_samples: the number of samples z of each call, at least 1; all are evaluated at once.
      sigma: the scale of the noise; a larger one gives a smoother function, farther from `fun`.
      noise: the distribution of z, an object with `sample(key, sample_shape, dtype)` and elementwise
        `log_prob(inputs)`.
      use_baseline: whether fun(x) is subtracted in the derivatives, which changes their variance but not their mean.

    Reference: Berthet et al. 2020, arXiv:2002.08676.
    """
    where = "make_perturbed_fun"
    if not callable(fun):
        raise TypeError(f"{where}: fun must be a function, got {fun!r}")
    num_samples = check_argument(where, "num_samples", num_samples, specification(PositiveInt), False)  # type: ignore[arg-type]
    sigma = check_argument(where, "sigma", sigma, specification(Positive), False)  # type: ignore[arg-type]  # is a range
    for method in ("sample", "log_prob"):
        if not callable(getattr(noise, method, None)):
            raise TypeError(f"{where}: noise must have a method {method}, got {noise!r}")

    def perturbed(key: jax.Array, inputs: Any) -> Any:
        leaves, treedef = jax.tree.flatten(inputs)
        leaves = [jnp.asarray(x) for x in leaves]
        for i, x in enumerate(leaves):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                path = paths(treedef.unflatten(leaves))[i]
                raise TypeError(f"{where}: the input at {path} must be floating to be perturbed, got {x.dtype}")
        dtype = compute_dtype(leaves)
        scale = jnp.asarray(sigma, dtype)
        fixed_scale, fixed = jax.lax.stop_gradient((scale, leaves))
        wide, fixed_wide = widen((leaves, fixed), dtype)

        def draw(key: jax.Array) -> list[jax.Array]:
            keys = jax.random.split(key, len(leaves))
            return [noise.sample(k, x.shape, dtype) for k, x in zip(keys, leaves, strict=True)]

        def value(z: list[jax.Array]) -> Any:
            moved = [(x + fixed_scale * y).astype(a.dtype) for x, y, a in zip(fixed_wide, z, leaves, strict=True)]
            return jax.tree.map(_floating, fun(jax.tree.unflatten(treedef, moved)))

        def log_density(z: list[jax.Array]) -> jax.Array:
            """The log-density of the point x + sigma z, held constant, as a function of x and sigma."""
            total = jnp.zeros([], dtype)
            for y, x, at in zip(z, wide, fixed_wide, strict=True):
                seen = (fixed_scale * y + (at - x)) / scale
                total = total + jnp.sum(noise.log_prob(seen)) - y.size * jnp.log(scale)
            return total

        z = jax.vmap(draw)(jax.random.split(key, num_samples))
        values = jax.vmap(value)(z)
        density = jax.vmap(log_density)(z)
        # The ratio of the density to its own constant value, minus 1: always 0, but with the derivatives of the ratio.
        weight = jnp.expm1(density - jax.lax.stop_gradient(density))
        centre = jax.tree.map(_floating, fun(jax.tree.unflatten(treedef, fixed))) if use_baseline else None

        def estimate(samples: jax.Array, baseline: Any = None) -> jax.Array:
            difference = samples if baseline is None else samples - baseline[None]
            difference = jnp.where(jnp.isfinite(difference), difference, 0)  # infinity times 0 would be NaN
            weights = weight.astype(samples.dtype).reshape(-1, *[1] * (samples.ndim - 1))
            return jnp.mean(samples, axis=0) + jnp.mean(difference * weights, axis=0)

        return jax.tree.map(estimate, values) if centre is None else jax.tree.map(estimate, values, centre)

    return perturbed


def _floating(x: Any) -> jax.Array:
    """x as an array of at least float32."""
    x = jnp.asarray(x)
    return widen(x, compute_dtype(x))
