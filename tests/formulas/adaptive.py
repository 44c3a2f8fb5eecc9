# SPDX-License-Identifier: Apache-2.0
"""Formulas of Adam's relatives and of the older adaptive rules, from their papers."""

import math

import jax
import numpy as np

import gradtx as gt
from support.formulas import case


def adabelief(rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, *, nesterov=False, decay=0.0, only=None):
    """Zhuang et al. 2020, algorithm 2: s = b2 s + (1 - b2) (g - m)² + eps."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["s"] = b2 * s.get("s", 0.0) + (1 - b2) * (g - s["m"]) ** 2 + eps_root
        m = s["m"] / (1 - b1**t)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        decays = only is None or p.ndim in only
        return p - rate * (m / (np.sqrt(s["s"] / (1 - b2**t)) + eps) + (decay * p if decays else 0.0))

    return step


def acprop(rate, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, decay=0.0, only=None):
    """Zhuang et al. 2021, algorithm 2: the denominator is the one of the step before; the first step has none."""

    def step(p, g, s, t):
        root = 1.0 if t == 1 else np.sqrt(s["s"] / (1 - b2 ** (t - 1)))
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["s"] = b2 * s.get("s", 0.0) + (1 - b2) * (g - s["m"]) ** 2 + eps_root
        decays = only is None or p.ndim in only
        return p - rate * (g / (root + eps) + (decay * p if decays else 0.0))

    return step


def amsgrad(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, *, of_mu=True, of_nu=True, torch=False):
    """Reddi et al. 2018, algorithm 2, with Adam's corrections of the paper's moments where asked for."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        m = s["m"] / (1 - b1**t if of_mu else 1)
        weight = 1 - b2**t if of_nu else 1
        s["max"] = np.maximum(s.get("max", 0.0), s["v"] if torch else s["v"] / weight)
        return p - rate * m / (np.sqrt((s["max"] / weight if torch else s["max"]) + eps_root) + eps)

    return step


def adamax(rate, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, only=None):
    """Kingma and Ba 2014, algorithm 2, with eps in the maximum."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g) + eps)
        decays = only is None or p.ndim in only
        return p - rate / (1 - b1**t) * s["m"] / s["u"] - (rate * decay * p if decays else 0.0)

    return step


def adan(rate, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8, decay=0.0, *, proximal=False, only=None):
    """Xie et al. 2022, algorithm 1, in the paper's letters, which are one minus the decays."""
    c1, c2, c3 = 1 - b1, 1 - b2, 1 - b3

    def step(p, g, s, t):
        d = g - s["g"] if t > 1 else 0.0 * g
        s["g"] = g
        s["m"] = (1 - c1) * s.get("m", 0.0) + c1 * g
        s["v"] = (1 - c2) * s.get("v", 0.0) + c2 * d
        s["n"] = (1 - c3) * s.get("n", 0.0) + c3 * (g + (1 - c2) * d) ** 2
        m, v, n = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t), s["n"] / (1 - b3**t)
        step_size = rate / (np.sqrt(n + eps_root) + eps)
        shrink = decay * rate if only is None or p.ndim in only else 0.0
        after = p - step_size * (m + (1 - c2) * v)
        return after / (1 + shrink) if proximal else after - shrink * p

    return step


def yogi(rate, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, initial=1e-6, *, corrected=True):
    """Zaheer et al. 2018, algorithm 2; with Adam's corrections, as in TensorFlow, unless `corrected` is False."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        v = s.get("v", initial)
        s["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
        of_m, of_v = (1 - b1**t, 1 - b2**t) if corrected else (1.0, 1.0)
        return p - rate * (s["m"] / of_m) / (np.sqrt(s["v"] / of_v + eps_root) + eps)

    return step


def radam(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, *, nesterov=False):
    """Liu et al. 2019, algorithm 2, with the threshold of the authors' code."""

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        m = s["m"] / (1 - b1**t)
        if nesterov:
            m = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        limit = 2 / (1 - b2) - 1
        length = limit - 2 * t * b2**t / (1 - b2**t)
        if length <= 4 or length < threshold:
            return p - rate * m
        r = math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
        return p - rate * r * m / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps)

    return step


def novograd(rate, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, decay=0.0):
    """Ginsburg et al. 2019, algorithm 1: the first step has v = ‖g‖² and m = g / ‖g‖ + decay p."""

    def step(p, g, s, t):
        square = np.sum(g**2)
        s["v"] = square if t == 1 else b2 * s["v"] + (1 - b2) * square
        s["m"] = (
            b1 * s.get("m", 0.0)
            + g / (np.sqrt(s["v"] + eps_root) + eps)
            + (decay(t - 1) if callable(decay) else decay) * p
        )
        return p - rate * s["m"]

    return step


def adadelta(rate=1.0, rho=0.9, eps=1e-6, decay=0.0, only=None):
    """Zeiler 2012, algorithm 1; weight decay as L2 regularization."""

    def step(p, g, s, t):
        g = g + (decay * p if only is None or p.ndim in only else 0.0)
        s["g"] = rho * s.get("g", 0.0) + (1 - rho) * g**2
        x = -np.sqrt(s.get("x", 0.0) + eps) / np.sqrt(s["g"] + eps) * g
        s["x"] = rho * s.get("x", 0.0) + (1 - rho) * x**2
        return p + rate * x

    return step


def rprop(rate, minus=0.5, plus=1.2, low=1e-6, high=50.0):
    """iRprop-, Igel and Hüsken 2000: a gradient that changed its sign is forgotten."""

    def step(p, g, s, t):
        product = g * s.get("g", 0.0 * g)
        size = s.get("size", rate + 0.0 * g)
        size = np.where(product > 0, np.minimum(size * plus, high), size)
        s["size"] = size = np.where(product < 0, np.maximum(size * minus, low), size)
        s["g"] = np.where(product < 0, 0.0, g)
        return p - np.sign(s["g"]) * size

    return step


def sm3(rate, b1=0.9, b2=1.0, eps=1e-8):
    """Anil et al. 2019, algorithm SM3-II, number by number; the cover is all slices of all axes."""

    def step(p, g, s, t):
        cover = s.setdefault("cover", {})
        slices = {i: [(axis, i[axis]) for axis in range(g.ndim)] or [()] for i in np.ndindex(g.shape)}
        sums, new = np.zeros(g.shape), {}
        for i, own in slices.items():
            least = min(cover.get(r, 0.0) for r in own)
            sums[i] = least + g[i] ** 2 if b2 == 1 else b2 * least + (1 - b2) * g[i] ** 2
            for r in own:
                new[r] = max(new.get(r, 0.0), sums[i])
        cover.update(new)
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g / np.sqrt(sums + eps)
        return p - rate * s["m"]

    return step


def nadam(rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, psi=0.004, decay=0.0, only=None):
    """Dozat 2016 with the schedule of its section 3; mu averages with b1, as in PyTorch and Keras."""

    def weight(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * psi))

    def step(p, g, s, t):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
        product = math.prod(weight(i) for i in range(1, t + 1))
        m = weight(t + 1) * s["m"] / (1 - product * weight(t + 1)) + (1 - weight(t)) * g / (1 - product)
        decays = only is None or p.ndim in only
        return p - rate * (m / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps) + (decay * p if decays else 0.0))

    return step


def proximal(rate, decay, only=None):
    """The minimum of (q - (p - rate g))² / 2 + rate decay q² / 2 over q."""

    def step(p, g, s, t):
        shrink = rate(t - 1) * decay if only is None or p.ndim in only else 0.0
        return (p - rate(t - 1) * g) / (1 + shrink)

    return step


def halving(t):
    # int32 counts divide to float32 in JAX, also when 64 bits are enabled.
    return 0.1 / (1 + (t.astype(float) if isinstance(t, jax.Array) else t) / 10)


def matrices(params):
    return {n: p.ndim == 2 for n, p in params.items()}


CASES = [
    # Near the minimum g - mu is tiny, and without a larger eps_root the division by it magnifies rounding.
    case(lambda: gt.adabelief(0.03, eps_root=1e-8), adabelief(0.03, eps_root=1e-8)),
    case(lambda: gt.adabelief(0.03, 0.8, 0.95, 1e-3, 1e-4), adabelief(0.03, 0.8, 0.95, 1e-3, 1e-4)),
    case(lambda: gt.adabelief(0.03, eps_root=1e-8, nesterov=True), adabelief(0.03, eps_root=1e-8, nesterov=True)),
    case(lambda: gt.adabelief(0.03, eps_root=1e-8, weight_decay=0.1), adabelief(0.03, eps_root=1e-8, decay=0.1)),
    case(
        lambda: gt.adabelief(0.03, eps_root=1e-8, weight_decay=0.1, weight_decay_mask=matrices),
        adabelief(0.03, eps_root=1e-8, decay=0.1, only=(2,)),
        "adabelief, masked",
    ),
    case(lambda: gt.acprop(0.01, eps_root=1e-4), acprop(0.01, eps_root=1e-4)),
    case(lambda: gt.acprop(0.01, 0.8, 0.95, 1e-1, 1e-3, 0.1), acprop(0.01, 0.8, 0.95, 1e-1, 1e-3, 0.1)),
    case(
        lambda: gt.acprop(0.01, eps_root=1e-4, weight_decay=0.2, mask=matrices),
        acprop(0.01, eps_root=1e-4, decay=0.2, only=(2,)),
        "acprop, masked",
    ),
    case(lambda: gt.amsgrad(0.03), amsgrad(0.03)),
    case(lambda: gt.amsgrad(0.03, 0.8, 0.95, 1e-3, 1e-4), amsgrad(0.03, 0.8, 0.95, 1e-3, 1e-4)),
    case(
        lambda: gt.amsgrad(0.03, bias_correction_mu=False, bias_correction_nu=False),
        amsgrad(0.03, of_mu=False, of_nu=False),
    ),
    case(lambda: gt.amsgrad(0.03, b2=0.9, bias_correction_mu=False), amsgrad(0.03, b2=0.9, of_mu=False)),
    case(lambda: gt.amsgrad(0.03, b2=0.9, bias_correction_nu=False), amsgrad(0.03, b2=0.9, of_nu=False)),
    case(lambda: gt.amsgrad(0.03, b2=0.9, max_of_corrected=False), amsgrad(0.03, b2=0.9, torch=True)),
    case(lambda: gt.adamax(0.03), adamax(0.03)),
    case(lambda: gt.adamax(0.03, 0.8, 0.9, 1e-2), adamax(0.03, 0.8, 0.9, 1e-2)),
    case(lambda: gt.adamax(0.03, eps=0.0), adamax(0.03, eps=0.0)),
    case(lambda: gt.adamaxw(0.03, 0.8, 0.9, 1e-2, 0.1), adamax(0.03, 0.8, 0.9, 1e-2, 0.1)),
    case(
        lambda: gt.adamaxw(0.03, weight_decay=0.1, mask=matrices), adamax(0.03, decay=0.1, only=(2,)), "adamaxw, masked"
    ),
    case(lambda: gt.adan(0.01), adan(0.01)),
    case(lambda: gt.adan(0.01, 0.8, 0.7, 0.9, 1e-2, 1e-3, 0.1), adan(0.01, 0.8, 0.7, 0.9, 1e-2, 1e-3, 0.1)),
    case(lambda: gt.adan(0.01, weight_decay=0.1, mask=matrices), adan(0.01, decay=0.1, only=(2,)), "adan, masked"),
    case(
        lambda: gt.chain(gt.scale_by_adan(eps_root=1e-8), gt.add_proximal_decay(0.1, 0.5), gt.scale_by_lr(0.1)),
        adan(0.1, decay=0.5, proximal=True),
    ),
    case(
        lambda: gt.chain(
            gt.scale_by_adan(0.9, 0.8, 0.95, 1e-2), gt.add_proximal_decay(0.1, 0.5, matrices), gt.scale_by_lr(0.1)
        ),
        adan(0.1, 0.9, 0.8, 0.95, 1e-2, 0.0, decay=0.5, proximal=True, only=(2,)),
        "adan, proximal, masked",
    ),
    case(
        lambda: gt.chain(gt.add_proximal_decay(halving, 2.0), gt.scale_by_lr(halving)),
        proximal(halving, 2.0),
        "add_proximal_decay, scheduled",
    ),
    case(lambda: gt.yogi(0.03), yogi(0.03)),
    case(lambda: gt.yogi(0.03, 0.8, 0.9, 1e-2), yogi(0.03, 0.8, 0.9, 1e-2)),
    case(lambda: gt.yogi(0.03, bias_correction=False), yogi(0.03, corrected=False)),
    case(
        lambda: gt.chain(gt.scale_by_yogi(0.8, 0.9, 1e-2, 1e-2, 0.3), gt.scale_by_lr(0.03)),
        yogi(0.03, 0.8, 0.9, 1e-2, 1e-2, 0.3),
    ),
    case(lambda: gt.radam(0.03), radam(0.03)),
    case(lambda: gt.radam(0.03, 0.8, 0.95, 1e-2, 1e-3, 8.0), radam(0.03, 0.8, 0.95, 1e-2, 1e-3, 8.0)),
    case(lambda: gt.radam(0.03, threshold=4.0, nesterov=True), radam(0.03, threshold=4.0, nesterov=True)),
    # With b2 = 0.5 the average is never long enough, with 0.9 it soon is as long as it gets.
    case(lambda: gt.radam(0.03, b2=0.5), radam(0.03, b2=0.5)),
    case(lambda: gt.radam(0.03, b2=0.9), radam(0.03, b2=0.9)),
    case(lambda: gt.radam(0.03, b2=0.0), radam(0.03, b2=0.0)),
    case(lambda: gt.radam(0.03, b2=np.array(0.95)), radam(0.03, b2=0.95), "radam, b2 an array"),
    case(lambda: gt.novograd(0.01), novograd(0.01)),
    case(lambda: gt.novograd(0.01, 0.8, 0.9, 1e-1, 1e-2, 0.1), novograd(0.01, 0.8, 0.9, 1e-1, 1e-2, 0.1)),
    case(lambda: gt.novograd(0.01, weight_decay=halving), novograd(0.01, decay=halving), "novograd, scheduled decay"),
    case(lambda: gt.adadelta(), adadelta()),
    case(lambda: gt.adadelta(0.5, 0.8, 1e-3, 0.1), adadelta(0.5, 0.8, 1e-3, 0.1)),
    case(
        lambda: gt.adadelta(1.0, weight_decay=0.1, weight_decay_mask=matrices),
        adadelta(1.0, decay=0.1, only=(2,)),
        "adadelta, masked",
    ),
    case(lambda: gt.rprop(0.1), rprop(0.1)),
    case(lambda: gt.rprop(0.1, 0.7, 1.5, 1e-2, 0.2), rprop(0.1, 0.7, 1.5, 1e-2, 0.2)),
    case(lambda: gt.sm3(0.3), sm3(0.3)),
    case(lambda: gt.sm3(0.3, 0.5), sm3(0.3, 0.5)),
    case(lambda: gt.chain(gt.scale_by_sm3(0.8, 0.9, 1e-2), gt.scale_by_lr(0.03)), sm3(0.03, 0.8, 0.9, 1e-2)),
    case(lambda: gt.chain(gt.scale_by_nadam(), gt.scale_by_lr(0.03)), nadam(0.03)),
    case(
        lambda: gt.chain(gt.scale_by_nadam(0.8, 0.95, 1e-3, 1e-3, 1.0), gt.scale_by_lr(0.03)),
        nadam(0.03, 0.8, 0.95, 1e-3, 1e-3, 1.0),
    ),
    case(lambda: gt.nadam(0.03, 0.8, 0.95, 1e-3, 1e-3, momentum_decay=0.1), nadam(0.03, 0.8, 0.95, 1e-3, 1e-3, 0.1)),
    case(lambda: gt.nadamw(0.03, 0.8, weight_decay=0.1, momentum_decay=0.1), nadam(0.03, 0.8, psi=0.1, decay=0.1)),
    case(
        lambda: gt.nadamw(0.03, weight_decay=0.1, mask=matrices, momentum_decay=0.004),
        nadam(0.03, decay=0.1, only=(2,)),
        "nadamw, scheduled momentum, masked",
    ),
]
