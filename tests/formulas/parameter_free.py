# SPDX-License-Identifier: Apache-2.0
"""Formulas of the rules that find their learning rate, from their papers and, where said, from the authors' code."""

import math

import numpy as np

import gradtx as gt
from formulas.first_rules import as_float, matrices
from formulas.scaled import turned, valued
from support import problems
from support.formulas import case, whole_tree


def joined(step):
    """A formula `step(p, g, s, t)` on one vector that holds all parameters one after the other."""

    @whole_tree
    def on_tree(ps, gs, s, t):
        p, g = (np.concatenate([np.ravel(tree[n]) for n in ps]) for tree in (ps, gs))
        ends = np.cumsum([x.size for x in ps.values()])
        parts = np.split(step(p, g, s, t), ends[:-1])
        return {n: part.reshape(ps[n].shape) for n, part in zip(ps, parts, strict=True)}

    return on_tree


def value_of(p):
    """The value of the problem for such a vector."""
    return problems.value({"all": p})


def at(hyperparameter, t):
    return hyperparameter(t - 1) if callable(hyperparameter) else hyperparameter


def halving(count):
    return 1 / (1 + as_float(count) / 10)


def dog(start, eps=1e-8, rate=1.0, decay=0.0, first_rate=None):
    """Ivgi et al. 2023, equation (1) and section 3.2; `start` makes r_eps of the first parameters."""

    @joined
    def step(p, g, s, t):
        g = g + decay * p
        s.setdefault("first", p)
        s["distance"] = max(s.get("distance", start(p)), np.linalg.norm(p - s["first"]))
        s["sum"] = s.get("sum", 0.0) + np.sum(g**2)
        eta = s["distance"] / np.sqrt(s["sum"] + eps)
        return p - at(rate, t) * (first_rate if first_rate is not None and t == 1 else eta) * g

    return step


def descending(*args, **kwargs):
    return gt.chain(gt.scale_by_distance_over_gradients(*args, **kwargs), gt.scale(-1.0))


def layerwise_dog(share=1e-6, eps=1e-8, scale=1.0):
    """The same for each parameter by itself (L-DoG), from share (1 + ‖p‖); `scale` multiplies what is added to p."""

    def step(p, g, s, t):
        s.setdefault("first", p)
        moved = np.linalg.norm(np.ravel(p - s["first"]))
        s["distance"] = max(s.get("distance", share * (1 + np.linalg.norm(np.ravel(p)))), moved)
        s["sum"] = s.get("sum", 0.0) + np.sum(g**2)
        return p - scale * s["distance"] / np.sqrt(s["sum"] + eps) * g

    return step


def dowg(start, eps, rate=1.0, decay=0.0):
    """Khaled et al. 2023, algorithm 1, with eps added to the root as in the authors' code."""

    @joined
    def step(p, g, s, t):
        g = g + decay * p
        s.setdefault("first", p)
        s["r2"] = max(s.get("r2", start), np.sum((p - s["first"]) ** 2))
        s["v"] = s.get("v", 0.0) + s["r2"] * np.sum(g**2)
        return p - rate * s["r2"] / (np.sqrt(s["v"]) + eps) * g

    return step


def cocob(alpha=100.0, eps=1e-8, rate=1.0, decay=0.0):
    """Orabona and Tommasi 2017, algorithm 2; g there is the negative gradient."""

    def step(p, g, s, t):
        g = -at(rate, t) * (g + decay * p)
        s.setdefault("first", p)
        s["L"] = np.maximum(s.get("L", eps), np.abs(g))
        s["G"] = s.get("G", 0.0) + np.abs(g)
        s["reward"] = np.maximum(s.get("reward", 0.0) + (p - s["first"]) * g, 0)
        s["theta"] = s.get("theta", 0.0) + g
        fraction = s["theta"] / (s["L"] * np.maximum(s["G"] + s["L"], alpha * s["L"]))
        return s["first"] + fraction * (s["L"] + s["reward"])

    return step


def dadapt_adam(rate=1.0, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, decay=0.0, corrected=True, growth=math.inf):
    """Defazio and Mishchenko 2023, algorithm 5, with the denominators of the authors' code: those before the step."""
    c = math.sqrt(b2)

    @joined
    def step(p, g, s, t):
        d, m, v, total = s.get("d", d0), s.get("m", 0.0), s.get("v", np.zeros_like(g)), s.get("s", np.zeros_like(g))
        weight = d * at(rate, t) * (math.sqrt(1 - b2**t) / (1 - b1**t) if corrected else 1.0)
        inner = np.sum(g * total / (np.sqrt(v) + eps))
        s["m"], s["v"] = b1 * m + (1 - b1) * weight * g, b2 * v + (1 - b2) * g**2
        s["s"] = c * total + (1 - c) * weight * g
        s["r"] = c * s.get("r", 0.0) + (1 - c) * weight * inner
        s["d"] = max(d, min(s["r"] / ((1 - c) * np.sum(np.abs(s["s"]))), growth * d))
        return p - s["m"] / (np.sqrt(s["v"]) + eps) - decay * weight * p

    return step


def dadapt_adan(rate=1.0, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, d0=1e-6, decay=0.0, growth=math.inf):
    """The same estimate around Adan (Xie et al. 2022), with b3 in the place of b2."""
    c = math.sqrt(b3)

    @joined
    def step(p, g, s, t):
        zero = np.zeros_like(g)
        d, n, total, change = s.get("d", d0), s.get("n", zero), s.get("s", zero), g - s.get("g", g)
        weight = d * at(rate, t)
        inner = np.sum(g * total / (np.sqrt(n) + eps))
        s["g"] = g
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * weight * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * weight * change
        s["n"] = b3 * n + (1 - b3) * (g + b2 * change) ** 2
        s["s"] = c * total + (1 - c) * weight * g
        s["r"] = c * s.get("r", 0.0) + (1 - c) * weight * inner
        s["d"] = max(d, min(s["r"] / ((1 - c) * np.sum(np.abs(s["s"]))), growth * d))
        return p - (s["m"] + b2 * s["v"]) / (np.sqrt(s["n"]) + eps) - decay * weight * p

    return step


def dadapt_lion(rate=1.0, b1=0.9, b2=0.99, d0=1e-6, decay=0.0, growth=math.inf):
    """The same estimate around Lion (Chen et al. 2023), whose signs are what is summed; g has no weight in them."""
    c = math.sqrt(b2)

    @joined
    def step(p, g, s, t):
        d, m, total = s.get("d", d0), s.get("m", 0.0), s.get("s", np.zeros_like(g))
        weight = d * at(rate, t)
        x = np.sign(b1 * m + (1 - b1) * g)
        s["m"] = b2 * m + (1 - b2) * weight * g
        s["s"] = c * total + (1 - c) * weight * x
        s["r"] = c * s.get("r", 0.0) + (1 - c) * weight * np.sum(x * total)
        s["d"] = max(d, min(s["r"] / ((1 - c) * np.sum(np.abs(s["s"]))), growth * d))
        return p - weight * (x + decay * p)

    return step


def dadapt_sgd(rate=1.0, momentum=0.9, d0=1e-6, decay=0.0, growth=math.inf):
    """Defazio and Mishchenko 2023, algorithm 4."""

    @joined
    def step(p, g, s, t):
        g = g + decay * p
        if t == 1:
            s.update(z=p, s=np.zeros_like(g), d=d0, sum=0.0, norm=np.linalg.norm(g))
        weight = s["d"] * at(rate, t) / s["norm"]
        s["sum"] += weight * np.sum(g * s["s"])
        s["s"] = s["s"] + weight * g
        s["z"] = s["z"] - weight * g
        s["d"] = max(s["d"], min(2 * s["sum"] / np.linalg.norm(s["s"]), growth * s["d"]))
        return momentum * p + (1 - momentum) * s["z"]

    return step


def prodigy(
    rate=1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    d0=1e-6,
    factor=1.0,
    decay=0.0,
    safe=False,
    corrected=True,
    only=None,
):
    """Mishchenko and Defazio 2023, algorithm 4, with options of the authors' code, and its eps, which has the new d.

    Parameters of another rank than `only` do not decay.
    """
    c = math.sqrt(b2) if b3 is None else b3
    shapes = problems.start().values()
    decays = np.concatenate([np.full(p.size, only is None or p.ndim == only) for p in shapes])

    @joined
    def step(p, g, s, t):
        first = s.setdefault("first", p)
        d = s.get("d", d0)
        weight = d * at(rate, t) * (math.sqrt(1 - b2**t) / (1 - b1**t) if corrected else 1.0)
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * d * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * d**2 * g**2
        s["r"] = c * s.get("r", 0.0) + d / d0 * weight * np.sum(g * (first - p))
        s["s"] = c * s.get("s", 0.0) + d / d0 * (d if safe else weight) * g
        s["d"] = max(d, factor * s["r"] / np.sum(np.abs(s["s"])))
        return p - weight * s["m"] / (np.sqrt(s["v"]) + s["d"] * eps) - weight * decay * decays * p

    return step


def momo(rate, b, low=0.0, decay=0.0, adapt=False, shift=0.0, b2=None, eps=1e-8):
    """Schaipp et al. 2023, algorithm 1, with b2 algorithm 2; lemma 3.1 for the decay, section 4 for the lower bound."""

    @joined
    def step(p, g, s, t):
        f, slope, alpha = value_of(p) - shift, np.sum(g * p), at(rate, t)
        if t == 1:
            s.update(d=g, f=f, gamma=slope) if b2 is None else s.update(d=0.0, f=0.0, gamma=0.0, v=0.0)
            s["low"] = low
        s["d"] = b * s["d"] + (1 - b) * g
        s["f"] = b * s["f"] + (1 - b) * f
        s["gamma"] = b * s["gamma"] + (1 - b) * slope
        diagonal, rho, k = 1.0, 1.0, 1 + alpha * decay
        if b2 is not None:
            s["v"] = b2 * s["v"] + (1 - b2) * g**2
            diagonal, rho = eps + np.sqrt(s["v"] / (1 - b2**t)), 1 - b**t
        along, square = np.sum(s["d"] * p), np.sum(s["d"] ** 2 / diagonal)
        cap = k * (s["f"] - s["gamma"]) + along
        if adapt and cap < k * rho * s["low"]:
            s["low"] = max(cap / (2 * k * rho), low)
        tau = min(alpha / rho, max(k * (s["f"] - rho * s["low"] - s["gamma"]) + along, 0) / square)
        if adapt:
            s["low"] = max((s["f"] + along - s["gamma"] - tau * square / 2) / rho, low)
        return (p - tau * s["d"] / diagonal) / k

    return step


def sai(rate, momentum=0.9, eps=1e-8, decay=0.0):
    """Xu et al. 2024 and their code: ‖g‖ / std(g) of the first gradient; 1 for a scalar, which has no deviation."""

    def step(p, g, s, t):
        if "snr" not in s:
            s["snr"] = 1.0 if g.size == 1 else np.linalg.norm(g.ravel()) / (np.std(g, ddof=1) + eps)
        s["m"] = momentum * s.get("m", g) + (1 - momentum) * g
        return p - rate * (s["snr"] * s["m"] + decay * p)

    return step


def heuristic(p):
    return 0.02 * (1 + np.linalg.norm(p))


CASES = [
    case(lambda: gt.dog(), dog(lambda p: 1e-6 * (1 + np.linalg.norm(p)))),
    case(lambda: gt.dog(halving, ("heuristic", 0.02), 0.5, 0.1), dog(heuristic, 0.5, halving, 0.1), "dog, scheduled"),
    case(lambda: gt.dog(0.8, ("distance", 0.3)), dog(lambda p: 0.3, rate=0.8)),
    case(lambda: gt.dog(0.5, ("learning_rate", 0.2)), dog(lambda p: 0.0, rate=0.5, first_rate=0.2)),
    case(lambda: turned(gt.dog(init_step=("heuristic", 0.02))), dog(heuristic)),
    case(lambda: descending(param_dtype=None), layerwise_dog()),
    case(lambda: descending(0.02, 0.5, "float64", 0.7), layerwise_dog(0.02, 0.5, 0.7)),
    case(lambda: turned(descending(0.02, param_dtype=None)), layerwise_dog(0.02)),
    case(lambda: gt.dowg(), dowg(1e-4, 1e-4)),
    case(lambda: gt.dowg(0.7, 0.3, 0.5, 0.1), dowg(0.3, 0.5, 0.7, 0.1)),
    case(lambda: turned(gt.dowg(0.7, 0.3)), dowg(0.3, 1e-4, 0.7)),
    # With alpha=3 the maximum is alpha L for two steps and G + L after them.
    case(lambda: gt.cocob(alpha=3.0), cocob(3.0)),
    case(lambda: gt.cocob(halving, 3.0, 0.5, 0.1), cocob(3.0, 0.5, halving, 0.1), "cocob, scheduled"),
    case(lambda: turned(gt.cocob(alpha=3.0, eps=0.5)), cocob(3.0, 0.5)),
    # Near the minimum Adam's denominators magnify rounding: hence the larger eps, here and below.
    case(lambda: gt.dadapt_adamw(eps=0.01), dadapt_adam(eps=0.01)),
    case(
        lambda: gt.dadapt_adamw(halving, (0.8, 0.9), 0.1, 0.01, 0.1),
        dadapt_adam(halving, 0.8, 0.9, 0.1, 0.01, 0.1),
        "dadapt_adamw, scheduled",
    ),
    case(
        lambda: gt.dadapt_adamw(0.5, eps=0.01, estim_lr0=0.01, bias_correction=False, growth_rate=1.1),
        dadapt_adam(0.5, eps=0.01, d0=0.01, corrected=False, growth=1.1),
    ),
    case(lambda: turned(gt.dadapt_adamw(eps=0.1, estim_lr0=0.01)), dadapt_adam(eps=0.1, d0=0.01)),
    case(
        lambda: gt.dadapt_adan(halving, 0.8, 0.7, 0.9, 0.1, 0.01, 0.1),
        dadapt_adan(halving, 0.8, 0.7, 0.9, 0.1, 0.01, 0.1),
        "dadapt_adan, scheduled",
    ),
    case(lambda: gt.dadapt_adan(eps=0.1, estim_lr0=0.01, growth_rate=1.1), dadapt_adan(eps=0.1, d0=0.01, growth=1.1)),
    case(
        lambda: gt.dadapt_lion(halving, 0.8, 0.9, 0.01, 0.1),
        dadapt_lion(halving, 0.8, 0.9, 0.01, 0.1),
        "dadapt_lion, scheduled",
    ),
    case(lambda: gt.dadapt_lion(0.5, estim_lr0=0.001, growth_rate=1.1), dadapt_lion(0.5, d0=0.001, growth=1.1)),
    case(lambda: gt.dadapt_sgd(halving, 0.8, 0.01, 0.1), dadapt_sgd(halving, 0.8, 0.01, 0.1), "dadapt_sgd, scheduled"),
    case(lambda: gt.dadapt_sgd(0.5, 0.0, 0.01, growth_rate=1.1), dadapt_sgd(0.5, 0.0, 0.01, growth=1.1)),
    case(lambda: turned(gt.dadapt_sgd(estim_lr0=0.01)), dadapt_sgd(d0=0.01)),
    case(lambda: gt.prodigy(eps=0.01), prodigy(eps=0.01)),
    case(
        lambda: gt.prodigy(halving, (0.8, 0.9), 0.7, 0.1, 0.01, 1.5, 0.1, True),
        prodigy(halving, 0.8, 0.9, 0.7, 0.1, 0.01, 1.5, 0.1, True),
        "prodigy, scheduled",
    ),
    case(
        lambda: gt.prodigy(0.5, eps=0.1, estim_lr0=0.01, bias_correction=False),
        prodigy(0.5, eps=0.1, d0=0.01, corrected=False),
    ),
    case(lambda: turned(gt.prodigy(eps=0.1, estim_lr0=0.01)), prodigy(eps=0.1, d0=0.01)),
    case(
        lambda: gt.prodigy(halving, eps=0.1, estim_lr0=0.01, weight_decay=0.1, weight_decay_mask=matrices),
        prodigy(halving, eps=0.1, d0=0.01, decay=0.1, only=2),
        "prodigy, masked",
    ),
    case(
        lambda: gt.prodigy(
            0.5, eps=0.1, estim_lr0=0.01, weight_decay=0.1, weight_decay_mask=matrices, bias_correction=False
        ),
        prodigy(0.5, eps=0.1, d0=0.01, decay=0.1, corrected=False, only=2),
        "prodigy, masked, uncorrected",
    ),
    # The smaller rates are the limit, the larger ones leave it to Polyak's step. Values are shifted so that the bound
    # matters: below it the steps are 0.
    case(lambda: valued(gt.momo(0.1), 0.0), momo(0.1, 0.9)),
    case(lambda: valued(gt.momo(3.0, 0.7, -2.0, 0.2), 12.0), momo(3.0, 0.7, -2.0, 0.2, shift=12.0)),
    case(lambda: valued(gt.momo(halving, 0.7, 1.0, 0.2), 0.0), momo(halving, 0.7, 1.0, 0.2), "momo, scheduled"),
    case(lambda: valued(gt.momo_adam(0.02), 0.0), momo(0.02, 0.9, b2=0.999)),
    case(
        lambda: valued(gt.momo_adam(1.5, 0.8, 0.9, 0.1, -2.0, 0.2), 12.0),
        momo(1.5, 0.8, -2.0, 0.2, shift=12.0, b2=0.9, eps=0.1),
    ),
    case(lambda: valued(turned(gt.momo_adam(0.3, 0.8, 0.9, 0.1)), 0.0), momo(0.3, 0.8, b2=0.9, eps=0.1)),
    case(lambda: valued(gt.momo(0.5, 0.7, 2.0, 0.2, True), 0.0), momo(0.5, 0.7, 2.0, 0.2, True)),
    case(lambda: valued(gt.momo(0.3, 0.7, -9.0, 0.0, True), 9.0), momo(0.3, 0.7, -9.0, 0.0, True, shift=9.0)),
    case(
        lambda: valued(gt.momo_adam(0.5, 0.8, 0.9, 0.1, -9.0, 0.2, True), 9.0),
        momo(0.5, 0.8, -9.0, 0.2, True, 9.0, 0.9, 0.1),
    ),
    case(lambda: gt.sgd_sai(0.05), sai(0.05)),
    case(lambda: gt.sgd_sai(0.05, 0.8, 0.1, 0.2), sai(0.05, 0.8, 0.1, 0.2)),
    case(lambda: turned(gt.sgd_sai(0.05)), sai(0.05)),
]
