# SPDX-License-Identifier: Apache-2.0
"""Formulas of Adam with bounded rates, with friction and with projections, and of projected gradients."""

import numpy as np

import gradtx as gt
from formulas.first_rules import as_float, matrices
from formulas.variants import adam, at, average, norm, steps
from support.formulas import case


def falling(count):
    return 0.1 / (1 + as_float(count) / 10)


def rising(count):
    """A warmup, in which the average of the rates is behind."""
    return 1e-3 * (1 + as_float(count))


def moments(g, s, t, b1, b2, corrected=True):
    """Adam's averages, corrected for their start at 0."""
    m, v = average(s, "m", g, b1), average(s, "v", g**2, b2)
    return (m / (1 - b1**t), v / (1 - b2**t)) if corrected else (m, v)


def adamod(rate, b1=0.9, b2=0.999, b3=0.999, eps=1e-8, decay=0.0, only=None):
    """Ding et al. 2019, with the rate of each step inside the average."""

    def step(p, g, s, t):
        m, v = moments(g, s, t, b1, b2)
        eta = at(rate, t) / (np.sqrt(v) + eps)
        bounded = np.minimum(eta, average(s, "s", eta, b3))
        return p - bounded * m - (at(rate, t) * decay * p if only is None or p.ndim in only else 0.0)

    return step


def diffgrad(b1=0.9, b2=0.999, eps=1e-8):
    """Dubey et al. 2019: the friction is 1 / (1 + exp(-|change of the gradient|))."""

    def direction(p, g, s, t):
        m, v = moments(g, s, t, b1, b2)
        change = g - s.get("g", 0.0 * g)
        s["g"] = g
        return m / (np.sqrt(v) + eps) / (1 + np.exp(-np.abs(change)))

    return direction


def adabound(b1=0.9, b2=0.999, eps=1e-8, ratio=100.0, gamma=1e-3, largest=False, corrected=True):
    """Luo et al. 2019, algorithms 2 and 3, with Adam's corrections unless told otherwise."""

    def direction(p, g, s, t):
        m, v = average(s, "m", g, b1), average(s, "v", g**2, b2)
        s["max"] = np.maximum(s.get("max", 0.0), v)
        v = s["max"] if largest else v
        m, v = (m / (1 - b1**t), v / (1 - b2**t)) if corrected else (m, v)
        low, high = ratio * (1 - 1 / (gamma * t + 1)), ratio * (1 + 1 / (gamma * t))
        return np.clip(1 / (np.sqrt(v) + eps), low, high) * m

    return direction


def adamp(b1=0.9, b2=0.999, eps=1e-8, decay=0.0, delta=0.1, ratio=0.1, units=-1, nesterov=False, only=None):
    """Heo et al. 2020, algorithm 2, unit by unit, else on the whole array."""

    def cosine(x, y):
        return abs(np.sum(x * y)) / (norm(x) * norm(y))

    def without(u, p):
        return u - p * np.sum(p * u) / np.sum(p**2)

    def direction(p, g, s, t):
        m, v = moments(g, s, t, b1, b2)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        u, shrink = m / (np.sqrt(v) + eps), decay if only is None or p.ndim in only else 0.0
        if p.ndim > 1:
            rows = [np.moveaxis(x, units, 0) for x in (u, p, g)]
            n = rows[1][0].size
            if max(cosine(w, d) for w, d in zip(rows[1], rows[2], strict=True)) < delta / np.sqrt(n):
                projected = np.stack([without(x, w) for x, w in zip(rows[0], rows[1], strict=True)])
                u, shrink = np.moveaxis(projected, 0, units), shrink * ratio
            elif cosine(p, g) < delta / np.sqrt(p.size):
                u, shrink = without(u, p), shrink * ratio
        return u + shrink * p

    return direction


def orthograd(inner):
    """Prieto et al. 2025, in the form of the authors' code."""

    def direction(p, g, s, t):
        if p.size == 1:
            return inner(p, g, s, t)
        r = g - np.sum(p * g) / (np.sum(p * p) + 1e-30) * p
        return inner(p, r * norm(g) / (norm(r) + 1e-30), s, t)

    return direction


def wandering(params, t):
    """Random gradients, many of which are nearly orthogonal to the parameters."""
    rng = np.random.default_rng(t)
    return {n: rng.normal(size=params[n].shape) + 0.1 * params[n] for n in sorted(params)}


CASES = [
    case(lambda: gt.adamod(0.3, b3=0.9), adamod(0.3, b3=0.9)),
    case(
        lambda: gt.adamod(falling, 0.8, 0.9, 0.7, 1e-2, weight_decay=0.1, mask=matrices),
        adamod(falling, 0.8, 0.9, 0.7, 1e-2, 0.1, (2,)),
        "adamod, falling rate, all options",
    ),
    case(lambda: gt.adamod(rising, b3=0.95), adamod(rising, b3=0.95), "adamod, rising rate"),
    case(lambda: gt.diffgrad(0.03), steps(diffgrad(), 0.03)),
    case(
        lambda: gt.diffgrad(falling, 0.8, 0.9, 1e-2, weight_decay=0.1, mask=matrices),
        steps(diffgrad(0.8, 0.9, 1e-2), falling, 0.1, (2,)),
        "diffgrad, all options",
    ),
    case(lambda: gt.adabound(0.01), steps(adabound(), 0.01)),
    # The upper bound and the lower bound are in effect.
    case(lambda: gt.adabound(0.03, final_ratio=2.0, gamma=0.5), steps(adabound(ratio=2.0, gamma=0.5), 0.03)),
    case(lambda: gt.adabound(3e-3, final_ratio=50.0, gamma=0.1), steps(adabound(ratio=50.0, gamma=0.1), 3e-3)),
    case(
        lambda: gt.adabound(falling, 0.8, 0.9, 1e-2, 3.0, 0.1, True, weight_decay=0.1, mask=matrices),
        steps(adabound(0.8, 0.9, 1e-2, 3.0, 0.1, True), falling, 0.1, (2,)),
        "amsbound, all options",
    ),
    case(
        lambda: gt.adabound(0.01, final_ratio=10.0, gamma=0.1, bias_correction=False),
        steps(adabound(ratio=10.0, gamma=0.1, corrected=False), 0.01),
    ),
    case(
        lambda: gt.adamp(0.01, weight_decay=0.1, delta=1.0),
        steps(adamp(decay=0.1, delta=1.0), 0.01),
        gradient=wandering,
    ),
    case(
        lambda: gt.adamp(
            falling, 0.8, 0.9, 1e-2, None, 0.1, matrices, delta=1.5, wd_ratio=0.5, nesterov=True, units="first"
        ),
        steps(adamp(0.8, 0.9, 1e-2, 0.1, 1.5, 0.5, 0, True, (2,)), falling),
        "adamp, all options",
        gradient=wandering,
    ),
    case(lambda: gt.orthograd(gt.adamw(0.01, weight_decay=0.1)), steps(orthograd(adam()), 0.01, 0.1)),
]
