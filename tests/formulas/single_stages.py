# SPDX-License-Identifier: Apache-2.0
"""Formulas of single stages: unit-wise clipping, centralization, constraints, sums of updates, compression."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from support.formulas import case, whole_tree

# The tools: they make visible, as updates, what functions return and what states publish.

SIZES = np.array([1.0, 3.0, -0.5, 0.0])


@gt.transformation
def of_examples(clip: Any, limit: gt.typing.Positive, **options: Any) -> Any:
    """Makes gradients of four examples of each gradient, and adds how many were clipped to their clipped sum."""

    def clipped(g, p):
        stacked = jax.tree.map(lambda g: jnp.stack([g * size for size in SIZES]), g)
        sums, counts = clip(stacked, limit, **options)
        counts = counts if isinstance(counts, dict) else dict.fromkeys(g, counts)
        return jax.tree.map(lambda s, c: s + 0.1 * c.astype(s.dtype), sums, counts)

    return gt.stateless(clipped)


@gt.transformation
def in_the_model(scaled: Any, scale: gt.typing.Real) -> Any:
    """The derivative of g x with x as the inputs of `scale_gradient`."""

    def slope(g, p):
        return jax.grad(lambda p: sum(jnp.sum(g[n] * x) for n, x in scaled(p, scale).items()))(p)

    return gt.stateless(slope)


def largest(updates):
    return jnp.max(jnp.stack([jnp.max(jnp.abs(u)) for u in jax.tree.leaves(updates)]))


@gt.transformation
def by_measurement(inner: Any) -> Any:
    """g times what a monitor or snapshot of it publishes."""

    def update(g, state, params=None, **extra):
        u, state = inner.update(g, state, params)
        (factor,) = gt.metrics(state).values()
        return jax.tree.map(lambda u: factor * u, u), state

    return gt.GradientTransformationExtraArgs(inner.init, update)


# The formulas.

UNITS = {0: None, 1: None, 2: (0,), 3: (0,), 4: (0, 1, 2)}
"""The axes of a unit-wise norm by the rank, for shapes without axes of length 1; None is all of them."""


def unit_norm(x, axis):
    return np.sqrt(np.sum(x**2, axis=axis, keepdims=True))


def adaptive_clip(rate, clipping, eps=1e-3, axis=UNITS):
    def step(p, g, s, t):
        over = axis[p.ndim] if axis is UNITS else axis
        limit = clipping * np.maximum(unit_norm(p, over), eps)
        return p - rate * g * np.minimum(1, limit / unit_norm(g, over))

    return step


def central(rate, last=False):
    def step(p, g, s, t):
        if p.ndim > 1:
            g = g - np.mean(g, axis=tuple(range(p.ndim - 1)) if last else tuple(range(1, p.ndim)), keepdims=True)
        return p - rate * g

    return step


def nonnegative(rate, r):
    """With momentum, which goes through zero."""

    def step(p, g, s, t):
        s["v"] = r * s.get("v", 0.0) + g
        return np.where(p - rate * s["v"] < 0, 0.0, p - rate * s["v"])

    return step


def in_sums(rate, k):
    def step(p, g, s, t):
        s["sum"] = s.get("sum", 0.0) + rate * g
        if t % k:
            return p
        return p - s.pop("sum")

    return step


def compressed(rate, law):
    return lambda p, g, s, t: p - rate * np.sign(g) * law(np.abs(g))


def expanded(rate, law):
    """Of gradients within 1, as an inverse grows exponentially."""
    return lambda p, g, s, t: p - rate * np.sign(g) * law(np.minimum(np.abs(g), 1))


def a_law(a):
    whole = 1 + np.log(a)
    return lambda x: np.where(x < 1 / a, a * x / whole, (1 + np.log(np.maximum(a * x, 1))) / whole)


def a_law_inverse(a):
    whole = 1 + np.log(a)
    return lambda y: np.where(y < 1 / whole, y * whole / a, np.exp(y * whole - 1) / a)


def flattened_adam(rate, decay=0.0):
    """All of the tree as one vector, in an order of its own."""

    @whole_tree
    def step(ps, gs, s, t):
        g = np.concatenate([gs[n].ravel() for n in ps])
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
        s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
        u = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)
        u = u * min(1, 1 / np.linalg.norm(u))
        pieces = np.split(u, np.cumsum([p.size for p in ps.values()])[:-1])
        return {n: p - rate * (x.reshape(p.shape) + decay * p) for (n, p), x in zip(ps.items(), pieces, strict=True)}

    return step


def clipped_examples(rate, limit, kind):
    @whole_tree
    def step(ps, gs, s, t):
        norms = {n: np.abs(SIZES) * np.sqrt(np.sum(g**2)) for n, g in gs.items()}
        if kind == "global":
            norms = dict.fromkeys(gs, np.sqrt(sum(norm**2 for norm in norms.values())))
            limits = dict.fromkeys(gs, limit)
        elif kind == "uniform":
            limits = dict.fromkeys(gs, limit / np.sqrt(len(gs)))
        else:
            limits = {n: limit * np.sqrt(g.size / sum(g.size for g in gs.values())) for n, g in gs.items()}
        new = {}
        for n, g in gs.items():
            clipped = [size * g * min(1, limits[n] / max(x, 1e-99)) for size, x in zip(SIZES, norms[n], strict=True)]
            new[n] = ps[n] - rate * (sum(clipped) + 0.1 * np.sum(norms[n] > limits[n]))
        return new

    return step


def measured(rate, decay=0.0, debias=False):
    @whole_tree
    def step(ps, gs, s, t):
        s["m"] = decay * s.get("m", 0.0) + (1 - decay) * max(np.max(np.abs(g)) for g in gs.values())
        factor = s["m"] / (1 - decay**t) if debias else s["m"]
        return {n: p - rate * factor * gs[n] for n, p in ps.items()}

    return step


def descending(*stages):
    return gt.chain(*stages, gt.scale_by_lr(0.1))


def slow(debias):
    return gt.measure_with_ema(largest, 0.8, debias)


CASES = [
    case(lambda: descending(gt.adaptive_grad_clip(0.05)), adaptive_clip(0.1, 0.05)),
    case(lambda: descending(gt.adaptive_grad_clip(0.05, 0.9)), adaptive_clip(0.1, 0.05, 0.9)),
    case(lambda: descending(gt.adaptive_grad_clip(0.05, axis=())), adaptive_clip(0.1, 0.05, axis=())),
    case(lambda: descending(gt.centralize()), central(0.1)),
    case(lambda: descending(gt.centralize(units="last")), central(0.1, last=True)),
    case(lambda: descending(gt.zero_nans()), lambda p, g, s, t: p - 0.1 * g),
    case(lambda: gt.chain(gt.sgd(0.1, momentum=0.8), gt.keep_params_nonnegative()), nonnegative(0.1, 0.8)),
    case(lambda: gt.chain(gt.sgd(0.05), gt.apply_every(3)), in_sums(0.05, 3)),
    case(lambda: gt.chain(gt.sgd(0.1), gt.apply_every()), lambda p, g, s, t: p - 0.1 * g),
    case(lambda: gt.chain(gt.sgd(0.1), gt.set_to_zero()), lambda p, g, s, t: p),
    # A small rate, as the slope at 0 is 26: steps beyond the minimum and back would magnify rounding.
    case(
        lambda: gt.chain(gt.mu_law_compress(), gt.scale_by_lr(0.01)),
        compressed(0.01, lambda x: np.log(1 + 127 * x) / np.log(128)),
    ),
    case(
        lambda: descending(gt.clip(1.0), gt.mu_law_compress(5.0, inverse=True)),
        expanded(0.1, lambda y: (6.0**y - 1) / 5),
    ),
    case(lambda: gt.chain(gt.a_law_compress(), gt.scale_by_lr(0.01)), compressed(0.01, a_law(87.6))),
    case(lambda: descending(gt.a_law_compress(1.0)), compressed(0.1, a_law(1.0))),
    case(lambda: descending(gt.clip(1.0), gt.a_law_compress(3.0, inverse=True)), expanded(0.1, a_law_inverse(3.0))),
    case(lambda: descending(gt.softsign_compress()), compressed(0.1, lambda x: x / (1 + x))),
    case(lambda: descending(gt.softsign_compress(0.3)), compressed(0.1, lambda x: x / (1 + x / 0.3))),
    case(
        lambda: descending(gt.clip(1.0), gt.softsign_compress(1.5, inverse=True)),
        expanded(0.1, lambda y: y / (1 - y / 1.5)),
    ),
    case(lambda: descending(gt.flatten(gt.chain(gt.scale_by_adam(), gt.clip_by_norm(1.0)))), flattened_adam(0.1)),
    case(
        lambda: descending(gt.flatten(gt.chain(gt.scale_by_adam(), gt.clip_by_norm(1.0), gt.add_decayed_weights(0.2)))),
        flattened_adam(0.1, 0.2),
    ),
    case(
        lambda: descending(of_examples(gt.aggregating.per_example_global_norm_clip, 0.7)),
        clipped_examples(0.1, 0.7, "global"),
    ),
    case(
        lambda: descending(of_examples(gt.aggregating.per_example_layer_norm_clip, 0.7)),
        clipped_examples(0.1, 0.7, "uniform"),
    ),
    case(
        lambda: descending(of_examples(gt.aggregating.per_example_layer_norm_clip, 0.7, uniform=False)),
        clipped_examples(0.1, 0.7, "by size"),
    ),
    case(lambda: descending(in_the_model(gt.scale_gradient, 0.3)), lambda p, g, s, t: p - 0.03 * g),
    case(lambda: descending(by_measurement(gt.snapshot("m", largest))), measured(0.1)),
    case(lambda: descending(by_measurement(gt.monitor({"m": largest}))), measured(0.1)),
    case(lambda: descending(by_measurement(gt.monitor({"m": slow(True)}))), measured(0.1, 0.8, True)),
    case(lambda: descending(by_measurement(gt.monitor({"m": slow(False)}))), measured(0.1, 0.8)),
]
