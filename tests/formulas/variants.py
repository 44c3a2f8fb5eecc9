# SPDX-License-Identifier: Apache-2.0
"""Formulas of Adam's and momentum's variants: other orders, masks, mixtures and filters of the same averages."""

import numpy as np

import gradtx as gt
from formulas.first_rules import as_float, matrices
from support.formulas import case


def at(h, t):
    """The value of a schedule, which counts from 0, or the number."""
    return h(t - 1) if callable(h) else h


def average(s, name, x, b):
    s[name] = b * s.get(name, 0.0) + (1 - b) * x
    return s[name]


def root_mean_square(x):
    return np.sqrt(np.mean(x**2))


def norm(x):
    return np.sqrt(np.sum(x**2))


# Directions u(p, g, s, t), and the steps made of them.


def adam(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    def direction(p, g, s, t):
        m, v = average(s, "m", g, b1) / (1 - b1**t), average(s, "v", g**2, b2) / (1 - b2**t)
        return m / (np.sqrt(v + eps_root) + eps)

    return direction


def plain(p, g, s, t):
    return g


def momentum(b):
    def direction(p, g, s, t):
        s["v"] = b * s.get("v", 0.0) + g
        return s["v"]

    return direction


def adopt(b1=0.9, b2=0.9999, eps=1e-6, limit=lambda t: t**0.25, nesterov=False):
    """Taniguchi et al.: v_0 = g_0², m_0 = 0, no step; then t = 1, 2, ... with the next gradients."""

    def direction(p, g, s, t):
        if t == 1:
            s["v"], s["m"] = g**2, np.zeros_like(g)
            return np.zeros_like(g)
        c = g / np.maximum(np.sqrt(s["v"]), eps)
        if limit is not None:
            c = np.clip(c, -limit(t - 1), limit(t - 1))
        s["m"] = b1 * s["m"] + (1 - b1) * c
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        return b1 * s["m"] + (1 - b1) * c if nesterov else s["m"]

    return direction


def ademamix(b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, eps=1e-8, eps_root=0.0):
    def direction(p, g, s, t):
        m1, m2 = average(s, "m1", g, b1), average(s, "m2", g, at(b3, t))
        v = average(s, "v", g**2, b2) / (1 - b2**t)
        return (m1 / (1 - b1**t) + at(alpha, t) * m2) / (np.sqrt(v + eps_root) + eps)

    return direction


def alpha_of(t, alpha, horizon):
    """The paper's f_alpha; t counts from 1."""
    return min(t * alpha / horizon, alpha)


def b3_of(t, b3, start, horizon):
    """The paper's f_beta3: the half-life ln(1/2) / ln(b) goes linearly from that of the start to that of b3."""
    half_lives = np.log(0.5) / np.log(start), np.log(0.5) / np.log(b3)
    x = min(t / horizon, 1.0)
    return 0.5 ** (1 / ((1 - x) * half_lives[0] + x * half_lives[1]))


def simplified_ademamix(b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0):
    def direction(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + g
        v = average(s, "v", g**2, b2) / (1 - b2**t)
        return (s["m"] + at(alpha, t) * g) / (np.sqrt(v + eps_root) + eps)

    return direction


def laprop(b1=0.9, b2=0.999, eps=1e-15):
    def direction(p, g, s, t):
        v = average(s, "v", g**2, b2) / (1 - b2**t)
        return average(s, "m", g / (np.sqrt(v) + eps), b1) / (1 - b1**t)

    return direction


def stable_adam(b1=0.9, b2=0.99, eps=1e-6, decay=0.0, threshold=1.0, only=None):
    """With the paper's decays that hold the correction: b (1 - b^(t-1)) / (1 - b^t)."""

    def direction(p, g, s, t):
        of_m, of_v = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
        m, v = average(s, "m", g, of_m), average(s, "v", g**2, of_v)
        size = np.sqrt(np.mean(g**2 / np.maximum(v, eps**2)))
        decays = only is None or p.ndim in only
        return (m / (np.sqrt(v) + eps) + (decay * p if decays else 0.0)) / max(1.0, size / threshold)

    return direction


def qhm(b=0.999, mix=0.7):
    return lambda p, g, s, t: (1 - mix) * g + mix * average(s, "v", g, b)


def qhadam(b1=0.995, b2=0.999, mix1=0.7, mix2=1.0, eps=1e-8):
    def direction(p, g, s, t):
        m, v = average(s, "m", g, b1) / (1 - b1**t), average(s, "v", g**2, b2) / (1 - b2**t)
        return ((1 - mix1) * g + mix1 * m) / (np.sqrt((1 - mix2) * g**2 + mix2 * v) + eps)

    return direction


def aggmo(rates):
    def direction(p, g, s, t):
        s["v"] = [b * v + g for b, v in zip(rates, s.get("v", [0.0] * len(rates)), strict=True)]
        return sum(s["v"]) / len(rates)

    return direction


def corrected_by_mars(inner, gamma=0.025, b1=0.95, limit=1.0):
    """x_0 = x_1 in the paper, so the first correction is 0."""

    def direction(p, g, s, t):
        c = g + gamma * b1 / (1 - b1) * (g - s.get("before", g))
        s["before"] = g
        if limit is not None and norm(c) > limit:
            c = limit * c / norm(c)
        return inner(p, c, s, t)

    return direction


def filtered(inner, b=0.98, strength=2.0):
    """The average starts at the first gradient."""

    def direction(p, g, s, t):
        s["h"] = b * s.get("h", g) + (1 - b) * g
        return inner(p, g + strength * s["h"], s, t)

    return direction


def cautious(inner, rescale):
    def direction(p, g, s, t):
        u = inner(p, g, s, t)
        keep = (u * g > 0).astype(float)
        return u * keep * rescale(keep)

    return direction


def signed(inner):
    return lambda p, g, s, t: np.abs(inner(p, g, s, t)) * np.sign(g)


def clipped(inner, limit):
    """Clipping by the root mean square of the update itself."""

    def direction(p, g, s, t):
        u = inner(p, g, s, t)
        return u / max(1.0, root_mean_square(u) / limit)

    return direction


def steps(direction, rate, decay=0.0, only=None):
    """p - rate (u + decay p)."""

    def step(p, g, s, t):
        decays = only is None or p.ndim in only
        return p - at(rate, t) * (direction(p, g, s, t) + (decay * p if decays else 0.0))

    return step


def on_sphere(direction, rate, radius=None):
    def step(p, g, s, t):
        r = s.setdefault("r", norm(p) if radius is None else radius)
        u = direction(p, g, s, t)
        v = p - at(rate, t) * norm(p) * u / norm(u)
        return r * v / norm(v)

    return step


def relative(direction, rate):
    def step(p, g, s, t):
        u = direction(p, g, s, t)
        return p - at(rate, t) * norm(p) * u / norm(u)

    return step


def on_circle(limit):
    """Descent whose result is put on a sphere of the given radius, without anything else."""

    def step(p, g, s, t):
        v = p - 0.1 * g
        return limit * v / norm(v)

    return step


# Weight decay: how much of (p - where it decays to) is subtracted next to the step of a recipe.


def decayed(direction, rate, strength, *, cautious=False, to_start=False, only=None):
    def step(p, g, s, t):
        u = direction(p, g, s, t)
        away = p - s.setdefault("start", p) if to_start else p
        if only is not None and p.ndim not in only:
            away = 0.0
        if cautious:
            away = away * (u * away >= 0)
        return p - at(rate, t) * u - strength(t) * away

    return step


def coupled(direction, rate, decay, *, to_start=False):
    def step(p, g, s, t):
        away = p - s.setdefault("start", p) if to_start else p
        return p - at(rate, t) * direction(p, g + decay * away, s, t)

    return step


def warmed(count):
    """Up to 0.1 at count 4, and down from there."""
    x = (as_float(count) + 1) / 5
    return 0.2 * x / (1 + x * x)


def falling(count):
    return 0.2 / (1 + as_float(count) / 10)


MATRICES = {"cube": False, "kernel": False, "matrix": True, "scalar": False, "vector": False}
COUNT = lambda keep: keep.size / (np.sum(keep) + 1)  # noqa: E731  # one line each
MEAN = lambda keep: 1 / max(np.mean(keep), 1e-3)  # noqa: E731
DECAY = gt.decay_weights

# eps of 1e-3 in many: near the minimum a division by nearly 0 magnifies rounding from step to step, in both.
RULES = [
    case(lambda: gt.adopt(0.03, eps=1e-3), steps(adopt(eps=1e-3), 0.03)),
    case(lambda: gt.adopt(0.03, 0.8, 0.9, 1e-2), steps(adopt(0.8, 0.9, 1e-2), 0.03)),
    case(
        lambda: gt.adopt(0.03, b2=0.9, eps=1e-3, nesterov=True, use_clipping=False),
        steps(adopt(b2=0.9, eps=1e-3, limit=None, nesterov=True), 0.03),
    ),
    case(
        lambda: gt.adopt(0.03, b2=0.9, eps=1e-3, clip_value_fn=lambda t: 0.3 + 0.1 * t),
        steps(adopt(b2=0.9, eps=1e-3, limit=lambda t: 0.3 + 0.1 * t), 0.03),
        "adopt, own limit",
    ),
    case(lambda: gt.ademamix(0.01), steps(ademamix(), 0.01)),
    case(
        lambda: gt.ademamix(0.01, 0.8, 0.95, 0.99, 3.0, 1e-3, 1e-4, weight_decay=0.1, mask=matrices),
        steps(ademamix(0.8, 0.95, 0.99, 3.0, 1e-3, 1e-4), 0.01, 0.1, (2,)),
        "ademamix, all options",
    ),
    case(
        lambda: gt.ademamix(
            0.01,
            b3=gt.schedules.ademamix_b3_schedule(0.999, 50, 0.8),
            alpha=gt.schedules.ademamix_alpha_schedule(4.0, 30),
        ),
        steps(
            ademamix(b3=lambda c: b3_of(c + 1, 0.999, 0.8, 50), alpha=lambda c: alpha_of(c + 1, 4.0, 30)),
            0.01,
        ),
        "ademamix, warmed up",
    ),
    case(
        lambda: gt.chain(gt.scale_by_ademamix(eps=1e-3), gt.scale_by_lr(0.01)),
        steps(ademamix(alpha=6.0, eps=1e-3), 0.01),
    ),
    case(lambda: gt.simplified_ademamix(1e-3, eps=1e-3), steps(simplified_ademamix(eps=1e-3), 1e-3)),
    case(
        lambda: gt.simplified_ademamix(1e-3, 0.9, 0.99, falling, 1e-3, 1e-4, weight_decay=0.1, mask=MATRICES),
        steps(simplified_ademamix(0.9, 0.99, falling, 1e-3, 1e-4), 1e-3, 0.1, (2,)),
        "simplified_ademamix, all options",
    ),
    case(lambda: gt.laprop(0.01), steps(laprop(), 0.01)),
    case(
        lambda: gt.laprop(0.01, 0.8, 0.9, 1e-2, weight_decay=0.1, mask=matrices),
        steps(laprop(0.8, 0.9, 1e-2), 0.01, 0.1, (2,)),
        "laprop, all options",
    ),
    case(lambda: gt.stable_adamw(0.01, eps=1e-3), steps(stable_adam(eps=1e-3, decay=0.01), 0.01)),
    case(
        lambda: gt.stable_adamw(0.03, 0.8, 0.9, 1e-2, weight_decay=0.1, mask=matrices, threshold=0.7),
        steps(stable_adam(0.8, 0.9, 1e-2, 0.1, 0.7, (2,)), 0.03),
        "stable_adamw, all options",
    ),
    case(
        lambda: gt.stable_adamw(0.03, eps=1e-3, weight_decay=0.1, mask=MATRICES),
        steps(stable_adam(eps=1e-3, decay=0.1, only=(2,)), 0.03),
        "stable_adamw, mask as a tree",
    ),
    case(
        lambda: gt.chain(gt.scale_by_adam(eps=1e-3), gt.clip_by_block_rms(0.5), gt.scale_by_lr(0.03)),
        steps(clipped(adam(eps=1e-3), 0.5), 0.03),
        "Adam, clipped by the RMS of its update",
    ),
    case(lambda: gt.qhm(0.1), steps(qhm(), 0.1)),
    case(lambda: gt.qhm(0.1, 0.8, 0.3), steps(qhm(0.8, 0.3), 0.1)),
    case(lambda: gt.qhadam(0.01), steps(qhadam(), 0.01)),
    case(
        lambda: gt.qhadam(0.01, 0.8, 0.9, 0.6, 0.3, 1e-3, weight_decay=0.1, mask=matrices),
        steps(qhadam(0.8, 0.9, 0.6, 0.3, 1e-3), 0.01, 0.1, (2,)),
        "qhadam, all options",
    ),
    case(lambda: gt.aggmo(0.01), steps(aggmo((0.0, 0.9, 0.99)), 0.01)),
    case(lambda: gt.aggmo(0.05, (0.5, 0.8)), steps(aggmo((0.5, 0.8)), 0.05)),
    case(lambda: gt.mars(0.01), steps(corrected_by_mars(adam(0.95, 0.99)), 0.01)),
    case(
        lambda: gt.mars(0.01, 0.9, 0.95, 1e-3, weight_decay=0.1, mask=matrices, gamma=0.3, max_norm=0.2),
        steps(corrected_by_mars(adam(0.9, 0.95, 1e-3), 0.3, 0.9, 0.2), 0.01, 0.1, (2,)),
        "mars, all options",
    ),
    case(
        lambda: gt.chain(gt.mars_correction(0.1, 0.9, None), gt.sgd(0.05, momentum=0.9)),
        steps(corrected_by_mars(momentum(0.9), 0.1, 0.9, None), 0.05),
    ),
    case(lambda: gt.chain(gt.grokfast(), gt.adam(0.01)), steps(filtered(adam()), 0.01)),
    case(lambda: gt.chain(gt.grokfast(0.8, 0.5), gt.sgd(0.1)), steps(filtered(plain, 0.8, 0.5), 0.1)),
    case(
        lambda: gt.chain(gt.cautious(gt.scale_by_adam(eps=1e-3)), gt.scale_by_lr(0.03)),
        steps(cautious(adam(eps=1e-3), COUNT), 0.03),
    ),
    case(
        lambda: gt.chain(gt.cautious(gt.scale_by_adam(eps=1e-3), "mean"), gt.scale_by_lr(0.03)),
        steps(cautious(adam(eps=1e-3), MEAN), 0.03),
    ),
    case(
        lambda: gt.chain(gt.cautious(gt.trace(0.9), "none"), gt.scale_by_lr(0.03)),
        steps(cautious(momentum(0.9), lambda keep: 1.0), 0.03),
    ),
    case(lambda: gt.cautious(gt.sgd(0.03, momentum=0.9), descent=True), steps(cautious(momentum(0.9), COUNT), 0.03)),
    case(lambda: gt.grams(0.01, eps=1e-3), steps(signed(adam(eps=1e-3)), 0.01)),
    case(
        lambda: gt.grams(0.01, 0.8, 0.9, 1e-3, 1e-4, weight_decay=0.1, mask=matrices),
        steps(signed(adam(0.8, 0.9, 1e-3, 1e-4)), 0.01, 0.1, (2,)),
        "grams, all options",
    ),
    case(lambda: gt.with_gradient_signs(gt.sgd(0.01, momentum=0.9), descent=True), steps(signed(momentum(0.9)), 0.01)),
    case(lambda: gt.hyperball(0.1), on_sphere(adam(), 0.1)),
    case(lambda: gt.hyperball(0.1, gt.trace(0.9), 2.0), on_sphere(momentum(0.9), 0.1, 2.0)),
    case(
        lambda: gt.chain(gt.scale_by_adam(), gt.scale_by_trust_ratio(), gt.scale_by_lr(falling)),
        relative(adam(), falling),
        "relative update",
    ),
    case(lambda: gt.chain(gt.sgd(0.1), gt.keep_norm(0.7)), on_circle(0.7)),
]

DECAYS = [
    case(lambda: gt.chain(gt.adam(falling), DECAY(0.01)), decayed(adam(), falling, lambda t: 0.01), "independent"),
    case(
        lambda: gt.chain(gt.sgd(0.1, momentum=0.9), DECAY(falling, mask=matrices)),
        decayed(momentum(0.9), 0.1, lambda t: falling(t - 1), only=(2,)),
        "independent, scheduled, masked",
    ),
    case(
        lambda: gt.chain(gt.adam(warmed), DECAY(0.1, "decoupled", learning_rate=warmed)),
        decayed(adam(), warmed, lambda t: 0.1 * warmed(t - 1)),
        "decoupled",
    ),
    case(
        lambda: gt.chain(gt.adam(warmed), DECAY(0.1, "corrected", learning_rate=warmed, max_learning_rate=0.1)),
        decayed(adam(), warmed, lambda t: 0.1 * warmed(t - 1) ** 2 / 0.1),
        "corrected",
    ),
    case(
        lambda: gt.chain(gt.adam(0.1), DECAY(0.3, "corrected", learning_rate=0.1)),
        decayed(adam(), 0.1, lambda t: 0.3 * 0.1),
        "corrected, constant",
    ),
    case(
        lambda: gt.chain(gt.adam(0.03), DECAY(0.01, cautious=True)),
        decayed(adam(), 0.03, lambda t: 0.01, cautious=True),
        "independent, cautious",
    ),
    case(
        lambda: gt.chain(
            gt.sgd(warmed, momentum=0.9), DECAY(0.1, "decoupled", matrices, learning_rate=warmed, cautious=True)
        ),
        decayed(momentum(0.9), warmed, lambda t: 0.1 * warmed(t - 1), cautious=True, only=(2,)),
        "decoupled, cautious, masked",
    ),
    case(
        lambda: gt.chain(gt.adam(0.03), DECAY(falling, towards_initial=True)),
        decayed(adam(), 0.03, lambda t: falling(t - 1), to_start=True),
        "towards the start",
    ),
    case(
        lambda: gt.chain(gt.adam(0.03), DECAY(0.1, mask=matrices, towards_initial=True, cautious=True)),
        decayed(adam(), 0.03, lambda t: 0.1, to_start=True, cautious=True, only=(2,)),
        "towards the start, cautious, masked",
    ),
    case(
        lambda: gt.chain(DECAY(0.1, "coupled"), gt.rmsprop(0.01, bias_correction=True)),
        coupled(lambda p, g, s, t: g / np.sqrt(average(s, "v", g**2, 0.9) / (1 - 0.9**t) + 1e-8), 0.01, 0.1),
        "coupled",
    ),
    case(
        lambda: gt.chain(DECAY(0.1, "coupled", towards_initial=True), gt.sgd(0.1, momentum=0.9)),
        coupled(momentum(0.9), 0.1, 0.1, to_start=True),
        "coupled, towards the start",
    ),
]

CASES = RULES + DECAYS
