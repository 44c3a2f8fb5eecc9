# SPDX-License-Identifier: Apache-2.0
"""Formulas of rules that scale by signs, norms, factors, blocks and values, from their papers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gt
from support import problems
from support.formulas import case, whole_tree


def norm(x):
    return np.sqrt(np.sum(x**2))


def rms(x):
    return np.sqrt(np.mean(x**2))


def halving(t):
    """A schedule; counts come from 0."""
    return 0.1 / (1 + (t.astype(float) if isinstance(t, jax.Array) else t) / 10)


def matrices(params):
    return {n: p.ndim == 2 for n, p in params.items()}


def at(h, t):
    return h(t - 1) if callable(h) else h


# Signs.


def lion(rate, b1=0.9, b2=0.99, decay=1e-3, f=np.sign, only=None):
    """Chen et al. 2023, algorithm 2."""

    def step(p, g, s, t):
        c = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["m"] = b2 * s.get("m", 0.0) + (1 - b2) * g
        return p - at(rate, t) * (f(c) + (decay * p if only is None or p.ndim in only else 0.0))

    return step


def sign_sgd(rate):
    return lambda p, g, s, t: p - at(rate, t) * np.sign(g)


def signum(rate, b):
    """Bernstein et al. 2018, algorithm 2."""

    def step(p, g, s, t):
        s["m"] = b * s.get("m", 0.0) + (1 - b) * g
        return p - rate * np.sign(s["m"])

    return step


def averaged(rate, b, corrected):
    def step(p, g, s, t):
        s["m"] = b * s.get("m", 0.0) + (1 - b) * g
        return p - rate * s["m"] / (1 - b**t if corrected else 1.0)

    return step


# Norms.


def trust_ratio(rate, least=0.0, coefficient=1.0, eps=0.0):
    return lambda p, g, s, t: p - rate * coefficient * max(norm(p), least) / (max(norm(g), least) + eps) * g


def by_size(rate, size, least):
    return lambda p, g, s, t: p - rate * max(size(p), least) * g


def normalized(rate, factor, eps):
    @whole_tree
    def step(ps, gs, s, t):
        total = np.sqrt(sum(np.sum(g**2) for g in gs.values()))
        return {n: p - rate * factor * gs[n] / (total + eps) for n, p in ps.items()}

    return step


def lars(rate, decay=0.0, coefficient=0.001, eps=0.0, r=0.9, nesterov=False, decay_only=None, ratio_only=None):
    """You, Gitman and Ginsburg 2017, equation 6 and algorithm 1."""

    def step(p, g, s, t):
        w = decay if decay_only is None or p.ndim in decay_only else 0.0
        ratio = coefficient * norm(p) / (norm(g) + w * norm(p) + eps)
        ratio = ratio if ratio_only is None or p.ndim in ratio_only else 1.0
        d = at(rate, t) * ratio * (g + w * p)
        s["v"] = r * s.get("v", 0.0) + d
        return p - (r * s["v"] + d if nesterov else s["v"])

    return step


def lamb(rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, decay=0.0, only=None):
    """You et al. 2019, algorithm 2, with the identity for φ."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        r = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps)
        r = r + (decay * p if only is None or p.ndim in only else 0.0)
        return p - at(rate, t) * norm(p) / norm(r) * r

    return step


def fromage(rate, least=1e-6):
    """Bernstein et al. 2020, algorithm 1."""

    def step(p, g, s, t):
        r = at(rate, t)
        return (p - r * max(norm(p), least) / max(norm(g), least) * g) / np.sqrt(1 + r**2)

    return step


# Optimism, noise, values.


def optimistic(rate, alpha, beta, from_zero=False):
    """Mokhtari et al. 2019, generalized OGDA, with the iterate before the first equal to it."""

    def step(p, g, s, t):
        before = s.get("g", 0.0 if from_zero else g)
        s["g"] = g
        return p - at(rate, t) * ((alpha + beta) * g - beta * before)

    return step


def optimistic_adam(
    rate, optimism, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, factor=1.0, nesterov=False, from_zero=True
):
    """Daskalakis et al. 2017, algorithm 1; m and v, and so the direction before the first, start at 0."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        m = s["m"] / (1 - b1**t)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        d = m / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps)
        before = s.get("d", 0.0 if from_zero else d)
        s["d"] = d
        return p - at(factor, t) * ((rate + optimism) * d - optimism * before)

    return step


def noisy(rate, eta, gamma, seed):
    """Neelakantan et al. 2015, equation 1, counting from 0; the key chain is that of `add_noise`."""

    names = sorted(problems.SHAPES)  # the order of the leaves

    @whole_tree
    def step(ps, gs, s, t):
        key, used = jax.random.split(s.get("key", jax.random.key(seed)))
        s["key"], keys = key, jax.random.split(used, len(names))
        noise = {n: np.asarray(jax.random.normal(k, ps[n].shape, float)) for n, k in zip(names, keys, strict=True)}
        return {n: p - rate * (gs[n] + np.sqrt(eta / (1 + (t - 1)) ** gamma) * noise[n]) for n, p in ps.items()}

    return step


def polyak(scaling, f_min, limit, eps, shift, positive=False):
    """Loizou et al. 2020, SPS_max, with a factor; Garrigos et al. 2023 take the positive part of the gap."""

    @whole_tree
    def step(ps, gs, s, t):
        gap = problems.value(ps) - shift - f_min
        size = sum(np.sum(g**2) for g in gs.values())
        length = min((max(gap, 0.0) if positive else gap) / (size + eps), limit)
        return {n: p - at(scaling, t) * length * gs[n] for n, p in ps.items()}

    return step


TURN = 0.6 + 0.8j


@gt.transformation
def turned(inner: Any):
    """`inner` on complex numbers: parameters and gradients are turned by one angle, and the updates back.

    A rule that treats a complex number by its magnitude gives what it gives for the real ones.
    """

    def turn(tree):
        return None if tree is None else {n: jax.lax.complex(TURN.real * x, TURN.imag * x) for n, x in tree.items()}

    def update(updates, state, params=None, **extra):
        updates, state = inner.update(turn(updates), state, turn(params), **extra)
        return {n: jnp.real(u / TURN) for n, u in updates.items()}, state

    return gt.GradientTransformationExtraArgs(lambda params: inner.init(turn(params)), update)


@gt.transformation
def valued(inner: Any, shift: float):
    """`inner`, given the value of the problem minus `shift` at each update."""

    def update(updates, state, params=None, **extra):
        value = problems.total(params, jnp) - shift
        return inner.update(updates, state, params, value=value)

    return gt.GradientTransformationExtraArgs(inner.init, update)


# Factors and blocks.


def two_largest(p, least):
    """The axes to take means over, largest first, by size and then by place."""
    order = sorted(range(p.ndim), key=lambda i: (p.shape[i], i))[::-1]
    return order[:2] if p.ndim > 1 and p.shape[order[1]] >= least else None


def factored(s, name, square, b, axes):
    """The estimate R C / (1' R) of Shazeer and Stern 2018, in means instead of sums."""
    if axes is None:
        s[name] = b * s.get(name, 0.0) + (1 - b) * square
        return s[name]
    row, col = (np.mean(square, axis=i, keepdims=True) for i in axes)
    s[name + "r"] = b * s.get(name + "r", 0.0) + (1 - b) * row
    s[name + "c"] = b * s.get(name + "c", 0.0) + (1 - b) * col
    return s[name + "r"] * s[name + "c"] / np.mean(s[name + "r"], axis=axes[1], keepdims=True)


def adafactor(
    rate=1.0,
    least=2,
    exponent=0.8,
    offset=0,
    relative=True,
    d=1.0,
    b1=None,
    decay=None,
    eps=1e-30,
    eps2=1e-3,
    only=None,
    cap=1.0,
    b=None,
):
    """Shazeer and Stern 2018, algorithms 4 and 5."""

    def step(p, g, s, t):
        since = max(t - offset, 1)
        b2 = min(1 - since**-exponent if b is None else b(since - 1, exponent), cap)
        u = g / np.sqrt(factored(s, "v", g**2 + eps, b2, two_largest(p, least)))
        u = u / max(1.0, rms(u) / d)
        u = u * at(rate, t) * (max(eps2, rms(p)) if relative else 1.0)
        if b1 is not None:
            s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * u
            u = s["m"]
        decays = decay is not None and (only is None or p.ndim in only)
        return p - u - (decay * p if decays else 0.0)

    return step


def big_vision(rate, b1=0.9, decay=0.0, exponent=0.8, cap=0.999, d=np.inf, least=32, eps=1e-30, only=None):
    """Zhai et al. 2021, section 3.4."""

    def step(p, g, s, t):
        b2 = min(1 - t**-exponent, cap)
        u = g / np.sqrt(factored(s, "v", g**2 + eps, b2, two_largest(p, least)))
        u = u / max(1.0, rms(u) / d)
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * u
        return p - at(rate, t) * (s["m"] + (decay * p if only is None or p.ndim in only else 0.0))

    return step


def came(rate, b1=0.9, b2=0.999, b3=0.9999, eps1=1e-30, eps2=1e-16, d=1.0, decay=0.0, least=1, only=None):
    """Luo et al. 2023, algorithm 2; vectors without the confidence, as in the authors' code."""

    def step(p, g, s, t):
        axes = two_largest(p, least)
        u = g / np.sqrt(factored(s, "v", g**2 + eps1, b2, axes))
        u = u / max(1.0, rms(u) / d)
        s["m"] = m = b1 * s.get("m", 0.0) + (1 - b1) * u
        if axes is not None:
            m = m / np.sqrt(factored(s, "s", (u - m) ** 2 + eps2, b3, axes))
        return p - rate * (m + (decay * p if only is None or p.ndim in only else 0.0))

    return step


def adam_mini(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, decay=0.0, only=None, blocks=None):
    """Zhang et al. 2024, algorithm 1: Adam in which a block shares the mean of its g²."""

    def step(p, g, s, t):
        square = g**2
        mean = np.empty_like(square)
        for index in blocks_of(p) if blocks is None else blocks[p.ndim](p):
            mean[index] = np.mean(square[index])
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * mean
        u = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps)
        return p - at(rate, t) * (u + (decay * p if only is None or p.ndim in only else 0.0))

    return step


def blocks_of(p):
    """Output neurons, the last axis; vectors and scalars whole."""
    return [(..., i) for i in range(p.shape[-1])] if p.ndim > 1 else [...]


def constant_then(i, exponent):
    return 0.5 + 0.0 * i + exponent / 10


# Blocks that the rule is told to take, and the same as lists of index tuples by rank.
TOLD = {
    "scalar": (),
    "vector": None,
    "matrix": (2, 1),  # pairs of rows
    "cube": (-1, 1, 2),
    "kernel": (-1, -1, -1, -1),  # plain Adam
}
TAKEN = {
    0: lambda p: [...],
    1: lambda p: [...],
    2: lambda p: [slice(0, 2), slice(2, 4)],
    3: lambda p: [(i, slice(None), j) for i in range(2) for j in range(2)],
    4: lambda p: list(np.ndindex(*p.shape)),
}


def told(path, p):
    return TOLD[path]


# Where a rule divides by the root of a second moment, rounding grows from step to step near the minimum, in the formula
# as in the rule; the larger eps of some cases keeps it small.
CASES = [
    case(lambda: gt.lion(0.003), lion(0.003)),
    case(lambda: gt.lion(0.003, 0.7, 0.9, weight_decay=0.2), lion(0.003, 0.7, 0.9, 0.2)),
    case(
        lambda: gt.lion(halving, weight_decay=0.2, mask=matrices, mode="smooth", smooth_beta=3.0),
        lion(halving, decay=0.2, f=lambda c: np.tanh(3 * c), only=(2,)),
        "lion, smooth",
    ),
    case(
        lambda: gt.chain(gt.scale(9.0), gt.scale_by_lion(0.5, 0.8, mode="refined"), gt.scale_by_lr(0.1)),
        lambda p, g, s, t: lion(0.1, 0.5, 0.8, 0.0, f=lambda c: np.clip(c, -1, 1))(p, 9 * g, s, t),
    ),
    case(lambda: turned(gt.lion(0.03, mode="smooth", smooth_beta=3.0)), lion(0.03, f=lambda c: np.tanh(3 * c))),
    case(lambda: gt.sign_sgd(0.003), sign_sgd(0.003)),
    case(lambda: gt.signum(0.003), signum(0.003, 0.9)),
    case(lambda: gt.signum(0.003, 0.5), signum(0.003, 0.5)),
    case(lambda: gt.chain(gt.ema(0.8), gt.scale_by_lr(0.1)), averaged(0.1, 0.8, True)),
    case(lambda: gt.chain(gt.ema(0.8, False), gt.scale_by_lr(0.1)), averaged(0.1, 0.8, False)),
    case(lambda: gt.chain(gt.scale_by_trust_ratio(), gt.scale_by_lr(0.03)), trust_ratio(0.03)),
    case(
        lambda: gt.chain(gt.scale_by_trust_ratio(0.7, 0.6, 0.2), gt.scale_by_lr(0.03)), trust_ratio(0.03, 0.7, 0.6, 0.2)
    ),
    case(lambda: gt.chain(gt.scale_by_param_block_norm(), gt.scale_by_lr(0.03)), by_size(0.03, norm, 1e-3)),
    case(lambda: gt.chain(gt.scale_by_param_block_norm(1.5), gt.scale_by_lr(0.03)), by_size(0.03, norm, 1.5)),
    case(lambda: gt.chain(gt.scale_by_param_block_rms(), gt.scale_by_lr(0.03)), by_size(0.03, rms, 1e-3)),
    case(lambda: gt.chain(gt.scale_by_param_block_rms(0.7), gt.scale_by_lr(0.03)), by_size(0.03, rms, 0.7)),
    case(lambda: gt.chain(gt.normalize_by_update_norm(), gt.scale_by_lr(0.03)), normalized(0.03, 1.0, 1e-6)),
    case(lambda: gt.chain(gt.normalize_by_update_norm(2.0, 0.3), gt.scale_by_lr(0.03)), normalized(0.03, 2.0, 0.3)),
    case(lambda: gt.lars(1.0), lars(1.0)),
    case(
        lambda: gt.lars(halving, 0.2, True, 0.3, 0.1, momentum=0.6),
        lars(halving, 0.2, 0.3, 0.1, 0.6),
        "lars, scheduled",
    ),
    case(lambda: gt.lars(0.1, 0.2, trust_coefficient=0.3, nesterov=True), lars(0.1, 0.2, 0.3, nesterov=True)),
    case(
        lambda: gt.lars(0.03, 0.2, matrices, 0.3, 0.1, lambda ps: {n: p.ndim % 2 == 0 for n, p in ps.items()}),
        lars(0.03, 0.2, 0.3, 0.1, decay_only=(2,), ratio_only=(0, 2, 4)),
        "lars, masked",
    ),
    case(
        lambda: gt.lars(0.03, 0.2, {**dict.fromkeys(problems.SHAPES, True), "cube": False}, 0.3, 0.0, matrices),
        lars(0.03, 0.2, 0.3, decay_only=(0, 1, 2, 4), ratio_only=(2,)),
        "lars, masked otherwise",
    ),
    case(lambda: turned(gt.lars(0.1, 0.2, trust_coefficient=0.3)), lars(0.1, 0.2, 0.3)),
    case(lambda: gt.lamb(0.01), lamb(0.01)),
    case(
        lambda: gt.lamb(halving, 0.8, 0.95, 1e-2, 1e-3, 0.2),
        lamb(halving, 0.8, 0.95, 1e-2, 1e-3, 0.2),
        "lamb, scheduled",
    ),
    case(lambda: gt.lamb(0.01, weight_decay=0.2, mask=matrices), lamb(0.01, decay=0.2, only=(2,)), "lamb, masked"),
    case(lambda: gt.fromage(0.03), fromage(0.03)),
    case(lambda: gt.fromage(halving, 0.7), fromage(halving, 0.7), "fromage, scheduled"),
    case(lambda: gt.optimistic_gradient_descent(0.1), optimistic(0.1, 1.0, 1.0)),
    case(lambda: gt.optimistic_gradient_descent(halving, 0.7, 0.4), optimistic(halving, 0.7, 0.4), "ogd, scheduled"),
    case(
        lambda: gt.chain(gt.scale_by_optimistic_gradient(0.7, 0.4, from_zero=True), gt.scale_by_lr(0.1)),
        optimistic(0.1, 0.7, 0.4, from_zero=True),
    ),
    case(lambda: gt.optimistic_adam(0.03, nesterov=False), optimistic_adam(0.03, 0.03)),
    case(
        lambda: gt.optimistic_adam(0.03, 0.02, 0.8, 0.95, 1e-2, 1e-2, from_zero=False),
        optimistic_adam(0.03, 0.02, 0.8, 0.95, 1e-2, 1e-2, nesterov=True, from_zero=False),
    ),
    case(lambda: gt.optimistic_adam_v2(0.03, nesterov=False), optimistic_adam(1.0, 1.0, factor=0.03)),
    case(
        lambda: gt.optimistic_adam_v2(halving, alpha=0.3, beta=0.2, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
        optimistic_adam(0.3, 0.2, 0.8, 0.95, 1e-3, 1e-4, factor=halving, nesterov=True),
        "optimistic_adam_v2, scheduled",
    ),
    case(
        lambda: gt.optimistic_adam_v2(0.03, from_zero=False),
        optimistic_adam(1.0, 1.0, factor=0.03, nesterov=True, from_zero=False),
    ),
    case(lambda: gt.noisy_sgd(0.1), noisy(0.1, 0.01, 0.55, 0)),
    case(lambda: gt.noisy_sgd(0.1, 0.3, 0.8, seed=7), noisy(0.1, 0.3, 0.8, 7)),
    # Values 15 lower become negative after a few steps.
    case(lambda: valued(gt.polyak_sgd(0.2, 1.2, 0.3, 2.0), 15.0), polyak(1.2, 0.3, 0.2, 2.0, 15.0)),
    case(lambda: valued(gt.polyak_sgd(5.0, 1.2, 0.3), 15.0), polyak(1.2, 0.3, 5.0, 0.0, 15.0)),
    case(
        lambda: valued(gt.polyak_sgd(0.5, 1.2, 0.3, variant="sps+"), 15.0),
        polyak(1.2, 0.3, 0.5, 0.0, 15.0, positive=True),
    ),
    case(
        lambda: valued(gt.polyak_sgd(5.0, halving, 0.3), 3.0),
        polyak(halving, 0.3, 5.0, 0.0, 3.0),
        "polyak_sgd, scheduled",
    ),
    case(
        lambda: gt.chain(gt.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-2), gt.scale_by_lr(0.03)),
        adafactor(0.03, relative=False, d=np.inf, eps=1e-2),
    ),
    case(
        lambda: gt.chain(gt.scale_by_factored_rms(True, 0.6, 5, 3, 1e-2), gt.scale_by_lr(0.03)),
        adafactor(0.03, 3, 0.6, 5, False, np.inf, eps=1e-2),
    ),
    case(
        lambda: gt.chain(
            gt.scale_by_factored_rms(False, epsilon=1e-2, decay_rate_fn=constant_then), gt.scale_by_lr(0.03)
        ),
        adafactor(0.03, 99, relative=False, d=np.inf, eps=1e-2, b=constant_then),
    ),
    case(
        lambda: gt.chain(
            gt.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=1e-2, decay_cap=0.7), gt.scale_by_lr(0.03)
        ),
        adafactor(0.03, 2, relative=False, d=np.inf, eps=1e-2, cap=0.7),
    ),
    case(lambda: gt.adafactor(0.03), adafactor(0.03, 128)),
    case(lambda: gt.adafactor(0.01, 2), adafactor(0.01)),
    case(
        lambda: gt.adafactor(halving, 2, 0.6, 5, clipping_threshold=0.3, momentum=0.8, dtype_momentum=np.float64),
        adafactor(halving, 2, 0.6, 5, d=0.3, b1=0.8),
        "adafactor, scheduled",
    ),
    case(
        lambda: gt.adafactor(0.03, 2, eps=1e-2, weight_decay_rate=0.02, weight_decay_mask=matrices, min_scale=0.8),
        adafactor(0.03, eps=1e-2, eps2=0.8, decay=0.02, only=(2,)),
        "adafactor, masked",
    ),
    case(
        lambda: gt.adafactor(
            0.03, multiply_by_parameter_scale=False, clipping_threshold=None, eps=1e-2, factored=False
        ),
        adafactor(0.03, 128, relative=False, d=np.inf, eps=1e-2),
    ),
    case(lambda: gt.adafactor(None, clipping_threshold=0.03, eps=0.1), adafactor(1.0, 128, d=0.03, eps=0.1)),
    case(
        lambda: gt.adafactor_big_vision(0.03, dtype_momentum=np.float64),
        big_vision(0.03),
    ),
    case(
        lambda: gt.adafactor_big_vision(
            halving,
            0.7,
            0.2,
            matrices,
            decay_rate=0.6,
            decay_cap=0.8,
            clipping_threshold=0.5,
            min_dim_size_to_factor=2,
            eps=1e-2,
            dtype_momentum=np.float64,
        ),
        big_vision(halving, 0.7, 0.2, 0.6, 0.8, 0.5, 2, 1e-2, only=(2,)),
        "adafactor_big_vision, scheduled",
    ),
    case(lambda: gt.came(0.003), came(0.003)),
    case(
        lambda: gt.came(0.003, 0.7, 0.9, 0.8, 1e-2, 1e-1, 0.3, 0.2, min_dim_size_to_factor=3),
        came(0.003, 0.7, 0.9, 0.8, 1e-2, 1e-1, 0.3, 0.2, least=3),
    ),
    case(
        lambda: gt.came(0.003, weight_decay=0.2, mask=matrices, eps_error=1e-2),
        came(0.003, eps2=1e-2, decay=0.2, only=(2,)),
        "came, masked",
    ),
    case(lambda: turned(gt.came(0.003)), came(0.003)),
    case(lambda: turned(gt.adafactor(0.01, 2)), adafactor(0.01)),
    case(lambda: turned(gt.adam_mini(0.03)), adam_mini(0.03)),
    case(lambda: gt.adam_mini(0.03), adam_mini(0.03)),
    case(
        lambda: gt.adam_mini(halving, 0.8, 0.95, 1e-3, 1e-4, 0.2),
        adam_mini(halving, 0.8, 0.95, 1e-3, 1e-4, 0.2),
        "adam_mini, scheduled",
    ),
    case(
        lambda: gt.adam_mini(0.03, weight_decay=0.2, mask=matrices, blocks=TOLD),
        adam_mini(0.03, decay=0.2, only=(2,), blocks=TAKEN),
        "adam_mini, blocks",
    ),
    case(
        lambda: gt.adam_mini(0.03, eps=1e-3, blocks=told),
        adam_mini(0.03, eps=1e-3, blocks=TAKEN),
        "adam_mini, blocks by path",
    ),
]
