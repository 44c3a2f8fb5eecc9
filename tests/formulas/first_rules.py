# SPDX-License-Identifier: Apache-2.0
"""Formulas of the textbook rules: descent, momentum in its forms, AdaGrad, RMSProp, Adam, clipping, decay."""

import jax
import numpy as np

import gradtx as gt
from support.formulas import case, whole_tree


def descent(rate):
    return lambda p, g, s, t: p - rate(t) * g if callable(rate) else p - rate * g


def heavy_ball(rate, r, *, dampening=0.0, dampen_first=True, nesterov=False):
    """v = r v + (1 - dampening) g; p = p - rate v. TensorFlow's and PyTorch's form."""

    def step(p, g, s, t):
        weight = 1.0 if t == 1 and not dampen_first else 1 - dampening
        s["v"] = r * s.get("v", 0.0) + weight * g
        return p - rate * (r * s["v"] + weight * g if nesterov else s["v"])

    return step


def velocity(rate, r):
    """v = r v + rate g; p = p - v: the learning rate is inside, so it may differ from step to step."""

    def step(p, g, s, t):
        s["v"] = r * s.get("v", 0.0) + rate(t) * g
        return p - s["v"]

    return step


def averaged(rate, b, *, corrected=False, nesterov=False):
    """v = b v + (1 - b) g, corrected by the total weight of the average."""

    def step(p, g, s, t):
        s["v"] = b * s.get("v", 0.0) + (1 - b) * g
        if nesterov:
            return p - rate * (b * s["v"] / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t))
        return p - rate * (s["v"] / (1 - b**t) if corrected else s["v"])

    return step


def adagrad(rate, initial, eps, inside):
    def step(p, g, s, t):
        s["s"] = s.get("s", initial) + g**2
        return p - rate * g / (np.sqrt(s["s"] + eps) if inside else np.sqrt(s["s"]) + eps)

    return step


def rmsprop(
    rate, b=0.9, eps=1e-8, initial=0.0, *, inside=True, centered=False, momentum=0.0, nesterov=False, fix=False
):
    def step(p, g, s, t):
        s["s"] = b * s.get("s", initial) + (1 - b) * g**2
        s["m"] = b * s.get("m", 0.0) + (1 - b) * g
        weight = 1 - b**t if fix else 1.0
        variance = s["s"] / weight - ((s["m"] / weight) ** 2 if centered else 0.0)
        d = rate * g / (np.sqrt(variance + eps) if inside else np.sqrt(variance) + eps)
        s["v"] = momentum * s.get("v", 0.0) + d
        return p - (momentum * s["v"] + d if nesterov else s["v"])

    return step


def adam(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, decay=0.0, *, nesterov=False, only=None):
    """The rate, b1 and b2 may be functions of the step from 0."""

    def step(p, g, s, t):
        at = lambda h: h(t - 1) if callable(h) else h  # noqa: E731  # three letters read better here
        s["m"] = at(b1) * s.get("m", 0.0) + (1 - at(b1)) * g
        s["v"] = at(b2) * s.get("v", 0.0) + (1 - at(b2)) * g**2
        m = s["m"] / (1 - at(b1) ** t)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        u = m / (np.sqrt(s["v"] / (1 - at(b2) ** t) + eps_root) + eps)
        decays = only is None or p.ndim in only
        return p - at(rate) * (u + (at(decay) * p if decays else 0.0))

    return step


def clip_value(rate, limit):
    return lambda p, g, s, t: p - rate * np.clip(g, -limit, limit)


def clip_each(rate, limit, size):
    return lambda p, g, s, t: p - rate * g * min(1.0, limit / size(g))


def clip_together(rate, limit):
    @whole_tree
    def step(ps, gs, s, t):
        norm = np.sqrt(sum(np.sum(g**2) for g in gs.values()))
        return {n: p - rate * gs[n] * min(1.0, limit / norm) for n, p in ps.items()}

    return step


def halving(t):
    return 0.1 / (1 + as_float(t) / 10)


def warming(t):
    return 0.5 + 0.4 * (1 - 1 / (1 + as_float(t) / 10))


def as_float(t):
    """int32 counts divide to float32 in JAX, also when 64 bits are enabled."""
    return t.astype(float) if isinstance(t, jax.Array) else t


def matrices(params):
    return {n: p.ndim == 2 for n, p in params.items()}


CASES = [
    case(lambda: gt.sgd(0.1), descent(0.1)),
    case(lambda: gt.sgd(halving), descent(lambda t: halving(t - 1))),
    case(lambda: gt.chain(gt.scale(-0.1)), descent(0.1)),
    case(lambda: gt.scale_by_schedule(lambda c: -halving(c)), descent(lambda t: halving(t - 1)), "by_schedule"),
    case(lambda: gt.sgd(0.1, momentum=0.8), heavy_ball(0.1, 0.8)),
    case(lambda: gt.sgd(0.1, momentum=0.8, nesterov=True), heavy_ball(0.1, 0.8, nesterov=True)),
    case(lambda: gt.chain(gt.scale_by_momentum(0.8), gt.scale_by_lr(0.1)), heavy_ball(0.1, 0.8)),
    case(
        lambda: gt.chain(gt.scale_by_momentum(0.8, 0.3, dampen_first=False), gt.scale_by_lr(0.1)),
        heavy_ball(0.1, 0.8, dampening=0.3, dampen_first=False),
    ),
    case(lambda: gt.chain(gt.scale_by_momentum(0.8, 0.3), gt.scale_by_lr(0.1)), heavy_ball(0.1, 0.8, dampening=0.3)),
    case(
        lambda: gt.chain(gt.scale_by_momentum(0.8, nesterov=True), gt.scale_by_lr(0.1)),
        heavy_ball(0.1, 0.8, nesterov=True),
    ),
    case(
        lambda: gt.chain(gt.scale_by_lr(halving), gt.scale_by_momentum(0.8)),
        velocity(lambda t: halving(t - 1), 0.8),
        "velocity form, by scale_by_momentum",
    ),
    case(
        lambda: gt.chain(gt.scale_by_lr(halving), gt.trace(0.8)),
        velocity(lambda t: halving(t - 1), 0.8),
        "velocity form, by trace",
    ),
    case(lambda: gt.chain(gt.scale_by_momentum(0.8, averaged=True), gt.scale_by_lr(0.1)), averaged(0.1, 0.8)),
    case(
        lambda: gt.chain(gt.scale_by_momentum(0.8, averaged=True, bias_correction=True), gt.scale_by_lr(0.1)),
        averaged(0.1, 0.8, corrected=True),
    ),
    case(
        lambda: gt.chain(
            gt.scale_by_momentum(0.8, averaged=True), gt.scale_by_bias_correction(0.8), gt.scale_by_lr(0.1)
        ),
        averaged(0.1, 0.8, corrected=True),
    ),
    case(
        lambda: gt.chain(
            gt.scale_by_momentum(0.8, averaged=True, nesterov=True, bias_correction=True), gt.scale_by_lr(0.1)
        ),
        averaged(0.1, 0.8, nesterov=True),
    ),
    case(lambda: gt.adagrad(0.3), adagrad(0.3, 0.1, 1e-7, True)),
    case(lambda: gt.adagrad(0.3, 0.0, 1e-3, eps_in_sqrt=False), adagrad(0.3, 0.0, 1e-3, False)),
    case(lambda: gt.rmsprop(0.01), rmsprop(0.01)),
    case(lambda: gt.rmsprop(0.01, 0.8, 1e-3, 0.5, False), rmsprop(0.01, 0.8, 1e-3, 0.5, inside=False)),
    case(lambda: gt.rmsprop(0.01, eps=1e-3, centered=True), rmsprop(0.01, eps=1e-3, centered=True)),
    # A larger eps: near the minimum g / sqrt(nu) magnifies rounding from step to step, in the formula as in the rule.
    case(lambda: gt.rmsprop(0.01, eps=1e-3, momentum=0.7), rmsprop(0.01, eps=1e-3, momentum=0.7)),
    case(
        lambda: gt.rmsprop(0.01, eps=1e-3, momentum=0.7, nesterov=True),
        rmsprop(0.01, eps=1e-3, momentum=0.7, nesterov=True),
    ),
    case(lambda: gt.rmsprop(0.01, bias_correction=True), rmsprop(0.01, fix=True)),
    case(
        lambda: gt.rmsprop(0.01, eps=1e-3, centered=True, bias_correction=True),
        rmsprop(0.01, eps=1e-3, centered=True, fix=True),
    ),
    case(lambda: gt.adam(0.03), adam(0.03)),
    case(lambda: gt.adam(0.03, 0.8, 0.95, 1e-7), adam(0.03, 0.8, 0.95, 1e-7)),
    case(lambda: gt.adam(0.03, eps=0.0, eps_root=1e-6), adam(0.03, eps=0.0, eps_root=1e-6)),
    case(lambda: gt.adam(0.03, nesterov=True), adam(0.03, nesterov=True)),
    case(lambda: gt.adam(halving, b1=warming, b2=warming), adam(halving, warming, warming), "adam, all scheduled"),
    case(lambda: gt.adamw(0.03, weight_decay=0.1), adam(0.03, decay=0.1)),
    case(
        lambda: gt.adamw(0.03, weight_decay=halving, mask=matrices),
        adam(0.03, decay=halving, only=(2,)),
        "adamw, masked",
    ),
    case(lambda: gt.nadam(0.03, 0.8), adam(0.03, 0.8, nesterov=True)),
    case(lambda: gt.nadamw(0.03, weight_decay=0.1), adam(0.03, decay=0.1, nesterov=True)),
    case(lambda: gt.chain(gt.clip(0.3), gt.scale_by_lr(0.1)), clip_value(0.1, 0.3)),
    case(
        lambda: gt.chain(gt.clip_by_norm(0.3), gt.scale_by_lr(0.1)),
        clip_each(0.1, 0.3, lambda g: np.sqrt(np.sum(g**2))),
    ),
    case(
        lambda: gt.chain(gt.clip_by_block_rms(0.3), gt.scale_by_lr(0.1)),
        clip_each(0.1, 0.3, lambda g: np.sqrt(np.mean(g**2))),
    ),
    case(lambda: gt.chain(gt.clip_by_global_norm(0.5), gt.scale_by_lr(0.1)), clip_together(0.1, 0.5)),
]
